"""Workitems of others that we perform: rows and events of the trail, written together."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from thoracle.deliver import attempts
from thoracle.settings import Deliver
from thoracle.store import trail
from thoracle.study import analyses
from thoracle.ups import performance_rows as performances

LOOK_SECONDS, LONGEST_LOOK_SECONDS = 1.0, 10.0
"""Between two looks at whether images or result have come; the first, growing to the longest."""


def looked(connection: Connection, manager: str, found: int, taken: Sequence[str]) -> None:
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
    row = performances.row_of(connection, manager, sop_instance_uid)
    if row is None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        performances.add(connection, manager, sop_instance_uid, transaction_uid)
        _record(connection, manager, sop_instance_uid, None, "claiming", None, workflow_id)
        row = performances.row_of(connection, manager, sop_instance_uid)
    assert row is not None
    return None if row.state in performances.ENDED else dict(row._mapping)


def acted(
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
    row = performances.row_of(connection, manager, sop_instance_uid)
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
    performances.set_row(connection, manager, sop_instance_uid, columns)
    state = columns["state"]
    if state != row.state:
        detail = columns.get("detail")
        _record(connection, manager, sop_instance_uid, row.state, state, detail, workflow_id)
    return None if state in performances.ENDED else delay


def _record(
    connection: Connection,
    manager: str,
    sop_instance_uid: str,
    before: str | None,
    after: str,
    detail: str | None,
    workflow_id: str,
) -> None:
    row = performances.row_of(connection, manager, sop_instance_uid)
    assert row is not None
    study = row.study_instance_uid
    here = study is not None and performances.is_here(connection, study)
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
