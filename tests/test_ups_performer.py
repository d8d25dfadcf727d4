"""Workitems of a workflow manager, performed by the gateway: found, claimed once, ended once."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelMove,
)

from gateway import AE_TITLE, Gateway, destination
from ledger import concluded, eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from thoracle.cli.machine import check
from thoracle.settings import parse
from workflow import Reader, coded
from workflow_manager import Manager
from workitem_listener import Listener


@contextmanager
def site(folder: Path, *archives: Any, **more: Any) -> Iterator[tuple[Gateway, Manager]]:
    """A gateway that performs the workitems of a manager."""
    with ExitStack() as stack:
        manager = stack.enter_context(Manager())
        lists = {"workflow_manager": [manager.settings(**more)]}
        gateway = stack.enter_context(Gateway(folder, *archives, lists=lists))
        yield gateway, manager


def performance(gateway: Gateway, uid: str) -> dict[str, Any]:
    """Return the row of a workitem that is performed, empty when there is none."""
    found = rows(gateway, "SELECT * FROM performance WHERE sop_instance_uid = ?", uid)
    return found[0] if found else {}


def ended(gateway: Gateway, uid: str, state: str, seconds: float = 90) -> dict[str, Any]:
    """Return the row of a performance once it is in this state."""
    try:
        eventually(lambda: performance(gateway, uid).get("state") == state, seconds)
    except TimeoutError as error:
        text = gateway.log.read_text()[-2000:]
        raise TimeoutError(f"{performance(gateway, uid)}, required: {state}\n{text}") from error
    return performance(gateway, uid)


class Archive:
    """An archive that sends what it has on C-MOVE; a context manager."""

    def __init__(self, gateway: Callable[[], Gateway], *images: Dataset) -> None:
        self.ae_title, self.port = "ARCHIVE", free_port()
        self.images = {str(one.SOPInstanceUID): one for one in images}
        self.moves: list[tuple[str, str]] = []
        """AE title of the destination, and level, of each C-MOVE."""
        self._gateway = gateway
        self._ae = AE(ae_title=self.ae_title)
        self._ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)

    def __enter__(self) -> "Archive":
        self._server: Any = self._ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_MOVE, self._move)]
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()

    def _move(self, event: evt.Event) -> Iterator[Any]:
        keys = event.identifier
        self.moves.append((str(event.move_destination), keys.QueryRetrieveLevel))
        wanted = keys.SOPInstanceUID
        uids = [wanted] if isinstance(wanted, str) else list(wanted)
        found = [self.images[uid] for uid in uids if uid in self.images]
        contexts = [build_context(ComputedRadiographyImageStorage)]
        yield ("127.0.0.1", self._gateway().port, {"contexts": contexts})
        yield len(found)
        for ds in found:
            yield 0xFF00, ds


def test_a_workitem_about_images_that_are_here_is_completed_with_what_was_made(
    tmp_path: Path,
) -> None:
    with Pacs() as pacs, site(tmp_path, pacs) as (gateway, manager):
        image = chest()
        assert send(gateway.port, image).status == 0
        concluded(gateway, image.StudyInstanceUID)
        uid = manager.schedule(image)
        row = ended(gateway, uid, "completed")
        assert manager.state(uid) == "COMPLETED"
        assert manager.changes(uid) == {"IN PROGRESS": 1, "COMPLETED": 1}
        done = manager.done(uid)
        assert done.PerformedWorkitemCodeSequence[0].CodeValue == "110003"
        assert done.PerformedStationNameCodeSequence[0].CodeValue == "THORACLE"
        end = done.PerformedProcedureStepEndDateTime
        assert done.PerformedProcedureStepStartDateTime <= end
        # The picture of the result is not for this archive.
        (output,) = (
            one for one in done.OutputInformationSequence if "DICOMRetrievalSequence" in one
        )
        (report,) = pacs.kept
        assert output.StudyInstanceUID == image.StudyInstanceUID
        assert [one.ReferencedSOPInstanceUID for one in output.ReferencedSOPSequence] == [report]
        assert output.DICOMRetrievalSequence[0].RetrieveAETitle == "PACS"
        assert "AI (research)" in done.PerformedProcedureStepDescription
        assert manager.progress(uid).ProcedureStepProgress == 100
        assert row["study_instance_uid"] == image.StudyInstanceUID
        statement = (
            "SELECT detail, destination FROM audit_event "
            "WHERE event = 'workitem changed' AND sop_instance_uid = ? ORDER BY id"
        )
        steps = rows(gateway, statement, uid)
        assert [one["destination"] for one in steps] == ["manager"] * 4
        assert '"to": "completed"' in steps[-1]["detail"]
        looks = gateway.events("worklist queried")
        assert {one["destination"] for one in looks} == {"manager"}
        assert looks[0]["detail"] == {"means": "C-FIND", "found": 1, "workitems": [uid]}
        said = gateway.run("status", image.StudyInstanceUID)
        assert "manager ups completed AI (research)" in said


def test_check_tries_workflow_managers_and_subscribers(tmp_path: Path) -> None:
    away = free_port()
    with Manager() as manager:
        settings = parse(
            {
                "data_folder": str(tmp_path),
                "workflow_manager": [manager.settings(), manager.settings(name="b", port=away)],
                "subscriber": [
                    {"ae_title": "MANAGER", "host": "127.0.0.1", "port": manager.port},
                    {"ae_title": "GONE", "host": "127.0.0.1", "port": away},
                ],
            }
        )
        found = {one.subject: one.well for one in check(settings)}
    assert found["workflow_manager manager"]
    assert found["subscriber MANAGER"]
    assert not found["workflow_manager b"]
    assert not found["subscriber GONE"]


def test_images_that_are_not_here_are_had_sent_by_the_archive_that_is_named(
    tmp_path: Path,
) -> None:
    image = chest()
    with ExitStack() as stack:
        gateway: Gateway
        archive = stack.enter_context(Archive(lambda: gateway, image))
        named = destination(archive, proof="status")
        gateway, manager = stack.enter_context(site(tmp_path, named, patience_seconds=60))
        uid = manager.schedule(image, archive="ARCHIVE")
        concluded(gateway, image.StudyInstanceUID)
        assert archive.moves == [(AE_TITLE, "IMAGE")]
        # This archive takes no reports, so the result reaches nobody; it is done all the same.
        ended(gateway, uid, "completed")
        outputs = manager.done(uid).OutputInformationSequence
        assert not any("DICOMRetrievalSequence" in one for one in outputs)


def test_images_that_never_come_end_in_a_coded_cancellation(tmp_path: Path) -> None:
    with site(tmp_path, patience_seconds=4) as (gateway, manager):
        uid = manager.schedule(chest(), archive="NOWHERE")
        ended(gateway, uid, "canceled")
        assert manager.state(uid) == "CANCELED"
        progress = manager.progress(uid)
        assert progress.ReasonForCancellation == "Images did not arrive within 4 s."
        (reason,) = progress.ProcedureStepDiscontinuationReasonCodeSequence
        assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("110523", "DCM")
        assert progress.ProcedureStepCancellationDateTime


def test_a_workitem_without_images_of_a_known_kind_is_canceled_at_once(tmp_path: Path) -> None:
    with site(tmp_path) as (gateway, manager):
        other = chest()
        other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"  # CT
        uid = manager.schedule(other)
        ended(gateway, uid, "canceled")
        (reason,) = manager.progress(uid).ProcedureStepDiscontinuationReasonCodeSequence
        assert reason.CodeValue == "110522"


def test_a_study_that_is_rejected_has_a_report_so_its_workitem_is_completed(
    tmp_path: Path,
) -> None:
    with Pacs() as pacs, site(tmp_path, pacs) as (gateway, manager):
        lateral = chest(ViewPosition="LL")
        assert send(gateway.port, lateral).status == 0
        uid = manager.schedule(lateral)
        ended(gateway, uid, "completed")
        assert manager.done(uid).PerformedProcedureStepDescription == "AI (research): rejected"


def test_a_study_whose_analysis_failed_ends_in_a_coded_cancellation(tmp_path: Path) -> None:
    image = chest()
    with site(tmp_path) as (gateway, manager):
        assert send(gateway.port, image).status == 0
        concluded(gateway, image.StudyInstanceUID)
        with (
            closing(sqlite3.connect(gateway.data_folder / "thoracle.sqlite")) as database,
            database,
        ):
            database.execute("UPDATE analysis SET state = 'failed'")
        uid = manager.schedule(image)
        ended(gateway, uid, "canceled")
        (reason,) = manager.progress(uid).ProcedureStepDiscontinuationReasonCodeSequence
        assert reason.CodeValue == "110501"
        assert "failed" in manager.progress(uid).ReasonForCancellation


def test_a_study_in_the_shadow_is_done_and_nothing_is_told(tmp_path: Path) -> None:
    image = chest()
    with Pacs() as pacs, Manager() as manager:
        rule = {"name": "shadow", "when": "true", "shadow": True}
        lists = {"workflow_manager": [manager.settings()], "rule": [rule]}
        with Gateway(tmp_path, pacs, lists=lists) as gateway:
            assert send(gateway.port, image).status == 0
            uid = manager.schedule(image)
            ended(gateway, uid, "completed")
        done = manager.done(uid)
        assert list(done.OutputInformationSequence) == []
        assert done.PerformedProcedureStepDescription == "Done; nothing is sent"
        assert not pacs.kept


def test_a_study_that_is_held_beyond_patience_is_done_and_nothing_is_told(tmp_path: Path) -> None:
    image = chest()
    with Pacs() as pacs, Manager() as manager:
        rule = {"name": "held", "when": "true", "hold": True}
        lists = {"workflow_manager": [manager.settings(patience_seconds=10)], "rule": [rule]}
        with Gateway(tmp_path, pacs, lists=lists) as gateway:
            assert send(gateway.port, image).status == 0
            concluded(gateway, image.StudyInstanceUID)
            uid = manager.schedule(image)
            ended(gateway, uid, "completed")
        done = manager.done(uid)
        assert list(done.OutputInformationSequence) == []
        assert done.PerformedProcedureStepDescription == "Done; nothing is sent"
        assert not pacs.kept


def test_a_workitem_that_makes_no_sense_is_canceled_and_the_next_is_performed(
    tmp_path: Path,
) -> None:
    image = chest()
    with site(tmp_path) as (gateway, manager):
        assert send(gateway.port, image).status == 0
        senseless = manager.schedule(image)
        del manager.items[senseless].InputInformationSequence[0].ReferencedSOPSequence
        other = manager.schedule(image)
        ended(gateway, other, "completed")
        ended(gateway, senseless, "canceled")
        assert manager.state(senseless) == "CANCELED"


def test_a_lost_race_is_left_to_the_winner(tmp_path: Path) -> None:
    with site(tmp_path) as (gateway, manager):

        def another_first(what: str, uid: str, wanted: str) -> int | None:
            if (what, wanted) == ("state", "IN PROGRESS"):
                manager.items[uid].ProcedureStepState = "IN PROGRESS"
                manager.items[uid].TransactionUID = "2.25.1"
            return None

        manager.intercept = another_first
        uid = manager.schedule(chest())
        row = ended(gateway, uid, "lost")
        assert "another was first" in row["detail"]
        assert manager.changes(uid) == {}
        assert manager.items[uid].TransactionUID == "2.25.1"


def test_a_claim_whose_answer_was_lost_is_recognised_by_its_lock(tmp_path: Path) -> None:
    image = chest()
    with site(tmp_path) as (gateway, manager):
        assert send(gateway.port, image).status == 0
        concluded(gateway, image.StudyInstanceUID)
        broken: list[str] = []

        def break_off(what: str, uid: str, wanted: str) -> None:
            if wanted == "IN PROGRESS" and not broken:
                broken.append(uid)
                manager.stop()

        manager.after = break_off
        uid = manager.schedule(image)
        eventually(lambda: broken)
        eventually(lambda: performance(gateway, uid).get("attempts"))
        manager.start()
        ended(gateway, uid, "completed")
        assert manager.changes(uid) == {"IN PROGRESS": 1, "COMPLETED": 1}


@pytest.mark.parametrize("status", [0xC304, 0xC301, 0x0124])
def test_a_manager_that_refuses_the_end_is_not_asked_for_ever(tmp_path: Path, status: int) -> None:
    image = chest()
    with site(tmp_path) as (gateway, manager):
        assert send(gateway.port, image).status == 0
        manager.intercept = lambda what, uid, wanted: status if wanted == "COMPLETED" else None
        uid = manager.schedule(image)
        row = ended(gateway, uid, "lost")
        assert f"0x{status:04X}" in row["detail"]
        lost = "SELECT 1 FROM audit_event WHERE event = 'workitem changed' AND event_outcome = 4"
        assert len(rows(gateway, lost)) == 1


def test_a_workitem_that_its_manager_cancels_is_let_go(tmp_path: Path) -> None:
    with site(tmp_path) as (gateway, manager):
        uid = manager.schedule(chest())
        ended(gateway, uid, "awaited")
        manager.items[uid].ProcedureStepState = "CANCELED"
        row = ended(gateway, uid, "canceled")
        assert "at its manager" in row["detail"]
        assert manager.changes(uid) == {"IN PROGRESS": 1}


def test_a_manager_that_is_away_is_looked_for_again(tmp_path: Path) -> None:
    image = chest()
    with site(tmp_path) as (gateway, manager):
        eventually(lambda: manager.finds)
        manager.stop()
        assert send(gateway.port, image).status == 0
        eventually(lambda: "workflow manager manager" in gateway.log.read_text())
        uid = manager.schedule(image)
        manager.start()
        ended(gateway, uid, "completed")


@pytest.mark.parametrize("at", ["IN PROGRESS", "COMPLETED"])
def test_a_gateway_that_is_killed_completes_its_workitem_once_after_the_restart(
    tmp_path: Path, at: str
) -> None:
    image = chest()
    with Pacs() as pacs, site(tmp_path, pacs) as (gateway, manager):
        killed: list[str] = []

        def kill(what: str, uid: str, wanted: str) -> None:
            if wanted == at and not killed:
                killed.append(uid)
                gateway.kill()  # before the answer to the claim, or to the completion, goes out

        manager.after = kill
        assert send(gateway.port, image).status == 0
        uid = manager.schedule(image)
        eventually(lambda: killed)
        time.sleep(0.5)
        assert manager.changes(uid)[at] == 1
        gateway.start()
        ended(gateway, uid, "completed")
        assert manager.changes(uid) == {"IN PROGRESS": 1, "COMPLETED": 1}
        assert manager.state(uid) == "COMPLETED"
        assert len(rows(gateway, "SELECT * FROM performance")) == 1


def test_the_gateway_works_off_a_worklist_that_another_thoracle_keeps(tmp_path: Path) -> None:
    folder = tmp_path / "keeper"
    folder.mkdir()
    keeper = Listener(folder)
    image = chest()
    uid = keeper.offer(image, ScheduledWorkitemCodeSequence=[coded("110003")])
    table = {
        "name": "keeper",
        "ae_title": "THORACLE",
        "host": "127.0.0.1",
        "port": keeper.port,
        "calling_ae_title": "PERFORMER",
        "poll_seconds": 1,
    }
    with Gateway(tmp_path, lists={"workflow_manager": [table]}) as gateway:
        assert send(gateway.port, image).status == 0
        ended(gateway, uid, "completed")
        with Reader(keeper.port) as reader:
            ds = reader.get(uid)[1]
        assert ds is not None
        assert ds.ProcedureStepState == "COMPLETED"
        assert [change[1:] for change in keeper.changes(uid)][1] == (
            "PERFORMER",
            "SCHEDULED",
            "IN PROGRESS",
        )
    keeper.stop()
