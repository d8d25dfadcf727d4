"""Statements about work under way: what waits, what is dead, and whom we reach."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, case, func, select, text

from thoracle.outbox.rows import ARRIVED, DEAD, DICOM, NO_STUDY
from thoracle.store import workflows
from thoracle.store.tables import analysis, instance, outbox, result, timestamp
from thoracle.study.published import HELD, KEPT_BACK, is_kept_back, is_of_analysis

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
        "SELECT COALESCE(queue_name, 'none') AS queue, status, count(*) AS number, "  # noqa: S608 - a constant
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
        "deliveries": select(func.count(), func.min(outbox.c.created_at)).where(
            outbox.c.state == "waiting", outbox.c.kind == DICOM
        ),
        "proofs of delivery": select(func.count(), func.min(outbox.c.changed_at)).where(
            outbox.c.state == "sent"
        ),
        "messages": select(func.count(), func.min(outbox.c.created_at)).where(
            outbox.c.state == "waiting", outbox.c.kind != DICOM
        ),
        "results that a rule holds": select(func.count(), func.min(analysis.c.finished_at)).where(
            # No other index than that of what is kept back: most results are done.
            func.coalesce(analysis.c.state, "") == "done",
            analysis.c.sending == HELD,
        ),
    }
    answer = []
    for what, statement in asked.items():
        number, oldest = connection.execute(statement).one()
        answer.append({"what": what, "number": int(number), "oldest": oldest})
    return answer


def states(connection: Connection) -> dict[str, dict[str, int]]:
    """Return how many items of each kind of peer are in which state.

    Those of results that a rule keeps back do not count: how many there are says what they are.
    """
    columns = (outbox.c.kind, outbox.c.state)
    all_ = select(*columns, func.count()).group_by(*columns).order_by(*columns)
    kept_back = (
        all_.join(result, result.c.sop_instance_uid == outbox.c.sop_instance_uid)
        .join(analysis, is_of_analysis(result))
        .where(analysis.c.sending.in_(KEPT_BACK))
    )
    held = {(kind, state): number for kind, state, number in connection.execute(kept_back)}
    found: dict[str, dict[str, int]] = {}
    for kind, state, number in connection.execute(all_.where(outbox.c.state != "held")):
        if told := int(number) - held.get((kind, state), 0):
            found.setdefault(kind, {})[state] = told
    return found


def outcomes(connection: Connection) -> dict[str, int]:
    """Return how many analyses came to which outcome, or failed; or ``held`` or ``shadow``."""
    ended = case(
        (is_kept_back(analysis), analysis.c.sending),
        else_=func.coalesce(analysis.c.outcome, analysis.c.state),
    )
    rows = connection.execute(
        select(ended, func.count())
        .where(analysis.c.state.in_(("done", "withdrawn", "failed")))
        .group_by(ended)
    )
    return {str(name): int(number) for name, number in rows}


def dead_letters(connection: Connection, limit: int) -> tuple[int, Rows]:
    """Return how many items only a person takes up, and the newest of them.

    Columns ``study_instance_uid`` (``NO_STUDY`` for an alarm), ``peer``, ``kind`` (of the object,
    or of the message), ``state``, ``attempts``, ``detail`` and ``changed_at``.
    """
    dead = outbox.c.state.in_(DEAD)
    number = connection.execute(select(func.count()).select_from(outbox).where(dead)).scalar_one()
    newest = (
        select(
            func.coalesce(result.c.study_instance_uid, NO_STUDY).label("study_instance_uid"),
            outbox.c.peer,
            case((outbox.c.kind == DICOM, result.c.kind), else_=outbox.c.kind).label("kind"),
            outbox.c.state,
            outbox.c.attempts,
            outbox.c.detail,
            outbox.c.changed_at,
        )
        .outerjoin(result, result.c.sop_instance_uid == outbox.c.sop_instance_uid)
        .where(dead)
        .order_by(outbox.c.changed_at.desc(), outbox.c.peer)
        .limit(limit)
    )
    return int(number), connection.execute(newest).all()


def dead_studies(connection: Connection) -> list[str]:
    """Return the studies that have dead letters, ``NO_STUDY`` where one is about none."""
    statement = (
        select(func.coalesce(result.c.study_instance_uid, NO_STUDY))
        .select_from(outbox)
        .outerjoin(result, outbox.c.sop_instance_uid == result.c.sop_instance_uid)
        .where(outbox.c.state.in_(DEAD))
        .distinct()
    )
    return sorted(connection.execute(statement).scalars())


def peers(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return ``last_success``, ``waiting``, ``dead``, ``detail`` and ``failed_at`` by peer.

    ``detail`` is that of the newest failure that has not been overcome, ``failed_at`` its time.
    """
    found: dict[str, dict[str, Any]] = {}
    columns = (outbox.c.peer, outbox.c.state)
    rows = connection.execute(
        select(*columns, func.count(), func.max(outbox.c.changed_at)).group_by(*columns)
    )
    for name, state, number, newest in rows:
        one = found.setdefault(name, dict(NOTHING_SENT))
        if state in ARRIVED:
            one["last_success"] = max(one["last_success"] or newest, newest)
        elif state == "waiting":
            one["waiting"] += int(number)
        elif state in DEAD:
            one["dead"] += int(number)
    failed = connection.execute(
        select(outbox.c.peer, outbox.c.detail, outbox.c.changed_at)
        .where(outbox.c.state.in_(("waiting", *DEAD)), outbox.c.detail.is_not(None))
        .order_by(outbox.c.changed_at)
    )
    for name, detail, moment in failed:
        found[name].update(detail=detail, failed_at=moment)
    return found


def plain(detail: str | None) -> str:
    """Return the detail of a failure without what others wrote: they may have named a patient."""
    return _QUOTED.sub(" (with a comment)", detail or "")
