"""The audit sent on: to rsyslog, across its ends and ours, and as a gateway tells of it."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from audit_messages import faults
from forwarded_audit import (
    forwarding_to,
    in_order_once_each,
    last,
    record,
    rows_of,
    settings_of,
    state,
    used,
    wait_until,
)
from gateway import Gateway
from pacs import Pacs, free_port
from postgres import postgres
from rsyslog import Repository
from test_crash import Modality
from thoracle.audit import forwarding
from thoracle.cli import app, machine
from thoracle.errors import ArchiveUnavailable
from thoracle.settings import AuditRepository, parse
from thoracle.store import chain, database
from thoracle.store.trail import Event
from thoracle.web.api.metrics import exposition


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = database.open_database(database.sqlite_url(tmp_path))
    yield made
    made.dispose()


def dotted(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table with its inner table as dotted keys, as a file in TOML wants them."""
    inner = {f"tls.{name}": str(value) for name, value in table.pop("tls", {}).items()}
    return {**table, **inner}


# ---- rsyslog -----------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tls", "tcp", "udp"])
def test_every_event_arrives_in_order_valid_and_equal_to_its_row(
    tmp_path: Path, engine: Engine, transport: str
) -> None:
    final = record(engine, 300, detail={"reason": "ünder <&> \x1b[31m\n"})
    with Repository(tmp_path / "r", transport) as repository:
        with forwarding_to(engine, settings_of(repository.settings())):
            repository.wait_for(final)
        stored = repository.messages()
    assert [faults(one.content) for one in stored if faults(one.content)] == []
    rows = rows_of(engine)
    assert [one.row for one in stored] == [rows[number] for number in sorted(rows)]
    assert {(one.app, one.msgid) for one in stored} == {("thoracle", "IHE+RFC-3881")}
    assert {one.priority for one in stored} == {85}
    assert [one.time for one in stored] == [one.row["recorded_at"] for one in stored]
    assert state(engine)["waiting"] == 0


def test_our_certificate_is_shown_to_a_repository_that_wants_one(
    tmp_path: Path, engine: Engine
) -> None:
    final = record(engine, 3)
    with Repository(tmp_path / "r", wants_certificate=True) as repository:
        own = repository.authority.issue("gateway")
        table = repository.settings()
        table["tls"] |= {"certificate_file": own.certificate_file, "key_file": own.key_file}
        with forwarding_to(engine, settings_of(table)):
            repository.wait_for(final)
        nobody = parse({"audit_repository": [repository.settings()]}).audit_repository[0]
        with pytest.raises(ArchiveUnavailable):
            used(nobody)


def test_severity_follows_from_the_outcome(tmp_path: Path, engine: Engine) -> None:
    for outcome in (0, 4, 8, 12):
        final = record(engine, 1, event_outcome=outcome)
    with Repository(tmp_path / "r", "tcp") as repository:
        with forwarding_to(engine, settings_of(repository.settings(msgid="DICOM+RFC3881"))):
            repository.wait_for(final)
        stored = repository.messages()
    assert [(one.priority, one.msgid) for one in stored] == [
        (number, "DICOM+RFC3881") for number in (85, 84, 83, 82)
    ]


def test_the_chain_can_be_verified_from_the_messages_alone(tmp_path: Path, engine: Engine) -> None:
    record(engine, 40, detail={"reason": "ü \x1b", "float": 0.1})
    final = record(engine, 40, probability=0.1 + 0.2, user_id="\x01\r\n", outcome="positive")
    with Repository(tmp_path / "r") as repository:
        with forwarding_to(engine, settings_of(repository.settings())):
            repository.wait_for(final)
        stored = [one.row for one in repository.messages()]
    digest = chain.FIRST
    for row in stored:
        row["detail"] = json.dumps(row["detail"])
        digest = chain.digest_of(digest, [row.get(name) for name in chain.COLUMNS])
        assert digest == row["digest"]
    assert len(stored) == 80


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["in order", "killed"])
@pytest.mark.parametrize("transport", ["tls", "tcp"])
def test_nothing_is_lost_when_the_repository_ends_in_the_middle(
    tmp_path: Path, engine: Engine, transport: str, how: int
) -> None:
    """The classic loss: what is sent after the other side closed is swallowed."""
    with (
        Repository(tmp_path / "r", transport) as repository,
        forwarding_to(engine, settings_of(repository.settings())),
    ):
        for round_ in range(4):
            for _ in range(20):
                final = record(engine, 5)
                time.sleep(0.01)
            repository.stop(how)
            final = record(engine, 3)
            time.sleep(0.3 * (round_ % 2))
            repository.start()
        rows = repository.wait_for(final, 60)
    kept = rows_of(engine)
    assert in_order_once_each(rows) == sorted(kept)
    assert all(row == kept[row["id"]] for row in rows)


FORWARDING = """
import sys, time
from pathlib import Path
from thoracle.audit import forwarding
from thoracle.settings import load
from thoracle.store import database

settings = load(Path(sys.argv[1]))
engine = database.open_database(database.sqlite_url(settings.data_folder))
with engine.begin() as connection:
    forwarding.begin(connection, settings.audit_repository)
forwarding.start_forwarding(settings, engine)
print("ready", flush=True)
time.sleep(600)
"""


def test_nothing_is_lost_when_we_are_killed_in_the_middle(tmp_path: Path, engine: Engine) -> None:
    chance = random.Random(5)
    config = tmp_path / "thoracle.toml"
    with Repository(tmp_path / "r") as repository:
        lines = [f'data_folder = "{tmp_path}"', "[[audit_repository]]"]
        lines += [f"{name} = {json.dumps(v)}" for name, v in dotted(repository.settings()).items()]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for _ in range(5):
            command = [sys.executable, "-c", FORWARDING, str(config)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                until = time.monotonic() + chance.uniform(0.2, 2)
                while time.monotonic() < until:
                    record(engine, chance.randrange(1, 30))
                    time.sleep(0.01)  # as gateways do: rows must not outrun what sends them
                process.kill()
        with forwarding_to(engine, settings_of(repository.settings())):
            rows = repository.wait_for(last(engine))
    kept = rows_of(engine)
    assert in_order_once_each(rows) == sorted(kept)
    assert all(row == kept[row["id"]] for row in rows)
    assert len(rows) > len(kept)  # else none of the kills was in the middle


def test_an_orderly_end_of_ours_leaves_nothing_to_send_twice(
    tmp_path: Path, engine: Engine
) -> None:
    with Repository(tmp_path / "r") as repository:
        settings = settings_of(repository.settings(resend_seconds=3600))
        for _ in range(3):
            final = record(engine, 50)
            with forwarding_to(engine, settings):
                repository.wait_for(final)
            assert state(engine)["last_id"] == final
        assert [one.row["id"] for one in repository.messages()] == sorted(rows_of(engine))


def test_rows_of_several_writers_on_postgresql_arrive_in_one_order(tmp_path: Path) -> None:
    with postgres() as url, Repository(tmp_path / "r", "tcp") as repository:
        made = database.open_database(url)

        def write() -> None:
            for _ in range(50):
                record(made, 3, detail={"reason": "ü", "number": 0.1})

        with forwarding_to(made, settings_of(repository.settings())):
            writers = [threading.Thread(target=write) for _ in range(4)]
            for one in writers:
                one.start()
            for one in writers:
                one.join()
            repository.wait_for(last(made))
        kept = rows_of(made)
        made.dispose()
    assert len(kept) == 600
    assert [one.row for one in repository.messages()] == [kept[number] for number in sorted(kept)]


def test_a_new_repository_gets_what_was_before_or_not_as_it_wants(
    tmp_path: Path, engine: Engine
) -> None:
    record(engine, 10)
    with (
        Repository(tmp_path / "r", "tcp") as repository,
        forwarding_to(engine, settings_of(repository.settings(backlog=False))),
    ):
        final = record(engine, 2)
        rows = repository.wait_for(final)
    assert [row["id"] for row in rows] == [final - 1, final]


# ---- The whole gateway -------------------------------------------------------------------------


@pytest.mark.slow
def test_every_event_arrives_though_gateway_and_repository_are_killed_in_turn(
    tmp_path: Path,
) -> None:
    with Repository(tmp_path / "r") as repository, Pacs() as pacs:
        table = dotted(repository.settings())
        gateway = Gateway(tmp_path, pacs, lists={"audit_repository": [table]})
        with gateway:
            modality = Modality(gateway)
            with modality.sending():
                for _ in range(3):
                    modality.queue(4)
                    time.sleep(2)
                    gateway.kill()
                    repository.stop(signal.SIGKILL)
                    gateway.start()
                    repository.start()
                modality.queue(2)
            wait_until(lambda: studies_delivered(gateway) == len(modality.acknowledged) == 14, 200)
            assert gateway.terminate() == 0
        made = database.connect(database.sqlite_url(gateway.data_folder))
        kept, final = rows_of(made), last(made)
        assert kept[final]["event"] == Event.APPLICATION_STOPPED.verb
        rows = repository.wait_for(final)
        assert state(made)["last_id"] == final
        made.dispose()
    assert in_order_once_each(rows) == sorted(kept)
    assert all(row == kept[row["id"]] for row in rows)
    messages = repository.messages()
    assert [faults(one.content) for one in messages if faults(one.content)] == []
    assert any(b'<SOPClass UID="1.2.840' in one.content for one in messages)


def studies_delivered(gateway: Gateway) -> int:
    statement = "SELECT COUNT(DISTINCT study_instance_uid) FROM audit_event WHERE event = ?"
    with closing(sqlite3.connect(gateway.data_folder / "thoracle.sqlite")) as connection:
        found = connection.execute(statement, (Event.DELIVERY_SUCCEEDED.verb,)).fetchone()
    return int(found[0])


def test_check_tells_of_a_repository(tmp_path: Path) -> None:
    with Repository(tmp_path / "r") as repository:
        settings = parse({"audit_repository": [repository.settings()]})
        found = {one.subject: one for one in machine.check(settings)}
        assert found["audit_repository rsyslog"].text == (
            "takes connections, with TLS; nothing was sent"
        )
        assert found["audit_repository rsyslog tls ca_file"].well
    with Repository(tmp_path / "strict", wants_certificate=True) as repository:
        strict = parse({"audit_repository": [repository.settings()]})
        found = {one.subject: one for one in machine.check(strict)}
        assert not found["audit_repository rsyslog"].well
    away = {one.subject: one for one in machine.check(settings)}["audit_repository rsyslog"]
    assert not away.well
    assert "not reached" in away.text


def test_status_and_metrics_tell_how_many_events_wait(tmp_path: Path, engine: Engine) -> None:
    final = record(engine, 7)
    away = {"name": "away", "host": "127.0.0.1", "port": free_port(), "alert_seconds": 0}
    with forwarding_to(engine, settings_of(away)):
        wait_until(lambda: state(engine)["state"] == "behind")
    config = tmp_path / "thoracle.toml"
    config.write_text(f'data_folder = "{tmp_path}"\n', encoding="utf-8")
    said = CliRunner().invoke(app, ["status", "--config", str(config)]).output
    # The question itself may be an event.
    assert f"audit repository away: behind, {last(engine)} events wait (since " in said
    assert "not reached: Connection refused" in said
    found = json.loads(CliRunner().invoke(app, ["status", "--json", "-c", str(config)]).output)
    assert found["audit_repositories"][0]["waiting"] == last(engine) > final
    with engine.connect() as connection:
        text = exposition(connection, parse({"data_folder": str(tmp_path)})).decode()
    assert f'thoracle_audit_waiting{{repository="away"}} {last(engine):.1f}' in text
    assert 'thoracle_audit_behind{repository="away"} 1.0' in text


def test_a_repository_that_is_no_longer_set_is_not_waited_for(
    tmp_path: Path, engine: Engine
) -> None:
    final = record(engine, 4)
    with Repository(tmp_path / "r", "tcp") as repository:
        settings = settings_of(repository.settings())
        with forwarding_to(engine, settings):
            repository.wait_for(final)
        with engine.begin() as connection:
            forwarding.begin(connection, [])
            assert forwarding.repositories(connection) == []
        record(engine, 4)
        with forwarding_to(engine, settings):  # it goes on where it was
            repository.wait_for(last(engine))
        assert [one.row["id"] for one in repository.messages()] == sorted(rows_of(engine))


# ---- Settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transport": "tcp", "host": "192.0.2.1"}, "required: tls"),
        ({"transport": "udp", "tls": {}}, "required: transport tls"),
        ({"transport": "udp", "largest_bytes": 100_000}, "at most 65507"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AuditRepository.model_validate({"name": "r", "host": "127.0.0.1", **changes})
