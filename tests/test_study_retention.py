"""Whole studies, verdicts and readings go by their age; what is under way stays."""

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset

import killed_purge
import processes
from aging import age, asked
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs
from sender import send
from test_contents import found as checked
from test_proof import ALWAYS, OBJECTS
from thoracle import settings as configuration
from thoracle.audit import verification
from thoracle.errors import SettingsError
from thoracle.monitoring import watch
from thoracle.retention import removal
from thoracle.retention.purge import Done, Purge
from thoracle.retention.rows import PurgeKind
from thoracle.retention.rules import RetentionLimits
from thoracle.retention.study_rows import OF_STUDIES
from thoracle.settings import Retention, Settings, Watch
from thoracle.store import anchors, database, trail
from thoracle.study import verdicts
from thoracle.study.verdicts import Opinion
from ward import of_study

LIMITS = {"studies_days": 365, "verdicts_days": 100, "readings_days": 200, "audit_days": 0}


@dataclass
class Ward:
    """A gateway, its folder as it was with one study read and judged, and that study."""

    gateway: Gateway
    copy: Path
    images: list[Dataset]

    @property
    def study(self) -> str:
        return str(self.images[0].StudyInstanceUID)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("removal")
    copy = tmp_path_factory.mktemp("copy") / "data"
    images = of_study(2, PatientID="P1", AccessionNumber="A1")
    with Pacs("ARCHIVE", OBJECTS) as archive:
        gateway = Gateway(
            folder, archive, report={"sc": ALWAYS}, ups={"offer": True}, retention=LIMITS
        )
        with gateway:
            study = sent(gateway, images)
            judge(gateway.data_folder, study)
            picture(gateway.data_folder)
            snapshot(gateway.data_folder, copy)
            yield Ward(gateway, copy, images)


def sent(gateway: Gateway, images: list[Dataset]) -> str:
    """Return the study of images when its result is proven to be kept."""
    for image in images:
        assert send(gateway.port, image).status == 0x0000
    study = str(images[0].StudyInstanceUID)
    concluded(gateway, study)
    under_way = (
        "SELECT 1 FROM outbox JOIN result USING (sop_instance_uid) WHERE study_instance_uid = ? "
        "AND state IN ('waiting', 'sent')"
    )
    eventually(lambda: not rows(gateway, under_way, study))
    busy = "SELECT 1 FROM workflow_status WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')"
    eventually(lambda: not rows(gateway, busy))
    return study


def judge(folder: Path, study: str, opinion: Opinion = Opinion.AGREE) -> None:
    engine = database.open_database(database.sqlite_url(folder))
    with engine.begin() as connection:
        judged = verdicts.result_to_judge(connection, study)
        assert judged is not None
        who: trail.Columns = {"user_id": "anna", "detail": {}}
        report = judged.sop_instance_uid
        verdicts.give(connection, study, report, opinion, "a comment", who)
    engine.dispose()


def picture(folder: Path) -> Path:
    path = folder / "cache" / "pictures" / "aa" / "1.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def snapshot(source: Path, copy: Path) -> None:
    """Copy what a run needs of a gateway at work, without its lock."""
    copy.mkdir()
    for name in ("images", "results", "cache"):
        subprocess.run(["cp", "-r", str(source / name), str(copy)], check=True)
    with (
        closing(sqlite3.connect(source / "thoracle.sqlite")) as of,
        closing(sqlite3.connect(copy / "thoracle.sqlite")) as to,
    ):
        of.backup(to)


@pytest.fixture
def folder(here: Ward, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", str(here.copy), str(tmp_path / "data")], check=True)
    return tmp_path / "data"


def change(folder: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(folder / "thoracle.sqlite", timeout=30)) as store, store:
        store.execute(statement, values)


def told(folder: Path, statement: str, *values: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "thoracle.sqlite")) as store:
        return store.execute(statement, values).fetchall()


def purged(folder: Path, days: float, **rules: int) -> Done:
    """Return what goes so many days from now."""
    given = Settings(data_folder=folder, retention=Retention(**{"audit_days": 0, **rules}))
    engine = database.open_database(database.sqlite_url(folder))
    done = Purge(engine, given, moment=datetime.now(UTC) + timedelta(days=days)).run()
    engine.dispose()
    return done


def verified(folder: Path) -> None:
    """Assert that the chain fits, and that the rows that are left are what it says."""
    assert checked(folder).faults == ()
    engine = database.open_database(database.sqlite_url(folder))
    with engine.connect() as connection:
        kept = anchors.read_anchors(folder / anchors.ANCHORS_FILE)
        assert verification.verify(connection, kept).well
    engine.dispose()


def left(folder: Path, study: str) -> dict[str, int]:
    """Return how many rows tables have of a study."""
    counted = {
        table.name: told(
            folder, f"SELECT count(*) FROM {table.name} WHERE study_instance_uid = ?", study
        )[0][0]
        for table in OF_STUDIES
    }
    counted["outbox"] = told(folder, "SELECT count(*) FROM outbox")[0][0]
    return {name: int(str(number)) for name, number in counted.items() if number}


def files(folder: Path) -> list[Path]:
    return [
        path
        for name in ("images", "results", "cache")
        for path in (folder / name).rglob("*")
        if path.is_file()
    ]


def removals(folder: Path) -> list[dict[str, object]]:
    statement = "SELECT detail FROM audit_event WHERE event = 'retention deleted' ORDER BY id"
    found = [json.loads(str(one)) for (one,) in told(folder, statement)]
    return [one for one in found if "rows" in one]


def test_by_default_rows_stay_for_ever(folder: Path, here: Ward) -> None:
    before = left(folder, here.study)
    done = purged(folder, 30000)
    assert set(done.studies) == {PurgeKind.IMAGES, PurgeKind.RESULTS}
    assert left(folder, here.study) == before | {"header": 2}


def test_a_study_goes_with_all_of_it_and_the_audit_still_fits(folder: Path, here: Ward) -> None:
    before = left(folder, here.study)
    assert purged(folder, 364, images_days_after_proof=0, studies_days=365).studies == {
        PurgeKind.RESULTS: 1
    }
    done = purged(folder, 366, images_days_after_proof=0, studies_days=365)
    assert done.studies == {PurgeKind.IMAGES: 1, PurgeKind.STUDIES: 1}
    assert left(folder, here.study) == {}
    assert files(folder) == []
    for name in ("workflow_status", "operation_outputs", "datasource_outputs"):
        texts = " ".join(map(str, told(folder, f"SELECT * FROM {name}")))
        assert here.study not in texts
    (event,) = removals(folder)
    assert event["rows"] == before | {"header": 2}
    assert (event["what"], event["days"]) == ("studies", 365)
    verified(folder)


WORKITEM = (
    "INSERT INTO workitem (sop_instance_uid, study_instance_uid, generation, bundle_digest, state, "
    "attributes, created_at, changed_at) "
    "SELECT '1.9', study_instance_uid, 1, 'd', '{}', '{{}}', '', '' FROM study"
)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE outbox SET state = 'waiting'", "deliveries waiting"),
        ("UPDATE analysis SET sending = 'held'", "held by a rule"),
        (WORKITEM.format("IN PROGRESS"), "1 workitems are claimed"),
        (WORKITEM.format("HELD"), "1 workitems are held by a rule"),
        ("UPDATE commitment SET state = 'asked'", "storage commitments are awaited"),
        (
            "INSERT INTO reconciliation (study_instance_uid, state, patients, raised_at) "
            "SELECT study_instance_uid, 'open', '[]', '' FROM study",
            "1 decisions about its patients are open",
        ),
        ("UPDATE verdict SET recorded_at = '2999'", "judged at 2999 only"),
        (
            "INSERT INTO legal_hold (patient_id, reason, placed_by, placed_at) "
            "VALUES ('P1', 'case', 'me', '')",
            "legal hold 1",
        ),
    ],
)
def test_a_study_stays_while(folder: Path, here: Ward, statement: str, why: str) -> None:
    if statement.startswith("UPDATE verdict"):
        change(folder, "DROP TRIGGER verdict_no_update")
    change(folder, statement)
    age(folder, here.study, 400)
    engine = database.open_database(database.sqlite_url(folder))
    limits = RetentionLimits.of(Retention(studies_days=365))
    with engine.connect() as connection:
        said = list(removal.reasons(connection, PurgeKind.STUDIES, here.study, limits))
    engine.dispose()
    assert any(why in one for one in said)
    assert PurgeKind.STUDIES not in purged(folder, 1, studies_days=365).studies
    assert left(folder, here.study)["study"] == 1


def test_a_study_stays_while_the_engine_works_on_it(folder: Path, here: Ward) -> None:
    change(
        folder,
        "UPDATE workflow_status SET status = 'ENQUEUED' WHERE workflow_uuid LIKE ?",
        f"analyse:{here.study}:%",
    )
    assert PurgeKind.STUDIES not in purged(folder, 400, studies_days=365, workflow_days=0).studies
    assert left(folder, here.study)["study"] == 1


def test_verdicts_go_and_the_study_stays_read(folder: Path, here: Ward) -> None:
    judge(folder, here.study, Opinion.DISAGREE)
    change(folder, "DROP TRIGGER verdict_no_update")
    change(folder, "UPDATE verdict SET recorded_at = '2020-01-01T00:00:00.000000Z' WHERE id = 1")
    done = purged(folder, 1, verdicts_days=100)
    assert (done.studies, done.rows) == ({PurgeKind.VERDICTS: 1}, 1)
    assert told(folder, "SELECT id FROM verdict") == [(2,)]
    listed = "SELECT verdict, reviewed_at IS NOT NULL FROM worklist"
    assert told(folder, listed) == [("disagree", 1)]
    verified(folder)
    assert purged(folder, 101, verdicts_days=100).rows == 1
    assert told(folder, listed) == [(None, 1)]
    assert [one["verdicts"] for one in removals(folder)] == [[1], [2]]
    verified(folder)
    # SQLite gives the numbers again: the events tell which one is meant.
    judge(folder, here.study)
    assert told(folder, "SELECT id FROM verdict") == [(1,)]
    verified(folder)
    change(folder, "DROP TRIGGER verdict_no_delete")
    change(folder, "DELETE FROM verdict")
    assert "verdict 1: it has no row" in checked(folder).faults[0]


def test_a_verdict_goes_with_an_event_alone(folder: Path) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="verdicts are only ever added"):
        change(folder, "DELETE FROM verdict")


def test_readings_go_and_the_reference_is_of_those_that_are_kept(folder: Path, here: Ward) -> None:
    engine = database.open_database(database.sqlite_url(folder))
    with engine.connect() as connection:
        before = watch.compare(connection, Watch(), datetime.now(UTC))
    assert before.reference.since[:10] == f"{datetime.now(UTC):%Y-%m-%d}"
    age(folder, here.study, 300)
    change(folder, "UPDATE worklist SET received_at = '2020-01-01T00:00:00.000000Z'")
    done = purged(folder, 1, readings_days=200, images_days_after_proof=0)
    assert done.studies[PurgeKind.READINGS] == 1
    assert "reading" not in left(folder, here.study)
    verified(folder)
    with engine.connect() as connection:
        after = watch.compare(connection, Watch(), datetime.now(UTC))
    engine.dispose()
    assert after.reference.since[:10] == f"{datetime.now(UTC):%Y-%m-%d}"


@pytest.mark.parametrize(
    ("module", "name", "when"),
    [
        ("engine", "_delete", "behind"),
        ("study_rows", "delete_studies", "before"),
        ("study_rows", "delete_studies", "behind"),
        ("removal", "remove", "behind"),
    ],
)
def test_a_removal_that_is_killed_is_finished_by_the_next(
    folder: Path, here: Ward, module: str, name: str, when: str
) -> None:
    killed = processes.context().Process(
        target=killed_purge.run,
        args=(folder, module, name, 1, when),
        kwargs={"studies_days": 365, "audit_days": 0},
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert left(folder, here.study)["study"] == 1
    verified(folder)
    purged(folder, 3000, studies_days=365)
    assert left(folder, here.study) == {}
    assert files(folder) == []
    assert len(removals(folder)) == 1
    verified(folder)


def test_a_study_that_comes_again_is_a_new_one(here: Ward) -> None:
    folder = here.gateway.data_folder
    age(folder, here.study, 400)
    change(folder, "DROP TRIGGER verdict_no_update")
    change(folder, "UPDATE verdict SET recorded_at = '2020-01-01T00:00:00.000000Z'")
    os.utime(folder / "cache" / "pictures" / "aa" / "1.png")
    lines = asked(here.gateway, "retention", "plan", "--json").splitlines()
    planned = [json.loads(one) for one in lines]
    goes = {one["what"]: one["goes"] for one in planned if one["what"] != "audit"}
    rules = ("images", "results", "readings", "verdicts", "studies")
    assert goes == dict.fromkeys(rules, True)
    assert "1 whole studies" in asked(here.gateway, "retention", "run")
    assert left(folder, here.study) == {}
    assert asked(here.gateway, "audit", "verify").startswith("OK")
    assert sent(here.gateway, here.images) == here.study
    assert concluded(here.gateway, here.study)["generation"] == 1
    assert left(folder, here.study)["reading"] == 2
    judge(folder, here.study)
    assert asked(here.gateway, "audit", "verify").startswith("OK")


@pytest.mark.parametrize("name", ["studies_days", "readings_days", "verdicts_days"])
def test_statistics_keep_what_they_compare(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"retention\.{name}: found 7, required: 0 or"):
        configuration.parse({"retention": {name: 7}})
