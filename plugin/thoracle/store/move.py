"""All rows moved from SQLite to PostgreSQL or back, with the engine's work and the trail.

At any time one of the two databases counts, or none. The source is marked before the first row is
copied (store/moved.py). The rows are written in one transaction and read again before its commit;
the event that tells of the move is the next one of the chain. What interrupts a move leaves the
mark: nothing starts on the source, nothing on a target without rows, and the same command ends the
move or begins anew.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psycopg
from sqlalchemy import Connection, Engine, Table, select
from sqlalchemy.exc import DBAPIError

from thoracle.errors import DataFolderInUse, SettingsError
from thoracle.settings import Settings
from thoracle.store import (
    anchors,
    chain,
    engine,
    lease,
    moved,
    postgresql,
    running,
    signing,
    sqlite,
    table_copy,
    trail,
)
from thoracle.store import database as databases
from thoracle.store.database import DatabaseError
from thoracle.store.table_copy import Reading, TableRows
from thoracle.store.tables import audit_event, now

WAIT_SECONDS = 5.0
"""Until a server has noticed that a connection is closed."""


class Direction(StrEnum):
    """From where to where."""

    TO_POSTGRESQL = "sqlite-to-postgresql"
    TO_SQLITE = "postgresql-to-sqlite"


class Ends:
    """The two databases of a move: SQLite in the data folder, PostgreSQL of ``[database]``.

    Raises
    ------
    SettingsError
        The settings have no PostgreSQL database.
    """

    def __init__(self, settings: Settings, direction: Direction) -> None:
        if not settings.database.url:
            raise SettingsError(
                "database.url: found none, required: the PostgreSQL database of the move, whatever "
                "its direction"
            )
        self.folder = settings.data_folder
        self.file = databases.sqlite_file(settings).resolve()
        self.part = self.file.with_name(sqlite.PART)
        self.to_postgresql = direction is Direction.TO_POSTGRESQL
        self.postgresql = databases.engine_of(settings)
        self.sqlite = databases.connect(
            f"sqlite:///{self.file if self.to_postgresql else self.part}"
        )
        names = [str(self.file), databases.named(self.postgresql)]
        self.source_name, self.target_name = names if self.to_postgresql else reversed(names)

    @property
    def source(self) -> Engine:
        """Where the rows are."""
        return self.sqlite if self.to_postgresql else self.postgresql

    @property
    def target(self) -> Engine:
        """Where they are written."""
        return self.postgresql if self.to_postgresql else self.sqlite

    @contextmanager
    def moved_to(self) -> Iterator[Engine]:
        """Yield the target under the name that it has in the end."""
        if self.to_postgresql:
            yield self.postgresql
            return
        named = databases.connect(f"sqlite:///{self.file}")
        try:
            yield named
        finally:
            named.dispose()

    def close(self) -> None:
        """Close all connections."""
        self.sqlite.dispose()
        self.postgresql.dispose()


@contextmanager
def _opened(settings: Settings, direction: Direction) -> Iterator[Ends]:
    with closing(Ends(settings, direction)) as ends:
        if ends.to_postgresql and not ends.file.exists():
            raise DatabaseError(f"{ends.folder}: found no {sqlite.FILE}, required: the database")
        databases.require_reach(ends.postgresql)
        databases.require_schema(ends.source)
        yield ends


def _mark(ends: Ends) -> moved.Mark | None:
    """Return the mark of a move to this target that began before; refuse one to another."""
    with ends.source.connect() as connection:
        mark = moved.mark(connection)
        last_id, _ = chain.head(connection)
    if mark is not None and mark.target != ends.target_name:
        raise DatabaseError(f"{ends.source_name}: {mark}")
    if last_id == 0:
        raise DatabaseError(f"{ends.source_name}: found no rows, required: a database in use")
    return mark


def _target_fault(ends: Ends) -> str:
    """Return what is in the target, which has to be empty; nothing is changed."""
    if not ends.to_postgresql and (not ends.file.exists() or not ends.file.stat().st_size):
        return ""
    with ends.moved_to() as database:
        databases.require_ours(database)
        with database.connect() as connection:
            found = table_copy.filled(connection)
    return (
        f"{ends.target_name}: found rows in {', '.join(found[:3])}, required: an empty database"
    ) * bool(found)


# ---- look ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What a move would do."""

    source: str
    target: str
    tables: list[TableRows]
    faults: list[str]
    """Why it would be refused now."""


def plan(settings: Settings, direction: Direction) -> Plan:
    """Return what a move would do; nothing is changed, and gateway and pages may run.

    Raises
    ------
    DatabaseError, SettingsError
        A database cannot be used.
    """
    with _opened(settings, direction) as ends:
        mark = _mark(ends)
        faults = list(_at_work(settings.data_folder))
        if mark is None and (fault := _target_fault(ends)):
            faults.append(fault)
        with ends.source.connect() as connection:
            found = [
                Reading(connection, one, list(one.columns.keys())).all()
                for one in table_copy.tables(connection).values()
            ]
        faults += [fault for one in found for fault in one.faults]
        return Plan(ends.source_name, ends.target_name, found, faults)


def _at_work(folder: Path) -> Iterator[str]:
    for name in running.locks(folder):
        if (process := running.holder(folder, name)) is not None:
            yield f"{folder}: found {_whose(name)} at work (process {process.pid}), required: none"


def _whose(lock: str) -> str:
    return "the gateway" if lock == running.GATEWAY else f"pages ({lock})"


# ---- move ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did."""

    source: str
    target: str
    rows: int
    set_aside: Path | None
    """What the file of the source is called now."""


def move(
    settings: Settings,
    direction: Direction,
    columns: trail.Columns,
    told: Callable[[TableRows], None],
) -> Moved:
    """Move all rows, and record it in the target.

    Parameters
    ----------
    columns
        Who moves them, for the event.
    told
        Called with each table that has been written and compared.

    Raises
    ------
    DataFolderInUse
        Gateway, pages or a command are at work.
    DatabaseError, SettingsError
        A database cannot be used, or the rows cannot be moved. Nothing was moved.
    """
    with ExitStack() as held:
        _hold(settings.data_folder, held)
        ends = held.enter_context(_opened(settings, direction))
        name = databases.named(ends.postgresql)
        # What it is told when the lock is lost is nothing: what is not committed is ours all the
        # same, and what is committed has the mark of the source.
        held.enter_context(closing(postgresql.SoleGateway(ends.postgresql, name, lambda _: None)))
        lease.require_none(ends.postgresql, "none, of several gateways too")
        mark = _mark(ends)
        rows = _rows_moved(ends) if mark is not None else None
        if rows is None and mark is not None and mark.ended_at is not None:
            raise DatabaseError(f"{ends.source_name}: {mark}")
        if rows is None:
            rows = _copied(ends, columns, told)
        return Moved(ends.source_name, ends.target_name, rows, _end(ends))


def _hold(folder: Path, held: ExitStack) -> None:
    """Keep gateway and pages away."""
    for name in running.locks(folder):
        try:
            held.enter_context(running.hold(folder, name))
        except BlockingIOError as error:
            raise DataFolderInUse(
                f"{folder}: found {_whose(name)} at work, required: none"
            ) from error


def _rows_moved(ends: Ends) -> int | None:
    """Return how many rows a move before has committed; ``None``: it was interrupted earlier."""
    if not ends.to_postgresql and not ends.file.exists():
        return None
    with ends.source.connect() as source:
        last_id, digest = chain.head(source)
    event = audit_event.c
    with ends.moved_to() as database:
        if databases.revision(database) is None:
            return None
        with database.connect() as connection:
            statement = select(event.event, event.detail).where(event.id == last_id + 1)
            row = connection.execute(statement).first()
            if row is None or row.event != trail.Event.DATABASE_MOVED.verb:
                return None
            is_same = chain.digest_at(connection, last_id) == digest
    return int(row.detail["rows"]) if is_same else None


def _copied(ends: Ends, columns: trail.Columns, told: Callable[[TableRows], None]) -> int:
    """Copy and commit all rows; return how many."""
    if fault := _target_fault(ends):
        raise DatabaseError(fault)
    engine.make_tables(ends.source)
    _make_target(ends)
    with ends.source.begin() as connection:
        moved.begin(connection, ends.target_name)
    with ExitStack() as held:
        try:
            _require_alone(ends)
            connection = held.enter_context(ends.target.connect())
            rows = _write(ends, connection, columns, told)
        except BaseException:
            held.close()  # which rolls back
            _discard_part(ends)
            with ends.source.begin() as unmarking:
                moved.clear(unmarking)
            raise
        # Of a commit whose answer is lost nobody knows whether it was one: then the mark stays.
        connection.commit()
    return rows


def _make_target(ends: Ends) -> None:
    if not ends.to_postgresql:
        sqlite.require_no_log(ends.file)
        _discard_part(ends)
        os.close(os.open(ends.part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    databases.prepare(ends.target)
    engine.make_tables(ends.target)


def _discard_part(ends: Ends) -> None:
    if not ends.to_postgresql:
        ends.sqlite.dispose()
        for one in ends.part.parent.glob(f"{ends.part.name}*"):
            one.unlink()


def _require_alone(ends: Ends) -> None:
    """Return when nobody has a database open who opened it before the source was marked."""
    if ends.to_postgresql:
        ends.sqlite.dispose()
        with ends.sqlite.connect() as connection:
            if not sqlite.take_alone(connection):
                raise DataFolderInUse(
                    f"{ends.file}: found a command or a reader at work, required: none"
                )
    ends.postgresql.dispose()  # else our own were found
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with ends.postgresql.connect() as connection:
            others = postgresql.others(connection)
        if not others:
            return
        if time.monotonic() > deadline:
            name = databases.named(ends.postgresql)
            raise DataFolderInUse(f"{name}: found {', '.join(others)} at work, required: none")
        time.sleep(0.2)


@contextmanager
def _reading(ends: Ends) -> Iterator[Connection]:
    with ends.source.connect() as connection:
        if connection.dialect.name != "sqlite":
            connection.execution_options(isolation_level="REPEATABLE READ")
            postgresql.rest_without_limit(connection)
        yield connection


def _write(
    ends: Ends,
    connection: Connection,
    columns: trail.Columns,
    told: Callable[[TableRows], None],
) -> int:
    """Write all rows and the event into the transaction of a connection to the target."""
    databases.begin_writing(connection)
    if ends.to_postgresql:
        postgresql.rest_without_limit(connection)
    copied = []
    with _reading(ends) as source:
        there, wanted = table_copy.tables(source), table_copy.tables(connection)
        for name in sorted(there.keys() - wanted.keys()):
            if source.execute(select(there[name]).limit(1)).first() is not None:
                raise DatabaseError(f"{ends.source_name}: found rows in {name}, required: none")
        for name, table in wanted.items():
            if name in there:
                copied.append(_copy(source, there[name], connection, table))
                told(copied[-1])
    rows = sum(one.rows for one in copied)
    detail = {
        **columns.get("detail", {}),
        "from": ends.source_name,
        "to": ends.target_name,
        "rows": rows,
        "texts_replaced": sum(one.replaced for one in copied),
        "tables": {one.name: {"rows": one.rows, "digest": one.digest} for one in copied},
    }
    trail.record(connection, trail.Event.DATABASE_MOVED, {**columns, "detail": detail})
    return rows


def _copy(source: Connection, table: Table, connection: Connection, target: Table) -> TableRows:
    """Write the rows of a table, read them again, and compare.

    Raises
    ------
    DatabaseError
        They cannot be written, or are not what they were.
    """
    columns = list(table.columns.keys())
    reading = Reading(source, table, columns)
    try:
        table_copy.write(connection, target, columns, reading)
        written = Reading(connection, target, columns).all()
    except psycopg.Error as error:  # its own text may have values in it
        said = error.diag.message_primary or type(error).__name__
        raise DatabaseError(f"{table.name}: {said}") from error
    except DBAPIError as error:
        raise DatabaseError(f"{table.name}: {error.orig}") from error
    if reading.found.faults:
        raise DatabaseError("\n".join(reading.found.faults))
    if not written.is_same(reading.found):
        raise DatabaseError(
            f"{table.name}: found {written.rows} rows with digest {written.digest} after they were "
            f"written, required: {reading.found.rows} with {reading.found.digest}"
        )
    return reading.found


def _end(ends: Ends) -> Path | None:
    """Put a new file in its place, anchor the chain, and mark the source as moved."""
    ends.target.dispose()
    if not ends.to_postgresql and ends.part.exists():
        sqlite.put_in_place(ends.part, ends.file)
    with ends.moved_to() as database:
        if ends.to_postgresql:
            postgresql.analyse(database)
        # Without its key, an anchor would look like one that somebody else has added.
        if (signer := signing.existing(ends.folder)) is not None:
            anchors.drop_anchor(database, ends.folder / anchors.ANCHORS_FILE, signer)
    with ends.source.begin() as connection:
        moved.end(connection)
    if not ends.to_postgresql:
        return None
    ends.sqlite.dispose()
    return sqlite.set_aside(ends.file, now())
