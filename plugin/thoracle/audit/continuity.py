"""A database that was there is never begun anew without a word.

Anchors and files in the data folder show that there was one. When it is missing, empty, older than
they are or another one, the start is refused: everything acknowledged would be without its rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import inspect, select

from thoracle.audit import verification
from thoracle.settings import Settings
from thoracle.store import anchors, chain, moved, signing, sqlite, trail
from thoracle.store import database as databases
from thoracle.store.anchors import Anchor
from thoracle.store.database import Database, DatabaseError, RowsMovedError
from thoracle.store.tables import audit_event, now

FOLDERS = ("images", "results")
"""Below the data folder: what rows name."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What shows that there was a database."""

    anchor: Anchor | None
    """The newest one."""
    files: dict[str, int]
    """How many there are in each of ``FOLDERS`` that has any."""

    def __bool__(self) -> bool:
        return bool(self.anchor or self.files)

    def __str__(self) -> str:
        return ", ".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        if self.anchor is not None:
            name = anchors.ANCHORS_FILE
            yield f"row {self.anchor.id} of {self.anchor.recorded_at[:19]} in {name}"
        yield from (f"{number} files in {name}" for name, number in self.files.items())


def traces(folder: Path) -> Traces:
    """Return what in a data folder shows that there was a database."""
    files = {name: sum(1 for _ in (folder / name).glob("*/*")) for name in FOLDERS}
    found = {name: number for name, number in files.items() if number}
    return Traces(anchors.last_anchor(folder / anchors.ANCHORS_FILE), found)


def require(settings: Settings) -> None:
    """Return when the database is the one that the data folder belongs to, or both are new.

    Raises
    ------
    DatabaseError
        It is not, or it cannot be reached, or its rows were moved. Nothing is made or changed.
    """
    folder = settings.data_folder
    anchor = anchors.last_anchor(folder / anchors.ANCHORS_FILE)
    if anchor is None and not any(True for name in FOLDERS for _ in (folder / name).glob("*/*")):
        return
    fault = _fault(settings, anchor)
    if fault:
        found = traces(folder)  # counting takes a while where there are many
        raise DatabaseError(
            f"{folder}: found {found}, and {fault}; required: the database that "
            "they belong to. Restore it from a backup. If there is none, or this is the backup: "
            "`thoracle accept-database --reason TEXT` records what is missing and goes on with it"
        )


def _fault(settings: Settings, anchor: Anchor | None) -> str:
    """Return what is wrong with the database; empty when nothing is."""
    if not settings.database.url:
        path = databases.sqlite_file(settings)
        name = path.relative_to(settings.data_folder)
        if not path.exists():
            rescued = settings.data_folder / sqlite.RESCUED
            known = f", but {rescued.name}, a copy of it: rename it to {name}"
            known *= rescued.exists()
            for moved_file in sqlite.moved_files(settings.data_folder)[-1:]:
                known = f", but {moved_file.name}, whose rows were moved: is [database] missing?"
            return f"no database ({name}){known}"
        if path.stat().st_size == 0:
            return f"an empty file in place of the database ({name})"
    engine = databases.engine_of(settings)
    try:
        databases.require_reach(engine)
        return _of(engine, anchor)
    finally:
        engine.dispose()


def _of(database: Database, anchor: Anchor | None) -> str:
    databases.require_unmoved(database)
    if databases.revision(database) is None:
        return f"a database without tables ({databases.named(database)})"
    with database.connect() as connection:
        if not inspect(connection).has_table("audit_head"):
            return ""  # of a version before there were anchors
        last_id, _ = chain.head(connection)
        if last_id == 0:
            return f"an empty database ({databases.named(database)})"
        if anchor is None:
            return ""
        if last_id < anchor.id:
            return f"a database whose audit ends at row {last_id}"
        statement = select(audit_event.c.digest).where(audit_event.c.id == anchor.id)
        digest = connection.execute(statement).scalar()
    if digest is not None and digest != anchor.digest:  # one that is purged is missing by rule
        return f"another database: row {anchor.id} of its audit has another digest"
    return ""


def accept(settings: Settings, reason: str, user_id: str) -> Traces:
    """Go on with the database as it is, or with a new one; return what it does not account for.

    Anchors that are not of its audit are kept in a file of another name; the audit says what they
    were, and who accepted it why.

    Raises
    ------
    DatabaseError
        Nothing is wrong with it; it cannot be used.
    """
    found, is_moved = traces(settings.data_folder), False
    try:
        fault = _fault(settings, found.anchor) if found else ""
    except RowsMovedError as error:
        fault, is_moved = str(error), True
    if not fault:
        raise DatabaseError(
            f"{settings.data_folder}: found nothing that is missing, required: a database that "
            "`thoracle serve` refuses"
        )
    engine = databases.engine_of(settings)
    try:
        if is_moved:
            with engine.begin() as connection:
                moved.clear(connection)
        is_other = not is_moved or bool(_of(engine, found.anchor))
        databases.prepare(engine)
        _record(engine, found, fault, reason, user_id)
        if is_other:
            _put_anchors_aside(settings.data_folder)
        signer = signing.existing_or_new(settings.data_folder)
        with engine.begin() as connection:
            signing.announce(connection, signer)
        anchors.drop_anchor(engine, settings.data_folder / anchors.ANCHORS_FILE, signer)
    finally:
        engine.dispose()
    return found


def _put_anchors_aside(folder: Path) -> None:
    moment = now().replace(":", "")
    for name in (anchors.ANCHORS_FILE, verification.VERIFIED):
        path = folder / name
        if path.exists():
            path.rename(path.with_stem(f"{path.stem}-until-{moment}"))


def _record(engine: Database, found: Traces, fault: str, reason: str, user_id: str) -> None:
    anchor = found.anchor
    detail = {
        "found": fault,
        "reason": reason,
        "anchor": None if anchor is None else {"id": anchor.id, "digest": anchor.digest},
        "files": found.files,
    }
    with engine.begin() as connection:
        columns: trail.Columns = {
            "event_outcome": trail.SERIOUS_FAILURE,
            "user_id": user_id[:64],
            "detail": detail,
        }
        trail.record(connection, trail.Event.DATABASE_ACCEPTED, columns)
