"""The trail in pieces, each read in a transaction of its own.

One long reading transaction would keep SQLite from folding its write-ahead log in, and the log
would grow with all that arrives meanwhile.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from thoracle.store.chain import COLUMNS
from thoracle.store.tables import audit_event

NAMES = (*COLUMNS, "digest")
"""Columns of the rows that :func:`between` returns, in this order."""


def bounds(connection: Connection, since: str | None, until: str | None) -> tuple[int, int] | None:
    """Return the first and the last id of rows from ``since`` until before ``until``, if any."""
    moment = audit_event.c.recorded_at
    statement = select(func.min(audit_event.c.id), func.max(audit_event.c.id))
    if since is not None:
        statement = statement.where(moment >= since)
    if until is not None:
        statement = statement.where(moment < until)
    first, last = connection.execute(statement).one()
    return None if first is None else (int(first), int(last))


def between(connection: Connection, after: int, up_to: int, limit: int) -> Sequence[Sequence[Any]]:
    """Return rows behind one id and up to another, by id, at most so many; ``detail`` as text."""
    detail = "detail" if connection.dialect.name == "sqlite" else "detail::text"
    columns = ", ".join(detail if name == "detail" else name for name in NAMES)
    # They come from the driver as they are, as in store/chain.py.
    result = connection.exec_driver_sql(
        f"SELECT {columns} FROM audit_event WHERE id > {int(after)} AND id <= {int(up_to)} "  # noqa: S608 - no text from outside
        f"ORDER BY id LIMIT {int(limit)}"
    )
    cursor: Any = result.cursor
    found: Sequence[Sequence[Any]] = cursor.fetchall()
    result.close()
    return found
