"""Questions to the trail: each filter alone and with others, pages, and what the command prints."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from typer.testing import CliRunner

from thoracle.audit import query
from thoracle.audit.query import Question
from thoracle.cli import app
from thoracle.store import database, trail
from thoracle.store.trail import Columns, Event

ROWS: list[tuple[Event, Columns]] = [
    (
        Event.INSTANCE_STORED,
        {
            "calling_ae_title": "ROOM_1",
            "called_ae_title": "THORACLE",
            "network_address": "10.0.0.1",
            "patient_id": "P1",
            "issuer_of_patient_id": "H",
            "study_instance_uid": "1.1",
            "accession_number": "A1",
            "sop_instance_uid": "1.1.1",
            "status": "0x0000",
            "seconds": 0.01,
        },
    ),
    (
        Event.IMAGE_READ,
        {
            "patient_id": "P1",
            "issuer_of_patient_id": "H",
            "study_instance_uid": "1.1",
            "accession_number": "A1",
            "sop_instance_uid": "1.1.1",
            "result_sop_instance_uid": "9.1",
            "bundle_digest": "d" * 64,
            "bundle_version": "covid 0.2.0",
            "finding": "SCT:840539006",
            "outcome": "rejected",
            "reason_code": "NOT-CHEST",
            "seconds": 2.5,
        },
    ),
    (
        Event.DELIVERY_SUCCEEDED,
        {"study_instance_uid": "1.1", "destination": "pacs", "proof": "commitment"},
    ),
    (
        Event.INSTANCE_REFUSED,
        {"event_outcome": 8, "calling_ae_title": "ROOM_2", "status": "0xA900"},
    ),
    (Event.STUDY_VIEWED, {"user_id": "=cmd|'/c calc'!A1", "study_instance_uid": "1.1"}),
]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    found = database.open_database(database.sqlite_url(tmp_path))
    for event, columns in ROWS:
        with found.begin() as connection:
            trail.record(connection, event, columns)
    return found


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as open_connection:
        yield open_connection


FILTERS: dict[str, tuple[Any, list[int]]] = {
    "study_instance_uid": ("1.1", [1, 2, 3, 5]),
    "patient_id": ("P1", [1, 2]),
    "issuer_of_patient_id": ("H", [1, 2]),
    "accession_number": ("A1", [1, 2]),
    "since": ("9999", []),
    "until": ("9999", [1, 2, 3, 4, 5]),
    "event": ("image read", [2]),
    "action": ("C", [1, 4]),
    "event_outcome": (8, [4]),
    "sop_instance_uid": ("9.1", [2]),
    "ae_title": ("THORACLE", [1]),
    "network_address": ("10.0.0.1", [1]),
    "user_id": ("=cmd|'/c calc'!A1", [5]),
    "bundle": ("covid 0.2.0", [2]),
    "finding": ("SCT:840539006", [2]),
    "outcome": ("rejected", [2]),
    "reason_code": ("NOT-CHEST", [2]),
    "destination": ("pacs", [3]),
    "proof": ("commitment", [3]),
    "status": ("0xA900", [4]),
    "at_least_seconds": (1, [2]),
}


def test_every_filter_has_a_test() -> None:
    others = {"shown"}  # tests/test_views.py
    assert FILTERS.keys() | others == {one.name for one in fields(Question)}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_lets_through_what_it_says(connection: Connection, name: str) -> None:
    value, ids = FILTERS[name]
    question = Question(**{name: value})
    assert [event["id"] for event in query.events(connection, question)] == ids
    newest = query.page(connection, question, 10)
    assert [event["id"] for event in newest] == ids[::-1]


@pytest.mark.parametrize("name", ["sop_instance_uid", "ae_title", "bundle"])
def test_either_column_of_a_pair_will_do(connection: Connection, name: str) -> None:
    other = {"sop_instance_uid": "1.1.1", "ae_title": "ROOM_1", "bundle": "d" * 64}[name]
    ids = {"sop_instance_uid": [1, 2], "ae_title": [1], "bundle": [2]}[name]
    question = Question(**{name: other})  # type: ignore[arg-type]  # all three are texts
    assert [event["id"] for event in query.events(connection, question)] == ids
    assert [event["id"] for event in query.page(connection, question, 10)] == ids[::-1]


def test_filters_restrict_together(connection: Connection) -> None:
    question = Question(study_instance_uid="1.1", bundle="d" * 64, sop_instance_uid="1.1.1")
    assert [event["id"] for event in query.page(connection, question, 10)] == [2]


def test_pages_hold_every_event_once(engine: Engine, connection: Connection) -> None:
    found: list[int] = []
    before = None
    while page := query.page(connection, Question(), 2, before):
        found += [event["id"] for event in page]
        before = (page[-1]["recorded_at"], page[-1]["id"])
    assert found == [5, 4, 3, 2, 1]


def ask(tmp_path: Path, *arguments: str) -> str:
    config = tmp_path / "thoracle.toml"
    config.write_text(f'data_folder = "{tmp_path}"\n')
    result = CliRunner().invoke(app, ["audit", "--config", str(config), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("engine")
def test_json_has_an_event_a_line(tmp_path: Path) -> None:
    lines = ask(tmp_path, "--json", "--reason", "NOT-CHEST").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["image read"]


@pytest.mark.usefixtures("engine")
def test_csv_has_every_column_and_no_formula(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(ask(tmp_path, "--csv", "--event", "study viewed"))))
    assert [row["user_id"] for row in rows] == ["'=cmd|'/c calc'!A1"]


@pytest.mark.usefixtures("engine")
def test_that_the_trail_was_read_stands_in_it_with_the_question(
    tmp_path: Path, connection: Connection
) -> None:
    ask(tmp_path, "--failed", "--since", "2020-01-01")
    (event,) = query.events(connection, Question(event="audit read"))
    assert event["detail"] == {
        "means": "thoracle audit",
        "question": {"event_outcome": 8, "since": "2020-01-01T00:00:00.000000Z"},
    }
