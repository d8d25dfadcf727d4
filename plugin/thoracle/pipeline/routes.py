"""What the rules decided, and who is told: rows and events written together."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from thoracle.deliver import rows as stored
from thoracle.hl7 import rows as notifications
from thoracle.store import trail
from thoracle.study import analyses, instances, reading_list, results
from thoracle.study.results import AnalysisKey

HELD, SHADOW, RELEASED = "held", "shadow", "released"
"""What becomes of an analysis whose objects are not sent at once."""


def record_decision(
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


def forward_originals(
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


def release_rows(
    connection: Connection, study_instance_uid: str, user_id: str
) -> dict[str, Any] | None:
    """Release a study that is held, if it is.

    Returns a dictionary: ``deliveries``, pairs of destination and object, and ``notifications``,
    pairs of receiver and report, that now wait to be sent.
    """
    row = results.held(connection, study_instance_uid)
    if row is None:
        return None
    key = AnalysisKey(study_instance_uid, row.generation, row.bundle_digest)
    results.routed(connection, key, row.routing, RELEASED)
    reading_list.touch(connection, study_instance_uid)
    trail.record(
        connection,
        trail.Event.STUDY_RELEASED,
        {
            **analyses.of_study(connection, study_instance_uid),
            "bundle_digest": row.bundle_digest,
            "user_id": user_id,
            "detail": {"generation": row.generation},
        },
    )
    return {
        "deliveries": stored.release(connection, study_instance_uid),
        "notifications": notifications.release(connection, study_instance_uid),
    }
