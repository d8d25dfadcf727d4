"""The database: opened, migrated, and checked for the durability that we promise to senders."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import alembic.command
import alembic.config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, ExceptionContext, event, inspect, text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from thoracle.errors import ThoracleError
from thoracle.settings import Settings, users
from thoracle.store import lease as leases
from thoracle.store import moved, sqlite
from thoracle.store.lease import Alone, Lease

VERSION_TABLE = "thoracle_schema"
"""Where Alembic keeps the revision of our tables; DBOS has a table of its own for its own."""
ENGINE_SCHEMA = "dbos"
"""Where DBOS keeps its tables on PostgreSQL; on SQLite they are beside ours."""


Database = Engine
"""What those call it who hand it on and run no statement themselves."""


_OF_OURS = (IntegrityError, ProgrammingError, DataError)
"""Faults of a statement, which say nothing about the database."""
_REPEATED = ("40001", "40P01", "55P03")
"""SQLSTATE of transactions that PostgreSQL wants repeated, and of a row that DBOS did not wait for,
because another gateway takes work from the same queue."""


class DatabaseError(ThoracleError):
    """The database does not give the guarantees that Thoracle needs."""


class RowsMovedError(DatabaseError):
    """The rows of a database were moved to another one, or are being moved."""


sqlite_url = sqlite.url


def sqlite_file(settings: Settings) -> Path:
    """Return where the embedded database of some settings is, or is to be."""
    return sqlite.file(settings.data_folder, shared=bool(settings.data_folder_group))


def engine_of(settings: Settings) -> Engine:
    """Return an engine on the database of some settings; nothing is opened or changed yet.

    Raises
    ------
    SettingsError
        The password cannot be read.
    """
    if not settings.database.url:
        return connect(sqlite_url(settings.data_folder, shared=bool(settings.data_folder_group)))
    idle = settings.gateway.lease_seconds if settings.gateway.one_of_several else None
    return connect(settings.database.url, settings.database.password_file, idle)


def connect(
    url: str, password_file: Path | None = None, idle_seconds: float | None = None
) -> Engine:
    """Return an engine on an existing database, without changing its schema.

    Parameters
    ----------
    idle_seconds
        For PostgreSQL: a transaction in which nothing happens for so long is ended, at most the
        time that ``postgresql.IDLE_SECONDS`` says.
    """
    if url.startswith("postgresql"):
        from thoracle.store import postgresql  # its driver is imported only where it is used

        if password_file is not None:
            postgresql.password(password_file)  # here, because a fault of it is one of settings
        idle = min(idle_seconds or postgresql.IDLE_SECONDS, postgresql.IDLE_SECONDS)
        return postgresql.create(url, password_file, idle)
    return sqlite.create(url)


def open_database(url: str) -> Engine:
    """Return an engine on a database that has today's schema; raises as :func:`prepare`."""
    engine = connect(url)
    try:
        prepare(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def prepare(engine: Engine) -> None:
    """See to it that a database keeps what it is given, and has today's schema.

    Raises
    ------
    DatabaseError
        It cannot be reached, belongs to something else, or its rows were moved. When SQLite does
        not run with a write-ahead log and full synchronisation: without them a power failure could
        lose what was acknowledged. What a PostgreSQL server has to give, ``postgresql.faults``
        says.
    """
    require_reach(engine)
    if engine.dialect.name == "sqlite":
        _require_full_synchronisation(engine)
    require_ours(engine)
    require_unmoved(engine)
    migrate(engine)
    if engine.dialect.name == "sqlite":
        with engine.begin() as connection:  # which index is the narrowest, by a glance at each
            connection.execute(text("PRAGMA analysis_limit=1000"))
            connection.execute(text("PRAGMA optimize=0x10002"))


def begin_writing(connection: Connection) -> None:
    """Keep others from writing until the transaction ends; to be called first in it.

    For transactions that read and then write what follows from it. Without it, others are kept
    out from the first statement on that writes, and what was read before may no longer be so.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    from thoracle.store import postgresql

    postgresql.begin_writing(connection)


def require_reach(engine: Engine) -> None:
    """Return when a database can be opened.

    Raises
    ------
    DatabaseError
        It cannot.
    """
    try:
        engine.connect().close()
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split()).removeprefix("connection failed: ")
        raise DatabaseError(f"{named(engine)}: {reason}") from error


def operational_fault(error: Exception) -> str | None:
    """Return what the database says when it can do no work: full, locked, away; else ``None``."""
    if not isinstance(error, OperationalError):
        return None
    return " ".join(str(error.orig).split())


def named(engine: Engine) -> str:
    """Return the URL of a database, for messages; there is never a password in it."""
    return engine.url.set(query={}, drivername=engine.dialect.name).render_as_string()


def described(settings: Settings) -> str:
    """Return what a PostgreSQL server says of itself; nothing is changed.

    Raises
    ------
    DatabaseError
        As :func:`prepare`.
    """
    from thoracle.store import postgresql

    engine = engine_of(settings)
    try:
        require_reach(engine)
        require_ours(engine)
        require_unmoved(engine)
        with engine.connect() as connection:
            server = postgresql.guarantees(connection.connection.driver_connection)
        found = revision(engine)
    finally:
        engine.dispose()
    said = [f"PostgreSQL {server['version']}", f"with {server['tls']}" * bool(server["tls"])]
    said += ["without TLS"] * (not server["tls"])
    said.append(f"schema {found}" if found else "no tables yet: `thoracle serve` makes them")
    if server["full_page_writes"] != "on":
        said.append("full_page_writes off, which only a file system such as ZFS makes safe")
    return f"{named(engine)}: {', '.join(one for one in said if one)}"


def _require_full_synchronisation(engine: Engine) -> None:
    with engine.connect() as connection:
        if faults := sqlite.faults(connection):
            raise DatabaseError(f"{named(engine)}: {faults}")


def require_ours(engine: Engine) -> None:
    """Keep our tables out of a database of something else, and off a schema that is newer.

    Raises
    ------
    DatabaseError
        It is one or the other.
    """
    script = ScriptDirectory.from_config(_migrations())
    known = {one.revision for one in script.walk_revisions()}
    found = revision(engine)
    if found is None:
        with engine.connect() as connection:
            tables = sorted(inspect(connection).get_table_names())
        # SQLite's is a file of our own name; a crash before the first migration leaves it empty.
        if tables and engine.dialect.name != "sqlite":
            raise DatabaseError(
                f"{named(engine)}: found tables of something else ({', '.join(tables[:3])}), "
                "required: a database of Thoracle's own"
            )
    elif found not in known:
        raise DatabaseError(
            f"{named(engine)}: found schema {found} of another version of Thoracle, required: "
            f"at most {script.get_current_head()}; there is no way back but a backup"
        )


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest version, data kept."""
    config = _migrations()
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            from thoracle.store import postgresql

            # A migration may compute for longer than a gateway may stand still: it has no lease.
            postgresql.rest_without_limit(connection)
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def revision(engine: Engine) -> str | None:
    """Return the version of the schema that an existing database has, if it has any."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return context.get_current_revision()


def require_schema(engine: Engine) -> None:
    """Return when an existing database has today's schema; nothing is changed.

    Raises
    ------
    DatabaseError
        It has another: `thoracle serve` brings it to the newest version.
    """
    required = ScriptDirectory.from_config(_migrations()).get_current_head()
    found = revision(engine)
    if found != required:
        raise DatabaseError(
            f"{named(engine)}: found schema {found or 'none'}, required: "
            f"{required}; start `thoracle serve` of this version first"
        )


def require_unmoved(engine: Engine) -> None:
    """Return when the rows of an existing database were not moved to another one.

    Raises
    ------
    RowsMovedError
        They were, or a move of them did not end.
    """
    with engine.connect() as connection:
        mark = moved.mark(connection)
    if mark is not None:
        raise RowsMovedError(f"{named(engine)}: {mark}")


def existing(settings: Settings) -> Engine:
    """Return an engine on the gateway's database; nothing is changed.

    Raises
    ------
    DatabaseError
        There is none, or it has another schema: `thoracle serve` makes both. Or its rows were
        moved to another one.
    """
    folder = settings.data_folder
    try:
        found = bool(settings.database.url) or sqlite_file(settings).exists()
    except PermissionError as error:
        raise DatabaseError(
            f"{folder}: found no permission to enter it as {users.me()}, required: its owner, or a "
            "member of data_folder_group after `thoracle serve` was started with it"
        ) from error
    if not found:
        raise DatabaseError(
            f"{folder}: found no database, required: one that `thoracle serve` made"
        )
    engine = engine_of(settings)
    try:
        require_reach(engine)
        require_schema(engine)
        require_unmoved(engine)
    except DatabaseError:
        engine.dispose()
        raise
    return engine


@contextmanager
def of_gateway(settings: Settings, lost: Callable[[str], None]) -> Iterator[tuple[Database, Alone]]:
    """Yield the database with today's schema to a gateway that works on it, and its right to work.

    On SQLite the lock on the data folder is enough, for the database is in it.

    Parameters
    ----------
    lost
        Called from another thread, with the reason, when this process no longer has the right.

    Raises
    ------
    DatabaseError
        As :func:`prepare`.
    DataFolderInUse
        Another process is the gateway, or others are and this one is not one of several.
    """
    engine = engine_of(settings)
    require_reach(engine)
    with ExitStack() as held:
        held.callback(engine.dispose)  # the last that closes folds the write-ahead log in
        if engine.dialect.name == "sqlite":
            prepare(engine)
            yield engine, Alone()
        elif settings.gateway.one_of_several:
            yield engine, _one_of_several(engine, settings, lost, held)
        else:
            from thoracle.store.postgresql import SoleGateway

            held.enter_context(closing(SoleGateway(engine, named(engine), lost)))
            leases.require_none(engine, "no other gateway, or gateway.one_of_several in each")
            prepare(engine)
            leases.forget(engine)
            yield engine, Alone()


def _one_of_several(
    engine: Engine, settings: Settings, lost: Callable[[str], None], held: ExitStack
) -> Lease:
    from thoracle.store import postgresql

    start = held.enter_context(closing(postgresql.Start(engine, named(engine))))
    if revision(engine) != ScriptDirectory.from_config(_migrations()).get_current_head():
        # They run code of the schema before, and would meet rows that they do not understand.
        leases.require_none(engine, "none while the schema is brought to another version")
    prepare(engine)
    lease = Lease(engine, settings, lost, start.close)
    held.callback(lease.release)
    postgresql.write_under(engine, lease)
    return lease


def _migrations() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", "thoracle.store:migrations")
    return config


# ---- faults while it is open -----------------------------------------------------------------


class Errors:
    """What a database has answered, to anybody in this process, that is no answer."""

    def __init__(self, engine: Engine) -> None:
        self._last: tuple[float, str] | None = None
        event.listen(engine, "handle_error", self._note)

    def _note(self, context: ExceptionContext) -> None:
        error = context.original_exception
        said = context.sqlalchemy_exception
        repeated = getattr(error, "sqlstate", None) in _REPEATED
        if isinstance(said, DBAPIError) and not isinstance(said, _OF_OURS) and not repeated:
            self._last = (time.monotonic(), " ".join(str(error).split())[:200])

    def recent(self, seconds: float) -> str:
        """Return the newest error of the last seconds; empty when there was none."""
        if self._last is None or time.monotonic() - self._last[0] > seconds:
            return ""
        return self._last[1]


def fault(engine: Engine) -> str:
    """Return why nothing could be written now; empty when that is possible. Nothing is written."""
    if engine.dialect.name == "sqlite":
        assert engine.url.database is not None
        said = sqlite.fault(Path(engine.url.database))
        return said and f"the database: {said}"
    try:
        with engine.connect() as connection:
            read_only = connection.execute(text("SHOW transaction_read_only")).scalar_one()
    except SQLAlchemyError as error:
        return f"the database: {' '.join(str(getattr(error, 'orig', error)).split())[:200]}"
    return "the database: it can only be read" if read_only == "on" else ""


def rescue(engine: Engine) -> Path | None:
    """Return a copy of an embedded database that was deleted while open; ``None``: there is none.

    Raises
    ------
    DatabaseError
        It cannot be copied.
    """
    if engine.dialect.name != "sqlite":
        return None
    try:
        return sqlite.rescue(engine)
    except (sqlite.Error, OSError) as error:
        raise DatabaseError(f"{named(engine)}: it was deleted, and not copied: {error}") from error
