"""SCU of Unified Procedure Steps: UPS Pull, to perform workitems of others (PS3.4 Annex CC)."""

from collections.abc import Sequence
from typing import Self

from pydicom import Dataset
from pydicom.tag import Tag
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
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
