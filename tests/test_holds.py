"""Legal holds: placed, listed and released by the command line, audited, stronger than rules."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from typer.testing import CliRunner

from test_store import received
from thoracle.audit import verification
from thoracle.cli import app
from thoracle.errors import ThoracleError
from thoracle.retention import holds
from thoracle.retention.purge import Purge
from thoracle.retention.rules import prefix
from thoracle.settings import Retention, Settings
from thoracle.store import database, trail
from thoracle.store.tables import audit_event
from thoracle.study import instances

LATER = datetime.now(UTC) + timedelta(days=3000)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Return a database: studies 1.1 and 1.2 of P1, 2.1 of P2, 3.1 of P1 of another issuer."""
    (tmp_path / "data").mkdir()
    (tmp_path / "thoracle.toml").write_text('data_folder = "data"\n')
    engine = database.open_database(database.sqlite_url(tmp_path / "data"))
    of = (("1.1", "P1", "A"), ("1.2", "P1", "A"), ("2.1", "P2", "A"), ("3.1", "P1", "B"))
    for number, (study, patient, issuer) in enumerate(of):
        image = received(
            number, study_instance_uid=study, patient_id=patient, issuer_of_patient_id=issuer
        )
        with engine.begin() as connection:
            instances.lock_study(connection, image)
            instances.add(connection, image)
    return engine


def run(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--config", str(folder / "thoracle.toml")])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def held(engine: Engine) -> dict[str, list[int]]:
    with engine.connect() as connection:
        studies = ("1.1", "1.2", "2.1", "3.1")
        found = {study: list(holds.of_study(connection, study)) for study in studies}
    return {study: numbers for study, numbers in found.items() if numbers}


def events(engine: Engine, *verbs: str) -> list[trail.Columns]:
    statement = select(audit_event).where(audit_event.c.event.in_(verbs)).order_by("id")
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]  # type: ignore[misc]


def test_a_hold_is_placed_listed_and_released_and_each_is_audited(
    tmp_path: Path, engine: Engine
) -> None:
    assert "hold 1 is placed" in run(
        tmp_path, "hold", "add", "--study", "2.1", "--reason", "case 7"
    )
    assert "study 2.1" in run(tmp_path, "hold", "list")
    assert held(engine) == {"2.1": [1]}
    run(tmp_path, "hold", "release", "1")
    assert held(engine) == {}
    assert "no legal holds" in run(tmp_path, "hold", "list")
    (row,) = run(tmp_path, "hold", "list", "--all", "--json").splitlines()
    values = json.loads(row)
    assert (values["study_instance_uid"], values["reason"]) == ("2.1", "case 7")
    assert values["placed_by"] == values["released_by"]
    assert values["placed_at"] < values["released_at"]
    placed, released = events(engine, "legal hold placed", "legal hold released")
    assert (placed["study_instance_uid"], placed["detail"]["reason"]) == ("2.1", "case 7")
    assert released["detail"]["means"] == "thoracle hold release"
    assert placed["user_id"] == released["user_id"] == values["placed_by"]
    assert len(events(engine, "list viewed")) == 3
    with pytest.raises(ThoracleError, match="found no active hold 1"):
        run(tmp_path, "hold", "release", "1")


def test_a_hold_on_a_patient_holds_their_studies_of_one_issuer_or_of_any(
    tmp_path: Path, engine: Engine
) -> None:
    run(tmp_path, "hold", "add", "--patient", "P1", "--issuer", "A", "--reason", "r")
    assert held(engine) == {"1.1": [1], "1.2": [1]}
    run(tmp_path, "hold", "add", "--patient", "P1", "--reason", "r")
    assert held(engine) == {"1.1": [1, 2], "1.2": [1, 2], "3.1": [2]}


@pytest.mark.parametrize(
    "arguments",
    [(), ("--patient", "P1", "--study", "1.1"), ("--patient", ""), ("--study", "")],
)
def test_a_hold_needs_a_patient_or_a_study(
    tmp_path: Path, engine: Engine, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(ThoracleError, match="required"):
        run(tmp_path, "hold", "add", "--reason", "r", *arguments)
    with pytest.raises(ThoracleError, match="found a reason of 0 characters"):
        run(tmp_path, "hold", "add", "--reason", " ", "--study", "1.1")
    assert held(engine) == {}


def test_the_audit_is_purged_up_to_the_first_row_that_a_hold_keeps(
    tmp_path: Path, engine: Engine
) -> None:
    columns: list[trail.Columns] = [
        {"study_instance_uid": "2.1", "patient_id": "P2", "issuer_of_patient_id": "A"},
        {"study_instance_uid": "3.1", "patient_id": "P1", "issuer_of_patient_id": "B"},
        {"study_instance_uid": "1.2"},  # names no patient, but is a study of P1 of A
        {"patient_id": "P1", "issuer_of_patient_id": "A"},
        {"user_id": "reader"},
    ]
    for one in columns:
        with engine.begin() as connection:
            trail.record(connection, trail.Event.STUDY_VIEWED, one)
    run(tmp_path, "hold", "add", "--patient", "P1", "--issuer", "A", "--reason", "r")
    with engine.connect() as connection:
        found = prefix(connection, 10, [], LATER)
    assert (found.up_to, found.stopped_by) == (2, "legal hold 1 keeps row 3")
    given = Settings(data_folder=tmp_path / "data", retention=Retention())
    assert Purge(engine, given, moment=LATER).run().events == 2
    assert [row["id"] for row in events(engine, "study viewed")] == [3, 4, 5]  # type: ignore[typeddict-item]
    run(tmp_path, "hold", "release", "1")
    # Its own events name the patient, but nothing holds them any more.
    assert Purge(engine, given, moment=LATER).run().events > 3
    assert events(engine, "study viewed") == []
    with engine.connect() as connection:
        assert verification.verify(connection).well
