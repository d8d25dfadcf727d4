"""States of workitems, and which change of them is allowed (PS3.4 Table CC.1.1-2)."""

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from thoracle.errors import ThoracleError

# ---- statuses ------------------------------------------------------------------------------------
# Every answer about workitems, and when it is given (PS3.4 Annex CC, PS3.7 Annex C).


@dataclass(frozen=True, slots=True)
class UPSStatus:
    """A row of the table of answers: a service status, and when it is given."""

    code: int
    clause: str
    when: str


SUCCESS = UPSStatus(0x0000, "PS3.7 Annex C", "Done, and durable.")
NO_SUCH_ATTRIBUTE = UPSStatus(
    0x0105, "PS3.7 Annex C", "N-SET of an attribute that a performer may not set."
)
INVALID_ATTRIBUTE_VALUE = UPSStatus(
    0x0106, "PS3.7 Annex C", "N-SET of a value that cannot be: a progress of -1, a priority URGENT."
)
PROCESSING_FAILURE = UPSStatus(
    0x0110, "PS3.7 Annex C", "The database did not take it; later it may. Nothing has changed."
)
INVALID_ARGUMENT_VALUE = UPSStatus(
    0x0115,
    "PS3.7 Annex C",
    "N-ACTION with a state, Transaction UID or deletion lock that cannot be.",
)
NO_SUCH_SOP_CLASS = UPSStatus(
    0x0118, "PS3.7 Annex C", "The SOP Class in the message is not Unified Procedure Step - Push."
)
NOT_AUTHORIZED = UPSStatus(
    0x0124, "PS3.7 Section C.4.19", "[ups] does not name the caller among those that may ask so."
)
NO_SUCH_ACTION = UPSStatus(0x0123, "PS3.7 Annex C", "Another Action Type ID than 1 to 5.")
RESOURCE_LIMITATION = UPSStatus(
    0x0213, "PS3.7 Annex C", "A data set of more than 1,048,576 bytes; nothing of it is looked at."
)
IDENTIFIER_UNREADABLE = UPSStatus(
    0xA900, "PS3.4 Section CC.2.8", "C-FIND with an Identifier that cannot be decoded."
)
MATCH = UPSStatus(0xFF00, "PS3.4 Section CC.2.8", "C-FIND: a match; others may follow.")
CANCELLED = UPSStatus(0xFE00, "PS3.4 Section CC.2.8", "C-FIND that was ended by a C-CANCEL.")
ALREADY_CANCELED = UPSStatus(
    0xB304, "PS3.4 Table CC.2.1-2", "To cancel, or to request it, what is CANCELED already."
)
COERCED = UPSStatus(
    0xB305,
    "PS3.4 Table CC.2.6-1",
    "N-SET with a modification time: the time of the listener is kept instead.",
)
ALREADY_COMPLETED = UPSStatus(
    0xB306, "PS3.4 Table CC.2.1-2", "To complete what is COMPLETED already, by who completed it."
)
NO_LONGER_UPDATED = UPSStatus(
    0xC300, "PS3.4 Tables CC.2.1-2, CC.2.6-1", "A change of what is COMPLETED or CANCELED."
)
WRONG_TRANSACTION = UPSStatus(
    0xC301,
    "PS3.4 Tables CC.2.1-2, CC.2.6-1",
    "No Transaction UID, or not that of the one who claimed it: who comes second to a claim gets "
    "this.",
)
ALREADY_IN_PROGRESS = UPSStatus(
    0xC302, "PS3.4 Table CC.2.1-2", "A second claim by the one who has claimed it already."
)
ONLY_CREATED_SCHEDULED = UPSStatus(
    0xC303, "PS3.4 Table CC.2.1-2", "N-ACTION or N-SET to SCHEDULED: there is no way back."
)
FINAL_STATE_UNMET = UPSStatus(
    0xC304,
    "PS3.4 Table CC.2.1-2",
    "The end of a workitem that lacks what Table CC.2.5-3 requires; the Error Comment names it.",
)
NO_SUCH_WORKITEM = UPSStatus(
    0xC307, "PS3.4 Sections CC.2.1 to CC.2.7", "A SOP Instance UID that is none of our workitems."
)
UNKNOWN_RECEIVER = UPSStatus(
    0xC308, "PS3.4 Table CC.2.3-3", "A Receiving AE that is no [[subscriber]] of the settings."
)
NOT_IN_PROGRESS = UPSStatus(
    0xC310,
    "PS3.4 Tables CC.2.1-2, CC.2.6-1",
    "The end, or an N-SET, of what nobody has claimed yet.",
)
CANNOT_CANCEL_COMPLETED = UPSStatus(
    0xC311, "PS3.4 Table CC.2.2-2", "A request to cancel what is COMPLETED."
)
PERFORMER_UNREACHABLE = UPSStatus(
    0xC312,
    "PS3.4 Table CC.2.2-2",
    "A request to cancel what is IN PROGRESS, while nobody subscribes to it: the performer cannot "
    "learn of it.",
)
NOT_APPROPRIATE = UPSStatus(
    0xC314,
    "PS3.4 Table CC.2.3-3",
    "Suspend Global of one workitem; a change of state, or of attributes, of the global "
    "subscription.",
)
NO_EVENTS = UPSStatus(
    0xC315, "PS3.4 Table CC.2.3-3", "A subscription while the settings have no [[subscriber]]."
)

STATUSES = (
    SUCCESS,
    *(NO_SUCH_ATTRIBUTE, INVALID_ATTRIBUTE_VALUE, PROCESSING_FAILURE, INVALID_ARGUMENT_VALUE),
    NOT_AUTHORIZED,
    *(NO_SUCH_SOP_CLASS, NO_SUCH_ACTION, RESOURCE_LIMITATION, IDENTIFIER_UNREADABLE),
    *(ALREADY_CANCELED, COERCED, ALREADY_COMPLETED),
    *(NO_LONGER_UPDATED, WRONG_TRANSACTION, ALREADY_IN_PROGRESS, ONLY_CREATED_SCHEDULED),
    *(FINAL_STATE_UNMET, NO_SUCH_WORKITEM, UNKNOWN_RECEIVER, NOT_IN_PROGRESS),
    *(CANNOT_CANCEL_COMPLETED, PERFORMER_UNREACHABLE, NOT_APPROPRIATE, NO_EVENTS),
    *(CANCELLED, MATCH),
)
"""Every answer about workitems. Never given are 0xB301 (a deletion lock is always granted, for
nothing is deleted) and 0xC313 (we perform none of our own workitems)."""


class Refused(ThoracleError):
    """A request about a workitem is refused: the caller is told so by ``status``."""

    def __init__(self, status: UPSStatus, comment: str = "") -> None:
        super().__init__(comment or status.when)
        self.status = status
        self.comment = comment


# ---- states --------------------------------------------------------------------------------------

GLOBAL_SUBSCRIPTION = "1.2.840.10008.5.1.4.34.5"
"""Well-known SOP Instance UID: a subscription to all workitems (PS3.4 Section CC.3.1)."""


class State(StrEnum):
    """Procedure Step State (0074,1000), PS3.4 Table CC.1.1-1."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL = (State.COMPLETED, State.CANCELED)


class Action(IntEnum):
    """Action Type ID of an N-ACTION (PS3.4 Sections CC.2.1 to CC.2.3)."""

    CHANGE_STATE = 1
    REQUEST_CANCEL = 2
    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    SUSPEND_GLOBAL = 5


class EventType(IntEnum):
    """Event Type ID of an N-EVENT-REPORT (PS3.4 Table CC.2.4-1)."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    SCP_STATUS_CHANGE = 4
    ASSIGNED = 5


def is_uid(text: str) -> bool:
    """Return whether a text may be a UID: digits and dots, 1 to 64 (PS3.5 Section 9.1)."""
    return re.fullmatch(r"[0-9.]{1,64}", text) is not None


_CHANGES: dict[State, dict[State, UPSStatus]] = {
    State.IN_PROGRESS: {
        State.SCHEDULED: SUCCESS,
        State.IN_PROGRESS: ALREADY_IN_PROGRESS,
        State.COMPLETED: NO_LONGER_UPDATED,
        State.CANCELED: NO_LONGER_UPDATED,
    },
    State.COMPLETED: {
        State.SCHEDULED: NOT_IN_PROGRESS,
        State.IN_PROGRESS: SUCCESS,
        State.COMPLETED: ALREADY_COMPLETED,
        State.CANCELED: NO_LONGER_UPDATED,
    },
    State.CANCELED: {
        State.SCHEDULED: NOT_IN_PROGRESS,
        State.IN_PROGRESS: SUCCESS,
        State.COMPLETED: NO_LONGER_UPDATED,
        State.CANCELED: ALREADY_CANCELED,
    },
}
"""Wanted state -> state of the workitem -> answer to who has the right Transaction UID (PS3.4
Table CC.1.1-2)."""


def change(state: State, lock: str | None, wanted: str, transaction_uid: str) -> UPSStatus:
    """Return the answer to a change of state: ``SUCCESS`` or a warning that nothing changes.

    Parameters
    ----------
    state, lock
        Of the workitem; the lock is the Transaction UID of who claimed it.
    wanted, transaction_uid
        As requested; empty when there is none.

    Raises
    ------
    Refused
        PS3.4 Table CC.1.1-2 does not allow it. Whether a final state's requirements are met
        (:func:`unmet`) is still to be seen.
    """
    if wanted == State.SCHEDULED:
        raise Refused(ONLY_CREATED_SCHEDULED)
    if wanted not in _CHANGES:
        raise Refused(INVALID_ARGUMENT_VALUE, "no such Procedure Step State")
    if transaction_uid and not is_uid(transaction_uid):
        raise Refused(INVALID_ARGUMENT_VALUE, "TransactionUID")
    first = state is State.SCHEDULED  # the claim itself makes its Transaction UID the right one
    if not transaction_uid or not (first or transaction_uid == lock):
        raise Refused(WRONG_TRANSACTION)
    status = _CHANGES[State(wanted)][state]
    if status.code >= NO_LONGER_UPDATED.code:
        raise Refused(status)
    return status


def check_settable(state: State, lock: str | None, transaction_uid: str) -> None:
    """Raise ``Refused`` unless an N-SET with this Transaction UID may change a workitem now."""
    if state in FINAL:
        raise Refused(NO_LONGER_UPDATED)
    if state is State.SCHEDULED:
        raise Refused(NOT_IN_PROGRESS)
    if transaction_uid != lock:
        raise Refused(WRONG_TRANSACTION)
