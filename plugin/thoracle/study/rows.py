"""Statements about one study: all that its page shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, true

from thoracle.store import bundles
from thoracle.store.bundles import KnownBundle
from thoracle.store.tables import analysis, instance, reading, result, study, worklist
from thoracle.study import instances
from thoracle.study.published import KEPT_BACK, is_of_published

MOST_PREVIOUS = 20
"""Earlier and later studies of a patient that are shown."""


@dataclass(frozen=True, slots=True)
class StudyRows:
    """One study: its rows, as they are in the tables of these names."""

    study: Row[Any]
    listed: Row[Any] | None
    """Its row of the worklist."""
    analysis: Row[Any] | None
    """The newest that was not superseded."""
    shown: Row[Any] | None
    """The newest that has a result, withdrawn or not: what there is to be seen."""
    withheld: str
    """``held`` or ``shadow``: the newest result is kept back from who asks; else empty."""
    images: Sequence[Row[Any]]
    """Instances of the latest generation, the newest version of each."""
    received: int
    """Images received, those too that no generation covers yet."""
    readings: dict[str, Row[Any]]
    """Of ``shown``, by SOP Instance UID."""
    results: Sequence[Row[Any]]
    """Objects of ``shown``, of the oldest first; after a withdrawal those of it, too."""
    model: KnownBundle | None = None
    """That made ``shown``, if anything is kept of it."""


def rows(
    connection: Connection, study_instance_uid: str, *, with_kept_back: bool = False
) -> StudyRows | None:
    """Return the rows of a study, ``None`` when it is not known.

    ``with_kept_back``: for who may know of results that a rule keeps back; for others ``shown`` is
    the newest result that may be told, and ``withheld`` all that is said of a newer one.
    """
    row = connection.execute(
        select(study).where(study.c.study_instance_uid == study_instance_uid)
    ).first()
    if row is None:
        return None
    found = connection.execute(
        select(analysis)
        .where(
            analysis.c.study_instance_uid == study_instance_uid, analysis.c.state != "superseded"
        )
        .order_by(analysis.c.generation.desc(), analysis.c.content_datetime.desc())
    ).all()
    ended = [one for one in found if one.state in ("done", "withdrawn")]
    newest = next(iter(ended), None)
    generation = newest.generation if newest is not None else row.generation
    shown = next((one for one in ended if with_kept_back or one.sending not in KEPT_BACK), None)
    is_withheld = newest is not None and newest is not shown and newest.state == "done"
    digests = [] if shown is None else [shown.bundle_digest]
    return StudyRows(
        study=row,
        listed=connection.execute(
            select(worklist).where(worklist.c.study_instance_uid == study_instance_uid)
        ).first(),
        analysis=found[0] if found else None,
        shown=shown,
        withheld=newest.sending if newest is not None and is_withheld else "",
        images=instances.sources(connection, study_instance_uid, generation),
        received=connection.execute(
            select(func.count(instance.c.sop_instance_uid.distinct())).where(
                instance.c.study_instance_uid == study_instance_uid
            )
        ).scalar_one(),
        readings={} if shown is None else _readings(connection, shown),
        results=() if shown is None else _results(connection, shown),
        model=next(iter(bundles.known(connection, digests).values()), None),
    )


def _readings(connection: Connection, shown: Row[Any]) -> dict[str, Row[Any]]:
    found = connection.execute(
        select(reading).where(
            reading.c.study_instance_uid == shown.study_instance_uid,
            reading.c.generation == shown.generation,
            reading.c.bundle_digest == shown.bundle_digest,
        )
    )
    return {row.sop_instance_uid: row for row in found}


def _results(connection: Connection, shown: Row[Any]) -> Sequence[Row[Any]]:
    return connection.execute(
        select(result)
        .where(
            result.c.study_instance_uid == shown.study_instance_uid,
            result.c.generation == shown.generation,
            result.c.bundle_digest == shown.bundle_digest,
        )
        .order_by(result.c.created_at, result.c.sop_instance_uid)
    ).all()


def state(
    connection: Connection, study_instance_uid: str, *, with_kept_back: bool = False
) -> tuple[str, str] | None:
    """Return what the AI does with a study and its newest report (empty: none); ``None``: unknown.

    What it does is ``queued``, ``running`` or ``done`` (with whatever end). ``with_kept_back``
    is that of :func:`rows`.
    """
    report = (
        select(result.c.sop_instance_uid)
        .where(
            result.c.study_instance_uid == study.c.study_instance_uid,
            result.c.kind == "sr",
            true() if with_kept_back else is_of_published(result),
        )
        .order_by(result.c.generation.desc(), result.c.created_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    found = connection.execute(
        select(
            study.c.generation,
            analysis.c.state,
            worklist.c.ai_state,
            report.label("report"),
        )
        .outerjoin(
            analysis,
            (analysis.c.study_instance_uid == study.c.study_instance_uid)
            & (analysis.c.generation == study.c.generation)
            & (analysis.c.state != "superseded"),
        )
        .outerjoin(worklist, worklist.c.study_instance_uid == study.c.study_instance_uid)
        .where(study.c.study_instance_uid == study_instance_uid)
    ).first()
    if found is None:
        return None
    if found.generation == 0 or found.state == "planned":
        return ("running" if found.ai_state == "running" else "queued"), found.report or ""
    return "done", found.report or ""


def of_patient(connection: Connection, of: Row[Any]) -> list[dict[str, Any]]:
    """Return the other studies of a study's patient, the newest first.

    A Patient ID means somebody only together with its issuer; without one it means nobody.
    """
    if not of.patient_id:
        return []
    statement = (
        select(
            study.c.study_instance_uid,
            study.c.accession_number,
            study.c.first_received_at,
            worklist.c.study_datetime,
            worklist.c.study_description,
            worklist.c.modality,
            worklist.c.ai_state,
            worklist.c.probability,
            worklist.c.reason_code,
            worklist.c.bundle_version,
            worklist.c.finding_name,
            worklist.c.verdict,
        )
        .outerjoin(worklist, worklist.c.study_instance_uid == study.c.study_instance_uid)
        .where(
            study.c.patient_id == of.patient_id,
            func.coalesce(study.c.issuer_of_patient_id, "") == (of.issuer_of_patient_id or ""),
            study.c.study_instance_uid != of.study_instance_uid,
        )
        .order_by(study.c.first_received_at.desc())
        .limit(MOST_PREVIOUS)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]
