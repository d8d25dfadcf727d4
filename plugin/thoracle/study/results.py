"""Statements about what was concluded."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, insert, select, update

from thoracle.records import Kind, Outcome, Reading
from thoracle.store.tables import analysis, now, reading, result
from thoracle.study.published import HELD
from thoracle.study.reconciliation import Patient, grouped, is_merged


@dataclass(frozen=True, slots=True)
class AnalysisKey:
    """Which run of which model on which set of images; what a model finds follows from it."""

    study_instance_uid: str
    generation: int
    bundle_digest: str


@dataclass(frozen=True, slots=True)
class ResultObject:
    """An object that we made; its file is fsynced."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    kind: Kind
    path: str
    """Below the data folder."""
    sha256: str
    """Hexadecimal, of the file."""


def _is(key: AnalysisKey) -> Any:
    return (
        (analysis.c.study_instance_uid == key.study_instance_uid)
        & (analysis.c.generation == key.generation)
        & (analysis.c.bundle_digest == key.bundle_digest)
    )


def analysis_row(connection: Connection, key: AnalysisKey) -> Row[Any]:
    """Return the row of an analysis that exists."""
    return connection.execute(_ANALYSIS, asdict(key)).one()


_ANALYSIS = select(analysis).where(
    *(analysis.c[one.name] == bindparam(one.name) for one in fields(AnalysisKey))
)


def planned(connection: Connection) -> set[AnalysisKey]:
    """Return the analyses that have not ended."""
    columns = (analysis.c.study_instance_uid, analysis.c.generation, analysis.c.bundle_digest)
    statement = select(*columns).where(analysis.c.state == "planned")
    return {AnalysisKey(*row) for row in connection.execute(statement)}


def is_superseded(connection: Connection, key: AnalysisKey) -> bool:
    """Return whether the study has gone on to a later generation of the same patient."""
    row = analysis_row(connection, key)
    later = connection.execute(
        select(analysis.c.patient_id, analysis.c.issuer_of_patient_id).where(
            analysis.c.study_instance_uid == key.study_instance_uid,
            analysis.c.generation > key.generation,
        )
    ).all()
    return row.state == "superseded" or any(_is_same(row, one) for one in later)


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two analyses are of one patient; old ones are of all patients of a study."""
    if one.patient_id is None or other.patient_id is None:
        return True
    return Patient.of(one).is_same(Patient.of(other))


def of_other_patients(connection: Connection, key: AnalysisKey) -> list[Row[Any]]:
    """Return the newest result of each other patient of a study."""
    row = analysis_row(connection, key)
    rows = connection.execute(
        select(analysis)
        .where(analysis.c.study_instance_uid == key.study_instance_uid, analysis.c.state == "done")
        .order_by(analysis.c.generation.desc())
    ).all()
    others = [one for one in rows if not _is_same(row, one)]
    return [members[0] for _, members in grouped(others)]


def supersede(connection: Connection, study_instance_uid: str) -> None:
    """End the analyses of a study that are only planned: its patients are reconciled meanwhile."""
    connection.execute(
        update(analysis)
        .where(analysis.c.study_instance_uid == study_instance_uid, analysis.c.state == "planned")
        .values(state="superseded", finished_at=now())
    )


def end_analysis(
    connection: Connection,
    key: AnalysisKey,
    state: str,
    outcome: Outcome | None = None,
    probability: float | None = None,
    sending: str | None = None,
) -> None:
    """Set the end of an analysis: ``done``, ``superseded`` or ``failed``.

    ``sending`` is ``held`` or ``shadow`` when a rule keeps the result back.
    """
    connection.execute(
        update(analysis)
        .where(_is(key))
        .values(
            state=state,
            outcome=outcome,
            probability=probability,
            sending=sending,
            finished_at=now(),
        )
    )


def withdraw(connection: Connection, key: AnalysisKey) -> None:
    """Mark an analysis as withdrawn; what it found stays."""
    connection.execute(update(analysis).where(_is(key)).values(state="withdrawn"))


def replan(connection: Connection, key: AnalysisKey, bundle_digest: str, finding: str) -> None:
    """End an analysis that waits for a bundle which is gone, and plan it for another one."""
    row = analysis_row(connection, key)
    end_analysis(connection, key, "superseded")
    connection.execute(
        insert(analysis).values(
            study_instance_uid=key.study_instance_uid,
            generation=key.generation,
            bundle_digest=bundle_digest,
            finding=finding,
            state="planned",
            priority=row.priority,
            content_datetime=row.content_datetime,
            patient_id=row.patient_id,
            issuer_of_patient_id=row.issuer_of_patient_id,
        )
    )


def take_over_plan(connection: Connection, key: AnalysisKey, finding: str) -> None:
    """Plan an analysis anew that was planned for a bundle which went before it was queued."""
    rows = connection.execute(
        select(analysis.c.bundle_digest, analysis.c.state).where(
            analysis.c.study_instance_uid == key.study_instance_uid,
            analysis.c.generation == key.generation,
        )
    ).all()
    if key.bundle_digest in {row.bundle_digest for row in rows}:
        return
    for row in rows:
        if row.state == "planned":
            planned_as = replace(key, bundle_digest=row.bundle_digest)
            replan(connection, planned_as, key.bundle_digest, finding)


def newest_report(connection: Connection, study_instance_uid: str) -> Row[Any] | None:
    """Return the newest report on a study, a withdrawal too, if there is one."""
    return connection.execute(_reports(study_instance_uid).limit(1)).first()


def _reports(study_instance_uid: str) -> Select[Any]:
    return (
        select(result)
        .where(result.c.study_instance_uid == study_instance_uid, result.c.kind == Kind.SR)
        .order_by(result.c.generation.desc(), result.c.created_at.desc())
    )


def predecessor(connection: Connection, key: AnalysisKey) -> Row[Any] | None:
    """Return the report that a new one replaces: the newest on the patient's images of the study.

    When a person said that its patients are the same one, it is the newest of all.
    """
    merged = is_merged(connection, key.study_instance_uid)
    row = analysis_row(connection, key)
    for report in connection.execute(_reports(key.study_instance_uid)):
        of = AnalysisKey(key.study_instance_uid, report.generation, report.bundle_digest)
        if merged or _is_same(row, analysis_row(connection, of)):
            return report
    return None


def standing(connection: Connection, study_instance_uid: str) -> Row[Any] | None:
    """Return the newest report on a study, if it is one that a withdrawal would take back."""
    report = newest_report(connection, study_instance_uid)
    if report is None:
        return None
    key = AnalysisKey(study_instance_uid, report.generation, report.bundle_digest)
    return report if analysis_row(connection, key).state == "done" else None


def add_readings(
    connection: Connection,
    key: AnalysisKey,
    finding: str,
    readings: Sequence[Reading],
    threshold: float,
) -> None:
    """Record what was said about the finding in each image."""
    connection.execute(
        insert(reading),
        [
            {
                "study_instance_uid": key.study_instance_uid,
                "generation": key.generation,
                "bundle_digest": key.bundle_digest,
                "finding": finding,
                "sop_instance_uid": one.sop_instance_uid,
                "outcome": one.outcome,
                "reason_code": one.reason.code.value if one.reason else None,
                "reason_scheme": one.reason.code.scheme if one.reason else None,
                "detail": one.detail,
                "probability": one.probability,
                "threshold": threshold,
                "seconds": one.seconds,
                "features": one.features or None,
            }
            for one in readings
        ],
    )


def add_result(connection: Connection, key: AnalysisKey, made: ResultObject) -> None:
    """Record an object that we made, or pass on."""
    connection.execute(insert(result), {**asdict(key), **asdict(made), "created_at": now()})


def add_original(connection: Connection, key: AnalysisKey, image: Row[Any]) -> None:
    """Record a received image as an object that is passed on, if it is none yet."""
    known = select(result.c.sop_instance_uid).where(
        result.c.sop_instance_uid == image.sop_instance_uid
    )
    if connection.execute(known).first() is not None:
        return
    original = ResultObject(
        sop_instance_uid=image.sop_instance_uid,
        sop_class_uid=image.sop_class_uid,
        series_instance_uid=image.series_instance_uid,
        kind=Kind.ORIGINAL,
        path=image.path,
        sha256=image.sha256,
    )
    add_result(connection, key, original)


def routed(
    connection: Connection, key: AnalysisKey, routing: dict[str, Any], sending: str | None
) -> None:
    """Record what the rules decided about an analysis."""
    values = {"routing": routing, "sending": sending}
    connection.execute(update(analysis).where(_is(key)).values(values))


def held(connection: Connection, study_instance_uid: str) -> Row[Any] | None:
    """Return the newest analysis of a study, if it is held."""
    row = connection.execute(
        select(analysis)
        .where(
            analysis.c.study_instance_uid == study_instance_uid, analysis.c.state != "superseded"
        )
        .order_by(analysis.c.generation.desc())
        .limit(1)
    ).first()
    return row if row is not None and (row.state, row.sending) == ("done", HELD) else None


def threshold(connection: Connection, key: AnalysisKey) -> float | None:
    """Return the decision threshold of an analysis."""
    return connection.execute(_readings(key, reading.c.threshold).limit(1)).scalar()


def reason_code(connection: Connection, key: AnalysisKey) -> str | None:
    """Return why an analysis rejected the study, by its first image; ``None``: it did not."""
    row = analysis_row(connection, key)
    if row.outcome != Outcome.REJECTED:
        return None
    rejected = _readings(key, reading.c.reason_code).where(reading.c.reason_code.is_not(None))
    return connection.execute(rejected.order_by(reading.c.sop_instance_uid).limit(1)).scalar()


def _readings(key: AnalysisKey, column: Any) -> Select[Any]:
    return select(column).where(
        reading.c.study_instance_uid == key.study_instance_uid,
        reading.c.generation == key.generation,
        reading.c.bundle_digest == key.bundle_digest,
    )


def digests(connection: Connection, study_instance_uids: Sequence[str]) -> dict[str, str]:
    """Return which bundle made the newest result of each of the studies that have one."""
    statement = (
        select(analysis.c.study_instance_uid, analysis.c.bundle_digest)
        .where(
            analysis.c.study_instance_uid.in_(study_instance_uids),
            analysis.c.state.in_(("done", "withdrawn")),
        )
        .order_by(analysis.c.generation, analysis.c.content_datetime)
    )
    return {row.study_instance_uid: row.bundle_digest for row in connection.execute(statement)}
