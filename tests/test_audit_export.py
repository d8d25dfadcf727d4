"""The audit as files: every row once, a month complete or not there, and documented examples."""

import csv
import io
import json
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow.parquet
import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from documents import DOCS
from pacs import free_port
from thoracle.audit.formats import Unfinished
from thoracle.audit.query import NAMES
from thoracle.cli import app, audit_export
from thoracle.errors import ThoracleError
from thoracle.retention.purge import Purge
from thoracle.settings import Retention, Settings
from thoracle.store import database, trail
from thoracle.store.tables import timestamp

FIRST = datetime(2026, 9, 28, tzinfo=UTC)
ROWS = 300
HOSTILE = ("=cmd|' /C calc'!A0", "Doe\x00Jane", "half \ud800 character", 'line\nbreak, "quoted"')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a configuration and a trail of 75 days, from September to December."""
    (tmp_path / "data").mkdir()
    engine = database.open_database(database.sqlite_url(tmp_path / "data"))
    for number in range(ROWS):
        moment = timestamp(FIRST + timedelta(hours=6 * number))
        monkeypatch.setattr(trail, "now", lambda moment=moment: moment)
        record(engine, number)
    monkeypatch.undo()
    engine.dispose()
    (tmp_path / "thoracle.toml").write_text('data_folder = "data"\n')
    monkeypatch.setattr(audit_export, "BATCH", 70)
    return tmp_path


def record(engine: Engine, number: int) -> None:
    read = number % 3 == 0
    columns: trail.Columns = {
        "patient_id": HOSTILE[number % 4],
        "study_instance_uid": f"1.2.{number}",
        "user_id": None if read else "reader",
        "outcome": "rejected" if read else None,
        "reason_code": "NOT-CHEST" if read else None,
        "probability": None if number % 2 else number / 7,
        "seconds": 0.5,
        "detail": {"detail": HOSTILE[number % 4], "number": number},
    }
    with engine.begin() as connection:
        event = trail.Event.IMAGE_READ if read else trail.Event.STUDY_VIEWED
        trail.record(connection, event, columns)


def run(folder: Path, *arguments: str) -> str:
    config = str(folder / "thoracle.toml")
    result = CliRunner().invoke(app, ["audit", "export", "--config", config, *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def stored(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "data" / "thoracle.sqlite")) as store:
        return store.execute(f"SELECT {', '.join(NAMES)} FROM audit_event ORDER BY id").fetchall()


def names(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def parquet_rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.rglob("*.parquet"))
    return [row for one in files for row in pyarrow.parquet.ParquetFile(one).read().to_pylist()]


def test_every_row_stands_in_the_parquet_file_of_its_month(folder: Path) -> None:
    run(folder, "--parquet", str(folder / "audit"))
    year, month = timestamp(datetime.now(UTC))[:7].split("-")
    expected = {f"year=2026/month={name}/part-0.parquet" for name in ("09", "10", "11", "12")}
    expected.add(f"year={year}/month={month}/part-0.parquet")  # the row about the export itself
    assert set(names(folder / "audit")) == expected
    found = sorted(parquet_rows(folder / "audit"), key=lambda row: row["id"])
    rows = stored(folder)
    assert len(found) == len(rows) == ROWS + 1
    for one, row in zip(found, rows, strict=True):
        moment = one["recorded_at"]
        assert tuple({**one, "recorded_at": timestamp(moment)}.values()) == row
    assert rows[-1][2] == "audit read"
    assert json.loads(rows[-1][27])["means"] == "thoracle audit export"


def test_a_question_is_answered_in_one_parquet_file(folder: Path) -> None:
    file = folder / "read.parquet"
    config = str(folder / "thoracle.toml")
    answer = CliRunner().invoke(
        app, ["audit", "--config", config, "--event", "image read", "--parquet", str(file)]
    )
    assert answer.exit_code == 0
    rows = [row for row in stored(folder) if row[2] == "image read"]
    assert f"{file}: {len(rows)} events" in answer.output.replace("\n", "")
    found = pyarrow.parquet.ParquetFile(file).read().to_pylist()
    kept = [tuple({**one, "recorded_at": timestamp(one["recorded_at"])}.values()) for one in found]
    assert kept == rows
    assert len(rows) > 70
    assert stored(folder)[-1][2] == "audit read"
    assert file.stat().st_mode & 0o777 == 0o600
    assert not file.with_suffix(".part").exists()


def test_a_question_is_answered_in_one_way(folder: Path) -> None:
    config = str(folder / "thoracle.toml")
    asked = ["audit", "--config", config, "--csv", "--parquet", str(folder / "x")]
    with pytest.raises(ThoracleError, match="found several of --json, --csv and --parquet"):
        CliRunner().invoke(app, asked, catch_exceptions=False)
    assert len(stored(folder)) == ROWS


def test_rows_of_a_clock_that_was_set_back_stand_in_a_second_file_of_their_month(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.open_database(database.sqlite_url(folder / "data"))
    monkeypatch.setattr(trail, "now", lambda: timestamp(FIRST))
    record(engine, ROWS)
    monkeypatch.undo()
    engine.dispose()
    for _ in range(2):  # the second time, over the first
        run(folder, "--parquet", str(folder / "audit"))
        second = folder / "audit/year=2026/month=09/part-1.parquet"
        assert pyarrow.parquet.read_table(second).num_rows == 1
    found = sorted(row["id"] for row in parquet_rows(folder / "audit"))
    assert found == list(range(1, ROWS + 4))


def test_csv_has_every_row_and_no_formula(folder: Path) -> None:
    run(folder, "--csv", str(folder / "audit"))
    files = sorted((folder / "audit").rglob("*.csv"))
    texts = [one.read_bytes().decode() for one in files]
    read = [row for text in texts for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert len(read) == ROWS + 1
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in read for cell in row.values())
    assert {row["patient_id"] for row in read[:4]} == {
        "'" + HOSTILE[0],
        "Doe\ufffdJane",
        "half ? character",
        HOSTILE[3],
    }


def test_months_can_be_chosen(folder: Path) -> None:
    run(folder, "--parquet", str(folder / "audit"), "--since", "2026-10", "--until", "2026-11")
    assert names(folder / "audit") == ["year=2026/month=10/part-0.parquet"]
    assert len(parquet_rows(folder / "audit")) == 31 * 4
    with pytest.raises(Exception, match="required: a month"):
        run(folder, "--parquet", str(folder / "audit"), "--since", "2026-10-05")


def test_an_export_that_fails_leaves_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, "--parquet", str(folder / "audit"), "--until", "2026-12")
    before = {name: (folder / "audit" / name).read_bytes() for name in names(folder / "audit")}
    written = Unfinished.write
    calls: list[int] = []

    def fails(month: Unfinished, rows: list[Any]) -> None:
        calls.append(len(rows))
        if len(calls) == 4:
            raise OSError("no space left")
        written(month, rows)

    monkeypatch.setattr(Unfinished, "write", fails)
    with pytest.raises(OSError, match="no space left"):
        run(folder, "--parquet", str(folder / "audit"), "--until", "2026-12")
    after = {name: (folder / "audit" / name).read_bytes() for name in names(folder / "audit")}
    assert after == before


def test_a_month_that_was_purged_in_part_keeps_the_older_and_fuller_file(folder: Path) -> None:
    run(folder, "--parquet", str(folder / "audit"), "--until", "2026-12")
    whole = (folder / "audit/year=2026/month=10/part-0.parquet").read_bytes()
    engine = database.open_database(database.sqlite_url(folder / "data"))
    given = Settings(data_folder=folder / "data", retention=Retention(audit_days=1))
    Purge(engine, given, moment=datetime(2026, 10, 16, tzinfo=UTC)).run()
    engine.dispose()
    said = run(folder, "--parquet", str(folder / "audit"), "--until", "2026-12")
    assert "kept as it is: events of that month have been purged" in said
    assert (folder / "audit/year=2026/month=10/part-0.parquet").read_bytes() == whole
    assert "year=2026/month=09/part-0.parquet" in names(folder / "audit")


def test_an_export_holds_no_reading_transaction(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of the write-ahead log gets through between any two pieces."""
    busy: list[int] = []
    written = Unfinished.write

    def watched(month: Unfinished, rows: list[Any]) -> None:
        with closing(sqlite3.connect(folder / "data" / "thoracle.sqlite")) as store:
            busy.append(store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        written(month, rows)

    monkeypatch.setattr(Unfinished, "write", watched)
    run(folder, "--parquet", str(folder / "audit"))
    assert len(busy) >= 5
    assert set(busy) == {0}


def examples(language: str) -> list[str]:
    page = (DOCS / "audit-export.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_examples_for_duckdb_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, "--parquet", str(folder / "audit"), "--until", "2026-12")
    monkeypatch.chdir(folder)
    by_month, by_day, reasons = (duckdb.execute(one).fetchall() for one in examples("sql"))
    counts = {(row[0], row[1]): row[4] for row in by_month}
    assert {str(month).zfill(2) for _, month in counts} == {"09", "10", "11"}
    read = [row for row in stored(folder) if row[2] == "image read" and row[1] < "2026-12"]
    assert sum(counts.values()) == len(read)
    assert sum(row[2] for row in by_day) == len(
        [row for row in stored(folder) if row[2] == "study viewed" and row[1] < "2026-12"]
    )
    assert reasons[0][:2] == ("NOT-CHEST", len(read))
    assert reasons[0][2] is not None


def test_datasette_shows_an_export(folder: Path) -> None:
    run(folder, "--parquet", str(folder / "audit"))
    (program,) = examples("python")
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
    port = str(free_port())
    command = examples("sh")[-1].replace("8001", port).split()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}/audit/audit.json?event=image+read&_facet=outcome"
        answer = answered(address)
        assert answer["filtered_table_rows_count"] == ROWS / 3
        facet = answer["facet_results"]["outcome"]["results"]
        assert [(one["value"], one["count"]) for one in facet] == [("rejected", ROWS / 3)]
    finally:
        process.terminate()
        process.wait(20)


def answered(address: str, seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer: dict[str, Any] = httpx.get(address).raise_for_status().json()
            return answer
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
