"""Storage Commitment Push Model SCU: asking an archive to keep what it has got (PS3.4 Annex J)."""

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from pynetdicom.status import code_to_category

from thoracle.deliver import statuses
from thoracle.deliver.association import Call, Peer
from thoracle.errors import ArchiveRefused, ArchiveSilent, ArchiveUnavailable

# ---- answers -------------------------------------------------------------------------------------
# What an archive says in an N-EVENT-REPORT of Storage Commitment (PS3.4 Section J.3.3).
#
# It may say so on the association on which it was asked (deliver/) or on one that it opens itself
# (receive/): both read it here, and neither believes anything before it has been looked at.

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
class CommitmentAnswer:
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


OnAnswer = Callable[[CommitmentAnswer], bool]
"""Told of an answer; returns whether the transaction is known and the answer is kept durably."""


def parse(event_type: int | None, information: Dataset) -> CommitmentAnswer:
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
        raise NotAnAnswer(NO_SUCH_EVENT_TYPE, f"found event type {event_type}, required: 1 or 2")
    failed = {
        _uid(item, "ReferencedSOPInstanceUID"): _reason(item)
        for item in _items(information, "FailedSOPSequence")
    }
    named = [
        _uid(item, "ReferencedSOPInstanceUID")
        for item in _items(information, "ReferencedSOPSequence")
    ]
    committed = tuple(uid for uid in dict.fromkeys(named) if uid not in failed)
    return CommitmentAnswer(_uid(information, "TransactionUID"), committed, tuple(failed.items()))


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


def _decoded(event_type: int | None, information: Callable[[], Dataset]) -> CommitmentAnswer:
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
        raise NotAnAnswer(INVALID_ARGUMENT_VALUE, f"{keyword}: found {found}, required: a UID")
    return value


def _reason(item: Dataset) -> int:
    value = item.get("FailureReason")
    return value if isinstance(value, int) else PROCESSING_FAILURE


# ---- requests ------------------------------------------------------------------------------------

REQUEST_STORAGE_COMMITMENT = 1
"""Action Type ID (PS3.4 Section J.3.2.1.1)."""

TRY_AGAIN = statuses.TRY_AGAIN
"""Time, or somebody, may heal them."""
NOT_PROVIDED = (0x0118, 0x0122, 0x0123, 0x0211)
"""No such SOP Class, SOP Class not supported, no such action, unrecognized operation: the context
was accepted, the service is not there (PS3.7 Section 10.1.4.1.10 and Annex C)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An object that is to be committed."""

    sop_class_uid: str
    sop_instance_uid: str


class Requested(Enum):
    """What came of a request."""

    ASKED = auto()
    """The archive took the request; its answer comes at any time, or came already."""
    NOT_OFFERED = auto()
    """The archive does not offer Storage Commitment; something else has to be the proof."""


def request(
    peer: Peer,
    transaction_uid: str,
    references: Sequence[Reference],
    on_answer: OnAnswer,
    patience_seconds: float,
) -> Requested:
    """Ask an archive to commit to objects, and wait a moment for its answer.

    Parameters
    ----------
    peer
        The archive.
    transaction_uid
        Of this request alone, recorded before: the answer may come before this returns, on
        another association.
    references
        The objects, at least one.
    on_answer
        Told of an answer that comes on the same association, in a thread of its own; the archive
        gets 0x0000 only when it returned true.
    patience_seconds
        How long the association is kept open for that. It ends earlier when the answer has come or
        the archive releases.

    Returns
    -------
    Requested
        Whether the archive took the request.

    Raises
    ------
    ArchiveSilent
        No response.
    ArchiveUnavailable
        Not reached, or one of ``TRY_AGAIN``.
    ArchiveRefused
        Another failure status.
    """
    answered = threading.Event()
    answering: list[threading.Thread] = []

    def on_n_event_report(event: evt.Event) -> tuple[int, None]:
        answering.append(threading.current_thread())
        status = answer_status(event.request, lambda: event.event_information, on_answer)
        if status == SUCCESS:
            answered.set()
        return status, None

    with ExitStack() as stack:
        call = Call(
            peer,
            [StorageCommitmentPushModel],
            handlers=[(evt.EVT_N_EVENT_REPORT, on_n_event_report)],
        )
        try:
            assoc = stack.enter_context(call)
        except ArchiveRefused:  # no presentation context was accepted
            return Requested.NOT_OFFERED
        outcome = _ask(assoc, peer, _information(transaction_uid, references))
        if outcome is Requested.ASKED:
            _wait(assoc, answered, peer.timeout_seconds, patience_seconds)
            # pynetdicom answers a report in a thread of its own, and a response after our release
            # would break the association.
            for thread in answering:
                thread.join(peer.timeout_seconds)
        return outcome


def _ask(assoc: Association, peer: Peer, information: Dataset) -> Requested:
    try:
        response, _ = assoc.send_n_action(
            information,
            REQUEST_STORAGE_COMMITMENT,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
    except RuntimeError as error:  # the archive ended the association before
        raise ArchiveUnavailable(f"{peer.ae_title} ended the association") from error
    if "Status" not in response:
        raise ArchiveSilent(f"{peer.ae_title} did not answer the N-ACTION")
    status = int(response.Status)
    if code_to_category(status) in ("Success", "Warning"):
        return Requested.ASKED
    if status in NOT_PROVIDED:
        return Requested.NOT_OFFERED
    text = f"{peer.ae_title} answered the N-ACTION with 0x{status:04X}"
    raise ArchiveUnavailable(text) if status in TRY_AGAIN else ArchiveRefused(text)


def _wait(
    assoc: Association, answered: threading.Event, timeout_seconds: float, patience_seconds: float
) -> None:
    # Else the idle time of the association would end it before our patience does.
    assoc.network_timeout = timeout_seconds + patience_seconds
    deadline = time.monotonic() + patience_seconds
    while assoc.is_established and time.monotonic() < deadline:
        if answered.wait(0.05):
            return


def _information(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction_uid
    items = []
    for reference in references:
        item: Any = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        items.append(item)
    information.ReferencedSOPSequence = items
    return information
