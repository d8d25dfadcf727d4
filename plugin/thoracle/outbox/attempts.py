"""The state machine: rows and events written together, in the transaction of what was answered.

An item is *sent* when its peer has answered that it took it, and *delivered* when something proves
that it is kept: of an object the archive's commitment, else a query that finds it, else that answer
alone; of a message its acknowledgement. What is found not to be kept is sent again.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from thoracle.outbox import rows as stored
from thoracle.outbox import senders
from thoracle.outbox.rows import ARRIVED, DICOM, Batch
from thoracle.settings import Deliver
from thoracle.store import trail
from thoracle.store.tables import timestamp
from thoracle.study import reading_list
from thoracle.study.analyses import of_study

_DELIVERY = {
    "sent": (trail.Event.DELIVERY_SENT, trail.SUCCESS),
    "delivered": (trail.Event.DELIVERY_SUCCEEDED, trail.SUCCESS),
    "waiting": (trail.Event.DELIVERY_POSTPONED, trail.MINOR_FAILURE),
    "refused": (trail.Event.DELIVERY_FAILED, trail.SERIOUS_FAILURE),
    "failed": (trail.Event.DELIVERY_FAILED, trail.SERIOUS_FAILURE),
}
_NOTIFICATION = {
    "delivered": (trail.Event.NOTIFICATION_SENT, trail.SUCCESS),
    "waiting": (trail.Event.NOTIFICATION_POSTPONED, trail.MINOR_FAILURE),
    "refused": (trail.Event.NOTIFICATION_FAILED, trail.SERIOUS_FAILURE),
    "failed": (trail.Event.NOTIFICATION_FAILED, trail.SERIOUS_FAILURE),
}
LONGEST_STATUS = 8
"""Characters of a status in the trail."""


def answered(
    connection: Connection,
    answers: Mapping[int, Mapping[str, Any]],
    together: Iterable[int],
    settings: Deliver,
    workflow_id: str,
) -> tuple[list[Batch], list[str]]:
    """Record what an attempt came to.

    Parameters
    ----------
    answers
        Columns of each row, by its number; ``state`` and ``detail`` always.
    together
        Rows for which the call as a whole failed: they are tried again in one call. Each of the
        others is tried again alone, so that one which breaks its call holds up no other.

    Returns
    -------
    tuple
        What is to be enqueued for another attempt, and the studies of which something was tried.
    """
    rows = stored.numbered(connection, sorted(answers))
    failed: list[Any] = []
    for row in rows:
        values = {**answers[row.id], "attempts": row.attempts + 1}
        if values["state"] != "waiting":
            stored.set_rows(connection, [row.id], **values, next_attempt_at=None)
            record(connection, row, values, row.attempts + 1, workflow_id)
        elif row.state == "waiting":  # else it was withdrawn meanwhile: not tried again
            stored.set_rows(connection, [row.id], **values)
            failed.append(row)
    shared = set(together)
    groups = [[row for row in failed if row.id in shared]]
    groups += [[row] for row in failed if row.id not in shared]
    again = [one for group in groups for one in postponed(connection, group, settings, workflow_id)]
    return again, sorted({row.study_instance_uid for row in rows if row.study_instance_uid})


def postponed(
    connection: Connection, rows: Sequence[Any], settings: Deliver, workflow_id: str
) -> list[Batch]:
    """Have rows tried again together, later, and give up those that are too old for that.

    The delay doubles with each attempt up to the longest one, and the ladder ends when a row is
    older than ``give_up_days``.
    """
    if not rows:
        return []
    rows = stored.numbered(connection, [row.id for row in rows])  # with what was just recorded
    delay = delay_after(max(row.attempts for row in rows), settings)
    old = {row.id for row in rows if is_old(row.created_at, settings, delay)}
    due = timestamp(datetime.now(UTC) + timedelta(seconds=delay))
    stored.set_rows(connection, old, state="failed", next_attempt_at=None)
    kept = [row for row in rows if row.id not in old]
    stored.set_rows(connection, [row.id for row in kept], state="waiting", next_attempt_at=due)
    for row in rows:
        state = "failed" if row.id in old else "waiting"
        record(connection, row, {**row._mapping, "state": state}, row.attempts, workflow_id)
    return stored.batched(connection, kept, delay)


def is_old(created_at: str, settings: Deliver, in_seconds: float = 0) -> bool:
    """Return whether something will then be older than ``give_up_days``."""
    end = datetime.fromisoformat(created_at) + timedelta(days=settings.give_up_days)
    return datetime.now(UTC) + timedelta(seconds=in_seconds) > end


def delay_after(attempt: int, settings: Deliver) -> float:
    """Return the seconds from a failed attempt to the next."""
    doubled = settings.first_delay_seconds * 2.0 ** min(attempt - 1, 30)
    delay = min(doubled, settings.longest_delay_seconds)
    return delay * (1 + settings.jitter * random.uniform(-1, 1))  # noqa: S311 - no secret


def record(
    connection: Connection, row: Any, values: Mapping[str, Any], attempt: int, workflow_id: str
) -> None:
    """Add the event of what became of a row."""
    if values["state"] in ARRIVED and not senders.of_kind(row.kind).audited:
        return
    study = row.study_instance_uid
    said: dict[str, Any] = {"attempt": attempt, "detail": values["detail"]}
    columns: trail.Columns = of_study(connection, study) if study else {}
    events = _DELIVERY if row.kind == DICOM else _NOTIFICATION
    if row.kind == DICOM:
        said["kind"] = row.object
        reading_list.touch(connection, study)
    else:
        columns["event_type_code"] = row.kind.upper()
    status = (values.get("status") or "").partition(" ")[0].strip(",")[:LONGEST_STATUS]
    uid = values.get("delivered_sop_instance_uid") or row.sop_instance_uid
    event, event_outcome = events[values["state"]]
    trail.record(
        connection,
        event,
        {
            **columns,
            "event_outcome": event_outcome,
            "result_sop_instance_uid": uid,
            "destination": row.peer,
            "proof": values.get("proof"),
            "status": status or None,
            "correlation_id": workflow_id,
            "detail": said,
        },
    )
