"""The chain of the trail: whatever is done to a copy of the file is found, and where first."""

import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from test_migrations import at_revision
from thoracle.audit import verification
from thoracle.audit.verification import Verification, verify
from thoracle.cli import app
from thoracle.store import anchors, chain, database, trail
from thoracle.store.anchors import Anchor
from thoracle.store.trail import Columns, Event

ROWS = 40
HOSTILE = ("Doe\x00Jane", "half \ud800 character", "Ωνάσης 山田", '"}], 1, null', "a" * 64)


def fill(engine: Engine, rows: int = ROWS, seed: int = 1) -> None:
    draw = random.Random(seed)
    for number in range(rows):
        columns: Columns = {
            "patient_id": draw.choice(HOSTILE)[:64],
            "study_instance_uid": f"1.2.{number}",
            "probability": draw.choice([None, draw.random(), 0, 1]),
            "seconds": draw.random() * 10,
            "detail": {"text": draw.choice(HOSTILE), "number": draw.random(), "none": None},
        }
        with engine.begin() as connection:
            trail.record(connection, draw.choice(list(Event)), columns)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trail")
    engine = database.open_database(database.sqlite_url(folder))
    fill(engine)
    engine.dispose()
    return folder / "thoracle.sqlite"


Tamper = Callable[[sqlite3.Connection], object]


def verified(written: Path, folder: Path, tamper: Tamper, *kept: Anchor) -> Verification:
    """Return what the verification of a copy says, with which somebody did something.

    Whoever can write to the file can also drop the triggers.
    """
    copy = folder / "thoracle.sqlite"
    copy.write_bytes(written.read_bytes())
    with sqlite3.connect(copy) as connection:
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        tamper(connection)
    connection.close()
    engine = database.connect(database.sqlite_url(folder))
    with engine.connect() as reading:
        found = verify(reading, kept)
    engine.dispose()
    return found


def test_an_untouched_trail_fits(written: Path, tmp_path: Path) -> None:
    found = verified(written, tmp_path, lambda _: None)
    assert found.well
    assert (found.rows, found.last_id) == (ROWS, ROWS)


@pytest.mark.parametrize("name", [name for name in chain.COLUMNS if name != "id"])
def test_a_change_of_any_column_of_any_row_is_found(
    written: Path, tmp_path: Path, name: str
) -> None:
    row = random.Random(name).randrange(1, ROWS + 1)

    def change(connection: sqlite3.Connection) -> None:
        statement = f"SELECT {name} FROM audit_event WHERE id = ?"
        (value,) = connection.execute(statement, (row,)).fetchone()
        other = (value or 0) + 1e-9 if isinstance(value, float) else f"{value}x"
        if name == "event_outcome":
            other = value + 4
        connection.execute(f"UPDATE audit_event SET {name} = ? WHERE id = ?", (other, row))

    found = verified(written, tmp_path, change)
    assert found.broken_id == row
    assert found.rows == row - 1


@pytest.mark.parametrize("row", [1, 2, ROWS // 2, ROWS - 1])
def test_a_row_that_was_taken_out_is_found(written: Path, tmp_path: Path, row: int) -> None:
    found = verified(
        written, tmp_path, lambda c: c.execute("DELETE FROM audit_event WHERE id = ?", (row,))
    )
    assert found.broken_id == row + 1
    assert "1 before it are missing" in found.fault


@pytest.mark.parametrize("row", [2, ROWS // 2, ROWS])
def test_a_row_that_was_put_in_is_found(written: Path, tmp_path: Path, row: int) -> None:
    def insert(connection: sqlite3.Connection) -> None:
        names = ", ".join(chain.COLUMNS[1:])
        connection.execute("UPDATE audit_event SET id = -id - 1 WHERE id >= ?", (row,))
        connection.execute("UPDATE audit_event SET id = -id WHERE id < 0")
        connection.execute(
            f"INSERT INTO audit_event (id, {names}, digest) SELECT {row}, {names}, digest "
            "FROM audit_event WHERE id = 1"
        )

    assert verified(written, tmp_path, insert).broken_id == row


@pytest.mark.parametrize("pair", [(1, 2), (5, 30), (ROWS - 1, ROWS)])
def test_rows_that_changed_places_are_found(
    written: Path, tmp_path: Path, pair: tuple[int, int]
) -> None:
    one, other = pair

    def swap(connection: sqlite3.Connection) -> None:
        for before, after in ((one, -1), (other, one), (-1, other)):
            connection.execute("UPDATE audit_event SET id = ? WHERE id = ?", (after, before))

    assert verified(written, tmp_path, swap).broken_id == one


@pytest.mark.parametrize("row", [1, ROWS // 2, ROWS])
def test_an_end_that_was_cut_off_is_found(written: Path, tmp_path: Path, row: int) -> None:
    def cut(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM audit_event WHERE id >= ?", (row,))

    found = verified(written, tmp_path, cut)
    assert found.broken_id == row
    assert f"the trail ends at {row - 1}, required: {ROWS}" in found.fault


def end(written: Path) -> Anchor:
    with sqlite3.connect(written) as connection:
        last_id, digest = connection.execute("SELECT last_id, digest FROM audit_head").fetchone()
    connection.close()
    return Anchor(last_id, digest)


def test_an_end_that_was_cut_off_with_its_mark_is_found_by_an_anchor(
    written: Path, tmp_path: Path
) -> None:
    def cut(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM audit_event WHERE id > 30")
        connection.execute(
            "UPDATE audit_head SET last_id = 30, "
            "digest = (SELECT digest FROM audit_event WHERE id = 30)"
        )

    assert verified(written, tmp_path, cut).well
    assert verified(written, tmp_path, cut, end(written)).broken_id == 31


def test_a_trail_that_was_written_anew_is_found_by_an_anchor(written: Path, tmp_path: Path) -> None:
    def anew(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE audit_event SET user_id = 'nobody' WHERE id = 7")
        digest = chain.FIRST
        names = ", ".join(chain.COLUMNS)
        for row in connection.execute(f"SELECT {names} FROM audit_event ORDER BY id").fetchall():
            digest = chain.digest_of(digest, row)
            connection.execute("UPDATE audit_event SET digest = ? WHERE id = ?", (digest, row[0]))
        connection.execute("UPDATE audit_head SET digest = ?", (digest,))

    assert verified(written, tmp_path, anew).well
    found = verified(written, tmp_path, anew, end(written))
    assert (found.broken_id, found.fault[:24]) == (ROWS, "it was written anew: an ")
    with sqlite3.connect(tmp_path / "thoracle.sqlite") as connection:
        (digest,) = connection.execute("SELECT digest FROM audit_head").fetchone()
    for kept in ((end(written), Anchor(ROWS, digest)), (Anchor(ROWS, digest), end(written))):
        assert verified(written, tmp_path, anew, *kept).broken_id == ROWS


def test_a_row_behind_the_end_is_found(written: Path, tmp_path: Path) -> None:
    def add(connection: sqlite3.Connection) -> None:
        names = ", ".join(chain.COLUMNS[1:])
        connection.execute(f"INSERT INTO audit_event ({names}) SELECT {names} FROM audit_event")
        digest = connection.execute("SELECT digest FROM audit_head").fetchone()[0]
        statement = f"SELECT {', '.join(chain.COLUMNS)} FROM audit_event WHERE id > ? ORDER BY id"
        for row in connection.execute(statement, (ROWS,)).fetchall():
            digest = chain.digest_of(digest, row)
            connection.execute("UPDATE audit_event SET digest = ? WHERE id = ?", (digest, row[0]))

    found = verified(written, tmp_path, add)
    assert found.broken_id == ROWS + 1


def test_rows_that_come_while_the_chain_is_followed_are_no_fault(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thoracle.sqlite").write_bytes(written.read_bytes())
    engine = database.connect(database.sqlite_url(tmp_path))
    follow, came = verification._follow, iter([3, 2])

    def slowly(*arguments: Any) -> Verification:
        """Have rows come before and after the chain is followed."""
        fill(engine, next(came), seed=3)
        found = follow(*arguments)
        fill(engine, next(came), seed=4)
        return found

    monkeypatch.setattr(verification, "_follow", slowly)
    with engine.connect() as reading:
        found = verify(reading)
    assert (found.well, found.last_id) == (True, ROWS + 3), found.fault
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET user_id = 'x' WHERE id = 1",
        "DELETE FROM audit_event WHERE id = 1",
        "DELETE FROM audit_head",
    ],
)
def test_the_database_refuses_to_change_what_was_written(tmp_path: Path, statement: str) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    fill(engine, 2)
    with engine.begin() as connection, pytest.raises(IntegrityError, match="only ever added"):
        connection.execute(text(statement))


def test_rows_up_to_a_checkpoint_alone_can_be_deleted(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    fill(engine, 20)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO audit_checkpoint VALUES (12, :digest, 12, '2026', 'test')"),
            {"digest": chain.digest_at(connection, 12)},
        )
        connection.execute(text("DELETE FROM audit_event WHERE id <= 12"))
    with engine.begin() as connection, pytest.raises(IntegrityError, match="only ever added"):
        connection.execute(text("DELETE FROM audit_event WHERE id = 13"))


def test_a_transaction_that_fails_leaves_no_link(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    fill(engine, 3)
    with engine.connect() as connection:
        trail.record(connection, Event.AUDIT_READ, {})
        connection.rollback()
    fill(engine, 3)
    with engine.connect() as connection:
        assert verify(connection).rows == 6


def test_a_verification_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    fill(engine, 10)
    anchor = anchors.drop_anchor(engine, tmp_path / anchors.ANCHORS_FILE)
    fill(engine, 5)
    with engine.connect() as connection:
        found = verify(connection, since=anchor)
    assert (found.well, found.rows, found.last_id) == (True, 5, 15)


def test_rows_of_an_older_schema_are_chained_when_it_is_brought_up(tmp_path: Path) -> None:
    engine = at_revision(tmp_path, "0001")
    with engine.begin() as connection:
        for number in (3, 4, 9):  # with gaps, as rows were never taken out but may be elsewhere
            connection.execute(
                text(
                    "INSERT INTO audit_event (id, recorded_at, event, event_id, action,"
                    " event_outcome, probability, detail) VALUES"
                    " (:id, '2026', 'image read', '110103', 'R', 0, 0.25, :detail)"
                ),
                {"id": number, "detail": json.dumps({"a": [1.5, None, "ü"]})},
            )
    engine.dispose()
    engine = database.open_database(database.sqlite_url(tmp_path))
    fill(engine, 2)
    with engine.connect() as connection:
        found = verify(connection)
        assert (found.well, found.rows, found.last_id) == (True, 5, 11)


def test_anchors_are_dropped_once_for_each_end_and_survive_a_crash(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    path = tmp_path / anchors.ANCHORS_FILE
    fill(engine, 3)
    assert anchors.drop_anchor(engine, path) == anchors.read_anchors(path)[0]
    assert anchors.drop_anchor(engine, path) is None
    with path.open("a") as file:
        file.write('{"id": 5, "dig')
    assert [one.id for one in anchors.read_anchors(path)] == [3]
    fill(engine, 4)
    anchors.drop_anchor(engine, path)
    assert [one.id for one in anchors.read_anchors(path)] == [3, 7]


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    config = folder / "thoracle.toml"
    config.write_text(f'data_folder = "{folder}"\n')
    result = CliRunner().invoke(app, ["audit", *arguments, "--config", str(config)])
    return result.exit_code, result.stdout


def test_the_command_says_that_all_fits_or_names_the_row(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    fill(engine, 5)
    anchors.drop_anchor(engine, tmp_path / anchors.ANCHORS_FILE)
    code, said = run(tmp_path, "verify")
    assert code == 0
    assert said.startswith("OK: 5 rows from the beginning to row 5 are intact")
    fill(engine, 2)
    assert run(tmp_path, "verify", "--incremental")[1].startswith("OK: 2 rows from row 5 to")
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_event_no_update"))
        connection.execute(text("UPDATE audit_event SET user_id = 'x' WHERE id = 4"))
    code, said = run(tmp_path, "verify")
    assert (code, said.splitlines()[0][:16]) == (1, "BROKEN at row 4:")
