"""How far the trail was sent on, and what is next; a repository that stays away is an event.

Rows of the trail get their ids under a lock that is held until they are committed, so ids have the
order in which rows can be seen, and no row appears below one that was read already.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Text, cast, func, insert, select, update

from thoracle.settings import AuditRepository
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


def taken(connection: Connection, repository: AuditRepository, last_id: int) -> str | None:
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


def failed(connection: Connection, repository: AuditRepository, delay: float, reason: str) -> bool:
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
