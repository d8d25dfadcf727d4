"""Rows of the trail of which an erasure replaced what names a patient, in a chain that holds.

The digest of such a row stays, because those behind it have it in theirs; its content fits it no
longer. So a record in ``audit_erased`` has a digest of what is in the row now and of the row
before, and the event of the erasure, which is in the chain, has a digest of all of its records. A
row that was changed by anybody else has no such record, or its record no such event.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Text, cast, delete, func, insert, literal_column, select, update

from thoracle.store import chain
from thoracle.store.tables import audit_erased, audit_event
from thoracle.store.trail import Columns, Event, record

_EVENT = chain.COLUMNS.index("event")
_DETAIL = chain.COLUMNS.index("detail")
_NONE = hashlib.sha256().hexdigest()
Replacements = Mapping[int, Mapping[str, Any]]
"""New values of columns by the id of a row."""


def _nothing() -> None:
    """Do nothing."""


def replace(
    connection: Connection,
    replacements: Replacements,
    columns: Columns,
    delete_rows: Callable[[], None] = _nothing,
) -> None:
    """Replace what is in rows, and record the erasure at the end of the chain.

    To be called in a transaction that keeps others from writing.

    Parameters
    ----------
    columns
        Of its event; the detail gets ``rows`` and ``digest``.
    delete_rows
        Deletes what else is erased. From the first row replaced to the event, triggers let it.
    """
    event_id = chain.head(connection)[0] + 1
    records = hashlib.sha256()
    for row_id in sorted(replacements):
        digest = _replace_one(connection, row_id, event_id, replacements[row_id])
        records.update(_line(row_id, digest))
    delete_rows()
    detail = {
        **columns.get("detail", {}),
        "rows": len(replacements),
        "digest": records.hexdigest(),
    }
    record(connection, Event.PATIENT_ERASED, {**columns, "detail": detail})


def _replace_one(
    connection: Connection, row_id: int, event_id: int, values: Mapping[str, Any]
) -> str:
    previous = chain.digest_at(connection, row_id - 1) or chain.checkpoint(connection)[1]
    names = [
        _as_text(connection) if one == "detail" else audit_event.c[one] for one in chain.COLUMNS
    ]
    found = connection.execute(select(*names).where(audit_event.c.id == row_id)).one()
    content = list(found)
    for name, value in values.items():
        text = json.dumps(value) if name == "detail" else value
        content[chain.COLUMNS.index(name)] = text
    digest = chain.digest_of(previous, content)
    connection.execute(insert(audit_erased).values(row_id=row_id, event_id=event_id, digest=digest))
    connection.execute(update(audit_event).where(audit_event.c.id == row_id).values(**values))
    return digest


def _as_text(connection: Connection) -> Any:
    is_sqlite = connection.dialect.name == "sqlite"
    return literal_column("detail" if is_sqlite else "detail::text", Text)


def _line(row_id: int, digest: str) -> bytes:
    return f"{row_id} {digest}\n".encode()


def forget(connection: Connection, up_to: int) -> None:
    """Delete the records of erasures whose event has gone from the trail."""
    connection.execute(delete(audit_erased).where(audit_erased.c.event_id <= up_to))


# ---- verification ----------------------------------------------------------------------------


class Records:
    """The records of all erasures, to be held against the rows and events of a chain."""

    def __init__(self, connection: Connection) -> None:
        table = audit_erased.c
        statement = select(table.event_id, table.row_id, table.digest)
        self._now: dict[int, str] = {}
        self._digests: dict[int, Any] = {}
        for event_id, row_id, digest in connection.execute(
            statement.order_by(table.event_id, table.row_id)
        ):
            if event_id > row_id:  # else no event behind the row names it: somebody put it in
                self._now[row_id] = digest  # the newest erasure counts
            self._digests.setdefault(event_id, hashlib.sha256()).update(_line(row_id, digest))

    def has(self, row_id: int, digest: str) -> bool:
        """Return whether an erasure left a row with such content."""
        return self._now.get(row_id) == digest

    def fault(self, row: Sequence[Any]) -> str:
        """Return what is wrong with the records of an erasure, given its event; else nothing."""
        if row[_EVENT] != Event.PATIENT_ERASED.verb:
            return ""
        found = self._digests.pop(int(row[0]), hashlib.sha256()).hexdigest()
        if json.loads(row[_DETAIL]).get("digest", _NONE) == found:
            return ""
        return "it is an erasure, and the records of its rows are not those that it names"

    def unnamed(self, begin_id: int) -> int | None:
        """Return the first event behind a row that records name and the chain has not."""
        return min((one for one in self._digests if one > begin_id), default=None)


# ---- search ----------------------------------------------------------------------------------


def naming(connection: Connection, texts: Sequence[str], after: int = 0) -> Iterator[int]:
    """Yield rows behind one in whose detail one of these texts may stand; it reads all.

    Whatever the case of its letters in ASCII, which is all that databases compare alike.
    """
    detail = func.lower(cast(audit_event.c.detail, Text))
    for text in texts:
        escaped = json.dumps(text)[1:-1].lower()
        statement = select(audit_event.c.id).where(
            audit_event.c.id > after, detail.contains(escaped, autoescape=True)
        )
        yield from connection.execute(statement).scalars()
