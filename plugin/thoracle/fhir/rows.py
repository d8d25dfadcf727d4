"""Statements behind the FHIR interface: one row a study, and what belongs to a page of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from thoracle.fhir.conditions import Search, where
from thoracle.fhir.status import (
    JOINED,
    NEWEST,
    OBSERVATION_STATUS,
    REPORT_STATUS,
    STANDING,
    TASK_STATUS,
    UPDATED,
    is_told,
)
from thoracle.records import Kind
from thoracle.store.tables import (
    analysis,
    audit_event,
    instance,
    reading,
    result,
    study,
    worklist,
)


@dataclass(frozen=True, slots=True)
class Study:
    """A study with all that its resources say."""

    row: Row[Any]
    reports: Sequence[Row[Any]] = ()
    """Those that were told, oldest first: SOP Instance UID and generation."""
    readings: Sequence[Row[Any]] = ()
    """Of the standing analysis."""
    images: Sequence[Row[Any]] = ()
    bundle: str | None = None
    """Name and version of the model of the standing analysis."""


_columns = (
    study.c.study_instance_uid,
    study.c.patient_id,
    study.c.issuer_of_patient_id,
    study.c.accession_number,
    study.c.first_received_at,
    worklist.c.patient_name,
    worklist.c.modality,
    worklist.c.study_description,
    worklist.c.study_datetime,
    worklist.c.urgency,
    NEWEST.c.state.label("newest_state"),
    NEWEST.c.sending.label("newest_sending"),
    NEWEST.c.priority,
    STANDING.c.generation,
    STANDING.c.bundle_digest,
    STANDING.c.state,
    STANDING.c.outcome,
    STANDING.c.probability,
    STANDING.c.finished_at,
    REPORT_STATUS.label("report_status"),
    OBSERVATION_STATUS.label("observation_status"),
    TASK_STATUS.label("task_status"),
    UPDATED.label("updated"),
)


def count(connection: Connection, search: Search) -> int:
    """Return how many resources a search finds, on all its pages."""
    statement = where(select(func.count()).select_from(JOINED), search)
    return int(connection.execute(statement).scalar_one())


def page(connection: Connection, search: Search, limit: int) -> list[Study]:
    """Return at most so many studies that a search finds, the last to arrive first.

    The number of statements does not depend on how many there are.
    """
    statement = where(select(*_columns).select_from(JOINED), search)
    if search.after is not None:
        arrived, uid = search.after
        statement = statement.where(
            or_(
                study.c.first_received_at < arrived,
                and_(
                    study.c.first_received_at == arrived,
                    study.c.study_instance_uid < uid,
                ),
            )
        )
    order = (study.c.first_received_at.desc(), study.c.study_instance_uid.desc())
    rows = connection.execute(statement.order_by(*order).limit(limit)).all()
    return _with_details(connection, rows)


def _with_details(connection: Connection, rows: Sequence[Row[Any]]) -> list[Study]:
    uids = [row.study_instance_uid for row in rows]
    reports = _by_study(connection, _reports(uids))
    readings = _by_study(connection, _readings(uids))
    images = _by_study(connection, _images(uids))
    bundles = _bundles(connection, [row.bundle_digest for row in rows if row.bundle_digest], uids)
    return [
        Study(
            row,
            reports.get(row.study_instance_uid, ()),
            [
                one
                for one in readings.get(row.study_instance_uid, ())
                if (one.generation, one.bundle_digest) == (row.generation, row.bundle_digest)
            ],
            images.get(row.study_instance_uid, ()),
            bundles.get(row.bundle_digest),
        )
        for row in rows
    ]


def _by_study(connection: Connection, statement: Select[Any]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.study_instance_uid, []).append(row)
    return found


def _reports(uids: Sequence[str]) -> Select[Any]:
    return (
        select(result.c.study_instance_uid, result.c.sop_instance_uid, result.c.generation)
        .join(
            analysis,
            (analysis.c.study_instance_uid == result.c.study_instance_uid)
            & (analysis.c.generation == result.c.generation)
            & (analysis.c.bundle_digest == result.c.bundle_digest),
        )
        .where(result.c.study_instance_uid.in_(uids), result.c.kind == Kind.SR, is_told(analysis))
        .order_by(result.c.generation, result.c.created_at)
    )


def _readings(uids: Sequence[str]) -> Select[Any]:
    columns = reading.c
    return (
        select(
            columns.study_instance_uid,
            columns.generation,
            columns.bundle_digest,
            columns.outcome,
            columns.reason_code,
            columns.reason_scheme,
            columns.detail,
            columns.threshold,
        )
        .where(columns.study_instance_uid.in_(uids))
        .order_by(columns.sop_instance_uid)
    )


def _images(uids: Sequence[str]) -> Select[Any]:
    ours = select(result.c.sop_instance_uid).where(result.c.kind != Kind.ORIGINAL)
    columns = (
        instance.c.study_instance_uid,
        instance.c.series_instance_uid,
        instance.c.sop_instance_uid,
        instance.c.sop_class_uid,
    )
    return (
        select(*columns)
        .where(instance.c.study_instance_uid.in_(uids), instance.c.sop_instance_uid.not_in(ours))
        .distinct()
        .order_by(instance.c.series_instance_uid, instance.c.sop_instance_uid)
    )


def _bundles(connection: Connection, digests: Sequence[str], uids: Sequence[str]) -> dict[str, str]:
    """Return name and version of models by their digest, as the trail has them."""
    statement = (
        select(audit_event.c.bundle_digest, audit_event.c.bundle_version)
        .where(
            audit_event.c.study_instance_uid.in_(uids),
            audit_event.c.bundle_digest.in_(digests),
            audit_event.c.bundle_version.is_not(None),
        )
        .distinct()
    )
    return {row.bundle_digest: row.bundle_version for row in connection.execute(statement)}
