"""The embedded database: durable, and still the file that was opened.

A file that is unlinked or exchanged while it is open takes what is written, and is gone with the
process. So it is looked for before each commit; what is acknowledged is in a file with a name.
"""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError

from thoracle.store import writers
from thoracle.store.files import sync_folder
from thoracle.store.writers import WritingConnection

Error = sqlite3.Error
SYNCHRONOUS_FULL = 2
POOL = 24
"""Connections that are kept open; there may be more at work."""
FILE = "thoracle.sqlite"
"""Below the data folder."""
SHARED_FOLDER = "database"
"""Below the data folder, when gateway and pages are two users: both write beside the file, too."""
SHARED_MODE = 0o660
"""Of the file there; SQLite gives its log the same."""
RESCUED = "thoracle-rescued.sqlite"
"""In the data folder: the copy of one that was deleted while it was open."""
PART = "thoracle.sqlite.part"
"""In the data folder: what rows are moved to, until it is whole."""
_MOVED = "thoracle-moved-*.sqlite"
"""In the place of the database: one whose rows were moved to PostgreSQL, and when."""


def places(data_folder: Path) -> tuple[Path, Path]:
    """Return where the file is when there is one user, and when there are two."""
    return data_folder / FILE, data_folder / SHARED_FOLDER / FILE


def file(data_folder: Path, *, shared: bool = False) -> Path:
    """Return where the embedded database is; where it is to be, when there is none.

    ``shared`` says what the settings want. Until the gateway was started with them, and has moved
    it, it is where it was.
    """
    alone, of_two = places(data_folder)
    wanted, other = (of_two, alone) if shared else (alone, of_two)
    return other if other.exists() and not wanted.exists() else wanted


def url(data_folder: Path, *, shared: bool = False) -> str:
    """Return the URL of the embedded database below the data folder."""
    return f"sqlite:///{file(data_folder.resolve(), shared=shared)}"


def create(database_url: str) -> Engine:
    """Return an engine on a database file; nothing is opened yet."""
    # hide_parameters: an exception that reaches the log must not carry patient data.
    path = make_url(database_url).database
    if not path:  # in memory: one connection is all there is
        engine = create_engine(database_url, hide_parameters=True)
        event.listen(engine, "connect", _prepare)
        return engine
    engine = create_engine(
        database_url,
        hide_parameters=True,
        # Connections are few and stay open: each new one reads the schema, and prepares its
        # statements anew. The engine and we have some 300 different ones.
        connect_args={"factory": WritingConnection, "cached_statements": 512},
        pool_size=POOL,
        pool_use_lifo=True,
        # No limit: else fifty associations that wait to write keep readers out.
        max_overflow=-1,
    )
    event.listen(engine, "connect", _prepare)
    writers.in_order(engine)
    _OpenedFile(Path(path)).watch(engine)
    return engine


def _prepare(connection: Any, _record: Any) -> None:
    # IMMEDIATE makes a writer wait at its first statement instead of failing at its commit.
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # What is deleted is overwritten, whatever this build's default is: pages are reused late.
    connection.execute("PRAGMA secure_delete=ON")


def faults(connection: Connection) -> str:
    """Return what speaks against keeping data there; empty when nothing does."""
    journal = connection.execute(text("PRAGMA journal_mode=WAL")).scalar_one()
    synchronous = connection.execute(text("PRAGMA synchronous")).scalar_one()
    if (journal, synchronous) == ("wal", SYNCHRONOUS_FULL):
        return ""
    return (
        f"found journal_mode={journal} and synchronous={synchronous}, required: wal and 2; "
        "is the data folder on a network disk?"
    )


class _OpenedFile:
    """The file that an engine has opened first: no other one of its name is taken for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def watch(self, engine: Engine) -> None:
        """Have each new connection and each commit of an engine look for the file."""
        event.listen(engine, "do_connect", self._before_connection)
        event.listen(engine, "connect", self._remember)
        event.listen(engine, "commit", self._before_commit)

    def _before_connection(self, *_: object) -> None:
        self.require()  # else SQLite would make a new, empty file
        if self._opened is None and self._path.parent.name == SHARED_FOLDER:
            _make_shared(self._path)

    def _before_commit(self, _connection: Connection) -> None:
        self.require()

    def _remember(self, _connection: Any, _record: Any) -> None:
        with self._lock:
            if self._opened is None:
                self._opened = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino)

    def require(self) -> None:
        """Return when the file still has its name.

        Raises
        ------
        OperationalError
            It was unlinked, or another file has its name.
        """
        if self._opened is None or (found := self._identity()) == self._opened:
            return
        what = "has been deleted" if found is None else "has been exchanged"
        raise OperationalError(
            "commit", {}, sqlite3.OperationalError(f"the database file {what} while it was open")
        )


def _make_shared(path: Path) -> None:
    """Make a new, empty database that two users may write; leave one that is there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    os.fchmod(descriptor, SHARED_MODE)
    os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Move a database that nobody has open; a crash leaves it at one of both places, whole.

    Raises
    ------
    sqlite3.Error
        Somebody has it open, or it is no database.
    """
    with closing(sqlite3.connect(source, timeout=5, isolation_level=None)) as connection:
        # Folds the log in, and fails while there is another connection: the file is all there is.
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        source.rename(target)
        sync_folder(target.parent)
        sync_folder(source.parent)


def compact(path: Path, *, vacuum: bool) -> bool:
    """Empty the log of a database file, and with ``vacuum`` write the file anew first.

    That takes what an earlier version left in free places; others wait meanwhile. Returns whether
    the log could be emptied: a reader may keep it.
    """
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        if vacuum:
            connection.execute("VACUUM")
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def take_alone(connection: Connection) -> bool:
    """Take a database out of write-ahead logging; return whether nobody else has it open.

    Then it is one file, which can be renamed; the next gateway that opens it takes it back.
    """
    connection.exec_driver_sql("PRAGMA busy_timeout=5000")
    try:
        journal = connection.exec_driver_sql("PRAGMA journal_mode=DELETE").scalar_one()
    except OperationalError:
        return False
    return bool(journal == "delete")


def require_no_log(path: Path) -> None:
    """Return when there is no log of a database of this name: it would be taken for a new one's.

    Raises
    ------
    OperationalError
        There is one.
    """
    for suffix in ("-wal", "-journal"):
        if path.with_name(path.name + suffix).exists():
            said = sqlite3.OperationalError(f"found {path}{suffix}, required: none")
            raise OperationalError("open", {}, said)


def put_in_place(made: Path, path: Path) -> None:
    """Give a finished database file, which nobody has open, its name; durably.

    Raises
    ------
    OperationalError
        One of it has a log, or one that had the name before.
    """
    for one in (made, path):
        require_no_log(one)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(path)
    sync_folder(path.parent)


def set_aside(path: Path, moment: str) -> Path:
    """Rename a database file whose rows were moved away at a moment; return the new path."""
    stamp = moment[:19].replace(":", "")
    target = path.with_name(_MOVED.replace("*", stamp))
    path.rename(target)
    sync_folder(path.parent)
    return target


def moved_files(data_folder: Path) -> list[Path]:
    """Return the files whose rows were moved away, the newest last."""
    found = (one for place in places(data_folder) for one in place.parent.glob(_MOVED))
    return sorted(found, key=lambda path: path.name)


def copies(data_folder: Path) -> list[Path]:
    """Return the files beside the database that have rows of it, also some that it has no more."""
    parts = (one for place in places(data_folder) for one in place.parent.glob(f"{PART}*"))
    beside = [data_folder / RESCUED, *parts, *moved_files(data_folder)]
    return [one for one in beside if one.exists()]


def fault(path: Path) -> str:
    """Return why nothing could be written to a database file now; empty when that is possible.

    By a connection of its own: those at work have pages in their memory.
    """
    if gone := _deleted(path):
        return f"deleted while it was open: {', '.join(gone)}"
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, timeout=0, isolation_level=None
        )
        with closing(connection):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE audit_head SET last_id = last_id")
            connection.execute("SELECT max(id) FROM instance").fetchone()
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        # A writer that is at work shows that one can write.
        return "" if "locked" in str(error) else str(error)
    return ""


def _deleted(path: Path) -> list[str]:
    """Return the files of a database that this process has open and that were deleted."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # closed meanwhile
            continue
        if target.startswith(str(path)) and target.endswith(" (deleted)"):
            found.add(Path(target.removesuffix(" (deleted)")).name)
    return sorted(found)


def rescue(engine: Engine) -> Path | None:
    """Copy a database that was deleted while it was open, once; return the new file.

    Raises
    ------
    sqlite3.Error, OSError
        It cannot be copied.
    """
    path = Path(engine.url.database or "")
    folder = path.parent
    target = (folder.parent if folder.name == SHARED_FOLDER else folder) / RESCUED
    if not _deleted(path) or target.exists():
        return None
    temporary = target.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    with closing(engine.raw_connection()) as source, closing(sqlite3.connect(temporary)) as copied:
        source.driver_connection.backup(copied)  # type: ignore[union-attr]  # sqlite3's, it has one
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
    sync_folder(target.parent)
    return target
