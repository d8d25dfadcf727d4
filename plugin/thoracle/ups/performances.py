"""Workitems of others that we perform: rows and events of the trail, written together."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from thoracle.outbox import attempts
from thoracle.settings import Deliver
from thoracle.store import trail
from thoracle.store.tables import analysis, instance, now, performance, study
from thoracle.study import analyses

# ---- rows ----------------------------------------------------------------------------------------
# Statements about workitems of others that we perform.

ENDED = ("completed", "canceled", "lost")


def _is(manager: str, sop_instance_uid: str) -> Any:
    return (performance.c.manager == manager) & (performance.c.sop_instance_uid == sop_instance_uid)


def row_of(connection: Connection, manager: str, sop_instance_uid: str) -> Row[Any] | None:
    """Return the row of a performance, if there is one."""
    return connection.execute(select(performance).where(_is(manager, sop_instance_uid))).first()


def add(connection: Connection, manager: str, sop_instance_uid: str, transaction_uid: str) -> None:
    """Record that we are about to claim a workitem, and with which lock."""
    moment = now()
    connection.execute(
        insert(performance).values(
            sop_instance_uid=sop_instance_uid,
            manager=manager,
            transaction_uid=transaction_uid,
            state="claiming",
            inputs=[],
            attempts=0,
            created_at=moment,
            changed_at=moment,
        )
    )


def set_row(
    connection: Connection, manager: str, sop_instance_uid: str, values: Mapping[str, Any]
) -> None:
    """Set columns of a performance."""
    connection.execute(
        update(performance).where(_is(manager, sop_instance_uid)).values(**values, changed_at=now())
    )


def of_study(connection: Connection, *study_instance_uids: str) -> Sequence[Row[Any]]:
    """Return the performances about one study or several, oldest first."""
    return connection.execute(
        select(performance)
        .where(performance.c.study_instance_uid.in_(study_instance_uids))
        .order_by(performance.c.created_at, performance.c.sop_instance_uid)
    ).all()


def is_here(connection: Connection, study_instance_uid: str) -> bool:
    """Return whether anything of a study has been received."""
    statement = select(study.c.generation).where(study.c.study_instance_uid == study_instance_uid)
    return connection.execute(statement).first() is not None


def missing(
    connection: Connection, study_instance_uid: str, sop_instance_uids: Sequence[str]
) -> list[str]:
    """Return those of the images that have not been received."""
    here = select(instance.c.sop_instance_uid).where(
        instance.c.study_instance_uid == study_instance_uid,
        instance.c.sop_instance_uid.in_(sop_instance_uids),
    )
    found = set(connection.execute(here).scalars())
    return [uid for uid in sop_instance_uids if uid not in found]


def analysis_of(
    connection: Connection, study_instance_uid: str, sop_instance_uids: Sequence[str]
) -> Row[Any] | None:
    """Return the newest analysis of a study that covers all of the images, if there is one."""
    first = select(instance.c.sop_instance_uid, func.min(instance.c.generation).label("first"))
    first = first.where(
        instance.c.study_instance_uid == study_instance_uid,
        instance.c.sop_instance_uid.in_(sop_instance_uids),
    ).group_by(instance.c.sop_instance_uid)
    generations = [row.first for row in connection.execute(first)]
    if len(generations) < len(set(sop_instance_uids)) or None in generations:
        return None  # some are not part of a generation yet
    return connection.execute(
        select(analysis)
        .where(
            analysis.c.study_instance_uid == study_instance_uid,
            analysis.c.generation >= max(generations),
            analysis.c.state != "superseded",
        )
        .order_by(analysis.c.generation.desc())
        .limit(1)
    ).first()


# ---- events --------------------------------------------------------------------------------------

LOOK_SECONDS, LONGEST_LOOK_SECONDS = 1.0, 10.0
"""Between two looks at whether images or result have come; the first, growing to the longest."""


def record_poll(connection: Connection, manager: str, found: int, taken: Sequence[str]) -> None:
    """Record that a manager's worklist was queried, how many it named, and which of them we take.

    Of nothing, no event: a look that finds nothing discloses nothing, and comes every few seconds.
    """
    if found:
        detail = {"means": "C-FIND", "found": found, "workitems": list(taken)}
        event = trail.Event.WORKLIST_QUERIED
        trail.record(connection, event, {"destination": manager, "detail": detail})


def begin(
    connection: Connection, manager: str, sop_instance_uid: str, workflow_id: str
) -> dict[str, Any] | None:
    """Return the columns of a performance that goes on; ``None`` when it has ended.

    A new one gets its lock here, before the workitem is claimed: a claim that was sent can so
    be recognised after a crash.
    """
    row = row_of(connection, manager, sop_instance_uid)
    if row is None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        add(connection, manager, sop_instance_uid, transaction_uid)
        _record(connection, manager, sop_instance_uid, None, "claiming", None, workflow_id)
        row = row_of(connection, manager, sop_instance_uid)
    assert row is not None
    return None if row.state in ENDED else dict(row._mapping)


def record_step(
    connection: Connection,
    manager: str,
    sop_instance_uid: str,
    attempt: int,
    values: Mapping[str, Any],
    settings: Deliver,
    workflow_id: str,
) -> float | None:
    """Record what became of a performance; return the seconds until the next look, if any.

    ``values`` holds columns of ``performance``, and ``trouble``: whether the manager could not
    be asked. Then the delay is that of a delivery, and after as many days it is given up.
    """
    row = row_of(connection, manager, sop_instance_uid)
    assert row is not None  # rows are never deleted
    columns = {name: value for name, value in values.items() if name != "trouble"}
    delay: float | None
    if values["trouble"]:
        columns["attempts"] = row.attempts + 1
        delay = attempts.delay_after(row.attempts + 1, settings)
        if attempts.is_old(row.created_at, settings, delay):
            columns["state"] = "lost"
    else:
        columns["attempts"] = 0
        delay = min(LOOK_SECONDS * 1.5 ** min(attempt - 1, 30), LONGEST_LOOK_SECONDS)
    set_row(connection, manager, sop_instance_uid, columns)
    state = columns["state"]
    if state != row.state:
        detail = columns.get("detail")
        _record(connection, manager, sop_instance_uid, row.state, state, detail, workflow_id)
    return None if state in ENDED else delay


def _record(
    connection: Connection,
    manager: str,
    sop_instance_uid: str,
    before: str | None,
    after: str,
    detail: str | None,
    workflow_id: str,
) -> None:
    row = row_of(connection, manager, sop_instance_uid)
    assert row is not None
    study = row.study_instance_uid
    here = study is not None and is_here(connection, study)
    columns: trail.Columns = analyses.of_study(connection, study) if here else {}
    trail.record(
        connection,
        trail.Event.WORKITEM_CHANGED,
        {
            **columns,
            "event_outcome": trail.MINOR_FAILURE if after == "lost" else trail.SUCCESS,
            "sop_instance_uid": sop_instance_uid,
            "destination": manager,
            "correlation_id": workflow_id,
            "detail": {"from": before, "to": after, "detail": detail},
        },
    )
