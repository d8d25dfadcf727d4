"""What was said wrongly is withdrawn or said anew, by objects that name the earlier ones."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from gateway import Gateway, destination
from ledger import eventually, rows
from orthanc import Orthanc
from pacs import Pacs, free_port
from test_proof import ALWAYS, EVERYTHING, KINDS, OBJECTS, Site
from thoracle.store.database import connect, sqlite_url
from thoracle.web.pages import study_sent

REASON = "Läse-Fehler <b>wrong</b> patient; DROP TABLE study; --"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Pacs, Pacs]]:
    """A gateway with an archive that allows rejection notes, and one that does not."""
    with ExitStack() as stack:
        iocm = stack.enter_context(Pacs("IOCM", OBJECTS))
        plain = stack.enter_context(Pacs("PLAIN", OBJECTS))
        gateway = Gateway(
            tmp_path_factory.mktemp("corrections"),
            destination(iocm, rejection_note=True),
            plain,
            report=EVERYTHING,
        )
        stack.enter_context(gateway)
        yield Site(gateway), iocm, plain


def predecessors(report: Dataset) -> list[str]:
    return [
        item.ReferencedSOPInstanceUID
        for study in report.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def text_of(item: Dataset) -> str:
    children = item.get("ContentSequence") or []
    return " ".join([str(item.get("TextValue", "")), *(text_of(child) for child in children)])


def objects(archive: Pacs, study: str, modality: str) -> list[Dataset]:
    return [ds for ds in archive.reports_on(study) if ds.Modality == modality]


def withdraw(site: Site, study: str, reason: str = REASON) -> str:
    return site.gateway.run("withdraw", study, "--reason", reason)


def test_a_withdrawal_is_a_report_that_names_the_withdrawn_one(
    archives: tuple[Site, Pacs, Pacs],
) -> None:
    site, iocm, plain = archives
    study = site.send()
    for name in ("iocm", "plain"):
        site.proven(study, name)
    assert "withdrawal of report" in withdraw(site, study)
    for archive in (iocm, plain):
        eventually(lambda archive=archive: len(objects(archive, study, "SR")) == 2)  # type: ignore[misc]  # bound
        first, correction = objects(archive, study, "SR")
        assert predecessors(correction) == [first.SOPInstanceUID]
        text = text_of(correction)
        assert "withdrawn" in text
        assert REASON in text
        assert correction.VerificationFlag == "UNVERIFIED"
    site.gateway.wait_for_event("result withdrawn", study)
    assert "withdrawn (was" in site.gateway.run("status", study)
    (event,) = rows(
        site.gateway,
        "SELECT * FROM audit_event WHERE event = 'result withdrawn' AND study_instance_uid = ?",
        study,
    )
    assert event["user_id"]
    database = connect(sqlite_url(site.gateway.data_folder))
    with database.connect() as connection:
        shown = [one.what for one in study_sent.sent(connection, study, True)]
    database.dispose()
    assert shown.count("structured report") == shown.count("withdrawal (structured report)") == 2


def test_a_rejection_note_names_our_objects_alone_and_goes_only_where_it_may(
    archives: tuple[Site, Pacs, Pacs],
) -> None:
    site, iocm, plain = archives
    study = site.send()
    for name in ("iocm", "plain"):
        site.proven(study, name)
    ours = {str(ds.SOPInstanceUID) for ds in iocm.reports_on(study)}
    assert len(ours) == len(KINDS)
    withdraw(site, study)
    eventually(lambda: len(objects(iocm, study, "KO")) == 2)
    note = objects(iocm, study, "KO")[1]
    assert note.SOPClassUID == KeyObjectSelectionDocumentStorage
    named = {
        str(item.ReferencedSOPInstanceUID)
        for evidence in note.CurrentRequestedProcedureEvidenceSequence
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert named == ours
    # The other archive has got the correcting report by now, and no note.
    eventually(lambda: len(objects(plain, study, "SR")) == 2)
    eventually(lambda: "delivery succeeded" in site.verbs(study, "plain")[-1])
    assert len(objects(plain, study, "KO")) == 1


def test_what_cannot_be_withdrawn_is_said_so(archives: tuple[Site, Pacs, Pacs]) -> None:
    site, iocm, _ = archives
    with pytest.raises(CalledProcessError) as caught:
        withdraw(site, "1.2.3")
    assert "found no study with Study Instance UID" in caught.value.stderr
    study = site.send()
    site.proven(study, "iocm")
    with pytest.raises(CalledProcessError) as caught:
        withdraw(site, study, " ")
    assert "--reason: found 0 characters" in caught.value.stderr
    withdraw(site, study)
    eventually(lambda: len(objects(iocm, study, "SR")) == 2)
    with pytest.raises(CalledProcessError) as caught:
        withdraw(site, study)
    assert "found no active result" in caught.value.stderr


def test_a_study_read_again_names_the_earlier_report_also_a_withdrawal(
    archives: tuple[Site, Pacs, Pacs],
) -> None:
    site, iocm, _ = archives
    study = site.send()
    site.proven(study, "iocm")
    site.gateway.run("reanalyse", study)
    eventually(lambda: len(objects(iocm, study, "SR")) == 2)
    withdraw(site, study)
    eventually(lambda: len(objects(iocm, study, "SR")) == 3)
    with pytest.raises(CalledProcessError) as caught:  # the earlier one stands no more either
        withdraw(site, study)
    assert "found no active result" in caught.value.stderr
    site.gateway.run("reanalyse", study)
    eventually(lambda: len(objects(iocm, study, "SR")) == 4)
    reports = objects(iocm, study, "SR")
    for earlier, later in pairwise(reports):
        assert predecessors(later) == [earlier.SOPInstanceUID]
    assert "withdrawn (was" not in site.gateway.run("status", study)


def test_what_was_not_sent_is_taken_back(tmp_path: Path) -> None:
    archive = Pacs("AWAY", OBJECTS)  # not started
    with Gateway(tmp_path, archive, report=EVERYTHING) as gateway:
        site = Site(gateway)
        study = site.send()
        eventually(lambda: "delivery postponed" in site.verbs(study, "away"))
        withdraw(site, study)
        eventually(
            lambda: (
                {
                    row["state"]
                    for kind, row in site.deliveries(study, "away").items()
                    if kind != "sr"
                }
                == {"withdrawn"}
            )
        )
        with archive:
            # The correction alone comes: the archive may have got the report without our knowing.
            eventually(lambda: objects(archive, study, "SR"))
            eventually(lambda: "delivery succeeded" in site.verbs(study, "away"))
            assert {ds.Modality for ds in archive.reports_on(study)} == {"SR"}
            assert "withdrawn" in text_of(objects(archive, study, "SR")[0])


def test_no_retry_sends_what_was_refused_of_a_withdrawn_result(tmp_path: Path) -> None:
    with Pacs("STRICT", OBJECTS) as archive:
        archive.status = 0xA900
        with Gateway(tmp_path, archive, report=EVERYTHING) as gateway:
            site = Site(gateway)
            study = site.send()
            eventually(
                lambda: (
                    {row["state"] for row in site.deliveries(study, "strict").values()}
                    == {"refused"}
                )
            )
            withdraw(site, study)
            gateway.wait_for_event("result withdrawn", study)
            with pytest.raises(CalledProcessError) as caught:
                gateway.run("retry", study)
            assert "found nothing refused or given up" in caught.value.stderr


def test_a_message_that_waits_is_taken_back_with_its_result(tmp_path: Path) -> None:
    ris = {"name": "ris", "host": "127.0.0.1", "port": free_port()}  # nobody listens
    with Gateway(tmp_path, lists={"hl7": [ris]}) as gateway:
        site = Site(gateway)
        study = site.send()
        states = "SELECT state FROM outbox WHERE kind = 'hl7' ORDER BY created_at"
        gateway.wait_for_event("notification postponed", study)
        withdraw(site, study)
        # The correction alone waits: the receiver may have got the message without our knowing.
        eventually(
            lambda: [row["state"] for row in rows(gateway, states)] == ["withdrawn", "waiting"]
        )


def test_orthanc_keeps_images_when_a_result_is_rejected(tmp_path: Path) -> None:
    with Orthanc(tmp_path) as orthanc:
        allowed = destination(orthanc, rejection_note=True, proof="status")
        report = {"sc": ALWAYS, "ko": ALWAYS}
        with Gateway(tmp_path, allowed, report=report) as gateway:
            site = Site(gateway)
            study = site.send()
            eventually(lambda: len(orthanc.instances()) == 3)  # sr, sc, ko
            before = set(orthanc.instances())
            withdraw(site, study)
            eventually(lambda: len(orthanc.instances()) == 5)
            assert before < set(orthanc.instances())
