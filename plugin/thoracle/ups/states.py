"""States of workitems, and which change of them is allowed (PS3.4 Table CC.1.1-2)."""

import re
from enum import IntEnum, StrEnum

from thoracle.ups.statuses import (
    ALREADY_CANCELED,
    ALREADY_COMPLETED,
    ALREADY_IN_PROGRESS,
    INVALID_ARGUMENT_VALUE,
    NO_LONGER_UPDATED,
    NOT_IN_PROGRESS,
    ONLY_CREATED_SCHEDULED,
    SUCCESS,
    WRONG_TRANSACTION,
    Refused,
    Status,
)

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


_CHANGES: dict[State, dict[State, Status]] = {
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


def change(state: State, lock: str | None, wanted: str, transaction_uid: str) -> Status:
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
