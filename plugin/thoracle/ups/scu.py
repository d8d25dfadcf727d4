"""SCU of Unified Procedure Steps: UPS Pull, to perform workitems of others (PS3.4 Annex CC)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from pydicom import Dataset
from pydicom.tag import Tag
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import  # type: ignore[attr-defined]  # made at import  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelMove,
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
)
from pynetdicom.status import code_to_category

from thoracle.deliver.association import Call, Peer
from thoracle.errors import ArchiveRefused, ArchiveUnavailable
from thoracle.ups.states import Action, State, is_uid

TRY_AGAIN = (0x0110, 0x0213, 0xA700, 0xFE00)
"""Processing failure, resource limitation, out of resources, cancelled: time may heal them."""
MOST_MATCHES = 1000
"""Responses to one query that are read. A list that is longer has more at the next look."""


class Worklist:
    """A workflow manager's worklist on one association; a context manager.

    Methods return the status of an answer, whatever it is; those below raise for all of them.

    Raises
    ------
    ArchiveUnavailable
        Not reached, no answer, or one of ``TRY_AGAIN``.
    ArchiveRefused
        On entering: it does not offer UPS Pull.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._call = Call(peer, [UnifiedProcedureStepPull])

    def __enter__(self) -> Self:
        self._assoc = self._call.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._call.__exit__(kind, error, trace)

    def find(self, workitem_code: str, station_code: str = "") -> list[str]:
        """Return the SOP Instance UIDs of SCHEDULED workitems of a code whose input is ready.

        Only those whose state in the answer is SCHEDULED: some managers do not heed a key.

        Raises
        ------
        ArchiveRefused
            A failure status.
        """
        found: list[str] = []
        try:
            answers = self._assoc.send_c_find(
                _keys(workitem_code, station_code), UnifiedProcedureStepPull
            )
        except RuntimeError as error:
            raise self._ended() from error
        for answer, match in answers:
            status = self._status(answer, "C-FIND")
            if code_to_category(status) == "Failure":
                raise ArchiveRefused(f"{self._peer.ae_title} answered 0x{status:04X} to the C-FIND")
            if match is not None and match.get("ProcedureStepState") == State.SCHEDULED:
                uid = str(match.get("SOPInstanceUID") or "")
                found += [uid] if is_uid(uid) else []
            if len(found) >= MOST_MATCHES:
                break
        return found

    def get(self, sop_instance_uid: str, keywords: Sequence[str]) -> tuple[int, Dataset]:
        """Return the status and the attributes of an N-GET; none when it failed."""
        try:
            answer, ds = self._assoc.send_n_get(
                [Tag(keyword) for keyword in keywords],
                UnifiedProcedureStepPush,
                sop_instance_uid,
                meta_uid=UnifiedProcedureStepPull,
            )
        except RuntimeError as error:
            raise self._ended() from error
        return self._status(answer, "N-GET"), ds if ds is not None else Dataset()

    def set(self, sop_instance_uid: str, transaction_uid: str, modification: Dataset) -> int:
        """Return the status of an N-SET under our lock."""
        modification.TransactionUID = transaction_uid
        try:
            answer, _ = self._assoc.send_n_set(
                modification,
                UnifiedProcedureStepPush,
                sop_instance_uid,
                meta_uid=UnifiedProcedureStepPull,
            )
        except RuntimeError as error:
            raise self._ended() from error
        return self._status(answer, "N-SET")

    def change(self, sop_instance_uid: str, transaction_uid: str, state: State) -> int:
        """Return the status of a change of state under our lock; to IN PROGRESS, of a claim."""
        information = Dataset()
        information.TransactionUID = transaction_uid
        information.ProcedureStepState = state.value
        try:
            answer, _ = self._assoc.send_n_action(
                information,
                int(Action.CHANGE_STATE),
                UnifiedProcedureStepPush,
                sop_instance_uid,
                meta_uid=UnifiedProcedureStepPull,
            )
        except RuntimeError as error:
            raise self._ended() from error
        return self._status(answer, "N-ACTION")

    def _status(self, answer: Dataset, what: str) -> int:
        if "Status" not in answer:
            raise ArchiveUnavailable(f"{self._peer.ae_title} did not answer the {what}")
        status = int(answer.Status)
        if status in TRY_AGAIN:
            raise ArchiveUnavailable(f"{self._peer.ae_title} answered 0x{status:04X} to the {what}")
        return status

    def _ended(self) -> ArchiveUnavailable:
        return ArchiveUnavailable(f"{self._peer.ae_title} ended the association")


def _keys(workitem_code: str, station_code: str) -> Dataset:
    keys = Dataset()
    keys.SOPInstanceUID = ""
    keys.ProcedureStepState = State.SCHEDULED.value
    keys.InputReadinessState = "READY"
    keys.ScheduledWorkitemCodeSequence = [_code(workitem_code, "DCM")]
    keys.ScheduledProcedureStepPriority = ""
    if station_code:
        keys.ScheduledStationNameCodeSequence = [_code(station_code, "")]
    return keys


def _code(value: str, scheme: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = value, scheme
    return item


# ---- event reports -------------------------------------------------------------------------------
# SCU of event reports about workitems: UPS Event, as its SCP (PS3.4 Section CC.2.4).

REPORT_TRY_AGAIN = (0x0110, 0x0213)
"""Processing failure and resource limitation: time may heal them."""


@dataclass(frozen=True, slots=True)
class EventReport:
    """An event about a workitem."""

    sop_instance_uid: str
    event_type_id: int
    information: Dataset


def send_reports(peer: Peer, reports: Sequence[EventReport]) -> Iterator[str | None]:
    """Send reports in their order on one association; yield why each was refused, or ``None``.

    Raises
    ------
    ArchiveUnavailable
        Not reached; or the station did not answer, or answered one of ``TRY_AGAIN``: then this
        report and those behind it are not sent.
    ArchiveRefused
        The station takes no event reports at all.
    """
    # The SCP of the service calls, so it asks for its role (PS3.7 Section D.3.3.4).
    call = Call(peer, [UnifiedProcedureStepEvent], roles=[UnifiedProcedureStepEvent])
    with call as assoc:
        for one in reports:
            yield _send_report(assoc, peer, one)


def _send_report(assoc: Association, peer: Peer, one: EventReport) -> str | None:
    try:
        answer, _ = assoc.send_n_event_report(
            one.information,
            one.event_type_id,
            UnifiedProcedureStepPush,
            one.sop_instance_uid,
            meta_uid=UnifiedProcedureStepEvent,
        )
    except RuntimeError as error:  # the station ended the association before
        raise ArchiveUnavailable(f"{peer.ae_title} ended the association") from error
    if "Status" not in answer:
        raise ArchiveUnavailable(f"{peer.ae_title} did not answer the N-EVENT-REPORT")
    status = int(answer.Status)
    if code_to_category(status) in ("Success", "Warning"):
        return None
    text = f"{peer.ae_title} answered the N-EVENT-REPORT with 0x{status:04X}"
    if status in REPORT_TRY_AGAIN:
        raise ArchiveUnavailable(text)
    return text


# ---- retrieve ------------------------------------------------------------------------------------
# Retrieve SCU: having an archive send images to us (PS3.4 Annex C, Study Root, C-MOVE).

MOVE_TRY_AGAIN = (0x0110, 0x0213, 0xA701, 0xA702, 0xFE00)
"""Processing failure, resource limitation, out of resources, cancelled: time may heal them."""


def retrieve(
    peer: Peer,
    ae_title: str,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uids: Sequence[str],
) -> None:
    """Have an archive send objects of a series to an AE title, and return when it says it has.

    Raises
    ------
    ArchiveUnavailable
        Not reached, no answer, or one of ``TRY_AGAIN``.
    ArchiveRefused
        Another failure, or sub-operations that failed.
    """
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID, keys.SeriesInstanceUID = study_instance_uid, series_instance_uid
    keys.SOPInstanceUID = list(sop_instance_uids)
    status = None
    with Call(peer, [StudyRootQueryRetrieveInformationModelMove]) as assoc:
        try:
            answers = assoc.send_c_move(keys, ae_title, StudyRootQueryRetrieveInformationModelMove)
            for answer, _ in answers:
                status = int(answer.Status) if "Status" in answer else None
        except RuntimeError as error:  # the archive ended the association before
            raise ArchiveUnavailable(f"{peer.ae_title} ended the association") from error
    if status is None:
        raise ArchiveUnavailable(f"{peer.ae_title} did not answer the C-MOVE")
    text = f"{peer.ae_title} answered 0x{status:04X} to the C-MOVE"
    if status in MOVE_TRY_AGAIN:
        raise ArchiveUnavailable(text)
    if code_to_category(status) != "Success":
        raise ArchiveRefused(text)
