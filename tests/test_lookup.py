"""Wherever a study is named: Study Instance UID, Accession Number or Patient ID."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from thoracle.audit import query
from thoracle.cli import app
from thoracle.cli.options import SEVERAL_STUDIES
from thoracle.errors import ThoracleError
from thoracle.store import database, trail
from thoracle.store.tables import study
from thoracle.store.trail import Event

FIRST, SECOND, OTHER = "1.2.840.1", "1.2.840.2", "1.2.840.3"
ROWS = ((FIRST, "A1", "P1"), (SECOND, "A2", "P1"), (OTHER, "A3", "P3"))
COMMANDS = {
    "status": ["status"],
    "why": ["audit", "why"],
    "audit": ["audit", "--study"],
    "replay": ["audit", "replay"],
    "withdraw": ["withdraw", "--reason", "wrong patient"],
    "reanalyse": ["reanalyse"],
    "reconcile": ["reconcile"],
    "release": ["release"],
    "retry": ["retry"],
    "hold": ["hold", "add", "--reason", "case 7", "--study"],
}
FAULTS = {
    "replay": "impossible",
    "withdraw": "found no active result",
    "reanalyse": "no such table",  # of workflows: the gateway has never run here
    "reconcile": "found no image of it",
    "release": "found no held result",
    "retry": "found nothing refused",
}
"""What a command finds to be wrong with a study that was found and has nothing but its row."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lookup")
    (made / "thoracle.toml").write_text(f'data_folder = "{made}"\n')
    engine = database.open_database(database.sqlite_url(made))
    with engine.begin() as connection:
        for uid, accession, patient in ROWS:
            connection.execute(
                study.insert().values(
                    study_instance_uid=uid,
                    accession_number=accession,
                    patient_id=patient,
                    generation=1,
                    first_received_at="2026-11-01T10:00:00.000000+00:00",
                    changed_at=f"2026-11-01T10:00:0{uid[-1]}.000000+00:00",
                )
            )
        # Refused: known from the audit log alone.
        refused: trail.Columns = {"study_instance_uid": "1.2.840.9", "accession_number": "A9"}
        trail.record(connection, Event.INSTANCE_REFUSED, refused)
        # A3 had another number before it was corrected.
        before: trail.Columns = {"study_instance_uid": OTHER, "accession_number": "A03"}
        trail.record(connection, Event.INSTANCE_STORED, before)
    engine.dispose()
    return made


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    engine = database.open_database(database.sqlite_url(folder))
    yield engine
    engine.dispose()


def ask(folder: Path, command: str, text: str) -> tuple[int, str]:
    arguments = [*COMMANDS[command], text, "--config", str(folder / "thoracle.toml")]
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, (ThoracleError, OperationalError)):
        return 1, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_one_study_is_meant_several_are_listed_and_none_is_said_so(
    folder: Path, command: str
) -> None:
    for text in (FIRST, "A1"):
        code, said = ask(folder, command, text)
        assert (code, FAULTS.get(command, "") in said) == (int(command in FAULTS), True), said
        assert "found no study" not in said
    code, said = ask(folder, command, "P1")
    assert code == SEVERAL_STUDIES
    assert "found 2 studies with 'P1'" in said
    assert said.index(f"{SECOND}  accession A2") < said.index(f"{FIRST}  accession A1")
    code, said = ask(folder, command, "A4")
    assert code == 1
    assert "Study Instance UID, Accession Number or Patient ID 'A4'" in said
    assert f"searched 3 studies in {folder}/thoracle.sqlite" in said


def test_a_number_that_was_corrected_or_refused_is_known(folder: Path) -> None:
    assert f"Study {OTHER}" in ask(folder, "why", "A03")[1]
    assert "1.2.840.9 was never received" in ask(folder, "why", "A9")[1]


def test_who_was_shown_a_list_of_studies_is_in_the_audit(folder: Path, engine: Engine) -> None:
    ask(folder, "release", "P1")
    ask(folder, "status", "A5")
    with engine.connect() as connection:
        shown = list(query.events(connection, query.Question(event=Event.LIST_VIEWED.verb)))[-1]
        missed = list(query.events(connection, query.Question(event=Event.STUDY_VIEWED.verb)))[-1]
    assert shown["detail"] == {"means": "thoracle release", "studies": [SECOND, FIRST]}
    assert (missed["study_instance_uid"], missed["event_outcome"]) == ("A5", trail.MINOR_FAILURE)
