"""What results, verdicts and files say is in the chain: a change of one is found by its name."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from gateway import Gateway
from ledger import concluded, rows
from radiographs import chest
from sender import send
from test_chain import run
from test_proof import ALWAYS
from thoracle.audit import contents
from thoracle.store import database
from thoracle.store.object_files import Objects
from thoracle.study import verdicts
from thoracle.study.verdicts import Opinion

DATABASE = "thoracle.sqlite"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a gateway that read two studies, one of them judged."""
    with Gateway(tmp_path_factory.mktemp("contents"), report={"sc": ALWAYS}) as gateway:
        studies = [str(generate_uid()) for _ in range(2)]
        for study in studies:
            assert send(gateway.port, chest(StudyInstanceUID=study)).status == 0x0000
            concluded(gateway, study)
        statement = "SELECT sop_instance_uid FROM result WHERE study_instance_uid = ? AND kind = ?"
        (report,) = rows(gateway, statement, studies[0], "sr")
        assert gateway.terminate() == 0
    engine = database.open_database(database.sqlite_url(gateway.data_folder))
    with engine.begin() as connection:
        uid = report["sop_instance_uid"]
        who = {"user_id": "anna"}
        verdicts.give(connection, studies[0], uid, Opinion.AGREE, "a comment", who)  # type: ignore[arg-type]  # columns
    engine.dispose()
    return gateway.data_folder


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(whole, folder)
    return folder


def found(folder: Path) -> contents.Contents:
    engine = database.connect(database.sqlite_url(folder))
    said = contents.check(engine, Objects(folder))
    engine.dispose()
    return said


def change(folder: Path, statement: str) -> None:
    """Change the database as somebody does who can write to it."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(statement).rowcount


def test_what_nobody_changed_fits(copied: Path) -> None:
    said = found(copied)
    assert (said.studies, said.faults) == (2, ())
    assert said.files == 2 + 2 * 2  # images; reports and heat maps
    code, text = run(copied, "verify")
    assert code == 0
    assert "results and verdicts of 2 studies and 6 files match the log" in text


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("UPDATE analysis SET outcome = 'x'", "analysis 1 of bundle"),
        ("UPDATE analysis SET probability = 0.5", "probability is 0.5, the log says"),
        ("UPDATE reading SET outcome = 'x'", "reading of image"),
        ("UPDATE reading SET outcome = 'x', finding = 'y'", "it says x "),
        ("UPDATE worklist SET ai_state = 'rejected'", "worklist: it says rejected"),
        ("UPDATE result SET sha256 = 'f' WHERE kind = 'sr'", "sr 2.25."),
        ("DELETE FROM result WHERE kind = 'sc'", "it has no row, the log has made it"),
        ("UPDATE instance SET sha256 = 'f'", "its digest is f"),
        ("DELETE FROM instance", "it has no row, the log has received it"),
        ("UPDATE verdict SET opinion = 'disagree'", "verdict 1: its opinion was changed"),
        ("UPDATE verdict SET comment = 'x'", "verdict 1: its comment was changed"),
        ("UPDATE verdict SET person = 'x'", "verdict 1: it is of 'x', the log says 'anna'"),
        ("DELETE FROM verdict", "verdict 1: it has no row"),
        (
            "INSERT INTO verdict SELECT 7, recorded_at, study_instance_uid, generation,"
            " bundle_digest, sop_instance_uid, opinion, comment, person, outcome, probability,"
            " device FROM verdict",
            "verdict 7: the log does not have it",
        ),
    ],
)
def test_a_changed_row_is_named(copied: Path, statement: str, name: str) -> None:
    change(copied, statement)
    assert any(name in one for one in found(copied).faults)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, Path.unlink])
@pytest.mark.parametrize("kind", ["images", "results"])
def test_a_changed_file_is_named(copied: Path, kind: str, damage: Callable[[Path], None]) -> None:
    path = next(iter((copied / kind).rglob("*.dcm")))
    damage(path)
    code, text = run(copied, "verify")
    assert code == 1
    assert f"file {path.relative_to(copied)}: it" in text
    assert run(copied, "verify", "--no-files")[0] == 0
    assert run(copied, "verify", "--incremental")[0] == 0
