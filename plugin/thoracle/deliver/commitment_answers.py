"""What an archive says in an N-EVENT-REPORT of Storage Commitment (PS3.4 Section J.3.3).

It may say so on the association on which it was asked (deliver/) or on one that it opens itself
(receive/): both read it here, and neither believes anything before it has been looked at.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

logger = logging.getLogger(__name__)

ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""Event Type ID (PS3.4 Section J.3.3.1.1)."""

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT_VALUE = 0x0115
NO_SUCH_SOP_CLASS = 0x0118
"""Statuses of an N-EVENT-REPORT response (PS3.7 Section 10.1.1.1.8)."""

LARGEST_INFORMATION = 4_194_304
"""Bytes of an Event Information; an item takes about 200, and a request of ours has few."""

_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an archive has committed to, and what not."""

    transaction_uid: str
    """Of the request that it answers."""
    committed: tuple[str, ...]
    """SOP Instance UIDs that it keeps safe. What it names as failed too is not among them."""
    failed: tuple[tuple[str, int], ...]
    """SOP Instance UID and Failure Reason (0008,1197): 0x0110 where it gives none (PS3.3 C.14)."""


class NotAnAnswer(ValueError):
    """The event cannot be read; ``status`` says why in the terms of PS3.7."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


OnAnswer = Callable[[Answer], bool]
"""Told of an answer; returns whether the transaction is known and the answer is kept durably."""


def parse(event_type: int | None, information: Dataset) -> Answer:
    """Return what an N-EVENT-REPORT says.

    An object that was asked for and is in neither list is not committed; some archives leave out
    what they do not have, even in an event of type 1.

    Raises
    ------
    NotAnAnswer
        Another event type (0x0113); no Transaction UID, or an item without a SOP Instance UID
        (0x0115).
    """
    if event_type not in (ALL_COMMITTED, FAILURES_EXIST):
        raise NotAnAnswer(NO_SUCH_EVENT_TYPE, f"found event type {event_type}, required is 1 or 2")
    failed = {
        _uid(item, "ReferencedSOPInstanceUID"): _reason(item)
        for item in _items(information, "FailedSOPSequence")
    }
    named = [
        _uid(item, "ReferencedSOPInstanceUID")
        for item in _items(information, "ReferencedSOPSequence")
    ]
    committed = tuple(uid for uid in dict.fromkeys(named) if uid not in failed)
    return Answer(_uid(information, "TransactionUID"), committed, tuple(failed.items()))


def answer_status(request: Any, information: Callable[[], Dataset], on_answer: OnAnswer) -> int:
    """Return the status with which an N-EVENT-REPORT is to be answered; raises nothing.

    Parameters
    ----------
    request
        The N-EVENT-REPORT primitive as pynetdicom has it.
    information
        Decodes its Event Information.
    on_answer
        Told of the answer. Only when it returned true is the status 0x0000.
    """
    try:
        size = len(request.EventInformation.getvalue()) if request.EventInformation else 0
        if size > LARGEST_INFORMATION:
            raise NotAnAnswer(
                INVALID_ARGUMENT_VALUE,
                f"found {size} bytes of Event Information, at most {LARGEST_INFORMATION} are read",
            )
        answer = _decoded(request.EventTypeID, information)
    except NotAnAnswer as error:
        logger.warning("storage commitment: 0x%04X: %s", error.status, error)
        return error.status
    try:
        known = on_answer(answer)
    except Exception:
        logger.exception("storage commitment not recorded")
        return PROCESSING_FAILURE
    if not known:
        logger.warning("storage commitment: transaction %s is unknown", answer.transaction_uid)
        return INVALID_ARGUMENT_VALUE
    return SUCCESS


def _decoded(event_type: int | None, information: Callable[[], Dataset]) -> Answer:
    try:
        return parse(event_type, information())
    except NotAnAnswer:
        raise
    except (
        Exception
    ) as error:  # pydicom decodes an element when it is looked at, and raises anything
        detail = f"Event Information cannot be decoded: {type(error).__name__}"
        raise NotAnAnswer(INVALID_ARGUMENT_VALUE, detail) from error


def _items(information: Dataset, keyword: str) -> list[Dataset]:
    return list(information.get(keyword) or [])


def _uid(item: Dataset, keyword: str) -> str:
    value = str(item.get(keyword) or "").strip("\0 ")
    if not _UID.fullmatch(value):
        found = "none" if not value else f"{len(value)} characters that are no UID"
        raise NotAnAnswer(INVALID_ARGUMENT_VALUE, f"{keyword}: found {found}, required is a UID")
    return value


def _reason(item: Dataset) -> int:
    value = item.get("FailureReason")
    return value if isinstance(value, int) else PROCESSING_FAILURE
