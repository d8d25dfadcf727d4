"""What readers say of results: kept for good, exported, and labels for the site's own threshold."""

import csv
import importlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, insert, select, text
from sqlalchemy.exc import DatabaseError, IntegrityError
from typer.testing import CliRunner

from pacs import free_port
from peers import require
from thoracle.classify import bundle
from thoracle.cli import app
from thoracle.errors import ThoracleError
from thoracle.evaluate.metrics import auroc_interval
from thoracle.settings import Classify
from thoracle.store import database, trail
from thoracle.store.tables import (
    analysis,
    audit_event,
    metadata,
    now,
    result,
    study,
    verdict,
    worklist,
)
from thoracle.study import verdicts
from thoracle.study import verdicts as stored
from thoracle.study.verdicts import Opinion

DIGEST = bundle.identify(Classify()).digest
FORMULA = '=HYPERLINK("http://example.org","<b>&")'


def add_result(
    connection: Connection,
    uid: str,
    outcome: str = "positive",
    probability: float | None = 0.9,
    *,
    generation: int = 1,
    digest: str = DIGEST,
    state: str = "done",
    device: str = "ROOM1",
) -> str:
    """Put a study with a result into the database; return the UID of its report."""
    moment = now()
    if generation == 1:
        connection.execute(
            insert(study).values(
                study_instance_uid=uid,
                patient_id=f"P{uid}",
                issuer_of_patient_id="H",
                accession_number=f"A{uid}",
                generation=1,
                first_received_at=moment,
                changed_at=moment,
            )
        )
        connection.execute(
            insert(worklist).values(
                study_instance_uid=uid,
                device=device,
                search="",
                received_at=moment,
                ai_state=outcome,
                urgency=1,
                head_start_minutes=0,
                sort_key=moment,
                changed_at=moment,
            )
        )
    connection.execute(
        insert(analysis).values(
            study_instance_uid=uid,
            generation=generation,
            bundle_digest=digest,
            finding="SCT:840539006",
            state=state,
            priority=100,
            content_datetime=moment,
            outcome=outcome,
            probability=probability,
        )
    )
    report = f"{uid}.9.{generation}"
    connection.execute(
        insert(result).values(
            sop_instance_uid=report,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
            series_instance_uid=f"{uid}.8",
            study_instance_uid=uid,
            generation=generation,
            bundle_digest=digest,
            kind="sr",
            path="x",
            sha256="0" * 64,
            created_at=moment,
        )
    )
    return report


def give(
    engine: Engine,
    uid: str,
    report: str,
    opinion: Opinion,
    comment: str = "",
    person: str = "reader",
) -> int:
    """Judge a result as the page does."""
    columns: trail.Columns = {"user_id": person, "network_address": "10.0.0.7"}
    with engine.begin() as connection:
        return verdicts.give(connection, uid, report, opinion, comment, columns)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = database.open_database(database.sqlite_url(tmp_path))
    yield made
    made.dispose()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "thoracle.toml"
    path.write_text(f"data_folder = {json.dumps(str(tmp_path))}\n", encoding="utf-8")
    return path


def run(config: Path, *arguments: object) -> str:
    """Return what a command prints; a fault is raised."""
    said = CliRunner().invoke(app, [*map(str, arguments), "--config", str(config)])
    if said.exception is not None:
        raise said.exception
    return said.stdout


# ---- given -----------------------------------------------------------------------------------


def test_a_verdict_its_mark_on_the_worklist_and_its_event_are_written_together(
    engine: Engine,
) -> None:
    with engine.begin() as connection:
        report = add_result(connection, "1.1")
    give(engine, "1.1", report, Opinion.DISAGREE, "  <b>no</b>\r\nsee\x00 note\x1b[2J ")
    with engine.connect() as connection:
        (row,) = connection.execute(select(verdict)).all()
        (listed,) = connection.execute(select(worklist)).all()
        (event,) = connection.execute(select(audit_event)).all()
    assert row.comment == "<b>no</b>\nsee note[2J"
    assert (row.opinion, row.person, row.outcome, row.probability, row.device) == (
        "disagree",
        "reader",
        "positive",
        0.9,
        "ROOM1",
    )
    assert (row.generation, row.bundle_digest, row.sop_instance_uid) == (1, DIGEST, report)
    assert listed.verdict == "disagree"
    assert listed.reviewed_at is not None
    assert (event.event, event.user_id, event.network_address) == (
        "verdict given",
        "reader",
        "10.0.0.7",
    )
    assert (event.patient_id, event.result_sop_instance_uid) == ("P1.1", report)
    assert event.detail.pop("comment_sha256") == verdicts.digest(row.comment)
    assert event.detail == {"verdict": row.id, "opinion": "disagree", "generation": 1}
    assert "note" not in json.dumps(event.detail)


def test_when_one_of_the_three_cannot_be_written_none_is(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        report = add_result(connection, "1.1")
        connection.execute(
            text(
                "CREATE TRIGGER full BEFORE INSERT ON audit_event "
                "BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        )
    with pytest.raises(IntegrityError, match="full"):
        give(engine, "1.1", report, Opinion.AGREE)
    with engine.connect() as connection:
        assert connection.execute(select(verdict)).all() == []
        assert connection.execute(select(worklist.c.verdict)).scalars().all() == [None]


def test_a_later_verdict_is_a_row_of_its_own_and_counts(engine: Engine) -> None:
    with engine.begin() as connection:
        report = add_result(connection, "1.1")
    give(engine, "1.1", report, Opinion.AGREE)
    with engine.connect() as connection:
        first = connection.execute(select(worklist.c.reviewed_at)).scalar_one()
    give(engine, "1.1", report, Opinion.NOT_APPLICABLE, person="another")
    with engine.connect() as connection:
        given = stored.of_study(connection, "1.1")
        listed = connection.execute(select(worklist)).one()
        newest = stored.newest(connection)
    assert [(one.opinion, one.person) for one in given] == [
        ("not applicable", "another"),
        ("agree", "reader"),
    ]
    assert (listed.verdict, listed.reviewed_at) == ("not applicable", first)
    assert [one.opinion for one in newest] == ["not applicable"]


def test_nobody_judges_a_result_that_they_have_not_seen(engine: Engine) -> None:
    with engine.begin() as connection:
        old = add_result(connection, "1.1")
        add_result(connection, "1.1", "negative", 0.1, generation=2)
        withdrawn = add_result(connection, "1.2", state="withdrawn")
    with pytest.raises(verdicts.ResultChanged, match=r"1\.1: found another one"):
        give(engine, "1.1", old, Opinion.AGREE)
    with pytest.raises(verdicts.ResultChanged, match=r"1\.2: found none"):
        give(engine, "1.2", withdrawn, Opinion.AGREE)
    with engine.connect() as connection:
        assert set(connection.execute(select(worklist.c.verdict)).scalars()) == {None}
    with pytest.raises(verdicts.ResultChanged, match=r"9\.9: found none"):
        give(engine, "9.9", "9.9.9", Opinion.AGREE)


def test_a_comment_has_at_most_2000_characters(engine: Engine) -> None:
    with engine.begin() as connection:
        report = add_result(connection, "1.1")
    give(engine, "1.1", report, Opinion.AGREE, "ß" * 2000)
    with pytest.raises(ThoracleError, match="found 2001 characters, allowed are 2000"):
        give(engine, "1.1", report, Opinion.AGREE, "ß" * 2001)


# ---- kept for good ---------------------------------------------------------------------------


def test_sqlite_itself_refuses_to_change_or_delete_a_verdict(engine: Engine) -> None:
    with engine.begin() as connection:
        report = add_result(connection, "1.1")
    give(engine, "1.1", report, Opinion.AGREE)
    for statement in ("UPDATE verdict SET opinion = 'disagree'", "DELETE FROM verdict"):
        with (
            pytest.raises(IntegrityError, match="verdicts are only ever added"),
            engine.begin() as connection,
        ):
            connection.execute(text(statement))
    with engine.connect() as connection:
        assert [one.opinion for one in stored.of_study(connection, "1.1")] == ["agree"]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Engine]:
    """A server of its own with the table of verdicts; it refuses to be run by root."""
    psycopg = pytest.importorskip("psycopg")
    programs = Path(require("pg_ctl", "postgresql")).resolve().parent
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="thoracle-"))
    shutil.chown(folder, user)
    port, data = free_port(), str(folder / "data")

    def call(*command: str) -> None:
        subprocess.run(
            [str(programs / command[0]), *command[1:]],
            check=True,
            user=user if os.getuid() == 0 else None,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )

    try:
        call("initdb", "-D", data, "-U", "thoracle", "--auth=trust", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "-D", data, "-w", "-o", options, "-l", str(folder / "log"), "start")
        made = create_engine(f"postgresql+{psycopg.__name__}://thoracle@127.0.0.1:{port}/postgres")
        try:
            metadata.create_all(made, tables=[study, analysis, verdict])
            yield made
        finally:
            made.dispose()
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_postgresql_itself_refuses_to_change_or_delete_a_verdict(postgresql: Engine) -> None:
    migration = importlib.import_module("thoracle.store.migrations.versions.0004_worklist")
    moment = now()
    with postgresql.begin() as connection:
        for statement in migration.VERDICTS_ONLY_ADDED["postgresql"]:
            connection.execute(text(statement))
        connection.execute(
            insert(study).values(
                study_instance_uid="1.1",
                generation=1,
                first_received_at=moment,
                changed_at=moment,
            )
        )
        judged = stored.Judged("1.1", 1, DIGEST, "1.1.9", "positive", 0.9, None)
        stored.add_row(connection, judged, Opinion.AGREE, "", "reader")
    for statement in (
        "UPDATE verdict SET opinion = 'disagree'",
        "DELETE FROM verdict",
        "TRUNCATE verdict",
    ):
        with (
            pytest.raises(DatabaseError, match="verdicts are only ever added"),
            postgresql.begin() as connection,
        ):
            connection.execute(text(statement))
    with postgresql.connect() as connection:
        found = stored.of_study(connection, "1.1", with_kept_back=True)  # there is no analysis
        assert [one.opinion for one in found] == ["agree"]


# ---- exported --------------------------------------------------------------------------------


def test_verdicts_are_exported_without_formulas_and_the_export_is_audited(
    engine: Engine, config: Path, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        report = add_result(connection, "1.1")
        other = add_result(connection, "1.2", "rejected", None)
    give(engine, "1.1", report, Opinion.AGREE, FORMULA)
    give(engine, "1.1", report, Opinion.DISAGREE, 'zwei\nZeilen, "ja"')
    give(engine, "1.2", other, Opinion.NOT_APPLICABLE, "\u202e@SUM(A1)")
    assert "3 verdicts" in run(config, "verdicts", "--csv", tmp_path / "verdicts.csv")
    with (tmp_path / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["comment"] for row in rows] == ["'" + FORMULA, 'zwei\nZeilen, "ja"', "'@SUM(A1)"]
    assert [row["counts"] for row in rows] == ["no", "yes", "yes"]
    assert [row["probability"] for row in rows] == ["0.9000", "0.9000", ""]
    assert rows[0]["accession_number"] == "A1.1"
    said = [json.loads(line) for line in run(config, "verdicts", "--json").splitlines()]
    assert [(row["opinion"], row["counts"]) for row in said] == [
        ("agree", False),
        ("disagree", True),
        ("not applicable", True),
    ]
    assert said[0]["comment"] == FORMULA
    with engine.connect() as connection:
        events = connection.execute(
            select(audit_event.c.detail).where(audit_event.c.event == "exported")
        ).scalars()
        assert (
            list(events)
            == [{"verdicts": 3, "means": "thoracle verdicts", "studies": ["1.1", "1.2"]}] * 2
        )


def test_an_export_needs_one_form_and_a_database(tmp_path: Path, config: Path) -> None:
    with pytest.raises(ThoracleError, match="--csv and --json"):
        run(config, "verdicts")
    with pytest.raises(ThoracleError, match="found no folder"):
        run(config, "verdicts", "--csv", tmp_path / "absent" / "x.csv")
    with pytest.raises(ThoracleError, match="found no database"):
        run(config, "verdicts", "--json")


# ---- as labels -------------------------------------------------------------------------------


def judged_site(engine: Engine) -> tuple[list[int], list[float]]:
    """Give 60 verdicts that count, and others; return the labels and probabilities expected."""
    labels, scores = [], []
    with engine.begin() as connection:
        for number in range(60):
            positive = number % 2 == 0
            probability = (0.7 if positive else 0.02) + number / 400
            outcome = "positive" if positive else "negative"
            add_result(connection, f"1.{number}", outcome, probability, device=f"ROOM{number % 3}")
            labels.append(int(positive is (number % 10 != 0)))  # every tenth is disagreed with
            scores.append(probability)
        add_result(connection, "2.1", "indeterminate", 0.5)
        add_result(connection, "2.2", "rejected", None)
        add_result(connection, "2.3")
        add_result(connection, "2.4", digest="f" * 64)
    for number in range(60):
        opinion = Opinion.DISAGREE if number % 10 == 0 else Opinion.AGREE
        if number == 7:  # an earlier verdict, by somebody else
            give(engine, "1.7", "1.7.9.1", Opinion.DISAGREE, person="another")
        give(engine, f"1.{number}", f"1.{number}.9.1", opinion)
    for uid in ("2.1", "2.2", "2.4"):
        give(engine, uid, f"{uid}.9.1", Opinion.AGREE)
    give(engine, "2.3", "2.3.9.1", Opinion.NOT_APPLICABLE)
    return labels, scores


def test_the_newest_verdict_of_each_study_is_the_label_of_its_result(
    engine: Engine, config: Path
) -> None:
    labels, scores = judged_site(engine)
    said: dict[str, Any] = json.loads(run(config, "evaluate", "--verdicts", "--json"))
    assert "had seen the model's answer" in said["caveat"]
    assert (said["labelled_by"], said["cases"], said["patients"]) == ("verdicts", 60, 60)
    assert said["left_out"] == {
        "verdicts on indeterminate results, which say neither positive nor negative": ["2.1"],
        "verdicts on rejected results, which say neither positive nor negative": ["2.2"],
        "verdicts `not applicable`": ["2.3"],
        "verdicts on results of another bundle": ["2.4"],
    }
    threshold = said["decision"]["threshold"]
    called = [score >= threshold for score in scores]
    at = said["at_threshold"]
    assert at["true_positive"] == sum(
        yes and label for yes, label in zip(called, labels, strict=True)
    )
    assert at["false_positive"] == 6
    assert at["false_negative"] == 0
    area = auroc_interval(labels, scores, [str(number) for number in range(60)])
    assert said["auroc"]["value"] == area.value < 1
    assert set(said["groups"]) == {"ROOM0", "ROOM1", "ROOM2"}
    assert {one["rule"] for one in said["proposals"] if one["rates"]} >= {"greatest Youden index"}
    assert set(said["calibration"]) == {"as_sampled", "balanced"}


def test_the_figures_are_shown_with_their_caveat_first(engine: Engine, config: Path) -> None:
    judged_site(engine)
    said = run(config, "evaluate", "--verdicts")
    assert said.index("favour") < said.index("Sensitivity") < said.index("sensitivity")
    assert "60 labelled cases found by verdicts" in said
    with engine.connect() as connection:
        (event,) = connection.execute(
            select(audit_event).where(audit_event.c.event == "exported")
        ).all()
    assert event.detail == {"verdicts": 64, "means": "thoracle evaluate --verdicts"}


def test_verdicts_and_images_are_not_mixed(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ThoracleError, match="required: both, or --verdicts"):
        run(config, "evaluate", tmp_path)
    with pytest.raises(ThoracleError, match="no image is read"):
        run(config, "evaluate", tmp_path, "--verdicts")
    with pytest.raises(ThoracleError, match="thoracle verdicts"):
        run(config, "evaluate", "--verdicts", "--predictions", tmp_path / "x.csv")


def test_with_few_verdicts_no_threshold_is_proposed(engine: Engine, config: Path) -> None:
    with engine.begin() as connection:
        report = add_result(connection, "1.1")
    give(engine, "1.1", report, Opinion.AGREE)
    said: dict[str, Any] = json.loads(run(config, "evaluate", "--verdicts", "--json"))
    assert said["cases"] == 1
    assert {one["refused"] for one in said["proposals"]} == {
        "found 1 positive and 0 negative images, required: 20 of each"
    }
    assert said["auroc"] is None
