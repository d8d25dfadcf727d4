"""Rows and their events, written together: each function here is one transaction of a workflow.

They take an open connection and plain values, and return plain values, because a checkpoint keeps
their result as JSON.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

from thoracle.records import BundleIdentity, Outcome, Reading, Reason, study_outcome
from thoracle.store import trail
from thoracle.store.tables import now
from thoracle.study import instances, reading_list, results
from thoracle.study.published import HELD, KEPT_BACK, SHADOW
from thoracle.study.reconciliation import Patient
from thoracle.study.results import AnalysisKey, ResultObject


def plan(
    connection: Connection,
    study_instance_uid: str,
    digest: str,
    finding: str,
    workflow_id: str,
    user_id: str | None = None,
) -> list[dict[str, Any]]:
    """Make new generations of a study, one a patient; return number, priority and sources of each.

    ``digest`` and ``finding`` are those of the bundle that is to read it.
    ``user_id`` is who asked for the study to be read again, though nothing new has come.
    """
    plans = instances.plan(
        connection, study_instance_uid, digest, finding, now(), again=user_id is not None
    )
    return [_planned(connection, study_instance_uid, one, workflow_id, user_id) for one in plans]


def _planned(
    connection: Connection,
    study_instance_uid: str,
    made: instances.Plan,
    workflow_id: str,
    user_id: str | None,
) -> dict[str, Any]:
    reading_list.set_state(connection, study_instance_uid, reading_list.QUEUED)
    if made.generation > 1:  # there will be another result, of which nobody has judged anything
        reading_list.reopen(connection, study_instance_uid)
    trail.record(
        connection,
        trail.Event.STUDY_COMPLETE,
        {
            **of_study(connection, study_instance_uid, made.generation),
            "user_id": user_id,
            "correlation_id": workflow_id,
            "detail": {"generation": made.generation, "images": made.images},
        },
    )
    rows = instances.sources(connection, study_instance_uid, made.generation)
    return {
        "generation": made.generation,
        "priority": made.priority,
        "sources": [row.path for row in rows],
    }


def begin(
    connection: Connection, key: AnalysisKey, digest: str, finding: str, workflow_id: str = ""
) -> dict[str, Any]:
    """Return the sources to read, none when a later generation covers them, and the predecessor.

    None either when an image is no longer kept; the analysis has failed then.

    When the bundle was exchanged since the plan was made, the analysis is planned anew for the one
    with ``digest``, which finds ``finding``.
    """
    answer: dict[str, Any] = {"digest": digest, "sources": [], "predecessor": None}
    if key.bundle_digest == digest:
        results.take_over_plan(connection, key, finding)
    row = results.analysis_row(connection, key)
    answer["content_datetime"] = row.content_datetime
    if key.bundle_digest != digest:
        results.replan(connection, key, digest, finding)
    elif results.is_superseded(connection, key):
        results.end_analysis(connection, key, "superseded")
        trail.record(
            connection,
            trail.Event.ANALYSIS_SUPERSEDED,
            {
                **of_study(connection, key.study_instance_uid),
                "bundle_digest": key.bundle_digest,
                "finding": row.finding,
                "detail": {"generation": key.generation},
            },
        )
    elif missing := instances.missing_files(connection, key.study_instance_uid):
        # Of the rest alone something else might be said, in place of the result that stands.
        detail = f"{missing} of its images are no longer kept: send them again, then reanalyse"
        fail(connection, key, Reason.FILE_MISSING, detail, workflow_id)
    else:
        reading_list.set_state(connection, key.study_instance_uid, reading_list.RUNNING)
        images = instances.sources(connection, key.study_instance_uid, key.generation)
        answer["sources"] = [image.path for image in images]
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
    made: Sequence[ResultObject],
    workflow_id: str,
    sending: str | None = None,
) -> trail.Columns:
    """Record what was read, and what was made of it.

    ``sending`` is ``held`` or ``shadow`` when a rule keeps the result back. Returns the columns
    that further events of this result have alike.
    """
    outcome, probability = _summary(readings)
    results.end_analysis(connection, key, "done", outcome, probability, sending)
    results.add_readings(connection, key, bundle.finding.key, readings, bundle.decision.threshold)
    version = f"{bundle.name} {bundle.version}"[:64]
    for reading in readings:
        if reading.frames_sha256:
            uid, frames = reading.sop_instance_uid, reading.frames_sha256
            instances.set_frames(connection, key.study_instance_uid, uid, frames)
    list_result(
        connection,
        key,
        _reason_code(outcome, readings),
        bundle_version=version,
        finding=bundle.finding.key,
        finding_name=bundle.finding.short_name,
    )
    columns: trail.Columns = {
        **of_study(connection, key.study_instance_uid, key.generation),
        "bundle_digest": bundle.digest,
        "bundle_version": version,
        "finding": bundle.finding.key,
        "correlation_id": workflow_id,
    }
    # The report comes first, and is what an image's reading became.
    report = made[0].sop_instance_uid
    for reading in readings:
        trail.record(
            connection,
            trail.Event.IMAGE_READ,
            {
                **columns,
                "result_sop_instance_uid": report,
                **_reading(reading, bundle),
            },
        )
    columns = {**columns, "outcome": outcome, "probability": probability}
    for result in made:
        add_result(connection, key, result, columns)
    return columns


def list_result(
    connection: Connection, key: AnalysisKey, reason_code: str | None, **columns: str
) -> None:
    """Have the worklist say what may be told of the newest results of a study.

    ``reason_code`` says why the images of this analysis were rejected, if they were; ``columns``
    are more of the row, of the model.
    """
    row = results.analysis_row(connection, key)
    current = [(row, reason_code)]
    current += [(one, None) for one in results.of_other_patients(connection, key)]
    told = [(one, reason) for one, reason in current if one.sending not in KEPT_BACK]
    values: dict[str, Any] = dict.fromkeys(("probability", "threshold", "reason_code"))
    if told:
        shown, reason = max(told, key=lambda one: _urgency(one[0]))
        state = shown.outcome
        values["probability"], values["reason_code"] = shown.probability, reason
        values["threshold"] = results.threshold(connection, key)
    else:
        state = HELD if any(one.sending == HELD for one, _ in current) else SHADOW
    reading_list.set_state(connection, key.study_instance_uid, state, **values, **columns)


def add_result(
    connection: Connection, key: AnalysisKey, made: ResultObject, columns: trail.Columns
) -> None:
    """Record an object that was made."""
    results.add_result(connection, key, made)
    trail.record(
        connection,
        trail.Event.RESULT_CREATED,
        {
            **columns,
            "result_sop_instance_uid": made.sop_instance_uid,
            "detail": {"generation": key.generation, "kind": made.kind, "sha256": made.sha256},
        },
    )


def fail(
    connection: Connection, key: AnalysisKey, reason: Reason, detail: str, workflow_id: str
) -> None:
    """Record that a study gets no answer, and why, unless its analysis has ended already."""
    row = results.analysis_row(connection, key)
    if row.state != "planned":
        return
    results.end_analysis(connection, key, "failed")
    reading_list.set_state(
        connection,
        key.study_instance_uid,
        reading_list.FAILED,
        probability=None,
        reason_code=reason.code.value,
    )
    trail.record(
        connection,
        trail.Event.ANALYSIS_FAILED,
        {
            **of_study(connection, key.study_instance_uid),
            "event_outcome": trail.SERIOUS_FAILURE,
            "bundle_digest": key.bundle_digest,
            "finding": row.finding,
            "reason_code": reason.code.value,
            "correlation_id": workflow_id,
            "detail": {"generation": key.generation, "detail": detail},
        },
    )


def _summary(readings: Sequence[Reading]) -> tuple[Outcome, float | None]:
    """Return the study's outcome, and the highest probability of the images that made it."""
    outcome = study_outcome(readings)
    probabilities = [
        reading.probability
        for reading in readings
        if reading.outcome is outcome and reading.probability is not None
    ]
    return outcome, max(probabilities, default=None)


def _reason_code(outcome: Outcome, readings: Sequence[Reading]) -> str | None:
    """Return why a study was rejected, by its first image."""
    told = [one.reason.code.value for one in readings if one.outcome is outcome and one.reason]
    return told[0] if told else None


def _reading(reading: Reading, bundle: BundleIdentity) -> trail.Columns:
    return {
        "sop_instance_uid": reading.sop_instance_uid,
        "outcome": reading.outcome,
        "probability": reading.probability,
        "reason_code": reading.reason.code.value if reading.reason else None,
        "seconds": round(sum(reading.seconds.values()), 4),
        "detail": {
            "detail": reading.detail,
            "finding": bundle.finding.name,
            "threshold": bundle.decision.threshold,
            "seconds": reading.seconds,
            "made_with": reading.made_with,
        },
    }


_URGENCY = [Outcome.NEGATIVE, Outcome.REJECTED, Outcome.INDETERMINATE, Outcome.POSITIVE]
"""Of several patients in one study the list shows the last of these."""


def _urgency(row: Row[Any]) -> tuple[int, float]:
    return _URGENCY.index(Outcome(row.outcome)), row.probability or 0.0


def of_study(
    connection: Connection, study_instance_uid: str, generation: int | None = None
) -> trail.Columns:
    """Return the columns that say whose study, or whose generation of it, an event is about."""
    row: Any = instances.study_row(connection, study_instance_uid)
    patient = Patient.of(row)
    if generation is not None:
        patient = instances.patient_of(connection, study_instance_uid, generation) or patient
    return {
        "study_instance_uid": study_instance_uid,
        "patient_id": patient.patient_id,
        "issuer_of_patient_id": patient.issuer,
        "accession_number": row.accession_number,
    }
