"""What an analysis was made of and what came of it, to run it again; and that somebody did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from thoracle.audit import query, starts
from thoracle.errors import ThoracleError
from thoracle.records import Kind
from thoracle.store import trail
from thoracle.store.tables import analysis, instance, reading, result
from thoracle.study import analyses, results

_MADE = tuple(kind.value for kind in (Kind.SR, Kind.SC, Kind.PR, Kind.KO, Kind.SEG))
SAME, DIFFERENT, IMPOSSIBLE = "same", "different", "impossible"
"""What comes of a replay."""
_EVENT_OUTCOMES = {
    SAME: trail.SUCCESS,
    DIFFERENT: trail.SERIOUS_FAILURE,
    IMPOSSIBLE: trail.MINOR_FAILURE,
}


@dataclass(frozen=True)
class Stored:
    """An analysis that ended with a result."""

    analysis: Row[Any]
    images: Sequence[Row[Any]]
    """The versions that were there when it ended, in the order in which they were read."""
    readings: Sequence[Row[Any]]
    objects: Sequence[Row[Any]]
    """What was made of it, the report first; nothing that a withdrawal made."""
    predecessor: tuple[str, str, str] | None
    """The report that it replaced: class, instance and series."""
    made_with: Mapping[str, str]
    """As :class:`thoracle.records.Reading` has it; empty when it was not recorded then."""
    bundle_version: str
    settings: Mapping[str, str] | None
    """Digests of the settings of the start before it, by name, as far as they were recorded."""

    @property
    def key(self) -> results.AnalysisKey:
        """Which analysis it is."""
        row = self.analysis
        return results.AnalysisKey(row.study_instance_uid, row.generation, row.bundle_digest)


def stored(connection: Connection, study_instance_uid: str, generation: int | None) -> Stored:
    """Return the newest analysis of a study, or that of a generation.

    Raises
    ------
    ThoracleError
        There is none that ended with a result.
    """
    row = _analysis(connection, study_instance_uid, generation)
    key = results.AnalysisKey(study_instance_uid, row.generation, row.bundle_digest)
    objects = _objects(connection, key)
    report = objects[0] if objects else None
    read = None if report is None else _image_read(connection, study_instance_uid, report)
    return Stored(
        analysis=row,
        images=_images(connection, row),
        readings=_readings(connection, key),
        objects=objects,
        predecessor=None if report is None else _predecessor(connection, report),
        made_with=(read or {}).get("detail", {}).get("made_with") or {},
        bundle_version=str((read or {}).get("bundle_version", "")),
        settings=starts.known(connection, row.finished_at),
    )


def record_replay(
    connection: Connection, of: Stored | None, study: str, outcome: str, what: str, user_id: str
) -> None:
    """Record that an analysis was run again, or that this was not possible.

    ``what`` names objects and elements, never their values.
    """
    columns: trail.Columns = {"study_instance_uid": study}
    detail: dict[str, Any] = {"outcome": outcome, "what": what}
    if of is not None:
        columns = analyses.of_study(connection, study)
        columns["bundle_digest"] = of.analysis.bundle_digest
        detail["generation"] = of.analysis.generation
    event_outcome = _EVENT_OUTCOMES[outcome]
    columns = {**columns, "user_id": user_id, "event_outcome": event_outcome, "detail": detail}
    trail.record(connection, trail.Event.ANALYSIS_REPLAYED, columns)


def _analysis(connection: Connection, study: str, generation: int | None) -> Row[Any]:
    statement = (
        select(analysis)
        .where(analysis.c.study_instance_uid == study, analysis.c.state.in_(("done", "withdrawn")))
        .order_by(analysis.c.generation.desc(), analysis.c.finished_at.desc())
        .limit(1)
    )
    if generation is not None:
        statement = statement.where(analysis.c.generation == generation)
    row = connection.execute(statement).first()
    if row is None:
        which = "" if generation is None else f" of generation {generation}"
        raise ThoracleError(f"{study:.80}: found no analysis{which} with a result, required is one")
    return row


def _images(connection: Connection, of: Row[Any]) -> list[Row[Any]]:
    ours = select(result.c.sop_instance_uid).where(result.c.kind != Kind.ORIGINAL)
    rows = connection.execute(
        select(instance)
        .where(
            instance.c.study_instance_uid == of.study_instance_uid,
            instance.c.generation <= of.generation,
            instance.c.received_at <= of.finished_at,
            instance.c.sop_instance_uid.not_in(ours),
        )
        .order_by(instance.c.sop_instance_uid, instance.c.version)
    )
    return list({row.sop_instance_uid: row for row in rows}.values())


def _readings(connection: Connection, key: results.AnalysisKey) -> Sequence[Row[Any]]:
    return connection.execute(
        select(reading)
        .where(
            reading.c.study_instance_uid == key.study_instance_uid,
            reading.c.generation == key.generation,
            reading.c.bundle_digest == key.bundle_digest,
        )
        .order_by(reading.c.sop_instance_uid)
    ).all()


def _objects(connection: Connection, key: results.AnalysisKey) -> list[Row[Any]]:
    rows = connection.execute(
        select(result)
        .where(
            result.c.study_instance_uid == key.study_instance_uid,
            result.c.generation == key.generation,
            result.c.bundle_digest == key.bundle_digest,
            result.c.kind.in_(_MADE),
        )
        .order_by(result.c.created_at, result.c.sop_instance_uid)
    ).all()
    reports = [row for row in rows if row.kind == Kind.SR]
    # A later report of the same analysis is that of its withdrawal.
    return reports[:1] + [row for row in rows if row.kind != Kind.SR]


def _predecessor(connection: Connection, report: Row[Any]) -> tuple[str, str, str] | None:
    row = connection.execute(
        select(result)
        .where(
            result.c.study_instance_uid == report.study_instance_uid,
            result.c.kind == Kind.SR,
            result.c.created_at < report.created_at,
        )
        .order_by(result.c.generation.desc(), result.c.created_at.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    return row.sop_class_uid, row.sop_instance_uid, row.series_instance_uid


def _image_read(connection: Connection, study: str, report: Row[Any]) -> dict[str, Any] | None:
    question = query.Question(
        study_instance_uid=study,
        event=trail.Event.IMAGE_READ.verb,
        sop_instance_uid=report.sop_instance_uid,
    )
    return next(query.events(connection, question), None)
