"""`thoracle audit replay`: the same comes of the same; what does not is named, the first first."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from gateway import Gateway
from ledger import eventually, rows
from pacs import Pacs
from radiographs import chest
from sender import send
from test_proof import EVERYTHING, OBJECTS
from thoracle.audit.replay import Difference, first_difference
from thoracle.classify import bundle
from thoracle.cli import app
from thoracle.settings import Classify, Settings, digests


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with what a gateway left that has ended, and the study that it read."""
    folder = tmp_path_factory.mktemp("read")
    with (
        Pacs("PACS", OBJECTS) as pacs,
        Gateway(folder, pacs, report=EVERYTHING) as gateway,
    ):
        image = chest()
        assert send(gateway.port, image).status == 0x0000
        proven = "SELECT 1 FROM outbox WHERE state = 'delivered'"
        eventually(lambda: len(rows(gateway, proven)) >= 4)
        assert gateway.terminate() == 0
    return folder, str(image.StudyInstanceUID)


@pytest.fixture
def copy(read: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of it, that a test may damage."""
    shutil.copytree(read[0] / "data", tmp_path / "data")
    config = (read[0] / "thoracle.toml").read_text().replace(str(read[0]), str(tmp_path))
    (tmp_path / "thoracle.toml").write_text(config)
    return tmp_path


def replay(folder: Path, study: str, *arguments: str) -> dict[str, Any]:
    command = ["audit", "replay", "--config", str(folder / "thoracle.toml"), "--json", study]
    result = CliRunner().invoke(app, [*command, *arguments])
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["outcome"] == "same" else 1), result.output
    return found


def ask(folder: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(folder / "data" / "thoracle.sqlite")) as connection:
        found = connection.execute(statement, values).fetchall()
        connection.commit()
    return found


def test_the_same_comes_of_the_same_and_nothing_is_written_but_a_row(
    copy: Path, read: tuple[Path, str]
) -> None:
    study = read[1]
    before = {path: path.stat().st_mtime_ns for path in files(copy)}
    counts = tables(copy)
    found = replay(copy, study)
    assert found["outcome"] == "same", found
    assert found["beforehand"] == []
    assert found["objects"] == len(
        ask(copy, "SELECT 1 FROM result WHERE kind NOT IN ('original', 'rejection')")
    )
    assert {path: path.stat().st_mtime_ns for path in files(copy)} == before
    assert tables(copy) == {**counts, "audit_event": counts["audit_event"] + 1}
    ((event, outcome, detail),) = ask(
        copy, "SELECT event, event_outcome, detail FROM audit_event ORDER BY id DESC LIMIT 1"
    )
    assert (event, outcome) == ("analysis replayed", 0)
    assert json.loads(detail) == {"outcome": "same", "what": "", "generation": 1}


def files(folder: Path) -> list[Path]:
    return [
        path
        for path in (folder / "data").rglob("*")
        if path.is_file() and not path.name.startswith("thoracle.sqlite")
    ]


def tables(folder: Path) -> dict[str, int]:
    names = [name for (name,) in ask(folder, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: ask(folder, f"SELECT count(*) FROM {name}")[0][0] for name in names}


def test_a_probability_that_was_changed_in_its_row_is_found_first(
    copy: Path, read: tuple[Path, str]
) -> None:
    ((was,),) = ask(copy, "SELECT probability FROM reading")
    ask(copy, "UPDATE reading SET probability = 0.1234")
    found = replay(copy, read[1])
    assert found["outcome"] == "different"
    assert "probability" in found["what"]
    assert found["differences"] == [f"{found['what']}: stored 0.1234, replayed {was}"]
    ((detail,),) = ask(copy, "SELECT detail FROM audit_event ORDER BY id DESC LIMIT 1")
    assert json.loads(detail)["what"] == found["what"]


def test_a_result_whose_file_was_changed_is_found_with_the_element(
    copy: Path, read: tuple[Path, str]
) -> None:
    ((below,),) = ask(copy, "SELECT path FROM result WHERE kind = 'sr'")
    report = dcmread(copy / "data" / below)
    report.ContentSequence[-1].ConceptNameCodeSequence[0].CodeMeaning = "Changed"
    report.save_as(copy / "data" / below)
    found = replay(copy, read[1])
    number = len(report.ContentSequence)
    assert found["outcome"] == "different"
    assert "its file, which was changed" in found["differences"][0]
    path = f"ContentSequence[{number}].ConceptNameCodeSequence[1].CodeMeaning"
    assert path in found["differences"][1]
    assert "stored Changed, replayed " in found["differences"][1]


def test_a_bundle_that_is_another_now_is_said_first(copy: Path, read: tuple[Path, str]) -> None:
    folder = copy / "bundle"
    shutil.copytree(bundle.bundle_folder(Classify()), folder)
    decision = json.loads((folder / "models" / "decision.json").read_text())
    decision["temperature"] *= 3
    (folder / "models" / "decision.json").write_text(json.dumps(decision))
    digest = bundle.digest(folder)
    with (copy / "thoracle.toml").open("a") as config:
        config.write(f'[classify]\nbundle = "{folder}"\ndigest = "{digest}"\n')
    found = replay(copy, read[1])
    assert found["outcome"] == "different"
    assert found["beforehand"][0].startswith("bundle: then ")
    assert digest in found["beforehand"][0]
    assert "probability" in found["what"]


def test_settings_that_are_others_now_are_named_first(copy: Path, read: tuple[Path, str]) -> None:
    config = copy / "thoracle.toml"
    config.write_text(config.read_text().replace("[report]", "[report]\nseries_number = 7"))
    found = replay(copy, read[1])
    assert found["beforehand"] == ["settings that shape results differ: report.series_number"]
    assert found["outcome"] == "different"
    assert found["what"].endswith(", SeriesNumber")
    assert found["differences"][0].endswith("stored 9001, replayed 7")


def test_images_that_are_gone_make_it_impossible(copy: Path, read: tuple[Path, str]) -> None:
    for (below,) in ask(copy, "SELECT path FROM instance"):
        (copy / "data" / below).unlink()
    found = replay(copy, read[1])
    assert found["outcome"] == "impossible"
    assert found["what"].startswith("found 0 of 1 images kept")
    ((outcome,),) = ask(copy, "SELECT event_outcome FROM audit_event ORDER BY id DESC LIMIT 1")
    assert outcome == 4


def test_results_that_are_gone_are_compared_by_their_digests(
    copy: Path, read: tuple[Path, str]
) -> None:
    for (below,) in ask(copy, "SELECT path FROM result WHERE kind <> 'original'"):
        (copy / "data" / below).unlink()
    assert replay(copy, read[1])["outcome"] == "same"


def test_a_generation_that_never_was_is_impossible_and_audited(
    copy: Path, read: tuple[Path, str]
) -> None:
    found = replay(copy, read[1], "--generation", "7")
    assert (found["outcome"], "generation 7" in found["what"]) == ("impossible", True)
    ((number,),) = ask(copy, "SELECT count(*) FROM audit_event WHERE event = 'analysis replayed'")
    assert number == 1


def test_each_generation_is_replayed_as_it_was_then(tmp_path: Path) -> None:
    done = "SELECT 1 FROM analysis WHERE state = 'done' AND generation = ?"
    with Gateway(tmp_path) as gateway:
        first = chest()
        study = str(first.StudyInstanceUID)
        assert send(gateway.port, first).status == 0x0000
        eventually(lambda: rows(gateway, done, 1))
        assert send(gateway.port, chest(StudyInstanceUID=study, ViewPosition="AP")).status == 0x0000
        eventually(lambda: rows(gateway, done, 2))
        # A corrected header: later than both results, so in neither of them.
        first.PatientName = "Corrected^Name"
        assert send(gateway.port, first).status == 0x0000
        gateway.run("withdraw", study, "--reason", "wrong patient")
        withdrawn = "SELECT 1 FROM analysis WHERE state = 'withdrawn'"
        eventually(lambda: rows(gateway, withdrawn))
        versions = rows(gateway, "SELECT * FROM instance WHERE version = 2")
        assert gateway.terminate() == 0
    assert len(versions) == 1
    for arguments in (("--generation", "1"), ("--generation", "2"), ()):
        found = replay(tmp_path, study, *arguments)
        assert found["outcome"] == "same", found
    ask(tmp_path, "UPDATE instance SET received_at = '2020-01-01' WHERE version = 2")
    found = replay(tmp_path, study, "--generation", "1")
    assert found["what"].endswith(", PatientName")
    ((detail,),) = ask(tmp_path, "SELECT detail FROM audit_event ORDER BY id DESC LIMIT 1")
    assert "Corrected" not in detail


def test_what_read_an_image_stands_in_its_event(read: tuple[Path, str]) -> None:
    ((text,),) = ask(read[0], "SELECT detail FROM audit_event WHERE event = 'image read'")
    detail = json.loads(text)
    made_with = detail["made_with"]
    assert made_with.keys() == {"version", "settings_digest", "runtime", "device"}
    assert 0 < detail["threshold"] < 1
    settings = Settings(report=EVERYTHING)
    assert made_with["settings_digest"] == digests.shaping(settings)
    assert set(detail["seconds"]) >= {"select", "pixels"}


def test_a_start_records_settings_and_the_association_its_counts(read: tuple[Path, str]) -> None:
    ((text,),) = ask(
        read[0], "SELECT detail FROM audit_event WHERE event = 'configuration changed'"
    )
    first = json.loads(text)
    assert (first["first"], first["changed"]) == (True, [])
    assert "receive.port" in first["settings"]
    ((text, called),) = ask(
        read[0],
        "SELECT detail, called_ae_title FROM audit_event WHERE event = 'association accepted'",
    )
    assert called == "THORACLE"
    assert json.loads(text) == {
        "stored": 1,
        "duplicates": 0,
        "corrected": 0,
        "refused": 0,
        "released": True,
    }


def test_the_first_difference_is_no_uid_where_there_is_another(copy: Path) -> None:
    paths = [below for (below,) in ask(copy, "SELECT path FROM result WHERE kind = 'sr'")]
    content = (copy / "data" / paths[0]).read_bytes()
    assert first_difference(content, content) is None
    assert first_difference(content, b"") == Difference(
        "the file", "unreadable (InvalidDicomError)", "readable"
    )
    other = dcmread(copy / "data" / paths[0])
    other.SOPInstanceUID = "1.2.3"
    other.SeriesNumber = 7
    other.save_as(copy / "other.dcm")
    found = first_difference(content, (copy / "other.dcm").read_bytes())
    assert found == Difference("SeriesNumber", "9001", "7")
