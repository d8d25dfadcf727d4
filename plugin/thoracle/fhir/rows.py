"""Statements behind the FHIR interface: one row a study, and what belongs to a page of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, false, func, or_, select
from sqlalchemy import true as everything
from sqlalchemy.sql.selectable import FromClause

from thoracle.records import Finding, Kind
from thoracle.store import bundles
from thoracle.store.bundles import KnownBundle
from thoracle.store.tables import (
    analysis,
    instance,
    reading,
    result,
    study,
    worklist,
)
from thoracle.study.published import is_of_analysis, is_published

# ---- status --------------------------------------------------------------------------------------
# What stands of a study's analyses, and the status of each resource that follows from it.
#
# Two analyses matter for each study. The *newest* tells what becomes of it. The *standing* one is
# the newest that has said something (it may be withdrawn since) to people outside: a result that
# a rule keeps back is told to nobody (study/published.py), and so not here.

NEWEST = analysis.alias("newest")
STANDING = analysis.alias("standing")
_earlier = analysis.alias("earlier")


JOINED: FromClause = (
    study.outerjoin(worklist, worklist.c.study_instance_uid == study.c.study_instance_uid)
    .outerjoin(
        NEWEST,
        (NEWEST.c.study_instance_uid == study.c.study_instance_uid)
        & (NEWEST.c.generation == study.c.generation)
        & (NEWEST.c.state != "superseded"),
    )
    .outerjoin(
        STANDING,
        (STANDING.c.study_instance_uid == study.c.study_instance_uid)
        & is_published(STANDING)
        & (
            STANDING.c.generation
            == select(func.max(_earlier.c.generation))
            .where(
                _earlier.c.study_instance_uid == study.c.study_instance_uid, is_published(_earlier)
            )
            .correlate(study)
            .scalar_subquery()
        ),
    )
)
"""Each study with its place in the worklist, its newest and its standing analysis."""

REPORT_STATUS = case(
    (STANDING.c.state == "withdrawn", "entered-in-error"),
    (STANDING.c.state == "done", "preliminary"),
    (NEWEST.c.state == "failed", "cancelled"),
    (func.coalesce(NEWEST.c.sending, "") == "shadow", None),
    else_="registered",
)
"""DiagnosticReport.status; NULL: there is none to be told of."""
OBSERVATION_STATUS = case(
    (STANDING.c.state == "withdrawn", "entered-in-error"),
    (STANDING.c.state == "done", "preliminary"),
    else_=None,
)
TASK_STATUS = case(
    (NEWEST.c.state == "failed", "failed"),
    (and_(NEWEST.c.state == "done", NEWEST.c.sending == "held"), "on-hold"),
    (NEWEST.c.state.in_(("done", "withdrawn")), "completed"),
    (worklist.c.ai_state == "running", "in-progress"),
    else_="requested",
)
STATUS: dict[str, ColumnElement[Any]] = {
    "DiagnosticReport": REPORT_STATUS,
    "Observation": OBSERVATION_STATUS,
    "Task": TASK_STATUS,
    "ImagingStudy": case((study.c.generation >= 0, "available"), else_=None),
}


def _later(one: Any, other: Any) -> ColumnElement[Any]:
    """Return the later of two times; PostgreSQL and SQLite name such a function differently."""
    return case((func.coalesce(other, "") > one, other), else_=one)


UPDATED = _later(_later(study.c.changed_at, worklist.c.changed_at), NEWEST.c.finished_at)


# ---- conditions ----------------------------------------------------------------------------------
# Which resources of the FHIR interface are wanted: a search, and the conditions that it makes.

DICOM_UID, OID = "urn:dicom:uid", "urn:oid:"


@dataclass(frozen=True, slots=True)
class Token:
    """A value to match, and whose it is (R4 3.1.1.4.10)."""

    system: str | None
    """``None``: of any; empty: of none."""
    code: str


@dataclass(frozen=True, slots=True)
class Search:
    """Which resources are wanted: each entry of a list must hold, by one of its alternatives."""

    type: str
    """``DiagnosticReport``, ``ImagingStudy``, ``Observation`` or ``Task``."""
    ids: tuple[tuple[str, ...], ...] = ()
    identifiers: tuple[tuple[Token, ...], ...] = ()
    studies: tuple[tuple[Token, ...], ...] = ()
    """Identifiers of the study that a resource refers to."""
    accessions: tuple[tuple[Token, ...], ...] = ()
    """Of the order."""
    patients: tuple[tuple[Token, ...], ...] = ()
    statuses: tuple[tuple[str, ...], ...] = ()
    updated: tuple[tuple[str, str], ...] = ()
    """``>=`` or ``<`` and a point in time as it is stored."""
    after: tuple[str, str] | None = None
    """Arrival and Study Instance UID of the last row of the page before."""


def where(statement: Select[Any], search: Search) -> Select[Any]:
    """Return a statement on ``JOINED`` with the conditions of a search."""
    status = STATUS[search.type]
    conditions: list[ColumnElement[bool]] = [status.is_not(None)]
    conditions += [study.c.study_instance_uid.in_(ids) for ids in search.ids]
    conditions += [or_(*(_identified(search.type, t) for t in some)) for some in search.identifiers]
    conditions += [or_(*map(_of_study, some)) for some in search.studies]
    conditions += [or_(*map(_ordered, some)) for some in search.accessions]
    conditions += [or_(*map(_patient, some)) for some in search.patients]
    conditions += [status.in_(some) for some in search.statuses]
    for comparison, moment in search.updated:
        conditions.append(moment <= UPDATED if comparison == ">=" else moment > UPDATED)
    return statement.where(*conditions)


def _identified(type_: str, token: Token) -> ColumnElement[bool]:
    """Return whether a token is one of the identifiers that fhir/resources.py gives a resource."""
    alternatives = [_of_study(token)]
    if type_ in ("DiagnosticReport", "Observation") and token.system in (None, DICOM_UID):
        reports = select(result.c.study_instance_uid).where(
            result.c.sop_instance_uid == token.code.removeprefix(OID),
            result.c.kind == Kind.SR,
            result.c.study_instance_uid == study.c.study_instance_uid,
            result.c.generation == STANDING.c.generation,
        )
        alternatives.append(reports.correlate(study, STANDING).exists())
    if type_ in ("ImagingStudy", "Task"):
        alternatives.append(_ordered(token))
    return or_(*alternatives)


def _of_study(token: Token) -> ColumnElement[bool]:
    if token.system not in (None, DICOM_UID):
        return false()
    if not token.code:
        return everything()
    return study.c.study_instance_uid == token.code.removeprefix(OID)


def _ordered(token: Token) -> ColumnElement[bool]:
    if token.system or not token.code:  # no system is known of accession numbers
        return false()
    return study.c.accession_number == token.code


def _patient(token: Token) -> ColumnElement[bool]:
    issuer = func.coalesce(study.c.issuer_of_patient_id, "")
    is_patient = study.c.patient_id == token.code if token.code else everything()
    if token.system is None:
        return is_patient
    return and_(is_patient, issuer.in_((token.system, token.system.removeprefix(OID))))


# ---- pieces --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Study:
    """A study with all that its resources say."""

    row: Row[Any]
    reports: Sequence[Row[Any]] = ()
    """Those that were told, oldest first: SOP Instance UID and generation."""
    readings: Sequence[Row[Any]] = ()
    """Of the standing analysis."""
    images: Sequence[Row[Any]] = ()
    model: KnownBundle | None = None
    """Of the standing analysis; where there is none, of the newest."""

    @property
    def finding(self) -> Finding | None:
        """What that model finds."""
        return self.model.finding if self.model else None


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
    NEWEST.c.bundle_digest.label("newest_digest"),
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
    models = bundles.known(connection, filter(None, map(_digest, rows)))
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
            models.get(_digest(row) or ""),
        )
        for row in rows
    ]


def _digest(row: Row[Any]) -> str | None:
    digest: str | None = row.bundle_digest or row.newest_digest
    return digest


def _by_study(connection: Connection, statement: Select[Any]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.study_instance_uid, []).append(row)
    return found


def _reports(uids: Sequence[str]) -> Select[Any]:
    return (
        select(result.c.study_instance_uid, result.c.sop_instance_uid, result.c.generation)
        .join(analysis, is_of_analysis(result))
        .where(
            result.c.study_instance_uid.in_(uids), result.c.kind == Kind.SR, is_published(analysis)
        )
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
