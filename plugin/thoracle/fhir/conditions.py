"""Which resources of the FHIR interface are wanted: a search, and the conditions that it makes."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select
from sqlalchemy import true as everything

from thoracle.fhir.status import STANDING, STATUS, UPDATED
from thoracle.records import Kind
from thoracle.store.tables import result, study

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
