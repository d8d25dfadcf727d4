"""How far the trail was sent on, and what is next; a repository that stays away is an event.

Rows of the trail get their ids under a lock that is held until they are committed, so ids have the
order in which rows can be seen, and no row appears below one that was read already.
"""

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, Text, cast, func, insert, select, update

from thoracle.audit import message, syslog
from thoracle.errors import ArchiveUnavailable
from thoracle.settings import AuditRepository, Settings
from thoracle.store import trail
from thoracle.store.tables import audit_event, audit_forward, instance, now, result, timestamp

SENDING, BEHIND, UNUSED = "sending", "behind", "unused"
LEEWAY_SECONDS = 60.0
"""Events younger than this may wait without that their repository counts as behind."""
_mine = audit_forward.c.repository


def begin(connection: Connection, repositories: Sequence[AuditRepository]) -> None:
    """Have a row for each repository; of others, how far they are is kept."""
    names = [one.name for one in repositories]
    known = set(connection.execute(select(_mine)).scalars())
    values = {"state": UNUSED, "next_attempt_at": None, "changed_at": now()}
    left = update(audit_forward).where(_mine.not_in(names), audit_forward.c.state != UNUSED)
    connection.execute(left.values(**values))
    returned = update(audit_forward).where(_mine.in_(names), audit_forward.c.state == UNUSED)
    fresh = {"state": SENDING, "failures": 0, "failing_since": None, "detail": None}
    connection.execute(returned.values(**{**values, **fresh}))
    for one in repositories:
        if one.name not in known:
            last_id = 0 if one.backlog else _last_id(connection)
            row = {"repository": one.name, "last_id": last_id, "changed_at": now(), **fresh}
            connection.execute(insert(audit_forward).values(**row))


def _last_id(connection: Connection) -> int:
    return connection.execute(select(func.max(audit_event.c.id))).scalar() or 0


def last_taken(connection: Connection, repository: str) -> int:
    """Return the id of the last event that counts as taken."""
    found = select(audit_forward.c.last_id).where(_mine == repository)
    return int(connection.execute(found).scalar_one())


def batch(connection: Connection, after: int, limit: int) -> list[dict[str, Any]]:
    """Return the events behind one, in their order; ``detail`` as the text that is kept."""
    columns = [one for one in audit_event.c if one.name != "detail"]
    wanted = (
        select(*columns, cast(audit_event.c.detail, Text).label("detail"))
        .where(audit_event.c.id > after)
        .order_by(audit_event.c.id)
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(wanted).mappings()]


def sop_classes(connection: Connection, events: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the SOP Class of each instance that events name, as far as it is still known."""
    names = ("sop_instance_uid", "result_sop_instance_uid")
    uids = sorted({event[name] for event in events for name in names if event[name]})
    found: dict[str, str] = {}
    for table in (instance, result):
        wanted = select(table.c.sop_instance_uid, table.c.sop_class_uid)
        for row in connection.execute(wanted.where(table.c.sop_instance_uid.in_(uids))):
            found[row.sop_instance_uid] = row.sop_class_uid
    return found


def record_taken(connection: Connection, repository: AuditRepository, last_id: int) -> str | None:
    """Record that a repository has the events up to one; return its state if that changed.

    It is behind while an event waits that is older than one may be, though it takes what is sent.
    """
    row = _row(connection, repository)
    waiting_since = _late(connection, repository, last_id)
    late = waiting_since is not None
    values: dict[str, Any] = {
        "last_id": last_id,
        "state": BEHIND if late else SENDING,
        "failures": 0,
        "failing_since": (row.failing_since or now()) if late else None,
        "next_attempt_at": None,
        "detail": f"events wait since {waiting_since}" if late else None,
    }
    _set(connection, repository, values)
    if values["state"] == row.state:
        return None
    if late:
        _behind(connection, repository, {**values, "last_id": last_id})
    else:
        columns: trail.Columns = {
            "destination": repository.name,
            "detail": {"since": row.failing_since, "taken up to": last_id},
        }
        trail.record(connection, trail.Event.AUDIT_CAUGHT_UP, columns)
    return str(values["state"])


def record_failure(
    connection: Connection, repository: AuditRepository, delay: float, reason: str
) -> bool:
    """Record an attempt that failed; return whether the repository counts as behind only now.

    Parameters
    ----------
    delay
        Until the next attempt, seconds.
    reason
        In words, free of patient data.
    """
    row = _row(connection, repository)
    moment = datetime.now(UTC)
    since = row.failing_since or timestamp(moment)
    away = (moment - datetime.fromisoformat(since)).total_seconds()
    behind = row.state != BEHIND and away >= repository.alert_seconds
    values = {
        "state": BEHIND if behind else row.state,
        "failures": row.failures + 1,
        "failing_since": since,
        "next_attempt_at": timestamp(moment + timedelta(seconds=delay)),
        "detail": reason,
    }
    _set(connection, repository, values)
    if behind:
        _behind(connection, repository, {**values, "last_id": row.last_id})
    return behind


def _row(connection: Connection, repository: AuditRepository) -> Row[Any]:
    return connection.execute(select(audit_forward).where(_mine == repository.name)).one()


def _set(connection: Connection, repository: AuditRepository, values: dict[str, Any]) -> None:
    mine = update(audit_forward).where(_mine == repository.name)
    connection.execute(mine.values(changed_at=now(), **values))


def _behind(connection: Connection, repository: AuditRepository, values: dict[str, Any]) -> None:
    columns: trail.Columns = {
        "event_outcome": trail.MINOR_FAILURE,
        "destination": repository.name,
        "detail": {
            "reason": values["detail"],
            "since": values["failing_since"],
            "taken up to": values["last_id"],
        },
    }
    trail.record(connection, trail.Event.AUDIT_BEHIND, columns)


def _late(connection: Connection, repository: AuditRepository, last_id: int) -> str | None:
    """Return the time of the first event that waits, when it is older than one may be."""
    following = select(audit_event.c.recorded_at).where(audit_event.c.id > last_id)
    oldest = connection.execute(following.order_by(audit_event.c.id).limit(1)).scalar()
    seconds = max(LEEWAY_SECONDS, repository.alert_seconds)
    limit = timestamp(datetime.now(UTC) - timedelta(seconds=seconds))
    return oldest if oldest is not None and oldest < limit else None


# ---- Questions ---------------------------------------------------------------------------------


def repositories(connection: Connection) -> list[dict[str, Any]]:
    """Return the rows of the repositories in use, each with ``waiting``: how many events do."""
    newest = select(func.coalesce(func.max(audit_event.c.id), 0)).scalar_subquery()
    # Ids leave none out, and to count millions of rows would take seconds.
    waiting = newest - audit_forward.c.last_id
    wanted = select(audit_forward, waiting.label("waiting")).where(audit_forward.c.state != UNUSED)
    return [dict(row) for row in connection.execute(wanted.order_by(_mine)).mappings()]


logger = logging.getLogger(__name__)

# ---- the sender ----------------------------------------------------------------------------------
# forward: the events of the audit, sent on to repositories in their order (IHE ITI-20).
#
# A thread a repository, for each is a stream of its own; how far it is, is a row. An event counts
# as taken when the connection on which it was sent has not broken for a while (audit/syslog.py
# says why): what was sent later is sent again. So a repository gets every event at least once,
# across ends of it, of us and of the network; the id of the row shows what it has twice.
#
# Nothing else waits for it: a repository that is away costs a row, and one event of the audit
# when it stays away and one when it is back.

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
        self._source = message.EventSource(
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

    def request_stop(self) -> None:
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
                self._taken = last_taken(connection, self._repository.name)
                self._sent = self._taken
            events = batch(connection, self._sent, BATCH)
            return events, sop_classes(connection, events)

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

    def _keep(self, last_id: int) -> None:
        with self._database.begin() as connection:
            changed = record_taken(connection, self._repository, last_id)
        self._taken, self._failures = last_id, 0
        if changed == SENDING:
            logger.info("audit repository %s has caught up", self._repository.name)
        elif changed == BEHIND:
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
            behind = record_failure(connection, self._repository, delay, reason)
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
        one.request_stop()
    for one in forwarders:
        one.join(max(0.0, deadline - time.monotonic()))
