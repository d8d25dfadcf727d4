"""The database: opened, migrated, and checked for the durability that we promise to senders."""

from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import Engine, create_engine, event, text

from thoracle.errors import ThoracleError

SYNCHRONOUS_FULL = 2


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
    return engine


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest version, data kept."""
    config = alembic.config.Config()
    config.set_main_option("script_location", "thoracle.store:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # IMMEDIATE makes a writer wait at its first statement instead of failing at its commit.
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
