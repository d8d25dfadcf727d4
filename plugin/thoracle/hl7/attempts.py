"""What an attempt to send a message came to: its row and its event, written together."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from thoracle.deliver import attempts
from thoracle.hl7 import rows as notifications
from thoracle.settings import Deliver
from thoracle.store import trail
from thoracle.study import analyses


def notified(
    connection: Connection,
    receiver: str,
    sop_instance_uid: str,
    attempt: int,
    answer: Mapping[str, Any],
    settings: Deliver,
    workflow_id: str,
) -> float | None:
    """Record what an attempt to tell a receiver came to; return the seconds until the next, if any.

    ``answer`` holds columns of ``notification``.
    """
    row = notifications.row_of(connection, sop_instance_uid, receiver)
    if row.state != "waiting" and answer["state"] == "waiting":
        return None  # withdrawn meanwhile: not tried again
    values, delay = dict(answer), None
    if values["state"] == "waiting":
        values, delay = attempts.postponed(row, attempt, values, settings)
    notifications.set_row(connection, sop_instance_uid, receiver, {**values, "attempts": attempt})
    event, event_outcome = _STATES[values["state"]]
    trail.record(
        connection,
        event,
        {
            **analyses.of_study(connection, row.study_instance_uid),
            "event_outcome": event_outcome,
            "result_sop_instance_uid": sop_instance_uid,
            "destination": receiver,
            "correlation_id": workflow_id,
            "detail": {"attempt": attempt, "detail": values["detail"]},
        },
    )
    return delay


_STATES = {
    "told": (trail.Event.NOTIFICATION_SENT, trail.SUCCESS),
    "waiting": (trail.Event.NOTIFICATION_POSTPONED, trail.MINOR_FAILURE),
    "refused": (trail.Event.NOTIFICATION_FAILED, trail.SERIOUS_FAILURE),
    "failed": (trail.Event.NOTIFICATION_FAILED, trail.SERIOUS_FAILURE),
}
