"""Which studies somebody means: by Study Instance UID, Accession Number or Patient ID."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, or_, select, union

from thoracle.store.tables import audit_event, study, timestamp, worklist
from thoracle.store.trail import Event

_CAME = tuple(
    event.verb
    for event in (
        Event.INSTANCE_STORED,
        Event.INSTANCE_DUPLICATE,
        Event.INSTANCE_CORRECTED,
        Event.INSTANCE_REFUSED,
    )
)
"""Events of images that came. Others have what somebody asked for, whether it came or not."""
_UID = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True, slots=True)
class NamedStudy:
    """A study, with what tells it from others; empty texts where its rows are not kept."""

    study_instance_uid: str
    accession_number: str = ""
    patient_id: str = ""
    state: str = ""
    """Of the worklist."""
    changed_at: str = ""
    """Empty for a study that is known from the audit log alone: refused, or no longer kept."""


def is_uid(text: str) -> bool:
    """Return whether a text can be nothing but a UID: numbers with dots between them."""
    return _UID.fullmatch(text) is not None


def studies(connection: Connection, text: str) -> list[NamedStudy]:
    """Return the studies that have a text as one of the three, those received last first.

    What is known from the audit log alone is returned only where no study was received.
    """
    received = _received(connection, _named(connection, text))
    if exact := [one for one in received if one.study_instance_uid == text]:
        return exact
    if received:
        return received
    event = audit_event.c
    names = (event.study_instance_uid, event.accession_number, event.patient_id)
    found = union(
        *(
            select(event.study_instance_uid).where(
                name == text, event.study_instance_uid.is_not(None), event.event.in_(_CAME)
            )
            for name in names
        )
    )
    return [NamedStudy(uid) for uid in sorted(connection.execute(found).scalars())]


def last_associations(connection: Connection) -> dict[str, str]:
    """Return by calling AE title how its newest association of 30 days went, as a phrase."""
    since = timestamp(datetime.now(UTC) - timedelta(days=30))
    event = audit_event.c
    verbs = (Event.ASSOCIATION_ACCEPTED.verb, Event.ASSOCIATION_REFUSED.verb)
    newest = (
        select(func.max(event.id))
        .where(event.event.in_(verbs), event.recorded_at >= since)
        .group_by(event.calling_ae_title)
    )
    names = (event.calling_ae_title, event.event, event.recorded_at, event.network_address)
    rows = connection.execute(select(*names, event.detail).where(event.id.in_(newest)))
    return {
        row.calling_ae_title: _association(row) for row in rows if row.calling_ae_title is not None
    }


def _association(row: Any) -> str:
    accepted = row.event == Event.ASSOCIATION_ACCEPTED.verb
    reason = f": {row.detail['reason']}" if not accepted and row.detail.get("reason") else ""
    came = f" from {row.network_address}" if row.network_address else ""
    how = "accepted" if accepted else "refused"
    return f"{how}{came}, {row.recorded_at[:16].replace('T', ' ')} UTC{reason}"


def number_received(connection: Connection) -> int:
    """Return how many studies there are to be found."""
    return connection.execute(select(func.count()).select_from(study)).scalar_one()


def _named(connection: Connection, text: str) -> list[str]:
    """Return the studies that have a text as one of the three now, or had by the audit log."""
    column, event = study.c, audit_event.c
    now = select(column.study_instance_uid).where(
        or_(
            column.study_instance_uid == text,
            column.accession_number == text,
            column.patient_id == text,
        )
    )
    # One of several patients of a study, or a number that was corrected since.
    once = (
        select(event.study_instance_uid).where(
            name == text, event.study_instance_uid.is_not(None), event.event.in_(_CAME)
        )
        for name in (event.accession_number, event.patient_id)
    )
    return list(connection.execute(union(now, *once)).scalars())


def _received(connection: Connection, uids: Iterable[str]) -> list[NamedStudy]:
    column = study.c
    statement = (
        select(
            column.study_instance_uid,
            column.accession_number,
            column.patient_id,
            worklist.c.ai_state,
            column.changed_at,
        )
        .outerjoin(worklist, worklist.c.study_instance_uid == column.study_instance_uid)
        .where(column.study_instance_uid.in_(list(uids)))
        .order_by(column.changed_at.desc())
    )
    return [NamedStudy(*(value or "" for value in row)) for row in connection.execute(statement)]
