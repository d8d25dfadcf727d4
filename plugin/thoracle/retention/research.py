"""Statements for research: what the model said of images, and what readers said of that."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from thoracle.store.tables import analysis, instance, reading, verdict, worklist

Place = tuple[str, int, str, str]
"""Study, generation, bundle and image: the key of a reading."""
FIRST: Place = ("", 0, "", "")


def readings(
    connection: Connection, since: str | None, until: str | None, after: Place, limit: int
) -> Sequence[Row[Any]]:
    """Return readings behind one, by their key, at most so many; each with its study's verdict.

    Parameters
    ----------
    since, until
        Of the end of the analysis: ISO 8601 in UTC, the second exclusive.
    after
        Key of the last reading of the piece before.
    """
    key = (
        reading.c.study_instance_uid,
        reading.c.generation,
        reading.c.bundle_digest,
        reading.c.sop_instance_uid,
    )
    newest = (
        select(
            verdict.c.study_instance_uid,
            verdict.c.generation,
            verdict.c.bundle_digest,
            func.max(verdict.c.id).label("id"),
        )
        .group_by(verdict.c.study_instance_uid, verdict.c.generation, verdict.c.bundle_digest)
        .subquery()
    )
    patient = (
        select(instance.c.sop_instance_uid, func.max(instance.c.version).label("version"))
        .group_by(instance.c.sop_instance_uid)
        .subquery()
    )
    statement = (
        select(
            *key,
            reading.c.finding,
            reading.c.outcome,
            reading.c.probability,
            reading.c.threshold,
            reading.c.reason_code,
            reading.c.reason_scheme,
            reading.c.seconds,
            reading.c.features,
            analysis.c.state,
            analysis.c.outcome.label("study_outcome"),
            analysis.c.probability.label("study_probability"),
            analysis.c.finished_at,
            instance.c.patient_id,
            instance.c.issuer_of_patient_id,
            worklist.c.device,
            worklist.c.modality,
            verdict.c.opinion,
            verdict.c.person,
        )
        .join(analysis, _same(analysis, reading))
        .outerjoin(patient, patient.c.sop_instance_uid == reading.c.sop_instance_uid)
        .outerjoin(
            instance,
            and_(
                instance.c.sop_instance_uid == patient.c.sop_instance_uid,
                instance.c.version == patient.c.version,
            ),
        )
        .outerjoin(worklist, worklist.c.study_instance_uid == reading.c.study_instance_uid)
        .outerjoin(newest, _same(newest, reading))
        .outerjoin(verdict, verdict.c.id == newest.c.id)
        .where(_behind(key, after))
        .order_by(*key)
        .limit(limit)
    )
    if since is not None:
        statement = statement.where(analysis.c.finished_at >= since)
    if until is not None:
        statement = statement.where(analysis.c.finished_at < until)
    found: Sequence[Row[Any]] = connection.execute(statement).all()  # type: ignore[assignment]  # of many columns
    return found


def _same(one: Any, other: Any) -> Any:
    """Return the condition that two rows are of one result."""
    names = ("study_instance_uid", "generation", "bundle_digest")
    return and_(*(one.c[name] == other.c[name] for name in names))


def _behind(key: Sequence[Any], after: Place) -> Any:
    """Return the condition that a key is greater than another, column by column."""
    first, *rest = key
    if not rest:
        return first > after[0]
    behind = _behind(rest, after[1:])  # type: ignore[arg-type]  # one shorter each time
    return (first > after[0]) | ((first == after[0]) & behind)
