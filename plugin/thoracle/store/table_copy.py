"""The rows of tables written into another database, counted and compared.

SQLite and PostgreSQL have the same tables, ours by our migrations and the engine's by DBOS's own;
their columns and types are read from the databases. JSON goes as the text that it is, because the
chain of the trail has digests of that text.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from psycopg import sql
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    MetaData,
    Table,
    Text,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import cast as converted
from sqlalchemy.types import UserDefinedType

from thoracle.store.database import ENGINE_SCHEMA, VERSION_TABLE
from thoracle.store.tables import audit_event, audit_head, database_move, gateway_lease

BATCH = 1000
"""Rows in memory at a time."""
OF_A_DATABASE = {
    VERSION_TABLE,
    "dbos_migrations",
    "dbos_datasource_migrations",
    database_move.name,
    gateway_lease.name,
}
"""Tables that say something of the database that they are in: they stay."""
_NAMED = 20
"""Rows of a table that are named, of those with something to be told."""
_NUL, _REPLACEMENT = "\0", "\ufffd"
"""As store/postgresql.py writes it, too."""


class _JSONText(UserDefinedType[str]):
    """JSON as its text, which no library reads and writes anew."""

    cache_ok = True

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        return converted(colexpr, Text)


def _json_as_text(_inspector: Any, _table: Table, column: dict[str, Any]) -> None:
    if isinstance(column["type"], JSON):
        column["type"] = _JSONText()


def tables(connection: Connection) -> dict[str, Table]:
    """Return the tables whose rows can be moved by name, those that others refer to first."""
    metadata = MetaData()
    event.listen(metadata, "column_reflect", _json_as_text)
    metadata.reflect(connection)
    if connection.dialect.name != "sqlite":
        metadata.reflect(connection, ENGINE_SCHEMA)
    return {one.name: one for one in metadata.sorted_tables if one.name not in OF_A_DATABASE}


def filled(connection: Connection) -> list[str]:
    """Return the tables that have rows; the end of a chain without rows is none."""
    found = []
    for name, table in tables(connection).items():
        statement = select(table).limit(1)
        if name == audit_head.name:
            statement = statement.where(table.c.last_id > 0)
        if connection.execute(statement).first() is not None:
            found.append(name)
    return found


# ---- read ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class TableRows:
    """What was read of a table."""

    name: str
    rows: int = 0
    total: int = 0
    """Of the SHA-256 of all rows, modulo 2**256: in whatever order they come, it is the same."""
    replaced: int = 0
    """Texts with NUL, which PostgreSQL cannot keep."""
    named: list[str] = field(default_factory=list)
    """The first of them, by key and column."""
    faults: list[str] = field(default_factory=list)
    """What cannot be moved as it is, and why."""

    @property
    def digest(self) -> str:
        """Of the rows as they are written, hexadecimal."""
        return f"{self.total:064x}"

    def is_same(self, other: "TableRows") -> bool:
        """Return whether another table has the same rows."""
        return (self.rows, self.total) == (other.rows, other.total)


class Reading:
    """The rows of a table, in batches of values in the order of ``columns``.

    Parameters
    ----------
    connection
        Of the database.
    table
        Its table.
    columns
        Names: those of the other database in its order.
    """

    def __init__(self, connection: Connection, table: Table, columns: Sequence[str]) -> None:
        self._connection, self._table = connection, table
        self._columns = [table.c[name] for name in columns]
        self._keys = [self._columns.index(one) for one in table.primary_key.columns]
        self._longest = [getattr(one.type, "length", None) for one in self._columns]
        self.found = TableRows(table.name)

    def __iter__(self) -> Iterator[list[list[Any]]]:
        statement = select(*self._columns).execution_options(yield_per=BATCH)
        for batch in self._connection.execute(statement).partitions():
            rows = [self._kept(row) for row in batch]
            hashes = (hashlib.sha256(orjson.dumps(row, default=bytes.hex)) for row in rows)
            total = sum((int.from_bytes(one.digest(), "big") for one in hashes), self.found.total)
            self.found.total = total % (1 << 256)
            self.found.rows += len(rows)
            yield rows

    def all(self) -> TableRows:
        """Return what is in the table, after reading it."""
        for _ in self:
            pass
        return self.found

    def _kept(self, row: Sequence[Any]) -> list[Any]:
        """Return the values of a row as both databases keep them."""
        values = list(row)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                continue
            if _NUL in value:
                values[index] = value.replace(_NUL, _REPLACEMENT)
                self._replaced(values, index)
            longest = self._longest[index]
            if longest is not None and len(value) > longest:
                said = f"found {len(value)} characters, required: at most {longest}"
                self._fault(values, index, said)
        return values

    def _replaced(self, values: Sequence[Any], index: int) -> None:
        if self._table.name == audit_event.name:
            self._fault(values, index, "found NUL, required: none, as its digest is of the text")
            return
        self.found.replaced += 1
        if len(self.found.named) < _NAMED:
            self.found.named.append(self._place(values, index))

    def _fault(self, values: Sequence[Any], index: int, said: str) -> None:
        if len(self.found.faults) < _NAMED:
            self.found.faults.append(f"{self._place(values, index)}: {said}")

    def _place(self, values: Sequence[Any], index: int) -> str:
        key = ", ".join(str(values[one]) for one in self._keys)
        return f"{self._table.name} {key}: {self._columns[index].name}"


# ---- write ---------------------------------------------------------------------------------------


def write(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[list[list[Any]]]
) -> None:
    """Write rows into an empty table, in the order in which they come."""
    if table.name == audit_head.name:  # the migrations have made its one row
        for batch in rows:
            for values in batch:
                connection.execute(update(table).values(dict(zip(columns, values, strict=True))))
    elif connection.dialect.name == "sqlite":
        for batch in rows:
            made = [dict(zip(columns, values, strict=True)) for values in batch]
            connection.execute(insert(table), made)
    else:
        _copy_in(connection, table, columns, rows)
        _count_on(connection, table)


def _copy_in(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[list[list[Any]]]
) -> None:
    """Write rows by COPY: an INSERT of many takes two to three times as long."""
    named = sql.Identifier(*filter(None, (table.schema, table.name)))
    listed = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(named, listed)
    driver = cast(Any, connection.connection.driver_connection)
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in rows:
            for values in batch:
                copy.write_row(values)


def _count_on(connection: Connection, table: Table) -> None:
    """Let the sequences of a table go on behind the highest number in it."""
    for column in table.columns:
        sequence = func.pg_get_serial_sequence(table.fullname, column.name)
        if connection.execute(select(sequence)).scalar() is None:
            continue
        highest = connection.execute(select(func.max(column))).scalar()
        if highest is not None:
            connection.execute(select(func.setval(sequence, highest)))
