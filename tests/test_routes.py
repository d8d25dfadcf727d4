"""Rules move results, images and messages as they say, and nothing in circles."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from documents import DOCS
from gateway import AE_TITLE, Gateway, destination
from ledger import eventually, rows
from orthanc import Orthanc
from pacs import Pacs
from radiographs import chest, saved
from sender import Sender
from test_mllp import serving
from thoracle.deliver import storescu
from thoracle.deliver.association import Peer

CLASSES = (
    Comprehensive3DSRStorage,
    SecondaryCaptureImageStorage,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
)
ALWAYS = ["positive", "indeterminate", "negative"]


class Site:
    """A gateway with rules, and the archives PACS (which sends) and SECOND."""

    def __init__(self, gateway: Gateway, pacs: Pacs, second: Pacs) -> None:
        self.gateway, self.pacs, self.second = gateway, pacs, second

    def send(self, calling: str = "PACS", **attributes: object) -> str:
        """Send a study of one radiograph; return its Study Instance UID."""
        study = generate_uid()
        with Sender(self.gateway.port, calling=calling) as sender:
            answer = sender.store(chest(StudyInstanceUID=study, **attributes))
        assert answer.status == 0x0000
        return str(study)

    def modalities(self, archive: Pacs, study: str) -> list[str]:
        return sorted(ds.Modality for ds in archive.reports_on(study))

    def events(self, event: str, study: str) -> list[dict[str, Any]]:
        statement = "SELECT * FROM audit_event WHERE event = ? AND study_instance_uid = ?"
        return rows(self.gateway, statement, event, study)

    def decided(self, study: str) -> dict[str, Any]:
        """Return the event of what the rules said about a study, once there is one."""
        return eventually(lambda: self.events("rules decided", study))[0]


@contextmanager
def site(folder: Path, *rules: dict[str, Any], hl7: Any = ()) -> Iterator[Site]:
    with ExitStack() as stack:
        pacs = stack.enter_context(Pacs("PACS", CLASSES))
        second = stack.enter_context(Pacs("SECOND", CLASSES))
        gateway = Gateway(
            folder,
            destination(pacs, proof="status"),
            destination(second, proof="status"),
            lists={"rule": list(rules), "hl7": list(hl7)},
            receive={"secondary_capture": True},
            report={"sc": ALWAYS, "pr": [], "ko": []},
        )
        stack.enter_context(gateway)
        yield Site(gateway, pacs, second)


def test_a_rule_sends_originals_to_a_second_archive_and_never_back(tmp_path: Path) -> None:
    rule = {
        "name": "research",
        "when": 'result.outcome != "rejected"',
        "send": ["pacs", "second"],
        "originals": True,
    }
    with site(tmp_path, rule) as here:
        study = here.send()
        eventually(lambda: here.modalities(here.second, study) == ["CR", "OT", "SR"])
        # The PACS sent the image: it gets the result, and not its own image back.
        eventually(lambda: here.modalities(here.pacs, study) == ["OT", "SR"])
        (original,) = [ds for ds in here.second.reports_on(study) if ds.Modality == "CR"]
        assert original.PixelData == chest().PixelData
        assert "research" in here.decided(study)["detail"]
        # Read again, the result is new; the image was passed on once, and is not sent again.
        here.gateway.run("reanalyse", study)
        eventually(lambda: len(here.second.reports_on(study)) == 5)
        eventually(lambda: len(here.pacs.reports_on(study)) == 4)
        assert len(here.second.kept[original.SOPInstanceUID]) == 1


def test_objects_that_come_back_make_no_circle(tmp_path: Path) -> None:
    rule = {"name": "everything", "send": ["pacs", "second"], "originals": True}
    with site(tmp_path, rule) as here:
        study = here.send()
        eventually(lambda: here.modalities(here.second, study) == ["CR", "OT", "SR"])
        # The second archive routes its images back to us, as a careless rule there would.
        images = [ds for ds in here.second.reports_on(study) if ds.Modality != "SR"]
        contexts = [(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in images]
        with Sender(here.gateway.port, contexts, "SECOND") as sender:
            assert [sender.store(ds).status for ds in images] == [0x0000, 0x0000]
        other = here.send()  # goes through the same queues, behind it
        eventually(lambda: here.modalities(here.second, other) == ["CR", "OT", "SR"])
        assert len(here.events("result created", study)) == 2
        assert here.modalities(here.second, study) == ["CR", "OT", "SR"]


def test_orthanc_routes_by_the_script_of_the_documentation_and_a_rule_passes_copies_on(
    tmp_path: Path,
) -> None:
    page = (DOCS / "administrator.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```lua\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    orthanc = Orthanc(tmp_path, script=script)
    rule = {"name": "copies", "send": ["orthanc", "second"], "originals": True}
    with Pacs("SECOND", CLASSES) as second:
        gateway = Gateway(
            tmp_path,
            orthanc,
            destination(second, proof="status"),
            lists={"rule": [rule]},
            report={"sc": ALWAYS, "pr": [], "ko": []},
        )
        orthanc.modalities = {AE_TITLE: gateway.port}
        with orthanc, gateway:
            ds = chest()
            peer = Peer("ORTHANC", "127.0.0.1", orthanc.port, "ROOM_1", 10)
            path = saved(ds, tmp_path / "image.dcm")
            assert [said for _, said in storescu.send(peer, [path])] == ["sent: 0x0000"]
            eventually(lambda: len(second.reports_on(ds.StudyInstanceUID)) == 3)
            # Orthanc has its image, the report and the heat map, proven; and routed them nowhere.
            statement = "SELECT proof FROM outbox WHERE peer = 'orthanc' AND state = 'delivered'"
            eventually(lambda: len(rows(gateway, statement)) == 2)
            assert {row["proof"] for row in rows(gateway, statement)} == {"commitment"}
            assert len(orthanc.instances()) == 3
            events = rows(gateway, "SELECT event FROM audit_event")
            assert [row["event"] for row in events].count("instance stored") == 1
            assert [row["event"] for row in events].count("result created") == 2


def test_a_shadowed_sender_is_read_and_audited_and_nothing_is_sent(tmp_path: Path) -> None:
    rule = {"name": "trial", "when": 'CallingAETitle == "ROOM_2"', "shadow": True}
    with site(tmp_path, rule) as here:
        shadowed, ordinary = here.send("ROOM_2"), here.send("ROOM_1")
        eventually(lambda: here.modalities(here.pacs, ordinary) == ["OT", "SR"])
        assert '"sending": "shadow"' in here.decided(shadowed)["detail"]
        kinds = "SELECT DISTINCT kind FROM result ORDER BY kind"
        assert [row["kind"] for row in rows(here.gateway, kinds)] == ["sc", "sr"]
        assert "(shadow)" in here.gateway.run("status", shadowed)
        assert here.pacs.reports_on(shadowed) == here.second.reports_on(shadowed) == []
        statement = (
            "SELECT outbox.* FROM outbox JOIN result USING (sop_instance_uid) "
            "WHERE study_instance_uid = ?"
        )
        assert rows(here.gateway, statement, shadowed) == []


def test_a_study_that_is_held_goes_out_when_somebody_releases_it(tmp_path: Path) -> None:
    rule = {"name": "research-patients", "when": 'PatientID.startsWith("R-")', "hold": True}
    with serving() as (port, messages):
        ris = {"name": "ris", "host": "127.0.0.1", "port": port}
        with site(tmp_path, rule, hl7=[ris]) as here:
            held = here.send(PatientID="R-7")
            here.decided(held)
            assert "(held)" in here.gateway.run("status", held)
            ordinary = here.send()
            eventually(lambda: here.modalities(here.pacs, ordinary) == ["OT", "SR"])
            eventually(lambda: len(messages) == 1)
            assert here.pacs.reports_on(held) == []
            with pytest.raises(CalledProcessError) as caught:
                here.gateway.run("release", ordinary)
            assert "found no held result" in caught.value.stderr
            here.gateway.run("release", held)
            for archive in (here.pacs, here.second):
                eventually(lambda archive=archive: here.modalities(archive, held) == ["OT", "SR"])  # type: ignore[misc]  # bound
            eventually(lambda: len(messages) == 2)
            assert held in messages[1]
            (event,) = here.events("study released", held)
            assert event["user_id"]


def test_a_rule_sets_the_priority_of_the_analysis(tmp_path: Path) -> None:
    urgent = {"name": "emergency", "when": 'CallingAETitle == "ER"', "priority": "stat"}
    late = {"name": "archive", "when": 'CallingAETitle == "OLD"', "priority": "backlog"}
    with site(tmp_path, urgent, late) as here:
        studies = {caller: here.send(caller) for caller in ("ER", "OLD", "ROOM_1")}
        for study in studies.values():
            here.decided(study)
        statement = "SELECT workflow_uuid, priority FROM workflow_status WHERE name = 'analyse'"
        queued = {row["workflow_uuid"]: row["priority"] for row in rows(here.gateway, statement)}
        found = {
            caller: [priority for name, priority in queued.items() if study in name]
            for caller, study in studies.items()
        }
        assert found == {"ER": [1], "OLD": [1000], "ROOM_1": [100]}


def test_faulty_rules_keep_the_service_from_starting(tmp_path: Path) -> None:
    rule = {"name": "typo", "when": 'Modalty == "CR"', "send": ["pacs"]}
    with pytest.raises(RuntimeError, match="Modalty"), site(tmp_path, rule):
        pass


# ---- HL7 ---------------------------------------------------------------------------------------


def fields(message: str, segment: str) -> list[list[str]]:
    return [line.split("|") for line in message.split("\r") if line.startswith(segment + "|")]


def test_a_receiver_is_told_of_a_result_of_its_correction_and_of_its_withdrawal(
    tmp_path: Path,
) -> None:
    with serving() as (port, messages):
        ris = {"name": "ris", "host": "127.0.0.1", "port": port}
        with site(tmp_path, hl7=[ris]) as here:
            study = here.send(AccessionNumber="A|1^2", PatientName="O'Hara & Söhne^Änne")
            told = eventually(lambda: list(messages))[0]
            assert study in told
            assert {obx[11] for obx in fields(told, "OBX")} == {"P"}
            assert "A\\F\\1\\S\\2" in told
            (event,) = eventually(lambda: here.events("notification sent", study))
            assert (event["destination"], event["event_outcome"]) == ("ris", 0)
            here.gateway.run("reanalyse", study)
            eventually(lambda: len(messages) == 2)
            assert {obx[11] for obx in fields(messages[1], "OBX")} == {"C"}
            eventually(lambda: len(here.pacs.reports_on(study)) == 4)
            here.gateway.run("withdraw", study, "--reason", "wrong patient")
            eventually(lambda: len(messages) == 3)
            assert "W" in {obx[11] for obx in fields(messages[2], "OBX")}
            assert "wrong patient" in messages[2]
            assert len({fields(one, "MSH")[0][9] for one in messages}) == 3
            said = "ris hl7 delivered (proof: acknowledgement)"
            eventually(lambda: here.gateway.run("status", study).count(said) == 3)


def test_a_receiver_that_is_away_is_told_later_and_one_is_told_only_what_it_wants(
    tmp_path: Path,
) -> None:
    with serving() as (port, messages):
        pass  # a port at which nobody listens now
    ris = {"name": "ris", "host": "127.0.0.1", "port": port}
    picky = {"name": "picky", "host": "127.0.0.1", "port": port, "outcomes": ["rejected"]}
    with site(tmp_path, hl7=[ris, picky]) as here:
        study = here.send()
        eventually(lambda: here.events("notification postponed", study))
        statement = "SELECT peer, state FROM outbox WHERE kind = 'hl7'"
        assert rows(here.gateway, statement) == [{"peer": "ris", "state": "waiting"}]
        assert messages == []
        with serving(port=port) as (_, later):
            eventually(lambda: later)
            assert study in later[0]
        eventually(lambda: here.events("notification sent", study))
