"""The registry: every kind of peer that the outbox sends to."""

import hashlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from thoracle.deliver import workflows as proofs
from thoracle.deliver.sender import SENDER as ARCHIVES
from thoracle.hl7.sender import SENDER as HL7
from thoracle.notify.smtp import SENDER as EMAIL
from thoracle.notify.webhook import SENDER as WEBHOOKS
from thoracle.notify.witness import SENDER as WITNESS
from thoracle.outbox import rows
from thoracle.outbox import workflow as outbox
from thoracle.outbox.senders import AlarmNotice, NamedPeer, Sender, register
from thoracle.settings import Settings
from thoracle.study import line as parts
from thoracle.study.line import Line
from thoracle.ups.subscriptions import SENDER as SUBSCRIBERS

SENDERS: tuple[Sender[Any], ...] = (ARCHIVES, HL7, SUBSCRIBERS, WEBHOOKS, EMAIL, WITNESS)


def bind(line: Line) -> None:
    """Give the workflows their parts and the outbox its senders; once, before the engine starts."""
    register(SENDERS)
    parts.bind(line)


def recover() -> None:
    """Have done what fell out of the line: what is to be sent, and to be proven."""
    outbox.recover()
    proofs.recover()


def add_alarm(connection: Connection, settings: Settings, alarm: AlarmNotice) -> None:
    """Put an alarm into the outbox, in the transaction that raises it.

    It is sent within a minute, when the gateway looks for what waits (:func:`recover`). The same
    alarm again, with the same level and since the same moment, changes nothing.
    """
    said = f"{alarm.subject} {alarm.level} {alarm.since}"
    item = hashlib.sha256(said.encode()).hexdigest()
    for sender, peer in peers(settings):
        content = None if sender.alarm is None else sender.alarm(peer, alarm)
        if content is not None:
            rows.add(connection, sender.kind, peer.name, item, priority=rows.STAT, content=content)


def peers(settings: Settings) -> Iterator[tuple[Sender[Any], NamedPeer]]:
    """Yield all peers of the settings, each with its sender."""
    for sender in SENDERS:
        for peer in sender.peers(settings):
            yield sender, peer
