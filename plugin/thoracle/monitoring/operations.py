"""Statements about work under way: what waits, what is dead, and whom we reach."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, literal, select, text, union_all

from thoracle.deliver.rows import DEAD
from thoracle.store import workflows
from thoracle.store.tables import analysis, delivery, instance, notification, result, timestamp

Rows = Sequence[Any]
"""Rows with the columns that each function names."""
NOTHING_SENT: dict[str, Any] = {
    "last_success": None,
    "waiting": 0,
    "dead": 0,
    "detail": None,
    "failed_at": None,
}
"""What :func:`peers` would say of a peer to which nothing went yet."""


_QUOTED = re.compile(r"""\s*(['"]).*\1""", re.DOTALL)


def queues(connection: Connection) -> list[dict[str, Any]]:
    """Return ``queue``, ``waiting``, ``running``, ``later`` and ``oldest`` of the engine's queues.

    ``later`` is what waits for its time, e.g. the next attempt; ``oldest`` is when the oldest that
    is due was put there. Empty before the first start of the gateway.
    """
    status = workflows.table(connection, workflows.STATUS)
    if status is None:
        return []
    question = (
        "SELECT COALESCE(queue_name, 'none') AS queue, status, count(*) AS number, "  # noqa: S608
        f"min(created_at) AS oldest FROM {status} "
        "WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') GROUP BY queue_name, status"
    )
    rows = connection.execute(text(question))
    names = {"ENQUEUED": "waiting", "PENDING": "running", "DELAYED": "later"}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        queue = found.setdefault(
            row.queue,
            {"queue": row.queue, "waiting": 0, "running": 0, "later": 0, "oldest": None},
        )
        queue[names[row.status]] = int(row.number)
        if row.status != "DELAYED":
            oldest = timestamp(datetime.fromtimestamp(int(row.oldest) / 1000, UTC))
            queue["oldest"] = min(queue["oldest"] or oldest, oldest)
    return sorted(found.values(), key=lambda queue: str(queue["queue"]))


def waiting(connection: Connection) -> list[dict[str, Any]]:
    """Return ``what``, ``number`` and ``oldest``: when what waits longest began to wait."""
    asked: dict[str, Any] = {
        "images of studies that are not complete": select(
            func.count(), func.min(instance.c.received_at)
        ).where(instance.c.generation.is_(None)),
        "analyses": select(func.count(), func.min(analysis.c.content_datetime)).where(
            analysis.c.state == "planned"
        ),
        "deliveries": select(func.count(), func.min(delivery.c.created_at)).where(
            delivery.c.state == "waiting"
        ),
        "proofs of delivery": select(func.count(), func.min(delivery.c.changed_at)).where(
            delivery.c.state == "sent"
        ),
        "messages": select(func.count(), func.min(notification.c.created_at)).where(
            notification.c.state == "waiting"
        ),
        "results that a rule holds": select(func.count(), func.min(delivery.c.created_at)).where(
            delivery.c.state == "held"
        ),
    }
    answer = []
    for what, statement in asked.items():
        number, oldest = connection.execute(statement).one()
        answer.append({"what": what, "number": int(number), "oldest": oldest})
    return answer


def states(connection: Connection) -> dict[str, dict[str, int]]:
    """Return how many deliveries and how many messages are in which state."""
    return {
        "delivery": _by_state(connection, delivery.c.state),
        "message": _by_state(connection, notification.c.state),
    }


def _by_state(connection: Connection, state: Any) -> dict[str, int]:
    rows = connection.execute(select(state, func.count()).group_by(state).order_by(state))
    return {str(name): int(number) for name, number in rows}


def outcomes(connection: Connection) -> dict[str, int]:
    """Return how many analyses came to which outcome, or failed."""
    ended = func.coalesce(analysis.c.outcome, analysis.c.state)
    rows = connection.execute(
        select(ended, func.count())
        .where(analysis.c.state.in_(("done", "withdrawn", "failed")))
        .group_by(ended)
    )
    return {str(name): int(number) for name, number in rows}


def dead_letters(connection: Connection, limit: int) -> tuple[int, Rows]:
    """Return how many deliveries and messages only a person takes up, and the newest of them.

    Columns ``study_instance_uid``, ``peer``, ``kind`` (``hl7`` for a message), ``state``,
    ``attempts``, ``detail`` and ``changed_at``.
    """
    parts = (
        select(
            result.c.study_instance_uid,
            delivery.c.destination.label("peer"),
            result.c.kind,
            delivery.c.state,
            delivery.c.attempts,
            delivery.c.detail,
            delivery.c.changed_at,
        )
        .join(result, result.c.sop_instance_uid == delivery.c.sop_instance_uid)
        .where(delivery.c.state.in_(DEAD)),
        select(
            result.c.study_instance_uid,
            notification.c.receiver.label("peer"),
            literal("hl7").label("kind"),
            notification.c.state,
            notification.c.attempts,
            notification.c.detail,
            notification.c.changed_at,
        )
        .join(result, result.c.sop_instance_uid == notification.c.sop_instance_uid)
        .where(notification.c.state.in_(DEAD)),
    )
    dead = union_all(*parts).subquery()
    number = connection.execute(select(func.count()).select_from(dead)).scalar_one()
    newest = select(dead).order_by(dead.c.changed_at.desc(), dead.c.peer).limit(limit)
    return int(number), connection.execute(newest).all()


def dead_studies(connection: Connection) -> list[str]:
    """Return the studies that have dead letters."""
    part = (
        select(result.c.study_instance_uid)
        .join(delivery, delivery.c.sop_instance_uid == result.c.sop_instance_uid)
        .where(delivery.c.state.in_(DEAD))
    ).union(
        select(result.c.study_instance_uid)
        .join(notification, notification.c.sop_instance_uid == result.c.sop_instance_uid)
        .where(notification.c.state.in_(DEAD))
    )
    return sorted(connection.execute(part).scalars())


def peers(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return ``last_success``, ``waiting``, ``dead``, ``detail`` and ``failed_at`` by peer.

    ``detail`` is that of the newest failure that has not been overcome, ``failed_at`` its time.
    """
    found: dict[str, dict[str, Any]] = {}
    for table, peer in (
        (delivery, delivery.c.destination),
        (notification, notification.c.receiver),
    ):
        rows = connection.execute(
            select(peer, table.c.state, func.count(), func.max(table.c.changed_at)).group_by(
                peer, table.c.state
            )
        )
        for name, state, number, newest in rows:
            one = found.setdefault(name, dict(NOTHING_SENT))
            if state in ("sent", "delivered", "told"):
                one["last_success"] = max(one["last_success"] or newest, newest)
            elif state == "waiting":
                one["waiting"] += int(number)
            elif state in DEAD:
                one["dead"] += int(number)
        failed = connection.execute(
            select(peer, table.c.detail, table.c.changed_at)
            .where(table.c.state.in_(("waiting", *DEAD)), table.c.detail.is_not(None))
            .order_by(table.c.changed_at)
        )
        for name, detail, moment in failed:
            found[name].update(detail=detail, failed_at=moment)
    return found


def plain(detail: str | None) -> str:
    """Return the detail of a failure without what others wrote: they may have named a patient."""
    return _QUOTED.sub(" (with a comment)", detail or "")
