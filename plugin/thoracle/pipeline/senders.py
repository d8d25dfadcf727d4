"""The registry: every kind of peer that the outbox sends to."""

from collections.abc import Iterator
from typing import Any

from thoracle.deliver import workflows as proofs
from thoracle.deliver.sender import SENDER as ARCHIVES
from thoracle.hl7.sender import SENDER as HL7
from thoracle.outbox import workflow as outbox
from thoracle.outbox.senders import NamedPeer, Sender, register
from thoracle.settings import Settings
from thoracle.study import line as parts
from thoracle.study.line import Line
from thoracle.ups.subscriptions import SENDER as SUBSCRIBERS

SENDERS: tuple[Sender[Any], ...] = (ARCHIVES, HL7, SUBSCRIBERS)


def bind(line: Line) -> None:
    """Give the workflows their parts and the outbox its senders; once, before the engine starts."""
    register(SENDERS)
    parts.bind(line)


def recover() -> None:
    """Have done what fell out of the line: what is to be sent, and to be proven."""
    outbox.recover()
    proofs.recover()


def peers(settings: Settings) -> Iterator[tuple[Sender[Any], NamedPeer]]:
    """Yield all peers of the settings, each with its sender."""
    for sender in SENDERS:
        for peer in sender.peers(settings):
            yield sender, peer
