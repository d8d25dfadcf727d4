"""Local copies of objects in a bucket: each process looks after those of its data folder.

A copy goes when nobody has read it for long, or when no row names it any more: another machine may
have deleted the object. What is not in the bucket is no copy, and stays while a row names it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, select

from thoracle.settings import Settings
from thoracle.store import chain, files, objects, rights
from thoracle.store.tables import audit_event, instance, outbox, result
from thoracle.store.trail import Event

logger = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
"""Between two looks at the audit for what was deleted."""
AGE_SECONDS = 3600.0
"""Between two looks at the ages of all copies."""
GRACE_SECONDS = 60.0
"""A copy that was read so recently may be about to be read, or about to get its row."""
PART = ".part"
"""Ends the name of a copy that is being fetched."""
PART_SECONDS = 3600.0
"""A part of a copy so old is left of a crash."""
_DELETED = (Event.RETENTION_DELETED.verb, Event.PATIENT_ERASED.verb)


class Copies:
    """The copies in one data folder."""

    def __init__(self, database: Engine, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._objects = objects.of(settings)
        self._seen: int | None = None
        """The last row of the audit at the time of the look before."""
        self._again = float("inf")
        self._due = float("-inf")

    def look(self) -> int:
        """Delete the copies that have to go; return how many, pictures made of them too.

        Raises
        ------
        ObjectsAway
            Whether objects are in the bucket cannot be told now.
        """
        with self._database.connect() as connection:
            last_id, _ = chain.head(connection)
            is_new = self._seen is None or _tells_of_deletion(connection, self._seen)
        gone = 0
        if is_new or time.monotonic() >= self._again:
            number, spared = self._unnamed()
            gone += number
            self._again = time.monotonic() + GRACE_SECONDS if is_new or spared else float("inf")
        self._seen = last_id
        if time.monotonic() >= self._due:
            gone += self._aged()
            self._due = time.monotonic() + AGE_SECONDS
        if gone:
            logger.info("%d local copies of objects deleted", gone)
        return gone

    def _unnamed(self) -> tuple[int, bool]:
        """Delete the copies of what was deleted, here or elsewhere.

        Returns how many, and whether one is left that was read or fetched a moment ago.
        """
        with self._database.connect() as connection:
            named = _named(connection)
        folder, before = self._settings.data_folder, time.time() - GRACE_SECONDS
        unnamed = [(one, used) for one, used in _copies(folder) if one not in named]
        found = [one for one, used in unnamed if used < before]
        for below in found:
            files.stored(folder, below).unlink(missing_ok=True)
        # Pictures are named by what they were made of, and are made again of what is there.
        pictures = files.delete_untouched(folder / rights.PICTURES, before)
        spared = len(found) < len(unnamed) or any(one.suffix == PART for one in _files(folder))
        return len(found) + pictures, spared

    def _aged(self) -> int:
        """Delete the copies that nobody has read for long, and what a crash left of one."""
        days, number = self._settings.objects.cache_days, 0
        before = time.time() - days * 86400
        for below, used in list(_copies(self._settings.data_folder)):
            if used < before and self._objects.exists(below):
                number += _deleted_unread(files.stored(self._settings.data_folder, below), used)
        for path in _files(self._settings.data_folder):
            with suppress(FileNotFoundError):  # it has just got its name
                if path.suffix == PART and path.stat().st_mtime < time.time() - PART_SECONDS:
                    path.unlink()
        album = self._settings.data_folder / rights.PICTURES
        return number + files.delete_untouched(album, before)


def steps(database: Engine, settings: Settings) -> Mapping[str, Callable[[], object]]:
    """Return what a gateway looks after once a minute; nothing where objects are no copies."""
    if not settings.objects.bucket:
        return {}
    return {"local copies": Copies(database, settings).look}


def start(database: Engine, settings: Settings) -> None:
    """Look after the copies in a thread: for a process that does no housekeeping."""
    if not settings.objects.bucket:
        return
    copies = Copies(database, settings)

    def look() -> None:
        while True:
            try:
                copies.look()
            except Exception as error:  # noqa: BLE001 - bucket or database may be away for a while
                logger.warning("local copies not looked through: %s", type(error).__name__)
            time.sleep(EVERY_SECONDS)

    threading.Thread(target=look, name="copies", daemon=True).start()


def _deleted_unread(path: Path, used: float) -> bool:
    """Delete a copy unless somebody has read it since a time; return whether it was deleted."""
    try:
        if path.stat().st_mtime != used:
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _tells_of_deletion(connection: Connection, after: int) -> bool:
    """Return whether an event behind a row of the audit tells of a deletion.

    Rows have one order. Their times are of the clocks of several machines.
    """
    event = audit_event.c
    statement = select(event.id).where(event.id > after, event.event.in_(_DELETED)).limit(1)
    return connection.execute(statement).first() is not None


def _named(connection: Connection) -> set[str]:
    """Return the paths that rows name of objects that are kept."""
    return {
        path
        for table in (instance, result, outbox)
        for path in connection.execute(
            select(table.c.path).where(table.c.file_state == "kept", table.c.path.is_not(None))
        ).scalars()
    }


def _copies(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the path of each whole copy, and when it was read last, seconds of the epoch."""
    for path in _files(folder):
        if path.suffix != PART:
            try:
                yield str(path.relative_to(folder)), path.stat().st_mtime
            except FileNotFoundError:  # it has just gone
                continue


def _files(folder: Path) -> Iterator[Path]:
    for name in files.STORED:
        yield from (folder / name).glob("*/*")
