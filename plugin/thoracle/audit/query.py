"""Questions to the trail."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from thoracle.store.tables import audit_event


@dataclass(frozen=True, slots=True)
class Question:
    """Which events are wanted; fields that are ``None`` do not restrict."""

    study_instance_uid: str | None = None
    patient_id: str | None = None
    accession_number: str | None = None
    since: str | None = None
    """ISO 8601 in UTC, inclusive; a prefix such as ``2026-11`` will do."""
    until: str | None = None
    """ISO 8601 in UTC, exclusive."""


def events(connection: Connection, question: Question) -> Iterator[dict[str, Any]]:
    """Yield the matching events, oldest first, without their empty columns."""
    column = audit_event.c
    statement = select(audit_event).order_by(column.id)
    for name in ("study_instance_uid", "patient_id", "accession_number"):
        value = getattr(question, name)
        if value is not None:
            statement = statement.where(column[name] == value)
    if question.since is not None:
        statement = statement.where(column.recorded_at >= question.since)
    if question.until is not None:
        statement = statement.where(column.recorded_at < question.until)
    for row in connection.execute(statement).mappings():
        yield {name: value for name, value in row.items() if value not in (None, "", {})}
