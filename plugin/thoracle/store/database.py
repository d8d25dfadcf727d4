"""The database: opened, migrated, and checked for the durability that we promise to senders."""

from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, text

from thoracle.errors import ThoracleError

SYNCHRONOUS_FULL = 2
VERSION_TABLE = "thoracle_schema"
"""Where Alembic keeps the revision of our tables; DBOS has a table of its own for its own."""


class DatabaseError(ThoracleError):
    """The database does not give the guarantees that Thoracle needs."""


def sqlite_url(data_folder: Path) -> str:
    """Return the URL of the embedded database below the data folder."""
    return f"sqlite:///{data_folder.resolve() / 'thoracle.sqlite'}"


def connect(url: str) -> Engine:
    """Return an engine on an existing database, without changing its schema."""
    # hide_parameters: an exception that reaches the log must not carry patient data.
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), hide_parameters=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def open_database(url: str) -> Engine:
    """Return an engine on a database that has today's schema.

    Raises
    ------
    DatabaseError
        When SQLite does not run with a write-ahead log and full synchronisation: without them a
        power failure could lose what was acknowledged.
    """
    engine = connect(url)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            journal = connection.execute(text("PRAGMA journal_mode=WAL")).scalar_one()
            synchronous = connection.execute(text("PRAGMA synchronous")).scalar_one()
        if (journal, synchronous) != ("wal", SYNCHRONOUS_FULL):
            raise DatabaseError(
                f"{url}: found journal_mode={journal} and synchronous={synchronous}, "
                "required are wal and 2; is the data folder on a network disk?"
            )
    migrate(engine)
    if engine.dialect.name == "sqlite":
        with engine.begin() as connection:  # which index is the narrowest, by a glance at each
            connection.execute(text("PRAGMA analysis_limit=1000"))
            connection.execute(text("PRAGMA optimize=0x10002"))
    return engine


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest version, data kept."""
    config = _migrations()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def require_schema(engine: Engine) -> None:
    """Return when an existing database has today's schema; nothing is changed.

    Raises
    ------
    DatabaseError
        It has another: `thoracle serve` brings it to the newest version.
    """
    required = ScriptDirectory.from_config(_migrations()).get_current_head()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        found = context.get_current_revision()
    if found != required:
        raise DatabaseError(
            f"{engine.url.render_as_string()}: found schema {found or 'none'}, required is "
            f"{required}; start `thoracle serve` of this version first"
        )


def existing(data_folder: Path) -> Engine:
    """Return an engine on the gateway's database below the data folder; nothing is changed.

    Raises
    ------
    DatabaseError
        There is none, or it has another schema: `thoracle serve` makes both.
    """
    if not (data_folder / "thoracle.sqlite").exists():
        raise DatabaseError(
            f"{data_folder}: found no database, required is one that `thoracle serve` made"
        )
    engine = connect(sqlite_url(data_folder))
    require_schema(engine)
    return engine


def _migrations() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", "thoracle.store:migrations")
    return config


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # IMMEDIATE makes a writer wait at its first statement instead of failing at its commit.
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
