"""What the rules decided, and who is told: rows and events written together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from thoracle.audit import commits, deliveries, trail
from thoracle.settings import Deliver
from thoracle.store import deliveries as stored
from thoracle.store import instances, notifications, results, worklist
from thoracle.store.results import AnalysisKey

HELD, SHADOW, RELEASED = "held", "shadow", "released"
"""What becomes of an analysis whose objects are not sent at once."""


def decided(
    connection: Connection,
    key: AnalysisKey,
    routing: dict[str, Any],
    sending: str | None,
    columns: trail.Columns,
) -> None:
    """Record what the rules say about a study, and why."""
    results.routed(connection, key, routing, sending)
    trail.record(
        connection,
        trail.Event.RULES_DECIDED,
        {**columns, "detail": {"generation": key.generation, "sending": sending, **routing}},
    )


def pass_on(
    connection: Connection,
    key: AnalysisKey,
    sop_instance_uids: Iterable[str],
    destinations: Sequence[str],
    state: str,
) -> list[tuple[str, str]]:
    """Record that destinations are to get received images; return the new pairs of both."""
    if not destinations:
        return []
    wanted = set(sop_instance_uids)
    rows = instances.sources(connection, key.study_instance_uid, key.generation)
    return [
        (name, row.sop_instance_uid)
        for row in rows
        if row.sop_instance_uid in wanted
        for name in results.pass_on(connection, key, row, destinations, state)
    ]


def release(connection: Connection, study_instance_uid: str, user_id: str) -> dict[str, Any] | None:
    """Release a study that is held, if it is.

    Returns a dictionary: ``deliveries``, pairs of destination and object, and ``notifications``,
    pairs of receiver and report, that now wait to be sent.
    """
    row = results.held(connection, study_instance_uid)
    if row is None:
        return None
    key = AnalysisKey(study_instance_uid, row.generation, row.bundle_digest)
    results.routed(connection, key, row.routing, RELEASED)
    worklist.touch(connection, study_instance_uid)
    trail.record(
        connection,
        trail.Event.STUDY_RELEASED,
        {
            **commits.of_study(connection, study_instance_uid),
            "bundle_digest": row.bundle_digest,
            "user_id": user_id,
            "detail": {"generation": row.generation},
        },
    )
    return {
        "deliveries": stored.release(connection, study_instance_uid),
        "notifications": notifications.release(connection, study_instance_uid),
    }


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
        values, delay = deliveries.postponed(row, attempt, values, settings)
    notifications.set_row(connection, sop_instance_uid, receiver, {**values, "attempts": attempt})
    event, event_outcome = _STATES[values["state"]]
    trail.record(
        connection,
        event,
        {
            **commits.of_study(connection, row.study_instance_uid),
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
