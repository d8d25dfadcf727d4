"""Gateways whose objects are in a bucket: nothing acknowledged is lost, one machine or several."""

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from pydicom import Dataset

import processes
from aging import age, asked
from browsing import Site
from fleet import Fleet
from gateway import Gateway
from ledger import concluded, eventually, files, rows
from object_server import ObjectServer
from pacs import Pacs, free_port
from postgres import server
from radiographs import chest, saved
from sender import send
from test_crash import assert_nothing_lost_or_done_twice, stream_and_kill
from test_proof import ALWAYS, OBJECTS
from test_web_study import picture, words
from thoracle import settings as configuration
from thoracle.receive.inbox import Inbox
from thoracle.retention.purge import Purge
from thoracle.settings import Receive
from thoracle.store import copies, database
from thoracle.store.copies import Copies
from ward import PERSONS, Ward, of_study

COPIES = ("images", "results", "messages")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with ObjectServer(tmp_path_factory.mktemp("server")) as running:
        yield running


# ---- the line ------------------------------------------------------------------------------------


@dataclass
class Hospital(Ward):
    """A ward whose objects are in a bucket."""

    server: ObjectServer | None = None

    @property
    def bucket(self) -> ObjectServer:
        """The bucket."""
        assert self.server is not None
        return self.server

    def forget(self) -> None:
        """Lose all local copies, as another machine has none."""
        for name in (*COPIES, "cache"):
            for path in files(self.gateway, name):
                path.unlink(missing_ok=True)

    def paths(self, table: str, study: str) -> set[str]:
        """Return the paths in rows of a study."""
        statement = f"SELECT path FROM {table} WHERE study_instance_uid = ?"
        return {row["path"] for row in rows(self.gateway, statement, study)}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    key = folder / "erasure.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    with ObjectServer(folder) as running, Pacs("ARCHIVE", OBJECTS) as archive:
        gateway = Gateway(
            folder,
            archive,
            report={"sc": ALWAYS, "pr": ALWAYS},
            objects=running.table(),
            erasure={"key_file": str(key)},
            web={"port": free_port()},
        )
        with gateway, Site(folder, config=gateway.config, persons=PERSONS) as site:
            yield Hospital(gateway, archive, site, server=running)


def arrived(ward: Ward, study: str) -> bool:
    return ward.states(study) == {"delivered"}


def storescu(port: int, image: Dataset, folder: Path) -> subprocess.CompletedProcess[str]:
    path = saved(image, folder / "sent.dcm")
    command = ["storescu", "-v", "-aec", "THORACLE", "127.0.0.1", str(port), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_study_is_in_the_bucket_and_each_part_works_without_a_copy(
    here: Hospital, tmp_path: Path
) -> None:
    image = chest(PatientID="P-1", IssuerOfPatientID="H")
    study = str(image.StudyInstanceUID)
    assert storescu(here.gateway.port, image, tmp_path).returncode == 0
    (path,) = here.paths("instance", study)  # acknowledged: it is there by now
    assert bytes(image.PixelData)[:4096] in here.bucket.path(path).read_bytes()
    concluded(here.gateway, study)
    eventually(lambda: not here.states(study) & {"waiting", "sent"})
    assert here.states(study) == {"delivered"}
    theirs = here.paths("instance", study) | here.paths("result", study)
    assert theirs <= here.bucket.names()
    assert len(here.paths("result", study)) >= 3

    here.forget()
    with here.site.client("reader") as reader:
        for kind in ("radiograph", "overlay", "key-image"):
            assert picture(reader, study, kind).headers["content-type"] == "image/png"
        assert "The report: " not in words(reader, study)
    assert theirs <= {
        str(one.relative_to(here.gateway.data_folder))
        for name in COPIES
        for one in files(here.gateway, name)
    }

    here.forget()
    assert "same" in asked(here.gateway, "audit", "replay", study)
    here.forget()
    export = tmp_path / "export"
    asked(here.gateway, "subject-export", "--patient", "P-1", str(export))
    assert len(list(export.rglob("*.dcm"))) == len(theirs)
    here.forget()
    assert "match the log" in asked(here.gateway, "audit", "verify")


def test_a_withdrawal_and_a_reanalysis_fetch_what_they_need(here: Hospital) -> None:
    study = here.send(*of_study(1))
    here.forget()
    here.gateway.run("reanalyse", study)
    again = (
        "SELECT 1 FROM analysis WHERE study_instance_uid = ? AND generation = 2 AND state = 'done'"
    )
    eventually(lambda: rows(here.gateway, again, study))
    here.forget()
    here.gateway.run("withdraw", study, "--reason", "wrong side")
    eventually(lambda: here.gateway.events("result withdrawn", study))
    eventually(lambda: not here.states(study) & {"waiting", "sent"})
    assert here.paths("result", study) <= here.bucket.names()


def test_while_the_server_is_away_nothing_is_acknowledged_and_nothing_is_lost(
    here: Hospital, tmp_path: Path
) -> None:
    answered, first, second = chest(), chest(), chest()
    known = str(answered.StudyInstanceUID)
    assert send(here.gateway.port, answered).status == 0x0000
    concluded(here.gateway, known)
    eventually(partial(arrived, here, known))
    assert send(here.gateway.port, first).status == 0x0000
    here.bucket.stop()
    here.forget()
    try:
        done = storescu(here.gateway.port, second, tmp_path)
        assert "Refused: OutOfResources" in done.stdout + done.stderr
        assert here.paths("instance", str(second.StudyInstanceUID)) == set()
        assert not files(here.gateway, "incoming")
        assert send(here.gateway.port, first).status == 0xA700  # is it still there?
        log = here.gateway.log
        eventually(lambda: "work waits for its objects: the bucket radiographs" in log.read_text())
        failed = "SELECT 1 FROM analysis WHERE state = 'failed'"
        assert rows(here.gateway, failed) == []
        alarm = "SELECT sentence FROM alarm WHERE subject = 'storage' AND level = 'alarm'"
        (row,) = eventually(lambda: rows(here.gateway, alarm))
        assert "the bucket radiographs: it does not answer" in row["sentence"]
        with here.site.client("reader") as reader:
            said = words(reader, known)
        assert "The report: It cannot be shown now: the object store does not answer." in said
        assert said.count("It cannot be shown now") >= 2  # and the image
    finally:
        here.bucket.start()
    eventually(lambda: storescu(here.gateway.port, second, tmp_path).returncode == 0)
    for one in (first, second):
        study = str(one.StudyInstanceUID)
        concluded(here.gateway, study)
        eventually(partial(arrived, here, study))


def test_a_server_that_answers_and_takes_nothing_costs_no_image(here: Hospital) -> None:
    image = chest()
    here.bucket.stop()
    here.bucket.start("--read-only")
    try:
        assert send(here.gateway.port, image).status == 0xA700
        assert here.paths("instance", str(image.StudyInstanceUID)) == set()
        config = str(here.gateway.config)
        done = processes.run("check", "--config", config)
        assert re.search(r"FAULT objects: the bucket radiographs: found the ", done.stdout)
    finally:
        here.bucket.stop()
        here.bucket.start()
    eventually(lambda: send(here.gateway.port, image).status == 0x0000)
    concluded(here.gateway, str(image.StudyInstanceUID))


def test_the_same_object_again_is_kept_again_when_the_bucket_has_lost_it(here: Hospital) -> None:
    image = chest()
    study = here.send(image)
    (path,) = here.paths("instance", study)
    here.bucket.path(path).unlink()  # the copy is still here
    assert send(here.gateway.port, image).status == 0x0000
    (again,) = here.paths("instance", study)
    assert again != path
    assert here.bucket.path(again).exists()


def test_a_verification_reads_the_bucket_and_names_what_is_changed_or_missing(
    here: Hospital,
) -> None:
    changed, missing = chest(), chest()
    for image in (changed, missing):
        here.send(image)
    (first,), (second,) = (
        here.paths("instance", str(one.StudyInstanceUID)) for one in (changed, missing)
    )
    content, other = (here.bucket.path(one).read_bytes() for one in (first, second))
    here.bucket.path(first).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    here.bucket.path(second).unlink()
    try:
        config = str(here.gateway.config)
        done = processes.run("audit", "verify", "--config", config)
        assert done.returncode == 1
        assert f"image {changed.SOPInstanceUID}, file {first}: its digest is " in done.stdout
        assert f"image {missing.SOPInstanceUID}, file {second}: it is not there" in done.stdout
        assert done.stdout.count("CHANGED: ") == 2
    finally:
        here.bucket.path(first).write_bytes(content)
        here.bucket.path(second).write_bytes(other)


def test_retention_deletes_in_the_bucket_and_copies_elsewhere_go(
    here: Hospital, tmp_path: Path
) -> None:
    study, other = here.send(*of_study(1)), here.send(*of_study(1))
    gone = here.paths("instance", study) | here.paths("result", study)
    left = here.paths("instance", other) | here.paths("result", other)
    elsewhere = tmp_path / "data"
    for name in COPIES:
        if (here.gateway.data_folder / name).exists():
            shutil.copytree(here.gateway.data_folder / name, elsewhere / name)
    album = elsewhere / "cache" / "pictures" / "ab"
    album.mkdir(parents=True)
    (album / "ab.png").write_bytes(b"picture")
    for path in elsewhere.rglob("*"):
        os.utime(path, (time.time() - 3600,) * 2)
    age(here.gateway.data_folder, study, 100)
    settings = configuration.load(here.gateway.config)
    engine = database.existing(settings)
    Purge(engine, settings).run()
    assert not gone & here.bucket.names()
    assert left <= here.bucket.names()
    assert not any((here.gateway.data_folder / one).exists() for one in gone)
    assert all((elsewhere / one).exists() for one in gone | left)
    Copies(engine, settings.model_copy(update={"data_folder": elsewhere})).look()
    engine.dispose()
    assert not any((elsewhere / one).exists() for one in gone)
    assert all((elsewhere / one).exists() for one in left)
    assert not (album / "ab.png").exists()


def test_copies_go_by_their_age_and_what_is_no_copy_stays(here: Hospital) -> None:
    study = here.send(*of_study(1))
    (path,) = here.paths("instance", study)
    (report, *_) = here.paths("result", study)
    folder = here.gateway.data_folder
    settings = configuration.load(here.gateway.config)
    engine = database.existing(settings)
    copy = Copies(engine, settings)
    copy.look()
    assert (folder / path).exists()
    for below in (path, report):
        os.utime(folder / below, (time.time() - 8 * 86400,) * 2)
    content = here.bucket.path(report).read_bytes()
    here.bucket.path(report).unlink()  # as before the move into the bucket
    Copies(engine, settings).look()
    engine.dispose()
    assert not (folder / path).exists()
    assert (folder / report).exists()
    here.bucket.path(report).write_bytes(content)


def test_an_erasure_leaves_nothing_in_the_bucket_and_no_orphan(here: Hospital) -> None:
    patient = {"PatientID": "P-77", "IssuerOfPatientID": "H"}
    study = here.send(*of_study(1, **patient))
    theirs = here.paths("instance", study) | here.paths("result", study)
    orphans = here.bucket.path("orphans")
    orphans.mkdir(exist_ok=True)
    saved(chest(**patient), orphans / "theirs.dcm")
    saved(chest(PatientID="P-78"), orphans / "others.dcm")
    here.gateway.run(
        "erase", "--patient", "P-77", "--reason", "asked", "--without-notice", "--execute"
    )
    assert not theirs & here.bucket.names()
    assert not any((here.gateway.data_folder / one).exists() for one in theirs)
    assert here.bucket.names("orphans") == {"orphans/others.dcm"}
    orphans.joinpath("others.dcm").unlink()


def test_what_a_crash_leaves_without_a_row_is_set_aside_and_kept(here: Hospital) -> None:
    """It was put into the bucket, and never acknowledged."""
    study = here.send(*of_study(1))
    here.gateway.kill()
    name = "ab" * 16
    left = here.bucket.path(f"images/ab/{name}.dcm")
    left.parent.mkdir(exist_ok=True)
    saved(chest(), left)
    here.gateway.start()
    assert here.bucket.names("orphans") == {f"orphans/{name}.dcm"}
    assert f"images/ab/{name}.dcm" not in here.bucket.names()
    assert here.paths("instance", study) <= here.bucket.names()
    settings = configuration.load(here.gateway.config)
    engine = database.existing(settings)
    Purge(engine, settings, moment=datetime.now(UTC) + timedelta(days=91)).run()
    engine.dispose()
    assert here.bucket.names("orphans") == set()


def test_nothing_acknowledged_is_lost_when_it_is_killed_while_studies_stream_in(
    tmp_path: Path,
) -> None:
    with ObjectServer(tmp_path) as running, Pacs() as pacs:
        gateway, modality, _ = stream_and_kill(tmp_path, pacs, 3, 12, objects=running.table())
        assert_nothing_lost_or_done_twice(gateway, modality, pacs)
        stored = rows(gateway, "SELECT sop_instance_uid AS uid, path, size FROM instance")
        for row in stored:
            content = running.path(row["path"]).read_bytes()
            found = hashlib.sha256(content[-row["size"] :]).hexdigest()
            assert found == modality.acknowledged[row["uid"]]
        with gateway:  # what the last end may have left is set aside
            pass
        assert running.names("images") == {row["path"] for row in stored}


# ---- several machines ----------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_one_machine_receives_and_another_reads_with_nothing_but_database_and_bucket(
    bucket: ObjectServer, tmp_path: Path
) -> None:
    image = chest(PatientID="P-5", IssuerOfPatientID="H")
    study = str(image.StudyInstanceUID)
    with server() as postgres, Pacs("ARCHIVE", OBJECTS) as archive:
        url = postgres.create(
            "TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"
        )
        table = bucket.table(prefix="several")
        roles = ("receive", "read")
        with Fleet(tmp_path, [url, url], archive, roles=roles, apart=True, objects=table) as fleet:
            receives, reads = fleet.gateways
            assert receives.data_folder != reads.data_folder
            assert send(receives.port, image).status == 0x0000
            concluded(receives, study)
            done = "SELECT 1 FROM outbox WHERE state <> 'delivered'"
            sent = "SELECT 1 FROM outbox WHERE state = 'delivered'"
            eventually(lambda: rows(receives, sent) and not rows(receives, done))
            assert files(reads, "results")
            assert not files(receives, "results")
            assert len(archive.kept) >= 1
            for one in fleet.gateways:
                said = asked(one, "audit", "verify")
                assert "results and verdicts of 1 study and" in said
            assert [one.terminate() for one in fleet.gateways] == [0, 0]


def test_a_machine_clears_away_what_it_left_unfinished_though_another_leads(
    tmp_path: Path,
) -> None:
    for name in ("host-1-aaaaaaaa", "host-2-bbbbbbbb"):
        (tmp_path / "incoming" / name).mkdir(parents=True)
        (tmp_path / "incoming" / name / "part.dcm").write_bytes(b"half of an image")
    mine = Inbox(tmp_path, Receive(reserve_megabytes=1), "host-3-cccccccc")
    with closing(mine.open()) as file:
        assert mine.clear_incoming(lambda: {"host-2-bbbbbbbb", "host-3-cccccccc"}) == 1
        assert Path(file.name).exists()
    left = {one.name for one in (tmp_path / "incoming").iterdir()}
    assert left == {"host-2-bbbbbbbb", "host-3-cccccccc"}


def test_a_thread_of_pages_looks_after_copies_where_no_gateway_does(
    here: Hospital, tmp_path: Path
) -> None:
    settings = configuration.load(here.gateway.config)
    stale = tmp_path / "results" / "12" / "1.2.3.dcm"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of a study that is gone")
    os.utime(stale, (time.time() - 3600,) * 2)
    engine = database.existing(settings)
    copies.start(engine, settings.model_copy(update={"data_folder": tmp_path}))
    eventually(lambda: not stale.exists())
