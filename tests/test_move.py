"""All rows moved from SQLite to PostgreSQL and back: nothing is lost, and one database counts."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

import processes
from postgres import Server
from thoracle import settings
from thoracle.audit import verification
from thoracle.errors import SettingsError
from thoracle.settings import Settings
from thoracle.store import (
    anchors,
    database,
    engine,
    move,
    moved,
    running,
    signing,
    sqlite,
    trail,
)
from thoracle.store.move import Direction
from thoracle.store.tables import alarm_occurrence, audit_event, metadata, now, study

FORTH, BACK = Direction.TO_POSTGRESQL, Direction.TO_SQLITE


# ---- the rows ----------------------------------------------------------------------------------


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """Yield an engine that leaves no connection behind."""
    made = database.connect(url)
    try:
        yield made
    finally:
        made.dispose()


@pytest.fixture
def here(url: str, tmp_path: Path) -> Settings:
    """Settings of a data folder with a database in use, an anchor of it, and an empty server."""
    config = tmp_path / "thoracle.toml"
    config.write_text(f'data_folder = "{tmp_path}"\n[database]\nurl = "{url}"\n')
    with opened(database.sqlite_url(tmp_path)) as made:
        database.prepare(made)
        engine.make_tables(made)
        signer = signing.existing_or_new(tmp_path)
        with made.begin() as connection:
            signing.announce(connection, signer)
            for number in range(5):
                columns: trail.Columns = {
                    "probability": number / 7,
                    "patient_id": f"P{number}",
                    "detail": {"text": "\0 ä \U0001f600 \ud800", "number": 1e-300},
                }
                trail.record(connection, trail.Event.AUDIT_READ, columns)
        anchors.drop_anchor(made, tmp_path / anchors.ANCHORS_FILE, signer)
    return settings.load(config)


def config_of(here: Settings) -> str:
    return str(here.data_folder / "thoracle.toml")


def moved_forth(here: Settings, direction: Direction = FORTH) -> move.Moved:
    return move.move(here, direction, {"user_id": "tester"}, lambda _: None)


def embedded(here: Settings) -> str:
    return database.sqlite_url(here.data_folder)


def dump(connection: Connection) -> dict[str, list[str]]:
    """Return every row of every table but those that tell of the database or of the move."""
    found = MetaData()
    found.reflect(connection)
    if connection.dialect.name != "sqlite":
        found.reflect(connection, database.ENGINE_SCHEMA)
    kept = {}
    for table in found.tables.values():
        if "migrations" in table.name or table.name in (
            "thoracle_schema",
            "database_move",
            "gateway_lease",
        ):
            continue
        columns = sorted(table.columns.keys())
        statement = select(*(table.c[name] for name in columns))
        if table.name == "audit_event":
            statement = statement.where(table.c.event != trail.Event.DATABASE_MOVED.verb)
        if table.name != "audit_head":
            read = connection.execute(statement).all()
            kept[table.name] = sorted(repr(tuple(row)) for row in read)
    return kept


def odd(table: Table, number: int) -> dict[str, Any]:
    """Return a row that a careless copy would change; equal columns of tables fit each other."""
    values: list[tuple[type, Any]] = [
        (Boolean, bool(number % 2)),
        (Integer, number),
        (Float, (0.1 + 0.2, 1e-300, -1 / 3)[number % 3]),
        (LargeBinary, bytes(range(256)) + b"\\x41\n\t"),
        (JSON, {"b": ["\0", "\u00e4", None, 1.0], "a": "\\u0041\n"}),
        (object, f"{number}\\N\t\u00e4\n'\"\U0001f600"),
    ]
    row: dict[str, Any] = {}
    for column in table.columns:
        value = next(value for kind, value in values if isinstance(column.type, kind))
        if isinstance(value, str):
            value = value[: getattr(column.type, "length", None)]
        is_key = column.primary_key or column.foreign_keys
        is_null = column.nullable and number == 3 and not is_key
        row[column.name] = None if is_null or column.name == "attributes" else value
    return row


def fill_oddly(here: Settings) -> None:
    with opened(embedded(here)) as made, made.begin() as connection:
        found = MetaData()
        found.reflect(connection)
        for table in found.sorted_tables:
            if "migrations" in table.name or table.name in (
                "thoracle_schema",
                "database_move",
                "gateway_lease",
                "audit_event",
                "audit_head",
            ):
                continue
            for number in (1, 2, 3):
                connection.execute(insert(table).values(odd(table, number)))


def test_every_value_of_every_table_is_the_same_after_both_ways(here: Settings) -> None:
    fill_oddly(here)
    with opened(embedded(here)) as made, made.connect() as connection:
        before = dump(connection)
    assert len(before) > 40
    assert all(len(one) in (3, 6) for one in before.values())
    done = moved_forth(here)
    assert done.set_aside is not None
    with opened(here.database.url) as made, made.connect() as connection:
        assert {name: one for name, one in dump(connection).items() if one} == before
    moved_forth(here, BACK)
    with opened(embedded(here)) as made, made.connect() as connection:
        assert dump(connection) == before
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        assert connection.execute(text("PRAGMA secure_delete")).scalar() == 1


def test_the_chain_holds_and_says_who_moved_what_with_the_anchors_of_before(
    here: Settings,
) -> None:
    path = here.data_folder / anchors.ANCHORS_FILE
    (first,) = anchors.read_anchors(path)
    moved_forth(here)
    with opened(here.database.url) as made, made.connect() as connection:
        kept = anchors.read_anchors(path)
        assert [one.id for one in kept] == [first.id, first.id + 1]
        assert kept[0] == first
        found = verification.verify(connection, kept)
        assert (found.well, found.rows, found.signed) == (True, 7, 2)
        event = connection.execute(select(audit_event).order_by(audit_event.c.id.desc())).first()
        assert event is not None
        assert (event.event, event.user_id) == ("database moved", "tester")
        assert event.detail["to"] == database.named(made)
        assert event.detail["tables"]["audit_event"]["rows"] == 6


def test_numbers_go_on_behind_the_highest_and_the_triggers_are_there(here: Settings) -> None:
    values = {"subject": "a", "sentence": "b", "advice": "", "outside": "c", "since": now()}
    with opened(embedded(here)) as made, made.begin() as connection:
        connection.execute(insert(alarm_occurrence).values(id=41, **values))
    moved_forth(here)
    with opened(here.database.url) as made:
        with made.begin() as connection:
            number = connection.execute(insert(alarm_occurrence).values(**values))
            assert number.inserted_primary_key is not None
            assert tuple(number.inserted_primary_key) == (42,)
        with made.connect() as connection, pytest.raises(DBAPIError, match="only ever added"):
            connection.execute(update(audit_event).values(user_id="nobody"))
        of_code = {one.name for table in metadata.tables.values() for one in table.indexes}
        inspector = inspect(made)
        names = {one["name"] for table in metadata.tables for one in inspector.get_indexes(table)}
        assert of_code - names == {"ix_worklist_search"}  # SQLite's alone


def test_a_text_with_nul_is_replaced_and_named_and_the_rest_is_as_it_was(here: Settings) -> None:
    values = {"study_instance_uid": "1.2", "generation": 0, "first_received_at": now()}
    with opened(embedded(here)) as made, made.begin() as connection:
        connection.execute(insert(study).values(**values, patient_id="P\0", changed_at=now()))
    planned = move.plan(here, FORTH)
    (found,) = [one for one in planned.tables if one.replaced]
    assert (found.name, found.named, planned.faults) == ("study", ["study 1.2: patient_id"], [])
    done = processes.run("move", FORTH, "--config", config_of(here), "--execute")
    assert "NUL in a text becomes U+FFFD: study 1.2: patient_id" in done.stdout
    assert "audit: OK" in done.stdout
    with opened(here.database.url) as made, made.connect() as connection:
        assert connection.execute(select(study.c.patient_id)).scalars().all() == ["P\ufffd"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"patient_id": "P" * 65}, "study 1.2: patient_id: found 65 characters, required: at most"),
        ({"accession_number": "A\0" * 40}, "found 80 characters, required: at most 64"),
    ],
)
def test_rows_that_postgresql_cannot_keep_are_named_and_nothing_is_moved(
    here: Settings, values: dict[str, str], said: str
) -> None:
    more = {"study_instance_uid": "1.2", "generation": 0, "first_received_at": now()}
    with opened(embedded(here)) as made, made.begin() as connection:
        connection.execute(insert(study).values(**more, **values, changed_at=now()))
    assert any(said in one for one in move.plan(here, FORTH).faults)
    done = processes.run("move", FORTH, "--config", config_of(here), "--execute")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert values.popitem()[1] not in done.stderr
    nothing_was_moved(here)


def nothing_was_moved(here: Settings) -> None:
    """The source counts, and the target has no rows."""
    with opened(here.database.url) as made, made.connect() as connection:
        if database.revision(made) is not None:
            head = connection.execute(text("SELECT last_id FROM audit_head"))
            assert head.scalar() == 0
            rows_of = connection.execute(text("SELECT count(*) FROM audit_event"))
            assert rows_of.scalar() == 0
    without = here.model_copy(update={"database": settings.Settings().database})
    database.existing(without).dispose()
    assert sqlite.moved_files(here.data_folder) == []


# ---- one database counts -----------------------------------------------------------------------


def test_a_way_back_that_fails_leaves_no_file_and_postgresql_counts(here: Settings) -> None:
    moved_forth(here)
    with opened(here.database.url) as made, made.begin() as connection:
        connection.execute(text("CREATE TABLE dbos.event_dispatch_more (id integer PRIMARY KEY)"))
        connection.execute(text("INSERT INTO dbos.event_dispatch_more VALUES (1)"))
    with pytest.raises(database.DatabaseError, match="found rows in event_dispatch_more"):
        moved_forth(here, BACK)
    assert list(here.data_folder.glob("thoracle.sqlite*")) == []
    database.existing(here).dispose()


def test_what_is_at_work_or_filled_is_refused_and_nothing_is_moved(
    here: Settings, documented_server: Server
) -> None:
    locks = (running.GATEWAY, "web-8123.lock")
    for lock in locks:
        with closing(running.hold(here.data_folder, lock)) as held:
            running.announce(held, 7, "127.0.0.1:8123")
            assert "at work (process 7), required: none" in move.plan(here, FORTH).faults[0]
            refuses(here, "at work, required: none")
    with opened(embedded(here)) as made, made.connect() as connection:
        connection.execute(text("SELECT 1 FROM study")).all()
        refuses(here, "a command or a reader at work")
    with opened(here.database.url) as made, made.connect():
        refuses(here, "found thoracle (127.0.0.1) at work")
    nothing_was_moved(here)
    with opened(here.database.url) as made, made.begin() as connection:
        trail.record(connection, trail.Event.AUDIT_READ, {})
    refuses(here, "found rows in audit_event, audit_head, required: an empty database")
    with pytest.raises(SettingsError, match=r"database\.url: found none"):
        move.plan(here.model_copy(update={"database": settings.Settings().database}), FORTH)


def refuses(here: Settings, said: str) -> None:
    done = processes.run("move", FORTH, "--config", config_of(here), "--execute")
    assert done.returncode == 1
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@contextmanager
def interrupted(here: Settings, lock: str) -> Iterator[None]:
    """Kill a move that waits for a lock of the worklist; yield when it is dead."""
    with opened(here.database.url) as made:
        database.prepare(made)
        engine.make_tables(made)  # which waits for transactions that are open
    with closing(psycopg.connect(here.database.url)) as other:
        other.execute(f"LOCK TABLE worklist IN {lock} MODE".encode())
        command = [sys.executable, "-m", "thoracle", "move", FORTH, "--execute"]
        process = subprocess.Popen([*command, "--config", config_of(here)])
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'worklist'::regclass"
        while other.execute(waits.encode()).fetchone() is None:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        yield
        other.rollback()
    # One transaction would see what its first look saw for ever.
    with closing(psycopg.connect(here.database.url, autocommit=True)) as other:
        while other.execute(
            b"SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'thoracle%'"
        ).fetchone():
            time.sleep(0.05)


def test_a_move_that_was_killed_keeps_both_from_starting_and_is_begun_anew(
    here: Settings,
) -> None:
    with interrupted(here, "SHARE"):
        nothing_starts(here)
    nothing_starts(here)
    assert moved_forth(here).rows > 0
    assert_moved_once(here)


def nothing_starts(here: Settings) -> None:
    config = here.data_folder / "without.toml"
    config.write_text(f'data_folder = "{here.data_folder}"\n')
    for command in ("serve", "web", "status"):
        done = processes.run(command, "--config", str(config))
        assert done.returncode == 1
        assert "that did not end, required: `thoracle move` again" in " ".join(done.stderr.split())
    done = processes.run("serve", "--config", config_of(here))
    assert done.returncode == 1
    assert "an empty database" in done.stderr


def assert_moved_once(here: Settings) -> None:
    with opened(here.database.url) as made, made.connect() as connection:
        kept = anchors.read_anchors(here.data_folder / anchors.ANCHORS_FILE)
        assert verification.verify(connection, kept).well
        told = select(audit_event.c.id).where(audit_event.c.event == "database moved")
        assert len(connection.execute(told).all()) == 1
    (aside,) = sqlite.moved_files(here.data_folder)
    # A mistake: it is renamed to what it was.
    shutil.copyfile(aside, here.data_folder / sqlite.FILE)
    without = here.model_copy(update={"database": settings.Settings().database})
    with pytest.raises(database.RowsMovedError, match="rows were moved to postgresql://"):
        database.existing(without)
    (here.data_folder / sqlite.FILE).unlink()


def test_a_move_that_was_killed_after_its_commit_is_ended_and_not_repeated(
    here: Settings,
) -> None:
    # ANALYZE, which comes behind the commit, waits for this lock, and COPY does not.
    with interrupted(here, "SHARE UPDATE EXCLUSIVE"):
        pass
    with opened(embedded(here)) as made, made.connect() as connection:
        mark = moved.mark(connection)
        assert mark is not None
        assert mark.ended_at is None
    done = processes.run("move", FORTH, "--config", config_of(here), "--execute")
    assert "audit: OK, 7 rows are intact and match 2 anchors" in done.stdout
    assert_moved_once(here)


def test_an_interrupted_move_is_given_up_by_a_command_that_is_recorded(here: Settings) -> None:
    before = (here.data_folder / anchors.ANCHORS_FILE).read_text()
    with interrupted(here, "SHARE"):
        pass
    config = here.data_folder / "without.toml"
    config.write_text(f'data_folder = "{here.data_folder}"\n')
    reason = ("--reason", "the server is not coming back")
    done = processes.run("accept-database", "--config", str(config), *reason)
    assert done.returncode == 0, done.stderr
    with opened(embedded(here)) as made, made.connect() as connection:
        database.require_unmoved(made)
        kept = anchors.read_anchors(here.data_folder / anchors.ANCHORS_FILE)
        assert verification.verify(connection, kept).well
        told = select(audit_event.c.detail).where(audit_event.c.event == "database accepted")
        (detail,) = connection.execute(told).scalars()
    assert "did not end" in detail["found"]
    assert detail["reason"] == "the server is not coming back"
    assert (here.data_folder / anchors.ANCHORS_FILE).read_text().startswith(before)


def test_a_way_back_to_a_file_that_has_rows_is_refused_and_an_empty_one_is_replaced(
    here: Settings,
) -> None:
    moved_forth(here)
    (aside,) = sqlite.moved_files(here.data_folder)
    file = here.data_folder / sqlite.FILE
    shutil.copyfile(aside, file)
    assert "found rows in audit_event" in move.plan(here, BACK).faults[0]
    with pytest.raises(database.DatabaseError, match="found rows in audit_event"):
        moved_forth(here, BACK)
    file.unlink()
    database.open_database(embedded(here)).dispose()  # what `thoracle check` leaves
    moved_forth(here, BACK)
    with opened(embedded(here)) as made, made.connect() as connection:
        assert verification.verify(
            connection, anchors.read_anchors(here.data_folder / anchors.ANCHORS_FILE)
        ).well
    with pytest.raises(database.RowsMovedError, match="rows were moved to /"):
        database.existing(here)
