"""Whether the index of who saw which study is what the events say that it was made from."""

from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, select

from thoracle.store import chain
from thoracle.store.tables import audit_event, audit_view
from thoracle.store.trail import VIEWS
from thoracle.store.views import LONGEST_UID

BATCH = 1000
"""Events that are read at a time."""


def faults(database: Engine) -> Iterator[str]:
    """Yield which events are found for other studies than they showed."""
    after = 0
    while True:
        with database.connect() as connection:
            after = max(after, chain.checkpoint(connection)[0])
            told = _told(connection, after)
            indexed = _indexed(connection, after, max(told, default=after))
        if not told:
            return
        for row_id in sorted(told.keys() | indexed.keys()):
            if told.get(row_id, set()) != indexed.get(row_id, set()):
                yield f"row {row_id}: the index of who saw which study is not what it says"
        after = max(told)


def _told(connection: Connection, after: int) -> dict[int, set[str]]:
    """Return the studies that the next events showed, by row."""
    column = audit_event.c
    statement = (
        select(column.id, column.detail)
        .where(column.id > after, column.event.in_([one.verb for one in VIEWS]))
        .order_by(column.id)
        .limit(BATCH)
    )
    found = {}
    for row in connection.execute(statement):
        studies = row.detail.get("studies") if isinstance(row.detail, dict) else None
        some = studies if isinstance(studies, list) else []
        found[row.id] = {str(one)[:LONGEST_UID] for one in some if one}
    return found


def _indexed(connection: Connection, after: int, last: int) -> dict[int, set[str]]:
    """Return what the index has of the rows in between."""
    column = audit_view.c
    found: dict[int, set[str]] = defaultdict(set)
    statement = select(audit_view).where(column.event_id > after, column.event_id <= last)
    for row in connection.execute(statement):
        found[row.event_id].add(row.study_instance_uid)
    return found
