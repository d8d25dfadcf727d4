"""`thoracle move`: all rows from SQLite to PostgreSQL, and back."""

from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.cli.options import ConfigOption, say, settings_of, who
from thoracle.wording import number

if TYPE_CHECKING:
    from thoracle.settings import Settings
    from thoracle.store.database import Database
    from thoracle.store.move import Direction, Moved
    from thoracle.store.table_copy import TableRows

app = typer.Typer(help="Move all rows from SQLite to PostgreSQL, or back.", no_args_is_help=True)

ExecuteOption = Annotated[
    bool, typer.Option("--execute", help="Move. Without it, list what would be moved.")
]


@app.command("sqlite-to-postgresql")
def to_postgresql_command(execute: ExecuteOption = False, config: ConfigOption = None) -> None:
    """Move the rows of the data folder's SQLite to the PostgreSQL of `[database]`."""
    from thoracle.store.move import Direction

    _run(settings_of(config), Direction.TO_POSTGRESQL, execute)


@app.command("postgresql-to-sqlite")
def to_sqlite_command(execute: ExecuteOption = False, config: ConfigOption = None) -> None:
    """Move the rows of the PostgreSQL of `[database]` to SQLite in the data folder."""
    from thoracle.store.move import Direction

    _run(settings_of(config), Direction.TO_SQLITE, execute)


def _run(settings: "Settings", direction: "Direction", execute: bool) -> None:
    from thoracle.store import move

    if execute:
        _require_continuity(settings, direction)
        columns = who(f"thoracle move {direction}")
        _finish(settings, direction, move.move(settings, direction, columns, _say_table))
        return
    planned = move.plan(settings, direction)
    say(f"from {planned.source} to {planned.target}")
    for one in planned.tables:
        _say_table(one)
    for fault in planned.faults:
        say(f"not yet: {fault}")
    say("nothing was changed; with --execute the rows are moved, gateway and pages being stopped")


def _require_continuity(settings: "Settings", direction: "Direction") -> None:
    """Return when the rows are those that the data folder belongs to."""
    from thoracle.audit import continuity
    from thoracle.store.database import RowsMovedError
    from thoracle.store.move import Direction

    source = settings
    if direction is Direction.TO_POSTGRESQL:
        embedded = settings.database.model_copy(update={"url": "", "password_file": None})
        source = settings.model_copy(update={"database": embedded})
    try:
        continuity.require(source)
    except RowsMovedError:
        return  # a move that was interrupted, of which the move itself says what is to be done


def _say_table(one: "TableRows") -> None:
    if one.rows:
        say(f"{one.name}: {number(one.rows, 'row')}, digest {one.digest[:16]}")
    for place in one.named:
        say(f"  NUL in a text becomes U+FFFD: {place}")
    if one.replaced > len(one.named):
        say(f"  and in {one.replaced - len(one.named)} more texts of {one.name}")


def _finish(settings: "Settings", direction: "Direction", done: "Moved") -> None:
    from thoracle.store import database
    from thoracle.store.move import Direction

    to_postgresql = direction is Direction.TO_POSTGRESQL
    moved = number(done.rows, "row")
    say(f"moved {moved} to {done.target}; each table was read again and is the same")
    if done.set_aside is not None:
        say(f"the old database is {done.set_aside}: delete it when the new one has proven itself")
    else:
        say(f"the old database, {done.source}, is marked: nothing starts on it. Drop it later")
        say("take [database] out of the configuration before the gateway is started")
    embedded = database.sqlite_url(settings.data_folder)
    engine = database.engine_of(settings) if to_postgresql else database.connect(embedded)
    try:
        _verify(settings, engine)
    finally:
        engine.dispose()


def _verify(settings: "Settings", engine: "Database") -> None:
    """Follow the chain of the audit; the rows are the same, and so are faults that it had."""
    from thoracle.audit import contents, verification
    from thoracle.store import objects
    from thoracle.store.anchors import ANCHORS_FILE, read_anchors

    kept = read_anchors(settings.data_folder / ANCHORS_FILE)
    with engine.connect() as connection:
        result = verification.verify(connection, kept)
    if not result.well:
        say(f"audit: BROKEN at row {result.broken_id}, as it was before: {result.fault}")
        raise typer.Exit(1)
    found = len(contents.check(engine, objects.of(settings), with_files=False).faults)
    if found:
        differ = number(found, "result or verdict differs", "results and verdicts differ")
        say(f"audit: {differ} from it, as before: `audit verify`")
        raise typer.Exit(1)
    say(f"audit: OK, {result.rows} rows are intact and match {number(len(kept), 'anchor')}")
