"""forward: the events of the audit, sent on to repositories in their order (IHE ITI-20).

A thread a repository, for each is a stream of its own; how far it is, is a row. An event counts as
taken when the connection on which it was sent has not broken for a while (audit/syslog.py says
why): what was sent later is sent again. So a repository gets every event at least once, across
ends of it, of us and of the network; the id of the row shows what it has twice.

Nothing else waits for it: a repository that is away costs a row, and one event of the audit when
it stays away and one when it is back.
"""

import logging
import os
import socket
import threading
import time
from collections import deque
from typing import Any

from sqlalchemy import Engine

from thoracle.audit import forwarding, message, syslog
from thoracle.errors import ArchiveUnavailable
from thoracle.settings import AuditRepository, Settings

logger = logging.getLogger(__name__)

BATCH = 200
"""Events read and sent at a time."""
POLL_SECONDS = 0.5
"""Between two looks for new events."""
KEEP_SECONDS = 1.0
"""Between two times that what counts as taken is written down: each is a commit."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds until the next attempt; they double."""
FAULT_DELAY = 10.0
"""Seconds until the next attempt after a fault of the database."""
STOP_SECONDS = 4.0
"""For all repositories together to get the last events when the service stops."""


class Forwarder(threading.Thread):
    """Sends events to a repository until it is told to stop."""

    def __init__(self, repository: AuditRepository, settings: Settings, database: Engine) -> None:
        super().__init__(name=f"audit-{repository.name}", daemon=True)
        self._repository = repository
        self._database = database
        self._host = socket.gethostname()
        self._source = message.Source(
            repository.source_id or settings.receive.ae_title,
            repository.enterprise_site_id,
            settings.receive.ae_title,
            self._host,
        )
        self._stopped = threading.Event()
        self._link: syslog.Link | None = None
        self._taken: int | None = None
        self._sent = 0
        self._flight: deque[tuple[float, int]] = deque()
        """When a batch was sent, and its last event; none of them counts as taken yet."""
        self._kept_at = 0.0
        self._failures = 0

    def run(self) -> None:
        """Send, wait, send; longer each time while the repository is away."""
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = self._guarded()
        if self._link is not None or not self._failures:
            self._finish()

    def tell_to_stop(self) -> None:
        """Have it send what is left, and end; what it cannot send now, the next start sends."""
        self._stopped.set()

    def _guarded(self) -> float:
        """Return the seconds until the next turn."""
        try:
            try:
                return self._turn()
            except ArchiveUnavailable as error:
                return self._broken(str(error))
        except Exception:
            # The database may be out of reach for a while; what was sent is not lost with it.
            logger.exception("audit not sent on to %s", self._repository.name)
            return FAULT_DELAY

    def _turn(self) -> float:
        """Send what is next, and count what has been sent long enough ago."""
        events, classes = self._next()
        if self._link is not None:
            self._check(self._link)
        if events:
            self._send(events, classes)
        self._count()
        return 0.0 if len(events) == BATCH else POLL_SECONDS

    def _next(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        with self._database.connect() as connection:
            if self._taken is None:
                self._taken = forwarding.last_taken(connection, self._repository.name)
                self._sent = self._taken
            events = forwarding.batch(connection, self._sent, BATCH)
            return events, forwarding.sop_classes(connection, events)

    def _check(self, link: syslog.Link) -> None:
        """Leave a connection that was ended: a failure while events depend on it."""
        try:
            link.check()
        except ArchiveUnavailable:
            self._link = None
            if self._flight:
                raise

    def _send(self, events: list[dict[str, Any]], classes: dict[str, str]) -> None:
        messages = [self._message(event, classes) for event in events]
        if self._link is None:
            self._link = syslog.connect(self._repository)
        self._link.send(messages)
        self._sent = events[-1]["id"]
        self._flight.append((time.monotonic(), self._sent))

    def _message(self, event: dict[str, Any], classes: dict[str, str]) -> bytes:
        frame = {
            "outcome": event["event_outcome"],
            "recorded_at": event["recorded_at"],
            "host": self._host,
            "process": os.getpid(),
            "msgid": self._repository.msgid,
        }
        header = len(syslog.message(b"", **frame))
        largest = self._repository.largest_bytes - header
        return syslog.message(message.fitted(event, self._source, largest, classes), **frame)

    def _count(self) -> None:
        """Count as taken what was sent ``resend_seconds`` ago, for the connection still stands."""
        moment = time.monotonic()
        if moment - self._kept_at < KEEP_SECONDS:
            return
        taken = self._taken
        while self._flight and self._flight[0][0] <= moment - self._repository.resend_seconds:
            taken = self._flight.popleft()[1]
        if taken is not None and taken != self._taken:
            self._kept_at = moment
            self._keep(taken)

    def _keep(self, taken: int) -> None:
        with self._database.begin() as connection:
            changed = forwarding.taken(connection, self._repository, taken)
        self._taken, self._failures = taken, 0
        if changed == forwarding.SENDING:
            logger.info("audit repository %s has caught up", self._repository.name)
        elif changed == forwarding.BEHIND:
            logger.error("audit forwarding to %s is behind", self._repository.name)

    def _broken(self, reason: str) -> float:
        """Go back to what counts as taken, and record it; return the delay."""
        if self._link is not None:
            self._link.close()
        self._link = None
        self._flight.clear()
        assert self._taken is not None
        self._sent = self._taken
        delay = min(FIRST_DELAY * 2.0 ** min(self._failures, 20), LONGEST_DELAY)
        self._failures += 1
        with self._database.begin() as connection:
            behind = forwarding.failed(connection, self._repository, delay, reason)
        logger.warning("audit repository %s: %s", self._repository.name, reason)
        if behind:
            logger.error("audit forwarding to %s is behind", self._repository.name)
        return delay

    def _finish(self) -> None:
        """Send the last events, and count all when the repository ends the connection in order."""
        deadline = time.monotonic() + STOP_SECONDS / 2
        while self._guarded() == 0.0 and time.monotonic() < deadline:
            pass  # there is more
        if self._link is not None and self._link.close() and self._flight:
            self._keep(self._sent)


def start_forwarding(settings: Settings, database: Engine) -> list[Forwarder]:
    """Return a running forwarder for each repository; each has its row already."""
    forwarders = [Forwarder(one, settings, database) for one in settings.audit_repository]
    for one in forwarders:
        one.start()
    return forwarders


def stop_forwarding(forwarders: list[Forwarder]) -> None:
    """Have the last events sent, and all forwarders end."""
    deadline = time.monotonic() + STOP_SECONDS
    for one in forwarders:
        one.tell_to_stop()
    for one in forwarders:
        one.join(max(0.0, deadline - time.monotonic()))
