"""Files go when they are due, never before; rows stay, and what goes leaves a trace."""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

import killed_purge
import processes
from aging import age, asked
from browsing import Site
from gateway import Gateway
from ledger import concluded, eventually, files, residue, rows
from pacs import Pacs, free_port
from purged_folder import consistent, file_states, purged
from radiographs import chest
from sender import send
from test_proof import ALWAYS, OBJECTS
from thoracle import settings as configuration
from thoracle.errors import DataFolderInUse, SettingsError
from thoracle.store import database
from ward import PERSONS, Ward, of_study


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("retention")
    with Pacs("ARCHIVE", OBJECTS) as archive:
        gateway = Gateway(
            folder, archive, report={"sc": ALWAYS, "pr": ALWAYS}, web={"port": free_port()}
        )
        with gateway, Site(folder, config=gateway.config, persons=PERSONS) as site:
            yield Ward(gateway, archive, site)


def states(ward: Ward, table: str, study: str) -> set[str]:
    statement = f"SELECT file_state FROM {table} WHERE study_instance_uid = ?"
    return {row["file_state"] for row in rows(ward.gateway, statement, study)}


def paths(ward: Ward, table: str, study: str) -> list[Path]:
    statement = f"SELECT path FROM {table} WHERE study_instance_uid = ?"
    return [ward.gateway.data_folder / row["path"] for row in rows(ward.gateway, statement, study)]


def deleted(ward: Ward, study: str) -> list[dict[str, Any]]:
    return ward.gateway.events("retention deleted", study)


def planned(ward: Ward, study: str) -> dict[str, dict[str, Any]]:
    """Return what the plan says of a study, by what goes."""
    lines = asked(ward.gateway, "retention", "plan", "--json", "--limit", "1000").splitlines()
    found = [json.loads(line) for line in lines]
    return {one["what"]: one for one in found if one.get("study_instance_uid") == study}


def test_images_go_a_week_and_results_a_month_after_their_proof(here: Ward) -> None:
    study = here.send(*of_study(2, PatientID="P1"))
    images, results = paths(here, "instance", study), paths(here, "result", study)
    age(here.gateway.data_folder, study, 6)
    asked(here.gateway, "retention", "run")
    assert all(path.exists() for path in images + results)

    age(here.gateway.data_folder, study, 2)
    assert planned(here, study)["images"]["goes"]
    assert planned(here, study)["results"]["stays_because"]
    asked(here.gateway, "retention", "run")
    assert not any(path.exists() for path in images)
    assert all(path.exists() for path in results)
    assert states(here, "instance", study) == {"gone"}
    assert states(here, "result", study) == {"kept"}

    age(here.gateway.data_folder, study, 23)
    asked(here.gateway, "retention", "run")
    assert not any(path.exists() for path in results)
    assert states(here, "result", study) == {"gone"}
    events = deleted(here, study)
    assert [(one["detail"]["what"], one["detail"]["files"]) for one in events] == [
        ("images", 2),
        ("results", len(results)),
    ]
    assert {one["patient_id"] for one in events} == {"P1"}
    assert {(one["event_id"], one["action"]) for one in events} == {("110105", "D")}
    assert asked(here.gateway, "audit", "verify").startswith("OK")


def test_a_start_does_not_take_purged_rows_for_anything_else(here: Ward) -> None:
    study = here.send(*of_study(1))
    age(here.gateway.data_folder, study, 8)
    asked(here.gateway, "retention", "run")
    assert here.gateway.terminate() == 0
    here.gateway.start()
    assert residue(here.gateway) == []
    assert files(here.gateway, "orphans") == []
    assert states(here, "instance", study) == {"gone"}
    assert rows(here.gateway, "SELECT * FROM instance WHERE file_state = 'going'") == []


def gone(ward: Ward, *images: Dataset) -> str:
    """Return a study whose images have gone."""
    study = ward.send(*images)
    age(ward.gateway.data_folder, study, 8)
    asked(ward.gateway, "retention", "run")
    assert states(ward, "instance", study) == {"gone"}
    return study


def failed(ward: Ward, study: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return ward.gateway.events("analysis failed", study)

    return eventually(found)[0]


def test_the_page_says_that_an_image_is_no_longer_kept(here: Ward) -> None:
    study = gone(here, *of_study(1))
    with here.site.client("reader") as client:
        answer = client.get(f"/study/{study}")
    assert answer.status_code == 200
    assert "no longer stored here" in answer.text
    assert ".png" not in answer.text.split("AI result</h2>")[0].replace("key-image", "")
    assert "Sent" in answer.text


def test_a_late_image_for_images_that_are_gone_fails_the_analysis_in_clear_words(
    here: Ward,
) -> None:
    image = of_study(1, PatientID="P2")[0]
    study = gone(here, image)
    late = chest(StudyInstanceUID=study, ViewPosition="LL", PatientID="P2")
    assert send(here.gateway.port, late).status == 0x0000
    assert "1 of its images are no longer kept" in failed(here, study)["detail"]["detail"]
    # The result that stands has not been replaced.
    standing = rows(
        here.gateway,
        "SELECT state FROM analysis WHERE study_instance_uid = ? AND generation = 1",
        study,
    )
    assert standing == [{"state": "done"}]
    # Sent again, the image is kept again, and the study can be read.
    assert send(here.gateway.port, image).status == 0x0000
    here.gateway.run("reanalyse", study)
    eventually(lambda: concluded(here.gateway, study)["generation"] == 3)
    assert states(here, "instance", study) == {"kept"}


def test_what_needs_images_that_are_gone_is_refused_until_they_are_sent_again(here: Ward) -> None:
    image = of_study(1, PatientID="P3")[0]
    study = gone(here, image)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        here.gateway.run("reanalyse", study)
    assert "found 1 images that are no longer kept" in refused.value.stderr
    assert send(here.gateway.port, image).status == 0x0000
    here.gateway.run("withdraw", study, "--reason", "wrong patient")
    here.gateway.wait_for_event("result withdrawn", study)
    assert states(here, "instance", study) == {"kept"}


def test_an_impostor_of_an_image_that_is_gone_is_still_refused(here: Ward) -> None:
    image = of_study(1, PatientID="P4")[0]
    study = gone(here, image)
    pixels = image.PixelData
    image.PatientID, image.PixelData = "P5", bytes(len(pixels))
    assert send(here.gateway.port, image).status == 0xC000
    image.PatientID, image.PatientName, image.PixelData = "P4", "Corrected", pixels
    assert send(here.gateway.port, image).status == 0x0000
    versions = rows(
        here.gateway,
        "SELECT version, file_state FROM instance WHERE study_instance_uid = ? ORDER BY version",
        study,
    )
    assert [(one["version"], one["file_state"]) for one in versions] == [(1, "gone"), (2, "kept")]


def test_what_waits_for_its_archive_stays_however_old_it_is(here: Ward) -> None:
    study = here.send(*of_study(1))
    with closing(sqlite3.connect(here.gateway.data_folder / "thoracle.sqlite")) as store, store:
        store.execute(
            "UPDATE outbox SET state = 'refused' WHERE sop_instance_uid IN "
            "(SELECT sop_instance_uid FROM result WHERE study_instance_uid = ? LIMIT 1)",
            (study,),
        )
    age(here.gateway.data_folder, study, 60)
    asked(here.gateway, "retention", "run")
    assert states(here, "instance", study) == {"kept"}
    assert planned(here, study)["images"]["stays_because"] == ["1 deliveries refused, not retried"]
    age(here.gateway.data_folder, study, 31)  # nobody retried it for 90 days
    asked(here.gateway, "retention", "run")
    assert states(here, "instance", study) | states(here, "result", study) == {"gone"}
    with pytest.raises(subprocess.CalledProcessError) as refused:
        here.gateway.run("retry", study)
    assert "found nothing refused" in refused.value.stderr


@pytest.fixture(scope="module")
def pristine(here: Ward, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a copy of the data folder with a study of which everything would go, and its UID.

    At once, because the gateway looks by itself, too.
    """
    study = here.send(*of_study(1))
    copy = tmp_path_factory.mktemp("pristine")
    for name in ("images", "results"):
        shutil.copytree(here.gateway.data_folder / name, copy / name)
    with (
        closing(sqlite3.connect(here.gateway.data_folder / "thoracle.sqlite")) as source,
        closing(sqlite3.connect(copy / "thoracle.sqlite")) as target,
    ):
        source.backup(target)
    age(copy, study, 40)
    return copy, study


@pytest.fixture
def folder(pristine: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine[0], tmp_path / "copy"))


@pytest.fixture(scope="module")
def finished(pristine: tuple[Path, str]) -> str:
    return pristine[1]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE outbox SET state = 'waiting' WHERE {of}", "deliveries waiting"),
        ("UPDATE outbox SET state = 'sent' WHERE {of}", "deliveries sent"),
        ("UPDATE outbox SET state = 'held' WHERE {of}", "deliveries held"),
        ("UPDATE analysis SET state = 'planned' WHERE {study}", "its analysis has not ended"),
        ("UPDATE analysis SET state = 'failed' WHERE {study}", "its analysis failed"),
        ("UPDATE analysis SET sending = 'held' WHERE {study}", "held by a rule"),
        ("UPDATE instance SET generation = NULL WHERE {study}", "in no generation yet"),
        ("DELETE FROM analysis WHERE {study}", "there was no analysis"),
        (
            "INSERT INTO legal_hold (study_instance_uid, reason, placed_by, placed_at) "
            "SELECT study_instance_uid, 'case', 'me', '' FROM study WHERE {study}",
            "legal hold",
        ),
    ],
)
def test_nothing_goes_while(folder: Path, finished: str, statement: str, why: str) -> None:
    study = f"study_instance_uid = '{finished}'"
    of = f"sop_instance_uid IN (SELECT sop_instance_uid FROM result WHERE {study})"
    store = sqlite3.connect(folder / "thoracle.sqlite")
    with closing(store), store:
        store.execute(statement.format(of=of, study=study))
    config = folder / "thoracle.toml"
    config.write_text(f'data_folder = "{folder}"')
    plan = processes.run("retention", "plan", "--json", "-c", str(config), check=True)
    lines = plan.stdout.splitlines()
    said = [one for one in map(json.loads, lines) if one.get("study_instance_uid") == finished]
    assert [one["what"] for one in said] == ["images", "results"]
    assert all(why in one["stays_because"][0] for one in said)
    assert purged(folder).studies == {}
    assert file_states(folder, finished) == {"kept"}


@pytest.mark.parametrize("when", ["before", "behind"])
@pytest.mark.parametrize(
    ("module", "name", "number"),
    [
        ("context", "extract", 1),
        ("headers", "keep", 1),
        ("rules", "mark_going", 1),
        ("Objects", "delete", 1),
        ("Objects", "delete", 2),
        ("stored", "gone", 1),
        ("stored", "gone", 2),
        ("engine", "delete_ended", 1),
        ("rules", "cut", 1),
        ("stored", "delete_events", 1),
        ("stored", "delete_events", 2),
    ],
)
def test_a_purge_that_is_killed_is_finished_by_the_next_and_loses_nothing(
    folder: Path, finished: str, module: str, name: str, number: int, when: str
) -> None:
    killed = processes.context().Process(
        target=killed_purge.run, args=(folder, module, name, number, when)
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    consistent(folder)
    moment = datetime.now(UTC) + timedelta(days=3000)
    purged(folder, moment)
    consistent(folder)
    assert file_states(folder, finished) == {"gone"}
    assert not any(path.is_file() for path in (folder / "images").rglob("*"))
    assert not any(path.is_file() for path in (folder / "results").rglob("*"))
    with closing(sqlite3.connect(folder / "thoracle.sqlite")) as store:
        events = dict(store.execute("SELECT event, count(*) FROM audit_event GROUP BY event"))
        assert set(events) <= {"audit purged", "audit key created", "retention deleted"}
        twice = store.execute(
            "SELECT 1 FROM audit_event WHERE event = 'retention deleted' GROUP BY "
            "study_instance_uid, json_extract(detail, '$.what') HAVING count(*) > 1"
        ).fetchall()
    assert twice == []


def test_two_purges_at_once_do_not_meet(folder: Path) -> None:
    with (folder / "retention.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataFolderInUse, match="found another purge at work"):
            purged(folder)


def test_without_days_everything_is_kept_for_ever(folder: Path) -> None:
    never = dict.fromkeys(
        (
            *("audit_days", "images_days_after_proof", "results_days_after_proof"),
            *("workflow_hours", "workflow_days", "pictures_days", "orphans_days"),
        ),
        0,
    )
    done = purged(folder, datetime.now(UTC) + timedelta(days=30000), **never)
    assert (done.studies, done.files, done.workflows, done.events) == ({}, 0, 0, 0)


def test_ended_work_of_the_engine_goes_and_unfinished_work_stays(folder: Path) -> None:
    tables = ("workflow_status", "operation_outputs", "workflow_input", "workflow_output")
    with closing(sqlite3.connect(folder / "thoracle.sqlite")) as store:
        assert all(store.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in tables)
        ended = "SELECT workflow_uuid FROM workflow_status WHERE status = 'SUCCESS' LIMIT 1"
        (unfinished,) = store.execute(ended).fetchone()
        with store:
            store.execute(
                "UPDATE workflow_status SET status = 'PENDING', completed_at = NULL "
                "WHERE workflow_uuid = ?",
                (unfinished,),
            )
        (failed,) = store.execute(ended).fetchone()
        with store:
            store.execute(
                "UPDATE workflow_status SET status = 'ERROR' WHERE workflow_uuid = ?", (failed,)
            )
        active = (
            "SELECT workflow_uuid FROM workflow_status WHERE status NOT IN ('SUCCESS', 'ERROR')"
        )
        stays = set(store.execute(active).fetchall())
    assert (unfinished,) in stays
    assert purged(folder).workflows == 0
    assert purged(folder, datetime.now(UTC) + timedelta(hours=7), audit_days=0).workflows > 10
    with closing(sqlite3.connect(folder / "thoracle.sqlite")) as store:
        left = store.execute("SELECT workflow_uuid FROM workflow_status").fetchall()
    assert set(left) == {*stays, (failed,)}
    assert purged(folder, datetime.now(UTC) + timedelta(days=31), audit_days=0).workflows == 1
    with closing(sqlite3.connect(folder / "thoracle.sqlite")) as store:
        left = store.execute("SELECT workflow_uuid FROM workflow_status").fetchall()
        union = " UNION ".join(f"SELECT workflow_uuid FROM {one}" for one in tables)
        steps = store.execute(union).fetchall()
    assert set(left) == stays
    assert set(steps) == stays


def test_pictures_and_orphans_go_by_their_age(tmp_path: Path) -> None:
    database.open_database(database.sqlite_url(tmp_path)).dispose()
    picture, seen, orphan = (
        tmp_path / name
        for name in ("cache/pictures/aa/1.png", "cache/pictures/aa/2.png", "orphans/3.dcm")
    )
    for path in (picture, seen, orphan):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    long_ago = time.time() - 8 * 86400
    os.utime(picture, (long_ago, long_ago))
    os.utime(orphan, (long_ago, long_ago))  # received then, set aside today
    assert purged(tmp_path, orphans_days=1).pictures == 1
    assert (picture.exists(), seen.exists(), orphan.exists()) == (False, True, True)
    later = datetime.now(UTC) + timedelta(days=2)
    assert purged(tmp_path, later, orphans_days=1).orphans == 1
    assert not orphan.exists()
    with closing(sqlite3.connect(tmp_path / "thoracle.sqlite")) as store:
        told = store.execute("SELECT event, detail FROM audit_event").fetchall()
    assert [(event, json.loads(detail)["what"]) for event, detail in told] == [
        ("retention deleted", "orphans")
    ]


def test_the_gateway_looks_by_itself(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, retention={"every_hours": 0.01, "audit_days": 1})
    picture = gateway.data_folder / "cache" / "pictures" / "aa" / "1.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"x")
    os.utime(picture, (0, 0))
    with gateway:
        eventually(lambda: not picture.exists())
        assert "retention: gone are" in eventually(
            lambda: gateway.log.read_text() if "retention" in gateway.log.read_text() else ""
        )
        assert gateway.terminate() == 0


def test_the_settings_say_their_limits() -> None:
    with pytest.raises(SettingsError, match=r"retention\.audit_days"):
        configuration.parse({"retention": {"audit_days": -1}})
