"""The newest schema, migrated to once in a process and then copied into each new database.

Some hundred tests begin with a database of their own, and all migrations take 0.3 CPU seconds. The
tests of migrations, of the database and of what runs as a command migrate each.
"""

import sqlite3
import tempfile
from pathlib import Path

from sqlalchemy import Engine, create_engine

from thoracle.store import database

_migrate = database.migrate
_made: list[bytes] = []


def install() -> None:
    """Have new SQLite databases of this process, and of those forked from it, copied."""
    database.migrate = _copy_or_migrate
    _schema()


def remove() -> None:
    """Have each database migrated again."""
    database.migrate = _migrate


def _copy_or_migrate(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        _migrate(engine)
        return
    with engine.connect() as connection:
        target = connection.connection.driver_connection
        assert isinstance(target, sqlite3.Connection)
        is_new = target.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        if is_new:
            with sqlite3.connect(":memory:") as source:
                source.deserialize(_schema())
                source.backup(target)
            source.close()
    if not is_new:
        _migrate(engine)


def _schema() -> bytes:
    if not _made:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "schema.sqlite")
            # Not the engine of ours, of which the write-ahead log cannot be kept in bytes.
            engine = create_engine(f"sqlite:///{path}")
            _migrate(engine)
            engine.dispose()
            made = sqlite3.connect(path)
            _made.append(made.serialize())
            made.close()
    return _made[0]
