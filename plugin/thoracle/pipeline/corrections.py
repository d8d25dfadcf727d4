"""Withdrawals: rows and events written together, each in one transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from thoracle.deliver import attempts
from thoracle.deliver import rows as stored
from thoracle.hl7 import rows as notifications
from thoracle.records import Kind
from thoracle.store import trail
from thoracle.store.tables import now
from thoracle.study import analyses, headers, instances, reading_list, results
from thoracle.study.results import AnalysisKey, Result

AT_ARCHIVE = ("sent", "delivered")
"""States of a delivery whose object the archive has."""
NOT_ARRIVED = ("waiting", "held", "refused", "failed")
"""States of what a withdrawal takes back, so that no retry sends it later."""


def begin(connection: Connection, study_instance_uid: str) -> dict[str, Any] | None:
    """Return what a withdrawal of a study's newest result needs.

    ``None`` when the study has none, it is withdrawn already, or of an image not even the header
    is kept.
    Else: ``generation`` and ``digest`` of the analysis; ``predecessor``, the report, as class,
    instance and series;
    ``made_at``; ``content_datetime`` of the withdrawal, fixed here once; ``sources``, paths;
    ``report_to``, the destinations of the report; ``kept``, for each destination the objects of
    the study that it has, as class, instance and series.
    """
    report = results.standing(connection, study_instance_uid)
    if report is None:
        return None
    key = AnalysisKey(study_instance_uid, report.generation, report.bundle_digest)
    if headers.missing(connection, study_instance_uid):
        return None  # gone since it was asked for: requests.py has seen to the rest
    rows = stored.of_study(connection, study_instance_uid)
    kept: dict[str, list[list[str]]] = {}
    for row in rows:
        if row.state in AT_ARCHIVE and row.kind not in (Kind.REJECTION, Kind.ORIGINAL):
            kept.setdefault(row.destination, []).append(
                [
                    # Rows of the first schema do not say it.
                    row.delivered_sop_class_uid or row.sop_class_uid,
                    row.delivered_sop_instance_uid,
                    row.series_instance_uid,
                ]
            )
    return {
        "generation": key.generation,
        "digest": key.bundle_digest,
        "predecessor": [report.sop_class_uid, report.sop_instance_uid, report.series_instance_uid],
        "made_at": report.created_at,
        "content_datetime": now(),
        "sources": [
            row.path for row in instances.sources(connection, study_instance_uid, key.generation)
        ],
        "report_to": [
            row.destination
            for row in rows
            if row.sop_instance_uid == report.sop_instance_uid
            and row.state in ("waiting", *AT_ARCHIVE)
        ],
        "kept": kept,
    }


def withdrawn(
    connection: Connection,
    key: AnalysisKey,
    made: Sequence[tuple[Result, Sequence[str]]],
    reason: str,
    user_id: str,
    workflow_id: str,
) -> None:
    """Record that a result is withdrawn, and by which objects; take back what was not yet sent."""
    results.withdraw(connection, key)
    reading_list.set_state(connection, key.study_instance_uid, reading_list.WITHDRAWN)
    for row in stored.of_study(connection, key.study_instance_uid):
        if row.state in NOT_ARRIVED and row.kind != Kind.ORIGINAL:
            attempts.withdrawn(connection, row)
    for row in notifications.of_study(connection, key.study_instance_uid):
        if row.state in NOT_ARRIVED:
            values = {"state": "withdrawn", "next_attempt_at": None}
            notifications.set_row(connection, row.sop_instance_uid, row.receiver, values)
    columns: trail.Columns = {
        **analyses.of_study(connection, key.study_instance_uid),
        "bundle_digest": key.bundle_digest,
        "user_id": user_id,
        "correlation_id": workflow_id,
    }
    detail = {"generation": key.generation, "reason": reason}
    trail.record(connection, trail.Event.RESULT_WITHDRAWN, {**columns, "detail": detail})
    for result, destinations in made:
        analyses.add_result(connection, key, result, destinations, columns)


def retried(
    connection: Connection, study_instance_uid: str, user_id: str, workflow_id: str
) -> dict[str, Any]:
    """Take up a study's dead deliveries and notifications again, and record who asked for it.

    Returns a dictionary: ``deliveries``, each destination, object and attempt, and
    ``notifications``, each receiver, report and attempt.
    """
    taken = {
        "deliveries": stored.retry(connection, study_instance_uid),
        "notifications": notifications.retry(connection, study_instance_uid),
    }
    trail.record(
        connection,
        trail.Event.DELIVERY_RETRIED,
        {
            **analyses.of_study(connection, study_instance_uid),
            "user_id": user_id,
            "correlation_id": workflow_id,
            "detail": {name: len(found) for name, found in taken.items()},
        },
    )
    return taken
