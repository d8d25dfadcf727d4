"""Delivered means proven: by commitment, by query or by status, whatever archives do about it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE, build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from gateway import AE_TITLE, Gateway, destination
from ledger import eventually, rows
from orthanc import Orthanc
from pacs import Pacs, Report
from radiographs import chest
from sender import send

OBJECTS = (
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)
KINDS = {"sr", "sc", "pr", "ko"}
ALWAYS = ["positive", "indeterminate", "negative"]
EVERYTHING = {"sc": ALWAYS, "pr": ALWAYS, "ko": ALWAYS}
"""The radiograph of the tests need not be positive for its result to have every object."""
SOON = {"commitment_seconds": 2, "commitment_requests": 2}


class Site:
    """A gateway and its archives, as the ledger of deliveries shows them."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def send(self) -> str:
        """Send a radiograph as a new study; return its Study Instance UID."""
        study = generate_uid()
        assert send(self.gateway.port, chest(StudyInstanceUID=study)).status == 0x0000
        return str(study)

    def deliveries(self, study: str, name: str) -> dict[str, dict[str, Any]]:
        """Return the deliveries of a study's objects to a destination, by kind."""
        statement = (
            "SELECT outbox.*, result.kind AS object FROM outbox "
            "JOIN result USING (sop_instance_uid) "
            "WHERE study_instance_uid = ? AND peer = ?"
        )
        return {row["object"]: row for row in rows(self.gateway, statement, study, name)}

    def proven(self, study: str, name: str, seconds: float = 90) -> dict[str, dict[str, Any]]:
        """Return the deliveries once every kind of object is delivered."""

        def all_delivered() -> bool:
            found = self.deliveries(study, name)
            states = {row["state"] for row in found.values()}
            return set(found) == KINDS and states == {"delivered"}

        eventually(all_delivered, seconds)
        return self.deliveries(study, name)

    def verbs(self, study: str, name: str) -> list[str]:
        """Return what happened about a destination, in order."""
        statement = (
            "SELECT event FROM audit_event WHERE study_instance_uid = ? AND destination = ? "
            "ORDER BY id"
        )
        return [row["event"] for row in rows(self.gateway, statement, study, name)]

    def queries(self, study: str) -> list[dict[str, Any]]:
        """Return the details of the queries for what was sent, in order."""
        events = self.gateway.events("archive queried", study)
        assert {one["event_id"] for one in events} <= {"110112"}
        return [one["detail"] for one in events]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Site, Pacs]]:
    """A gateway with an archive that offers commitment and query, and reports on a new call."""
    with ExitStack() as stack:
        archive = stack.enter_context(Pacs("ARCHIVE", OBJECTS, commitment=True, query=True))
        gateway = Gateway(tmp_path, archive, report=EVERYTHING, deliver=SOON)
        archive.reports_to = (AE_TITLE, gateway.port)
        stack.enter_context(gateway)
        yield Site(gateway), archive


def test_orthanc_commits_to_every_object_on_an_association_of_its_own(tmp_path: Path) -> None:
    orthanc = Orthanc(tmp_path)
    gateway = Gateway(tmp_path, orthanc, report=EVERYTHING)
    orthanc.modalities = {AE_TITLE: gateway.port}
    with orthanc, gateway:
        site = Site(gateway)
        study = site.send()
        delivered = site.proven(study, "orthanc")
        assert {row["proof"] for row in delivered.values()} == {"commitment"}
        uids = sorted(row["delivered_sop_instance_uid"] for row in delivered.values())
        assert orthanc.sop_instance_uids() == uids
        verbs = site.verbs(study, "orthanc")
        assert verbs.count("delivery sent") == verbs.count("delivery succeeded") == len(KINDS)
        # It was asked once for all, and answered.
        assert verbs.count("proof requested") == verbs.count("proof answered") == 1
        said = gateway.run("status", study)
        assert said.count("delivered (proof: commitment)") == len(KINDS)


def test_what_an_archive_does_not_commit_to_is_sent_again_alone(
    site: tuple[Site, Pacs],
) -> None:
    here, archive = site

    def without_the_heat_map(request: Dataset) -> Report:
        archive.report = archive.truth
        for item in request.ReferencedSOPSequence:
            if item.ReferencedSOPClassUID == SecondaryCaptureImageStorage:
                item.ReferencedSOPInstanceUID = generate_uid()  # one that it cannot have
        return archive.truth(request)

    archive.report = without_the_heat_map
    study = here.send()
    delivered = here.proven(study, "archive")
    assert {row["proof"] for row in delivered.values()} == {"commitment"}
    came = {kind: len(archive.kept[row["sop_instance_uid"]]) for kind, row in delivered.items()}
    assert came == dict.fromkeys(KINDS, 1) | {"sc": 2}
    heat_map = archive.kept[delivered["sc"]["sop_instance_uid"]]
    assert heat_map[0] == heat_map[1]
    # All were asked about at first, and then the one.
    assert [len(request.ReferencedSOPSequence) for request in archive.requests] == [len(KINDS), 1]
    assert here.verbs(study, "archive").count("delivery postponed") == 1


def test_a_commitment_that_never_comes_is_asked_for_again_and_ends_in_a_query(
    site: tuple[Site, Pacs],
) -> None:
    here, archive = site
    archive.report_after = None
    study = here.send()
    delivered = here.proven(study, "archive")
    assert {row["proof"] for row in delivered.values()} == {"query"}
    assert len(archive.requests) == SOON["commitment_requests"]
    assert archive.requests[0].TransactionUID != archive.requests[1].TransactionUID
    # Hours later it comes all the same, and is the better proof.
    archive._tell(None, archive.truth(archive.requests[0]))  # type: ignore[arg-type]  # a new call
    eventually(
        lambda: (
            {row["proof"] for row in here.deliveries(study, "archive").values()} == {"commitment"}
        )
    )


def test_what_a_query_does_not_find_is_sent_again(site: tuple[Site, Pacs]) -> None:
    here, archive = site
    archive.report_after = None
    asked = []

    def blind_at_first(identifier: Dataset) -> list[Dataset]:
        asked.append(str(identifier.SOPInstanceUID))
        again = asked.count(str(identifier.SOPInstanceUID)) > 1
        return archive.matching(identifier) if again else []

    archive.matches = blind_at_first
    study = here.send()
    delivered = here.proven(study, "archive")
    assert {row["proof"] for row in delivered.values()} == {"query"}
    assert {len(archive.kept[row["sop_instance_uid"]]) for row in delivered.values()} == {2}
    first, *later = here.queries(study)  # each object may come again by itself
    assert {one["means"] for one in (first, *later)} == {"C-FIND"}
    assert (first["found"], sum(one["found"] for one in later)) == (0, len(KINDS))
    sought = [uid for uids in first["asked"].values() for uid in uids]
    assert sorted(sought) == sorted(row["sop_instance_uid"] for row in delivered.values())
    story = here.gateway.run("audit", "why", study)
    assert f"archive was asked by C-FIND for {len(KINDS)} objects; it has 0." in story


def test_a_query_that_is_not_answered_is_in_the_trail(site: tuple[Site, Pacs]) -> None:
    here, archive = site
    archive.report_after = None

    def broken(identifier: Dataset) -> list[Dataset]:
        raise ValueError("index is broken")

    archive.matches = broken
    study = here.send()
    delivered = here.proven(study, "archive")
    assert {row["proof"] for row in delivered.values()} == {"status"}
    (query,) = here.queries(study)
    assert "found" not in query
    assert "ARCHIVE answered the C-FIND with 0xC" in query["detail"]


def report(port: int, information: Dataset) -> int:
    """Send a report on a commitment as an archive would; return the status that is answered."""
    ae = AE(ae_title="FORGER")
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    assoc = ae.associate("127.0.0.1", port, ae_title=AE_TITLE, ext_neg=[role])
    assert assoc.is_established
    answer, _ = assoc.send_n_event_report(
        information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    assoc.release()
    return int(answer.Status)


def test_a_report_on_a_commitment_that_was_never_asked_for_is_refused_and_audited(
    site: tuple[Site, Pacs],
) -> None:
    here, _ = site
    forged = Dataset()
    forged.TransactionUID = generate_uid()
    forged.ReferencedSOPSequence = []
    # 0x0110 says "not now": the engine starts a moment after the listener.
    assert (
        eventually(lambda: (said := report(here.gateway.port, forged)) != 0x0110 and said) == 0x0115
    )
    statement = "SELECT * FROM audit_event WHERE event = 'proof answered'"
    (event,) = rows(here.gateway, statement)
    assert (event["calling_ae_title"], event["event_outcome"]) == ("FORGER", 8)


def test_orthanc_killed_in_the_middle_ends_with_one_of_each_object_and_proof(
    tmp_path: Path,
) -> None:
    orthanc = Orthanc(tmp_path)
    gateway = Gateway(tmp_path, orthanc, report=EVERYTHING, deliver=SOON)
    orthanc.modalities = {AE_TITLE: gateway.port}
    with orthanc, gateway:
        site = Site(gateway)
        studies = [site.send() for _ in range(2)]
        eventually(orthanc.instances)
        orthanc.kill()
        studies += [site.send() for _ in range(2)]
        eventually(lambda: site.deliveries(studies[-1], "orthanc"))
        time.sleep(3)  # a while, in which attempts fail
        orthanc.start()
        delivered = [row for study in studies for row in site.proven(study, "orthanc").values()]
        assert {row["proof"] for row in delivered} <= {"commitment", "query"}
        uids = [row["delivered_sop_instance_uid"] for row in delivered]
        assert orthanc.sop_instance_uids() == sorted(uids)
        for study in studies:
            assert site.verbs(study, "orthanc").count("delivery succeeded") == len(KINDS)


def test_a_gateway_killed_in_the_middle_ends_with_one_of_each_object_and_proof(
    site: tuple[Site, Pacs],
) -> None:
    here, archive = site
    studies = []
    for seconds in (0.5, 2, 4):
        studies.append(here.send())
        time.sleep(seconds)  # sent, analysed or asked for: whatever it is doing then
        here.gateway.kill()
        here.gateway.start()
    for study in studies:
        delivered = here.proven(study, "archive", 180)
        assert {row["proof"] for row in delivered.values()} <= {"commitment", "query"}
        for row in delivered.values():
            assert len(set(archive.kept[row["delivered_sop_instance_uid"]])) == 1
        proofs = "SELECT * FROM audit_event WHERE event = 'delivery succeeded' AND proof = ?"
        for proof in ("commitment", "query"):
            of_study = [
                row["result_sop_instance_uid"]
                for row in rows(here.gateway, proofs, proof)
                if row["study_instance_uid"] == study
            ]
            assert len(of_study) == len(set(of_study)), "one proof, told twice"
    assert len(archive.kept) == len(KINDS) * len(studies)


def test_a_destination_gets_the_kinds_that_it_is_to_get(tmp_path: Path) -> None:
    with Pacs("ALL", OBJECTS) as everything, Pacs("REPORTS", OBJECTS) as reports:
        few = destination(reports, kinds=["sr"], proof="status")
        with Gateway(tmp_path, everything, few, report=EVERYTHING) as gateway:
            site = Site(gateway)
            study = site.send()
            site.proven(study, "all")
            eventually(lambda: reports.kept)
            assert set(site.deliveries(study, "reports")) == {"sr"}
            assert [ds.Modality for ds in reports.reports_on(study)] == ["SR"]
            # Nothing is asked of an archive whose status is taken for proof.
            verbs = eventually(lambda: site.verbs(study, "reports"))
            assert verbs == ["delivery succeeded"]


def test_stow_rs_delivers_to_orthanc_and_a_query_proves_it(tmp_path: Path) -> None:
    with Orthanc(tmp_path) as orthanc:
        web = {"name": "web", "url": orthanc.dicomweb}
        with Gateway(tmp_path, web, report=EVERYTHING) as gateway:
            site = Site(gateway)
            study = site.send()
            delivered = site.proven(study, "web")
            assert {row["proof"] for row in delivered.values()} == {"query"}
            assert {row["status"] for row in delivered.values()} == {"200"}
            (query,) = site.queries(study)
            assert (query["means"], query["found"]) == ("QIDO-RS", len(delivered))
            uids = sorted(row["sop_instance_uid"] for row in delivered.values())
            assert orthanc.sop_instance_uids() == uids
            # Away and back: STOW-RS is as durable as C-STORE.
            orthanc.kill()
            second = site.send()
            eventually(lambda: "delivery postponed" in site.verbs(second, "web"))
            orthanc.start()
            site.proven(second, "web")
