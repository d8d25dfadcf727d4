"""Single rows of the trail, and its two ends: quick however long it is."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from thoracle.audit.query import told
from thoracle.store import chain
from thoracle.store.tables import audit_event


@dataclass(frozen=True, slots=True)
class Ends:
    """Where the trail begins and ends."""

    rows: int
    """From the last purge to the end of the chain; held rows from before it come on top."""
    first_id: int | None = None
    first_at: str | None = None
    """ISO 8601 in UTC."""
    last_id: int | None = None
    last_at: str | None = None


def event_row(connection: Connection, row_id: int) -> dict[str, Any] | None:
    """Return an event without its empty columns, if there is that row."""
    statement = select(audit_event).where(audit_event.c.id == row_id)
    row = connection.execute(statement).mappings().first()
    return None if row is None else told(row)


def ends(connection: Connection) -> Ends:
    """Return where the trail begins and ends."""
    column = audit_event.c
    statement = select(column.id, column.recorded_at).limit(1)
    first = connection.execute(statement.order_by(column.id)).first()
    last = connection.execute(statement.order_by(column.id.desc())).first()
    rows = chain.head(connection)[0] - chain.checkpoint(connection)[0]
    if first is None or last is None:
        return Ends(rows)
    return Ends(rows, first.id, first.recorded_at, last.id, last.recorded_at)
