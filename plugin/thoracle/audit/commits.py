"""Rows and their events, written together: each function here is one transaction of a workflow.

They take an open connection and plain values, and return plain values, because a checkpoint keeps
their result as JSON.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from thoracle.audit import trail
from thoracle.records import BundleIdentity, Outcome, Reading, study_outcome
from thoracle.settings import Deliver
from thoracle.store import instances, results
from thoracle.store.results import AnalysisKey, Result
from thoracle.store.tables import now, timestamp


def plan(
    connection: Connection, study_instance_uid: str, digest: str, workflow_id: str
) -> dict[str, Any] | None:
    """Make a new generation of a study; return its number and priority, or ``None``."""
    made = instances.plan(connection, study_instance_uid, digest, now())
    if made is None:
        return None
    trail.record(
        connection,
        trail.Event.STUDY_COMPLETE,
        {
            **_study(connection, study_instance_uid),
            "correlation_id": workflow_id,
            "detail": {"generation": made.generation, "images": made.images},
        },
    )
    return {"generation": made.generation, "priority": made.priority}


def begin(connection: Connection, key: AnalysisKey, digest: str) -> dict[str, Any]:
    """Return the sources to read, none when a later generation covers them, and the predecessor.

    When the bundle was exchanged since the plan was made, the analysis is handed over to the one
    with ``digest``.
    """
    answer: dict[str, Any] = {"digest": digest, "sources": [], "predecessor": None}
    if key.bundle_digest != digest:
        results.hand_over(connection, key, digest)
    elif results.is_superseded(connection, key):
        results.end_analysis(connection, key, "superseded")
        trail.record(
            connection,
            trail.Event.ANALYSIS_SUPERSEDED,
            {
                **_study(connection, key.study_instance_uid),
                "bundle_digest": key.bundle_digest,
                "detail": {"generation": key.generation},
            },
        )
    else:
        rows = instances.sources(connection, key.study_instance_uid, key.generation)
        answer["sources"] = [list(row) for row in rows]
        previous = results.predecessor(connection, key)
        if previous is not None:
            answer["predecessor"] = [
                previous.sop_class_uid,
                previous.sop_instance_uid,
                previous.series_instance_uid,
            ]
    return answer


def conclude(
    connection: Connection,
    key: AnalysisKey,
    bundle: BundleIdentity,
    readings: Sequence[Reading],
    made: Result,
    destinations: Sequence[str],
    workflow_id: str,
) -> None:
    """Record what was read, what was made of it and who is to get it."""
    outcome, probability = _summary(readings)
    results.end_analysis(connection, key, "done", outcome, probability)
    results.add_readings(connection, key, readings, bundle.decision.threshold)
    results.add_result(connection, key, made, destinations)
    columns: trail.Columns = {
        **_study(connection, key.study_instance_uid),
        "bundle_digest": bundle.digest,
        "bundle_version": f"{bundle.name} {bundle.version}"[:64],
        "correlation_id": workflow_id,
        "result_sop_instance_uid": made.sop_instance_uid,
    }
    for reading in readings:
        trail.record(
            connection,
            trail.Event.IMAGE_READ,
            {
                **columns,
                **_reading(reading),
            },
        )
    trail.record(
        connection,
        trail.Event.RESULT_CREATED,
        {
            **columns,
            "outcome": outcome,
            "probability": probability,
            "detail": {"generation": key.generation, "kind": made.kind, "sha256": made.sha256},
        },
    )


def fail(connection: Connection, key: AnalysisKey, detail: str, workflow_id: str) -> None:
    """Record that a study gets no answer, unless its analysis has ended already."""
    if results.analysis_row(connection, key).state != "planned":
        return
    results.end_analysis(connection, key, "failed")
    trail.record(
        connection,
        trail.Event.ANALYSIS_FAILED,
        {
            **_study(connection, key.study_instance_uid),
            "event_outcome": trail.SERIOUS_FAILURE,
            "bundle_digest": key.bundle_digest,
            "correlation_id": workflow_id,
            "detail": {"generation": key.generation, "detail": detail},
        },
    )


def attempted(
    connection: Connection,
    destination: str,
    sop_instance_uid: str,
    attempt: int,
    answer: dict[str, Any],
    settings: Deliver,
    workflow_id: str,
) -> float | None:
    """Record what an attempt to deliver came to; return the seconds until the next, if any.

    ``answer`` holds columns of ``delivery``. The delay doubles with each attempt up to the
    longest one, and the ladder ends when the result is older than ``give_up_days``.
    """
    row = results.delivery_row(connection, sop_instance_uid, destination)
    delay = None
    if answer["state"] == "waiting":
        delay = _delay(attempt, settings)
        end = datetime.fromisoformat(row.created_at) + timedelta(days=settings.give_up_days)
        if datetime.now(UTC) + timedelta(seconds=delay) > end:
            delay, answer = None, {**answer, "state": "failed"}
    due = delay and timestamp(datetime.now(UTC) + timedelta(seconds=delay))
    values = {**answer, "attempts": attempt, "next_attempt_at": due}
    results.record_attempt(connection, sop_instance_uid, destination, values)
    event, event_outcome = _ATTEMPT_EVENTS[answer["state"]]
    study = results.result_row(connection, sop_instance_uid).study_instance_uid
    trail.record(
        connection,
        event,
        {
            **_study(connection, study),
            "event_outcome": event_outcome,
            "result_sop_instance_uid": answer.get("delivered_sop_instance_uid") or sop_instance_uid,
            "destination": destination,
            "proof": answer.get("proof"),
            "status": answer.get("status"),
            "correlation_id": workflow_id,
            "detail": {"attempt": attempt, "detail": answer["detail"]},
        },
    )
    return delay


_ATTEMPT_EVENTS = {
    "delivered": (trail.Event.DELIVERY_SUCCEEDED, trail.SUCCESS),
    "waiting": (trail.Event.DELIVERY_POSTPONED, trail.MINOR_FAILURE),
    "refused": (trail.Event.DELIVERY_FAILED, trail.SERIOUS_FAILURE),
    "failed": (trail.Event.DELIVERY_FAILED, trail.SERIOUS_FAILURE),
}


def _delay(attempt: int, settings: Deliver) -> float:
    doubled = settings.first_delay_seconds * 2.0 ** min(attempt - 1, 30)
    delay = min(doubled, settings.longest_delay_seconds)
    return delay * (1 + settings.jitter * random.uniform(-1, 1))  # noqa: S311 - no secret


def _summary(readings: Sequence[Reading]) -> tuple[Outcome, float | None]:
    """Return the study's outcome, and the highest probability of the images that made it."""
    outcome = study_outcome(readings)
    probabilities = [
        reading.probability
        for reading in readings
        if reading.outcome is outcome and reading.probability is not None
    ]
    return outcome, max(probabilities, default=None)


def _reading(reading: Reading) -> trail.Columns:
    return {
        "sop_instance_uid": reading.sop_instance_uid,
        "outcome": reading.outcome,
        "probability": reading.probability,
        "reason_code": reading.reason.code.value if reading.reason else None,
        "seconds": round(sum(reading.seconds.values()), 4),
        "detail": {"detail": reading.detail, "seconds": reading.seconds},
    }


def _study(connection: Connection, study_instance_uid: str) -> trail.Columns:
    row = instances.study_row(connection, study_instance_uid)
    return {
        "study_instance_uid": study_instance_uid,
        "patient_id": row.patient_id,
        "issuer_of_patient_id": row.issuer_of_patient_id,
        "accession_number": row.accession_number,
    }
