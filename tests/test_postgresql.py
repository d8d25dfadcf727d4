"""The gateway and the pages on PostgreSQL: the whole line, and what may happen to it."""

import asyncio
import csv
import json
import shutil
import subprocess
import sys
import time
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from dbos import DBOS, SetWorkflowID
from sqlalchemy import Connection, event, insert, text
from sqlalchemy.exc import OperationalError

from aging import asked
from browsing import Site
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs, free_port
from postgres import BIN, ROLE, Server
from radiographs import chest
from sender import Sender, send, small
from sources import BUNDLE
from test_crash import Modality, assert_nothing_lost_or_done_twice, crash
from test_web_study import judge
from thoracle import gateway as starting
from thoracle.image.decoder import Decoder
from thoracle.receive import duplicates
from thoracle.receive.duplicates import Frames
from thoracle.receive.inbox import Inbox
from thoracle.settings import Budget, Deliver, Receive, Settings, document
from thoracle.store import database, engine, signing, trail
from thoracle.store.lease import Alone
from thoracle.store.object_files import Objects
from thoracle.store.tables import alarm, now
from thoracle.study import instances, reading_list
from thoracle.study.instances import Received
from thoracle.web.live import Live

PERSONS = {"reader": ["reader"], "administrator": ["administrator"]}
GONE = 120
"""Days after which everything is due."""


def on(url: str) -> dict[str, Any]:
    return {"database": {"url": url}, "web": {"port": free_port()}}


def delivered(gateway: Gateway) -> bool:
    return not rows(gateway, "SELECT 1 FROM outbox WHERE state <> 'delivered'")


# ---- the line --------------------------------------------------------------------------------


def test_a_study_goes_the_whole_line_and_what_people_do_with_it_works(
    url: str, tmp_path: Path
) -> None:
    image = chest(PatientID="P1", PatientName="Doe^Jane\0", AccessionNumber="A1")
    other = chest(PatientID="P2", PatientName="N" * 4000, AccessionNumber="A2")
    study = str(image.StudyInstanceUID)
    with Pacs(commitment=True) as pacs:
        gateway = Gateway(tmp_path, pacs, **on(url))
        with gateway, Site(tmp_path, config=gateway.config, persons=PERSONS) as site:
            for one in (image, other):
                assert send(gateway.port, one).status == 0x0000
                concluded(gateway, str(one.StudyInstanceUID))
            pacs.wait_for(2, 180)
            eventually(lambda: delivered(gateway))
            assert {row["proof"] for row in rows(gateway, "SELECT proof FROM outbox")} == {
                "commitment"
            }
            assert asked(gateway, "audit", "verify").startswith("OK: ")
            assert f"{study} generation 1" in gateway.run("status")
            look_and_judge(site, study)
            set_up(site, study)
            gateway.run("withdraw", study, "--reason", "the wrong patient")
            gateway.wait_for_event("result withdrawn", study)
            eventually(lambda: delivered(gateway))
            assert [ds.StudyInstanceUID for ds in pacs.datasets()].count(study) == 2
            assert gateway.terminate() == 0
        age(url, GONE)
        assert "images of 2 studies, results of 2 studies" in asked(gateway, "retention", "run")
        assert not any(path.is_file() for path in (gateway.data_folder / "images").rglob("*"))
        exported(gateway, tmp_path / "csv", study)
        gateway.start()  # as it was left
        assert gateway.terminate() == 0
    assert (gateway.data_folder / "thoracle.sqlite").exists() is False


def look_and_judge(site: Site, study: str) -> None:
    """See the worklist and the study, and agree; see the dashboard as an administrator."""
    with site.client("reader") as reader:
        listed = reader.get("/", params={"text": "doe"})
        assert listed.status_code == 200
        assert (study in listed.text, "A2" in listed.text) == (True, False)
        assert reader.get("/", params={"sort": "patient"}).status_code == 200
        assert judge(reader, study, opinion="agree").status_code == 303
    with site.client("administrator") as administrator:
        assert administrator.get("/dashboard").status_code == 200
    assert [one.user_id for one in site.events("verdict given")] == ["reader"]


def set_up(site: Site, study: str) -> None:
    """Try a rule on a study and on the last week in the browser, and save it."""
    path = "/setup/rule/add"
    form: dict[str, Any] = {"name": "quiet", "hold": "on", "kinds": ["sr", "sc", "pr", "ko"]}
    form["digest"] = document.read(site.config).digest
    with site.client("administrator") as administrator:
        week = administrator.post(path, data={**form, "action": "week"})
        said = " ".join(week.text.split())
        assert "The rule matches 2. 2 would be handled differently." in said
        tried = administrator.post(path, data={**form, "action": "explain", "study": study})
        assert "rule quiet fires" in tried.text
        assert administrator.post(path, data=form).headers["location"] == "/setup?said=saved"
        assert "Restart the gateway to apply it" in administrator.get("/setup").text
    assert document.read(site.config).values["rule"] == [{"name": "quiet", "hold": True}]


def age(url: str, days: int) -> None:
    """Let everything have happened so many days earlier."""
    earlier = (
        "to_char(({0}::timestamptz - interval '{1} days') AT TIME ZONE 'UTC', "
        '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')'
    )
    with psycopg.connect(url) as connection:
        for table, column in (
            ("study", "changed_at"),
            ("study", "first_received_at"),
            ("instance", "received_at"),
            ("analysis", "finished_at"),
            ("outbox", "changed_at"),
        ):
            moment = earlier.format(column, days)
            connection.execute(f"UPDATE {table} SET {column} = {moment}".encode())


def exported(gateway: Gateway, folder: Path, study: str) -> None:
    """Export the audit, and compare its rows with those of the database."""
    asked(gateway, "audit", "export", "--csv", str(folder))
    texts = [StringIO(file.read_text(), newline="") for file in folder.rglob("*.csv")]
    found = [row for one in texts for row in csv.DictReader(one)]
    there = rows(gateway, "SELECT count(*) AS n FROM audit_event")[0]["n"]
    assert len(found) in (there - 1, there)  # the export is an event, too
    assert {"image read", "verdict given", "result withdrawn", "retention deleted"} <= {
        row["event"] for row in found if row["study_instance_uid"] == study
    }


# ---- what happens to it ----------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_kills_lose_nothing_and_do_nothing_twice(url: str, tmp_path: Path) -> None:
    crash(tmp_path, kills=4, studies=24, **on(url))


@pytest.mark.timeout(600)
def test_a_server_that_crashes_ends_the_gateway_and_nothing_is_lost(
    documented_server: Server, url: str, tmp_path: Path
) -> None:
    with Pacs() as pacs:
        gateway = Gateway(tmp_path, pacs, **on(url))
        modality = Modality(gateway)
        with gateway, Site(tmp_path, config=gateway.config, persons=PERSONS) as site:
            assert gateway.process is not None
            with modality.sending():
                modality.queue(6)
                eventually(lambda: len(modality.acknowledged) >= 3)
                # While it starts, whatever it is at would tell, not the lock.
                eventually(lambda: "classifier loaded" in gateway.log.read_text())
                documented_server.stop("immediate")
                assert gateway.process.wait(30) == 1
                assert healthy(site) == 503
                before = len(modality.acknowledged)
                with pytest.raises(RuntimeError, match="Connection refused"):
                    gateway.start()  # as systemd does, in vain, until the server is there
                documented_server.start()
                eventually(lambda: healthy(site) == 200)
                gateway.start()
                modality.queue(6)
            eventually(lambda: len(pacs.kept) == 12, 240)
            eventually(lambda: delivered(gateway))
            with site.client("reader") as reader:
                assert reader.get("/").status_code == 200
            assert gateway.terminate() == 0
        assert before < len(modality.acknowledged) == 12
        assert_nothing_lost_or_done_twice(gateway, modality, pacs)
        said = [line for line in log_of(gateway) if line["level"] == "CRITICAL"]
        assert len(said) == 1
        assert "the one gateway of its database is lost" in said[0]["message"]


def healthy(site: Site) -> int:
    with site.visitor() as visitor:
        try:
            return visitor.get("/healthz").status_code
        except httpx.TransportError:
            return 0


def log_of(gateway: Gateway) -> list[dict[str, Any]]:
    """Return the lines of the log; what a process prints when it does not start is none."""
    lines = gateway.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_second_gateway_is_refused_whatever_its_data_folder(url: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Gateway(tmp_path / "other", **on(url))
    with Gateway(tmp_path, **on(url)) as first:
        with pytest.raises(RuntimeError, match=r"found thoracle serve on .+ required: no other"):
            other.start()
        assert first.answers()
        assert first.terminate() == 0
    other.start()
    assert other.terminate() == 0


def test_a_gateway_that_loses_its_lock_ends_at_once(
    documented_server: Server, url: str, tmp_path: Path
) -> None:
    with Gateway(tmp_path, **on(url)) as gateway:
        assert gateway.process is not None
        documented_server.end("application_name LIKE 'thoracle serve on%'")
        assert gateway.process.wait(10) == 1
        gateway.start()
        assert gateway.terminate() == 0


def test_an_object_that_cannot_be_rowed_is_refused_so_that_it_comes_again(
    documented_server: Server, url: str, tmp_path: Path
) -> None:
    """The lock is held, and yet no row can be written: the server takes no more connections."""
    image = small()
    with Gateway(tmp_path, **on(url)) as gateway, Sender(gateway.port) as sender:
        eventually(lambda: "classifier loaded" in gateway.log.read_text())
        documented_server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 1")
        try:
            documented_server.end("application_name = 'thoracle'")
            assert sender.store(image).status == 0xA700
        finally:
            documented_server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
        assert sender.store(image).status == 0x0000
        assert len(rows(gateway, "SELECT 1 FROM instance")) == 1
        assert gateway.terminate() == 0


def test_a_gateway_whose_engine_does_not_start_leaves_no_listener(url: str, tmp_path: Path) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA dbos")
        connection.execute("CREATE TABLE dbos.dbos_migrations (version text)")
        connection.execute("INSERT INTO dbos.dbos_migrations VALUES ('nonsense')")
    gateway = Gateway(tmp_path, **on(url))
    with gateway.log.open("ab") as log:
        command = [sys.executable, "-m", "thoracle", "serve", "--config", str(gateway.config)]
        assert subprocess.run(command, stdout=log, stderr=log, timeout=60).returncode == 1
    assert any("cannot go on" in line["message"] for line in log_of(gateway))


def test_a_copy_of_rows_and_then_files_is_whole_and_work_goes_on_with_it(
    documented_server: Server, url: str, tmp_path: Path
) -> None:
    restored = documented_server.documented()
    waiting, after = chest(AccessionNumber="W"), chest(AccessionNumber="N")
    backup = tmp_path / "backup"
    (backup / "data").mkdir(parents=True)
    with Pacs() as pacs:
        pacs.status = 0xA700  # nothing gets there yet
        with Gateway(tmp_path, pacs, **on(url)) as gateway:
            assert send(gateway.port, waiting).status == 0x0000
            concluded(gateway, str(waiting.StudyInstanceUID))
            dump = ["pg_dump", "--format=custom", f"--file={backup / 'rows'}", url]
            subprocess.run([BIN / dump[0], *dump[1:]], check=True)
            for name in ("images", "results"):
                shutil.copytree(gateway.data_folder / name, backup / "data" / name)
            gateway.kill()
        pacs.status = 0x0000
        restore = ["pg_restore", "--no-owner", f"--dbname={restored}", str(backup / "rows")]
        subprocess.run([BIN / restore[0], *restore[1:]], check=True)
        with Gateway(backup, pacs, **on(restored)) as copy:
            pacs.wait_for(1, 120)
            assert send(copy.port, after).status == 0x0000
            pacs.wait_for(2, 120)
            assert asked(copy, "audit", "verify").startswith("OK: ")
            assert copy.terminate() == 0
        reports = {ds.StudyInstanceUID for ds in pacs.datasets()}
        assert reports == {waiting.StudyInstanceUID, after.StudyInstanceUID}


def test_an_open_page_hears_of_changes_when_the_server_is_back(
    documented_server: Server, url: str
) -> None:
    made = database.open_database(url)
    image = Received(*("1.2",) * 5, "P", "", "A", 100, "path", 1, "0" * 64, "PACS", "127.0.0.1")

    async def listen() -> tuple[str, str]:
        changes = Live(made).changes(60)
        before = await anext(changes)
        documented_server.stop("immediate")
        await asyncio.sleep(1)  # it looks four times a second
        documented_server.start()
        with made.begin() as connection:
            instances.lock_study(connection, image)
            reading_list.arrive(connection, image)
        found = before, await asyncio.wait_for(anext(changes), 30)
        await changes.aclose()  # type: ignore[attr-defined]  # it is a generator
        return found

    before, after = asyncio.run(listen())
    assert before == ""
    assert after > "2026"
    made.dispose()


def test_a_commit_whose_answer_is_lost_takes_no_file_from_its_row(url: str, tmp_path: Path) -> None:
    made = database.open_database(url)
    inbox = Inbox(tmp_path, Receive())
    uids = ("1.2.840.1", "1.2.840.2", "1.2.840.3", "1.2.840.4", "1.2.840.10008.1.2.1")

    def arrive() -> trail.Event:
        with closing(inbox.open()) as file:
            file.write(b"an image")
            path = inbox.keep(file)
        image = Received(*uids, "P", "", "A", 100, path, 8, file.sha256, "PACS", "127.0.0.1")
        frames = Frames(Objects(tmp_path), Decoder(2048, 60), Budget())
        return duplicates.record(made, inbox, frames, image, time.perf_counter())

    def commit_and_vanish(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.commit()
        driver.close()

    event.listen(made, "commit", commit_and_vanish)
    with pytest.raises(OperationalError):  # and the sender is answered 0xA700
        arrive()
    event.remove(made, "commit", commit_and_vanish)
    assert arrive() is trail.Event.INSTANCE_DUPLICATE  # it is there, and so it may be acknowledged
    with made.connect() as connection:
        (path,) = instances.known_paths(connection)
    assert (tmp_path / path).read_bytes().endswith(b"an image")
    made.dispose()


def test_a_start_may_take_longer_to_clear_away_than_a_transaction_may_rest(
    url: str, tmp_path: Path
) -> None:
    """To list all images of a bucket takes a request for each thousand."""

    class Slow(Objects):
        def images(self) -> list[str]:
            time.sleep(1.5)
            return super().images()

    made = database.connect(url, None, 0.5)
    database.prepare(made)
    inbox = Inbox(tmp_path, Receive(), objects=Slow(tmp_path))
    signer = signing.existing_or_new(tmp_path)
    starting._record_start(Settings(data_folder=tmp_path), made, Alone(), BUNDLE, inbox, signer)
    with made.connect() as connection:
        found = connection.execute(text("SELECT event FROM audit_event ORDER BY id")).scalars()
        assert "application started" in found.all()
    made.dispose()


# ---- state and checkpoint --------------------------------------------------------------------


@DBOS.workflow(name="test_committed_together")
def committed_together() -> list[str]:
    engine.transaction(_write)
    return engine.transaction(_transactions, str(DBOS.workflow_id))


def _write(connection: Connection) -> None:
    values = {"subject": "together", "level": "calm", "sentence": "", "since": now()}
    connection.execute(insert(alarm).values(**values, changed_at=now()))
    trail.record(connection, trail.Event.ALARM_ENDED, {})


def _transactions(connection: Connection, workflow_id: str) -> list[str]:
    """Return which transactions of PostgreSQL wrote the row, its event and its checkpoint."""
    statement = (
        "SELECT xmin::text FROM alarm WHERE subject = 'together' "
        "UNION ALL SELECT xmin::text FROM audit_event WHERE event = 'alarm ended' "
        "UNION ALL SELECT xmin::text FROM dbos.datasource_outputs WHERE workflow_id = :id"
    )
    return list(connection.execute(text(statement), {"id": workflow_id}).scalars())


def test_a_row_its_event_and_its_checkpoint_are_of_one_transaction(url: str) -> None:
    made = database.open_database(url)
    engine.start(made, Deliver())
    try:
        with SetWorkflowID("together"):
            found = DBOS.start_workflow(committed_together).get_result()
    finally:
        engine.stop(5)
        DBOS.destroy()
        made.dispose()
    assert len(found) == 3
    assert len(set(found)) == 1
