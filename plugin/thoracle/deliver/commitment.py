"""Storage Commitment Push Model SCU: asking an archive to keep what it has got (PS3.4 Annex J)."""

import threading
import time
from collections.abc import Sequence
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

from thoracle.deliver import commitment_answers, statuses
from thoracle.deliver.association import Call, Peer
from thoracle.deliver.commitment_answers import OnAnswer
from thoracle.errors import ArchiveRefused, ArchiveSilent, ArchiveUnavailable

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
        status = commitment_answers.answer_status(
            event.request, lambda: event.event_information, on_answer
        )
        if status == commitment_answers.SUCCESS:
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
