"""What is to be done next about a workitem of a workflow manager: claim, wait, end.

Each function asks the manager, the archives and our own rows, and returns columns of
``performance``. All may run twice: a claim is recognised by its lock, an end by its state.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.sr.coding import Code as Concept
from sqlalchemy import Connection

from thoracle.deliver.association import Peer
from thoracle.deliver.peers import peer_of, peer_of_manager
from thoracle.errors import ArchiveRefused, ArchiveUnavailable, DeliveryError, ThoracleError
from thoracle.outbox import rows as outbox
from thoracle.receive.negotiation import IMAGE_STORAGE
from thoracle.records import SCHEME
from thoracle.settings import WorkflowManager
from thoracle.store import bundles, engine
from thoracle.study.line import parts
from thoracle.study.published import HELD, KEPT_BACK, SHADOW
from thoracle.study.results import AnalysisKey
from thoracle.ups import performances, review, scu, states
from thoracle.ups import workitem_rows as stored
from thoracle.ups.scu import Worklist
from thoracle.ups.states import State, is_uid

# ---- what we say of a workitem -------------------------------------------------------------------
# What a performer says of a workitem: progress, what was done, why not (PS3.3 Section C.30).

COMPUTER_AIDED_DIAGNOSIS: Final = codes.cid9231.ComputerAidedDiagnosis
OBJECT_SET_INCOMPLETE: Final = codes.cid9300.ObjectSetIncomplete
OBJECT_TYPES_NOT_SUPPORTED: Final = codes.cid9300.ObjectTypesNotSupported
EQUIPMENT_FAILURE: Final = codes.cid9300.EquipmentFailure
"""Procedure Step Discontinuation Reasons (CID 9300)."""


def progress(percent: int, text: str) -> Dataset:
    """Return the modification that tells how far we are."""
    item = Dataset()
    item.ProcedureStepProgress = str(percent)
    item.ProcedureStepProgressDescription = text[:64]
    return _with(ProcedureStepProgressInformationSequence=[item])


def completed(
    workitem_code: str,
    station: str,
    begun: datetime,
    text: str,
    outputs: Sequence[Dataset],
) -> Dataset:
    """Return the modification that meets the requirements for COMPLETED (PS3.4 Table CC.2.5-3).

    Parameters
    ----------
    workitem_code
        Code Value (DCM) of the workitem.
    station
        Our AE title.
    begun
        When the workitem was claimed.
    text
        What came of it, for people.
    outputs
        Items of Output Information Sequence.
    """
    standard = workitem_code == COMPUTER_AIDED_DIAGNOSIS.value
    meaning = COMPUTER_AIDED_DIAGNOSIS.meaning if standard else "AI analysis"
    item = Dataset()
    item.PerformedStationNameCodeSequence = [_item(Concept(station, SCHEME, "Thoracle"))]
    item.PerformedStationClassCodeSequence = []
    item.PerformedStationGeographicLocationCodeSequence = []
    item.PerformedProcessingParametersSequence = []
    item.PerformedProcedureStepStartDateTime = _moment(begun)
    item.PerformedProcedureStepEndDateTime = _moment(datetime.now(UTC))
    item.PerformedProcedureStepDescription = text[:64]
    item.PerformedWorkitemCodeSequence = [_item(Concept(workitem_code, "DCM", meaning))]
    item.OutputInformationSequence = list(outputs)
    modification = progress(100, "Done")
    modification.UnifiedProcedureStepPerformedProcedureSequence = [item]
    return modification


def canceled(reason: Concept, text: str) -> Dataset:
    """Return the modification that meets the requirements for CANCELED (PS3.4 Table CC.2.5-3)."""
    item = Dataset()
    item.ProcedureStepCancellationDateTime = _moment(datetime.now(UTC))
    item.ReasonForCancellation = text
    item.ProcedureStepDiscontinuationReasonCodeSequence = [_item(reason)]
    return _with(ProcedureStepProgressInformationSequence=[item])


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")


def _item(code: Concept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item


def _with(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


# ---- the next thing ------------------------------------------------------------------------------

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
TAKEN = {
    one.code
    for one in (
        states.WRONG_TRANSACTION,
        states.ALREADY_IN_PROGRESS,
        states.NO_LONGER_UPDATED,
    )
}
"""Answers to a claim that came second; ours may be the first, too, if its answer was lost."""
SUCCESSES = {0x0000, 0x0001, 0x0107, 0x0116, states.COERCED.code}


class Lost(ThoracleError):
    """The workitem is not ours, or not any more; the text says why."""


@dataclass(frozen=True, slots=True)
class Performance:
    """A workitem that is performed, or about to be."""

    manager: WorkflowManager
    uid: str
    transaction_uid: str
    row: dict[str, Any]

    @property
    def peer(self) -> Peer:
        """Whom to call about it."""
        return peer_of_manager(self.manager, parts().settings)

    @property
    def study(self) -> str:
        """Study Instance UID of its images, once it is claimed."""
        return str(self.row["study_instance_uid"])

    @property
    def images(self) -> list[str]:
        """SOP Instance UIDs of the images that it names."""
        return [uid for one in self.row["inputs"] for uid in one["images"]]

    @property
    def is_over(self) -> bool:
        """Whether our patience with it is at its end."""
        begun = datetime.fromisoformat(self.row["created_at"])
        return (datetime.now(UTC) - begun).total_seconds() > self.manager.patience_seconds


def act(item: Performance) -> dict[str, Any]:
    """Do what is next, and return columns; ``trouble`` when somebody could not be asked."""
    try:
        match item.row["state"]:
            case "claiming":
                columns = _claim(item)
            case "claimed":
                columns = _fetch(item)
            case _:
                columns = _await(item)
    except Lost as error:
        columns = {"state": "lost", "detail": str(error)}
    except (ArchiveUnavailable, OSError) as error:
        return {"state": item.row["state"], "detail": str(error), "trouble": True}
    except ArchiveRefused as error:
        columns = {"state": "lost", "detail": str(error)}
    return {**columns, "trouble": False}


def give_up(item: Performance, detail: str) -> dict[str, Any]:
    """Return columns after a fault of ours; the manager is told, if it can be."""
    try:
        with Worklist(item.peer) as worklist:
            text = "Thoracle failed; the images may be read by a person as always."
            columns = _cancel(worklist, item, EQUIPMENT_FAILURE, text)
    except (ThoracleError, OSError):
        columns = {"state": "lost"}
    return {**columns, "detail": detail, "trouble": False}


# ---- claim -----------------------------------------------------------------------------------


def _claim(item: Performance) -> dict[str, Any]:
    with Worklist(item.peer) as worklist:
        status = worklist.change(item.uid, item.transaction_uid, State.IN_PROGRESS)
        claim = progress(0, "Claimed by Thoracle")
        if status in TAKEN and worklist.set(item.uid, item.transaction_uid, claim) not in SUCCESSES:
            raise Lost(f"another was first: 0x{status:04X}")
        if status not in TAKEN | SUCCESSES:
            raise Lost(f"claim refused with 0x{status:04X}")
        status, ds = worklist.get(item.uid, ("InputInformationSequence", "StudyInstanceUID"))
        if status not in SUCCESSES:
            raise Lost(f"its inputs cannot be read: 0x{status:04X}")
        inputs = [one for one in map(_input, ds.get("InputInformationSequence") or []) if one]
        # One study: the one with an image that we take.
        study = next((one["study"] for one in inputs if one["images"]), None)
        if study is None:
            text = "The workitem names no image of a supported kind."
            return _cancel(worklist, item, OBJECT_TYPES_NOT_SUPPORTED, text)
    inputs = [one for one in inputs if one["images"] and one["study"] == study]
    return {"state": "claimed", "study_instance_uid": study, "inputs": inputs, "detail": None}


def _input(item: Dataset) -> dict[str, Any]:
    taken = {str(uid) for uid in IMAGE_STORAGE}
    if parts().settings.receive.secondary_capture:
        taken.add(SECONDARY_CAPTURE)
    study = str(item.get("StudyInstanceUID") or "")
    named = [
        str(one.get("ReferencedSOPInstanceUID") or "")
        for one in item.get("ReferencedSOPSequence") or []
        if one.get("ReferencedSOPClassUID") in taken
    ]
    return {
        "study": study,
        "series": str(item.get("SeriesInstanceUID") or ""),
        "images": [uid for uid in named if is_uid(uid)] if is_uid(study) else [],
        "ae_titles": [
            str(one.get("RetrieveAETitle") or "").strip()
            for one in item.get("DICOMRetrievalSequence") or []
        ],
    }


# ---- images ----------------------------------------------------------------------------------


def _fetch(item: Performance) -> dict[str, Any]:
    """Ask archives for the images that are not here; they come to the listener as any others."""
    with parts().database.connect() as connection:
        missing = set(performances.missing(connection, item.study, item.images))
    asked = [_retrieve(item, one, missing) for one in item.row["inputs"]] if missing else []
    with Worklist(item.peer) as worklist:
        done = "Images are here" if not missing else "Waiting for images"
        _report_progress(worklist, item, 10, done)
    refusals = [text for text in asked if text]
    return {"state": "awaited", "detail": "; ".join(refusals) or None}


def _retrieve(item: Performance, one: dict[str, Any], missing: set[str]) -> str | None:
    """Have the images of a series sent; return why not, if not. The study may come by itself."""
    wanted = [uid for uid in one["images"] if uid in missing]
    if not wanted or not item.manager.retrieve:
        return None
    settings = parts().settings
    known = {one.ae_title: peer_of(one, settings) for one in settings.destination if one.ae_title}
    known[item.manager.ae_title] = item.peer
    peer = next((known[title] for title in one["ae_titles"] if title in known), None)
    if peer is None:
        return "its images are in no configured archive"
    try:
        scu.retrieve(peer, settings.receive.ae_title, one["study"], one["series"], wanted)
    except (ArchiveUnavailable, ArchiveRefused) as error:
        return str(error)
    return None


# ---- result ----------------------------------------------------------------------------------


def _await(item: Performance) -> dict[str, Any]:
    with parts().database.connect() as connection:
        missing = performances.missing(connection, item.study, item.images)
        analysis = performances.analysis_of(connection, item.study, item.images)
        is_open = analysis is not None and _is_open(connection, analysis)
    state = "missing" if missing else analysis.state if analysis is not None else "planned"
    with Worklist(item.peer) as worklist:
        ended = _ended(worklist, item)
        if ended is not None:
            return ended
        if state in ("missing", "planned") or (is_open and not item.is_over):
            return _wait(worklist, item, state)
        if state == "done" and analysis is not None:
            return _complete(worklist, item, analysis)
        text = f"The analysis ended as {state}; the images may be read by a person as always."
        return _cancel(worklist, item, EQUIPMENT_FAILURE, text)


def _is_open(connection: Any, analysis: Any) -> bool:
    """Return whether the result may yet reach an archive that has not got it."""
    if analysis.state != "done" or analysis.sending == SHADOW:
        return False
    if analysis.sending == HELD:  # whatever there is to send: that would say what the result is
        return True
    key = AnalysisKey(analysis.study_instance_uid, analysis.generation, analysis.bundle_digest)
    sending = {one.state for one in outbox.of_result(connection, key)}
    return "waiting" in sending and not sending & set(outbox.ARRIVED)


def _ended(worklist: Worklist, item: Performance) -> dict[str, Any] | None:
    """Return columns when the workitem has ended at its manager: by us, before a crash, or not."""
    # Two, for pynetdicom as SCP stumbles over a list of one.
    status, ds = worklist.get(item.uid, ("ProcedureStepState", "InputReadinessState"))
    if status == states.NO_SUCH_WORKITEM.code:
        raise Lost("its manager no longer knows it")
    state = ds.get("ProcedureStepState")
    if state == State.COMPLETED:
        return {"state": "completed", "detail": item.row["detail"]}
    if state == State.CANCELED:
        return {"state": "canceled", "detail": "found canceled at its manager"}
    return None


def _wait(worklist: Worklist, item: Performance, state: str) -> dict[str, Any]:
    if item.is_over:
        if state == "missing":
            text = f"Images did not arrive within {item.manager.patience_seconds:g} s."
            return _cancel(worklist, item, OBJECT_SET_INCOMPLETE, text)
        text = f"No result within {item.manager.patience_seconds:g} s."
        return _cancel(worklist, item, EQUIPMENT_FAILURE, text)
    said = item.row["detail"] if state == "missing" else "Images are here, reading them"
    if said and said != item.row["detail"]:
        _report_progress(worklist, item, 50, said)
    return {"state": "awaited", "detail": said}


def _complete(worklist: Worklist, item: Performance, analysis: Any) -> dict[str, Any]:
    settings = parts().settings
    told = analysis.sending not in KEPT_BACK
    with parts().database.connect() as connection:
        made = stored.outputs(connection, analysis) if told else []
        model = bundles.known(connection, [analysis.bundle_digest]).get(analysis.bundle_digest)
    name = f"{model.finding.short_name} " if model and analysis.outcome != "rejected" else ""
    text = f"AI (research): {name}{analysis.outcome}" if told else "Done; nothing is sent"
    modification = completed(
        item.manager.workitem_code,
        settings.receive.ae_title,
        datetime.fromisoformat(item.row["created_at"]),
        text,
        review.inputs(item.study, made, settings.destination),
    )
    _end(worklist, item, modification, State.COMPLETED)
    return {"state": "completed", "detail": text}


def _cancel(worklist: Worklist, item: Performance, reason: Code, text: str) -> dict[str, Any]:
    _end(worklist, item, canceled(reason, text), State.CANCELED)
    return {"state": "canceled", "detail": text}


def _end(worklist: Worklist, item: Performance, modification: Dataset, state: State) -> None:
    status = worklist.set(item.uid, item.transaction_uid, modification)
    if status not in SUCCESSES:
        raise Lost(f"what was done is refused with 0x{status:04X}")
    status = worklist.change(item.uid, item.transaction_uid, state)
    there = {states.ALREADY_COMPLETED.code, states.ALREADY_CANCELED.code}
    if status not in SUCCESSES | there:
        raise Lost(f"the end as {state} is refused with 0x{status:04X}")


def _report_progress(worklist: Worklist, item: Performance, percent: int, text: str) -> None:
    status = worklist.set(item.uid, item.transaction_uid, progress(percent, text))
    if status == states.WRONG_TRANSACTION.code:
        raise Lost("its manager gave it to another")


logger = logging.getLogger(__name__)

# ---- workflow ------------------------------------------------------------------------------------
# perform: workitems of workflow managers, found by looking and worked off durably (IHE AIW-I).
#
# A look at a worklist may be lost; what was found is a workflow. Each run of it does one thing
# and is followed by another, later, until the workitem has ended: nothing sleeps while images
# travel.

PRIORITY = 1
AT_ONCE = 20
"""Workitems that one look takes: other performers may want some, too."""
LONGEST_SECONDS = 600.0
"""Between two looks at a manager that is away."""


class WorklistPoller(threading.Thread):
    """Looks into a manager's worklist again and again, until ``stopped`` is set."""

    def __init__(self, manager: WorkflowManager, stopped: threading.Event) -> None:
        super().__init__(name=f"poll-{manager.name}", daemon=True)
        self._manager = manager
        self._stopped = stopped

    def run(self) -> None:
        """Look, wait, look; longer each time while the manager is away."""
        failures = 0
        while not self._stopped.wait(self._delay(failures)):
            try:
                poll(self._manager)
                failures = 0
            except (DeliveryError, OSError) as error:
                failures += 1
                logger.warning("workflow manager %s: %s", self._manager.name, error)
            except Exception:
                if self._stopped.is_set():  # the engine has ended meanwhile
                    return
                # The database may be out of reach for a while; the next look may be better.
                failures += 1
                logger.exception("workflow manager %s not looked at", self._manager.name)

    def _delay(self, failures: int) -> float:
        doubled = self._manager.poll_seconds * 2.0 ** min(failures, 20)
        return min(doubled, max(LONGEST_SECONDS, self._manager.poll_seconds))


def poll(manager: WorkflowManager) -> None:
    """Have what is ours in a manager's worklist performed; what is known already is left alone."""
    with Worklist(peer_of_manager(manager, parts().settings)) as worklist:
        found = worklist.find(manager.workitem_code, manager.station_code)
    with parts().database.begin() as connection:
        performances.record_poll(connection, manager.name, len(found), found[:AT_ONCE])
    for uid in found[:AT_ONCE]:
        enqueue_perform(manager.name, uid, 1, None)


def enqueue_perform(manager: str, uid: str, attempt: int, delay: float | None) -> None:
    """Have a workitem attended to, after so many seconds."""
    if not delay:
        engine.poll_often()
    with (
        SetWorkflowID(f"perform:{manager}:{uid}:{attempt}"),
        SetEnqueueOptions(priority=PRIORITY, queue_partition_key=manager, delay_seconds=delay),
    ):
        DBOS.enqueue_workflow(engine.PERFORM, perform, manager, uid, attempt)


@DBOS.workflow(name="perform", max_recovery_attempts=None)
def perform(manager: str, uid: str, attempt: int) -> None:
    """Do the next thing about a workitem, and look again later unless it has ended."""
    row = engine.transaction(_begin, manager, uid)
    if row is None:
        return
    done = _act(manager, uid, row)
    delay = engine.transaction(_acted, manager, uid, attempt, done)
    if delay is not None:
        enqueue_perform(manager, uid, attempt + 1, delay)


def _begin(connection: Connection, manager: str, uid: str) -> dict[str, Any] | None:
    return performances.begin(connection, manager, uid, str(DBOS.workflow_id))


@DBOS.step(name="act")
def _act(manager: str, uid: str, row: dict[str, Any]) -> dict[str, Any]:
    known = {one.name: one for one in parts().settings.workflow_manager}
    if manager not in known:
        detail = f"{manager} is no longer in the settings"
        return {"state": "lost", "detail": detail, "trouble": False}
    item = Performance(known[manager], uid, row["transaction_uid"], row)
    try:
        return act(item)
    except Exception as error:
        # A fault of ours: without an end here it would be tried for ever, unseen.
        logger.exception("workitem of %s not performed", manager)
        return give_up(item, f"{type(error).__name__}, see log")


def _acted(
    connection: Connection, manager: str, uid: str, attempt: int, done: dict[str, Any]
) -> float | None:
    return performances.record_step(
        connection,
        manager,
        uid,
        attempt,
        done,
        parts().settings.deliver,
        str(DBOS.workflow_id),
    )
