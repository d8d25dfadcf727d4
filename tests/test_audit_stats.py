"""`thoracle audit stats`: what is counted is what was recorded, and the bars show it."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

import bench_audit
from postgres import postgres
from thoracle.audit import query
from thoracle.cli import app
from thoracle.cli.audit import COUNTED, CountBy, bars, without_gaps
from thoracle.store import database, trail
from thoracle.store.trail import Columns, Event

HOSTILE = "[red]\x1b[31mR\x00OOM[/red]"[:16]
ROWS: list[tuple[Event, Columns]] = [
    (Event.INSTANCE_STORED, {"calling_ae_title": "ROOM_1"}),
    (Event.INSTANCE_STORED, {"calling_ae_title": "ROOM_1"}),
    (Event.INSTANCE_STORED, {"calling_ae_title": HOSTILE}),
    (Event.INSTANCE_REFUSED, {"calling_ae_title": "ROOM_9"}),
    (
        Event.IMAGE_READ,
        {"outcome": "positive", "bundle_version": "covid 0.2.0", "bundle_digest": "d" * 64},
    ),
    (
        Event.IMAGE_READ,
        {
            "outcome": "rejected",
            "reason_code": "NOT-CHEST",
            "bundle_version": "covid 0.2.0",
            "bundle_digest": "e" * 64,
        },
    ),
    (Event.RESULT_CREATED, {"outcome": "positive"}),
    (Event.DELIVERY_SENT, {"destination": "pacs"}),
    (Event.STUDY_VIEWED, {"user_id": "anna"}),
]
EXPECTED: dict[str, list[tuple[str, int]]] = {
    "event": [
        ("instance stored", 3),
        ("image read", 2),
        ("delivery sent", 1),
        ("instance refused", 1),
        ("result created", 1),
        ("study viewed", 1),
    ],
    "device": [("ROOM_1", 2), (HOSTILE.replace("\0", "\ufffd"), 1)],
    "outcome": [("positive", 1), ("rejected", 1)],
    "reason": [("NOT-CHEST", 1)],
    "bundle": [("covid 0.2.0 dddddddddddd", 1), ("covid 0.2.0 eeeeeeeeeeee", 1)],
    "destination": [("pacs", 1)],
    "user": [("anna", 1)],
}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    found = database.open_database(database.sqlite_url(tmp_path))
    with found.begin() as connection:
        for event, columns in ROWS:
            trail.record(connection, event, columns)
    return found


def ask(folder: Path, *arguments: str) -> str:
    config = folder / "thoracle.toml"
    config.write_text(f'data_folder = "{folder}"\n')
    result = CliRunner().invoke(app, ["audit", "stats", "--config", str(config), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_everything_that_can_be_counted_by_has_a_test() -> None:
    assert set(CountBy) == set(query.BY) == {*EXPECTED, "day", "month"}
    assert set(COUNTED) <= set(CountBy)


@pytest.mark.parametrize("by", EXPECTED)
def test_counts_are_those_of_the_rows(engine: Engine, by: str) -> None:
    with engine.connect() as connection:
        assert query.count(connection, by) == EXPECTED[by]
        assert query.count(connection, by, since="9999") == []
        assert query.count(connection, by, until="9999") == EXPECTED[by]


def test_counts_are_the_same_on_postgresql() -> None:
    with postgres() as url:
        engine = database.open_database(url)
        with engine.begin() as connection:
            for event, columns in ROWS:
                trail.record(connection, event, columns)
            for by, expected in EXPECTED.items():
                found = query.count(connection, by)
                assert sorted(found) == sorted(expected), by
            (((day, number),)) = query.count(connection, "day")
            assert (len(day), number) == (10, len(ROWS))
            assert query.count(connection, "month", since="2020", until="9999") == [
                (day[:7], len(ROWS))
            ]
        engine.dispose()


def test_days_and_months_add_up_and_are_in_their_order(tmp_path: Path) -> None:
    bench_audit.fill(tmp_path, 3000)
    engine = database.connect(database.sqlite_url(tmp_path))
    span = ("2024-01-01", "2025-01-01")
    with engine.connect() as connection:
        days = query.count(connection, "day", *span)
        months = query.count(connection, "month", *span)
        rows = len(list(query.events(connection, query.Question(since=span[0], until=span[1]))))
    assert sum(number for _, number in days) == sum(number for _, number in months) == rows
    assert [month for month, _ in months] == [f"2024-{number:02}" for number in range(1, 13)]
    assert [day for day, _ in days] == sorted({day for day, _ in days})


def test_days_on_which_nothing_was_are_shown() -> None:
    found = [("2026-02-27", 3), ("2026-03-01", 1)]
    assert without_gaps(found) == [("2026-02-27", 3), ("2026-02-28", 0), ("2026-03-01", 1)]
    far = [("2020-01-01", 1), ("2026-01-01", 1)]
    assert without_gaps(far) == far
    assert without_gaps([]) == []


def test_a_bar_is_as_long_as_its_share_and_nothing_has_none() -> None:
    drawn = list(bars([("a", 1000), ("b", 500), ("c", 0), ("d", 1)], 10))
    assert drawn == ["█" * 10, "█" * 5, "", "▏"]


def test_the_table_shows_counts_and_bars_and_hostile_names_are_inert(
    tmp_path: Path, engine: Engine
) -> None:
    said = ask(tmp_path, "--by", "device")
    lines = [line for line in said.splitlines() if "ROOM_1" in line]
    assert "2" in lines[0]
    assert "66.7 %" in lines[0]
    assert "█" in lines[0]
    assert "[red]\\x1b[31m" in said
    assert "\x1b" not in said
    assert "3 images stored, by the AE title that sent them" in said
    with engine.connect() as connection:
        (read,) = query.events(connection, query.Question(event="audit read"))
    assert read["detail"]["means"] == "thoracle audit stats --by device"


def test_json_has_a_value_a_line(tmp_path: Path, engine: Engine) -> None:
    lines = ask(tmp_path, "--by", "outcome", "--json", "--since", "2020-01-01").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"outcome": "positive", "count": 1},
        {"outcome": "rejected", "count": 1},
    ]
    assert ask(tmp_path, "--until", "2020-01-01", "--json") == ""
