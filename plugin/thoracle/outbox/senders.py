"""What a kind of peer is to the outbox: one sender, and the registry of all of them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydicom import Dataset
from sqlalchemy import Connection

from thoracle.errors import ArchiveRefused, ArchiveUnavailable
from thoracle.records import BundleIdentity, Kind, Reading
from thoracle.settings import Settings

logger = logging.getLogger(__name__)

Status = Literal["preliminary", "corrected", "withdrawn"]
"""Of a result that a message tells."""


class NamedPeer(Protocol):
    """A table of the settings that names somebody to send to."""

    @property
    def name(self) -> str:
        """Short name in status and audit."""


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """What one row of the outbox sends."""

    number: int
    """Of the row."""
    key: str
    """The row's ``item``: the same for the same thing, however often it is sent."""
    path: Path | None = None
    """Of the object, or of the message."""
    object: Kind | None = None
    """Of a DICOM object, what it is."""
    content: Any = None
    """Of a message without a file, the document."""


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """What a peer answered to one item: columns of its row."""

    state: str
    """sent, delivered, waiting (to be tried again), refused or failed."""
    detail: str | None = None
    """Why it was not taken; no patient data."""
    status: str | None = None
    proof: str | None = None
    delivered_sop_class_uid: str | None = None
    delivered_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True)
class ResultNotice:
    """A result that peers are told of by a message."""

    source: Dataset
    """Header of an image."""
    readings: Sequence[Reading]
    bundle: BundleIdentity
    """Which made it."""
    report_series_instance_uid: str
    report_sop_instance_uid: str
    sentence: str
    made: datetime
    status: Status


@dataclass(frozen=True, slots=True)
class AlarmNotice:
    """An alarm that peers are told of."""

    subject: str
    level: str
    sentence: str
    """In words free of patient data, and of identifiers of studies."""
    since: str
    """ISO 8601, UTC."""
    study_instance_uid: str | None = None
    """Which study it is about; told to peers that may get patient data alone, as the next."""
    in_full: str = ""
    """The sentence with identifiers of studies; empty: it has none."""


class Prover(Protocol):
    """How a kind of peer proves later that it keeps what it has taken."""

    def begin(
        self, connection: Connection, peer: str, studies: Sequence[str], workflow_id: str
    ) -> list[str]:
        """Begin, in the transaction that records the answers; return what to ask about."""

    def enqueue(self, peer: str, asked: Sequence[str]) -> None:
        """Have the peer asked about it."""


P = TypeVar("P", bound=NamedPeer)


@dataclass(frozen=True)
class Sender(Generic[P]):
    """How a kind of peer is reached, and how items are sent to it."""

    kind: str
    """In the rows of the outbox: never changed."""
    table: str
    """Of the settings, for messages about it."""
    peers: Callable[[Settings], Sequence[P]]
    where: Callable[[P], str]
    """E.g. ``C-STORE PACS@192.0.2.10:11112``: for pages and status."""
    reach: Callable[[P, Settings, float | None], str]
    """Return how it answers when nothing is sent, as the end of a sentence; seconds to wait.

    Raises ``DeliveryError`` when it does not.
    """
    send: Callable[[P, Sequence[OutboxItem]], Iterator[SendAnswer]]
    """Send items in one call where the protocol allows; yield an answer for each, in their order.

    Raises ``ArchiveUnavailable`` or ``ArchiveRefused`` for all items without an answer.
    """
    compose: Callable[[P, ResultNotice], str] | None = None
    """Write the message that tells a result; return its path below the data folder.

    ``None`` for a kind that gets objects.
    """
    alarm: Callable[[P, AlarmNotice], Any] | None = None
    """Return the document that tells a peer of an alarm; ``None`` when it is told of none."""
    prover: Prover | None = None
    in_order: bool = False
    """Whether items have to arrive in the order in which they were put into the outbox.

    Then what waits for a peer goes before anything newer, and one call at a time.
    """
    audited: bool = True
    """Whether each item that is taken is an event of the audit; what is not taken always is."""


def failure(error: Exception, peer: str) -> SendAnswer:
    """Return what an error of sending an item comes to."""
    if isinstance(error, (ArchiveUnavailable, OSError)):
        return SendAnswer("waiting", str(error))
    if isinstance(error, ArchiveRefused):
        return SendAnswer("refused", str(error))
    # A fault of ours: without an end here the item would wait for ever, unseen.
    logger.error("not sent to %s", peer, exc_info=error)
    return SendAnswer("failed", f"{type(error).__name__}, see log")


_registry: dict[str, Sender[Any]] = {}


def register(senders: Sequence[Sender[Any]]) -> None:
    """Give the outbox its senders; once, before the engine starts."""
    _registry.update({one.kind: one for one in senders})


def of_kind(kind: str) -> Sender[Any]:
    """Return the sender of a kind."""
    return _registry[kind]
