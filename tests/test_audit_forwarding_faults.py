"""The audit sent to repositories that misbehave, are away or slow, and by datagrams."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from audit_messages import faults
from certificates import Authority
from forwarded_audit import (
    forwarding_to,
    in_order_once_each,
    last,
    record,
    rows_of,
    settings_of,
    state,
    wait_until,
)
from pacs import free_port
from rsyslog import Repository
from thoracle.audit import forwarding, syslog
from thoracle.errors import ArchiveUnavailable
from thoracle.settings import parse
from thoracle.store import database
from thoracle.store.trail import Event


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = database.open_database(database.sqlite_url(tmp_path))
    yield made
    made.dispose()


# ---- Repositories that misbehave ---------------------------------------------------------------


@contextmanager
def listener(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a listener that does with each connection what ``behave`` does; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def secured(authority: Authority, then: Callable[[ssl.SSLSocket], None]) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = authority.issue("hostile")
    context.load_cert_chain(own.certificate_file, own.key_file)

    def behave(connection: socket.socket) -> None:
        with connection, context.wrap_socket(connection, server_side=True) as one:
            then(one)

    return behave


def test_a_repository_that_closes_after_the_handshake_is_behind_and_gets_all_later(
    tmp_path: Path, engine: Engine
) -> None:
    authority = Authority(tmp_path)
    final = record(engine, 20)
    table: dict[str, Any] = {"name": "r", "host": "127.0.0.1", "resend_seconds": 1}
    table |= {"alert_seconds": 1, "tls": {"ca_file": authority.ca_file}}
    with (
        listener(secured(authority, lambda _: None)) as port,
        forwarding_to(engine, settings_of({**table, "port": port})),
    ):
        wait_until(lambda: state(engine)["state"] == "behind")
        assert state(engine)["last_id"] == 0
    with Repository(tmp_path / "r") as repository:
        again = repository.settings(name="r")
        with forwarding_to(engine, settings_of(again)):
            rows = repository.wait_for(final)
            wait_until(lambda: state(engine)["state"] == "sending")
            rows = repository.wait_for(last(engine))
    assert in_order_once_each(rows) == sorted(rows_of(engine))
    names = [row["event"] for row in rows_of(engine).values()][20:]
    assert names == [Event.AUDIT_BEHIND.verb, Event.AUDIT_CAUGHT_UP.verb]


def test_a_repository_that_never_reads_is_left_after_the_timeout(
    tmp_path: Path, engine: Engine
) -> None:
    authority, held = Authority(tmp_path), []
    record(engine, 400, detail={"reason": "x" * 20_000})
    table = {"name": "r", "host": "127.0.0.1", "tls": {"ca_file": authority.ca_file}}
    ended = threading.Event()

    def hold(one: ssl.SSLSocket) -> None:
        held.append(one)
        ended.wait(20)

    with (
        listener(secured(authority, hold)) as port,
        forwarding_to(engine, settings_of({**table, "timeout_seconds": 1, "port": port})),
    ):
        wait_until(lambda: state(engine)["failures"] > 0)
        ended.set()
    assert held
    assert "took nothing for 1 s" in state(engine)["detail"] or (
        "has not taken" in state(engine)["detail"]
    )
    assert state(engine)["last_id"] == 0


def test_a_repository_that_reads_slowly_is_waited_for(tmp_path: Path, engine: Engine) -> None:
    authority = Authority(tmp_path)
    final = record(engine, 200, detail={"reason": "x" * 20_000})
    table = {"name": "r", "host": "127.0.0.1", "tls": {"ca_file": authority.ca_file}}
    got: list[int] = []

    def read(one: ssl.SSLSocket) -> None:
        while part := one.recv(65536):
            got.append(len(part))
            time.sleep(0.02)

    with (
        listener(secured(authority, read)) as port,
        forwarding_to(
            engine, settings_of({**table, "timeout_seconds": 1, "port": port, "resend_seconds": 1})
        ),
    ):
        wait_until(lambda: state(engine)["last_id"] == final)
    assert sum(got) > 200 * 20_000
    assert len(rows_of(engine)) == 200  # no alert


def test_a_repository_that_talks_without_end_is_not_listened_to(
    tmp_path: Path, engine: Engine
) -> None:
    authority = Authority(tmp_path)
    final = record(engine, 5)
    table = {"name": "r", "host": "127.0.0.1", "tls": {"ca_file": authority.ca_file}}

    def talk(one: ssl.SSLSocket) -> None:
        one.settimeout(2)
        with contextlib.suppress(OSError):
            while True:
                one.sendall(b"x" * 65536)

    with (
        listener(secured(authority, talk)) as port,
        forwarding_to(engine, settings_of({**table, "port": port, "resend_seconds": 1})),
    ):
        wait_until(lambda: state(engine)["last_id"] == final)


def test_nothing_is_sent_to_one_whose_certificate_is_not_trusted(
    tmp_path: Path, engine: Engine
) -> None:
    record(engine, 5)
    with Repository(tmp_path / "r") as repository:
        stranger = Authority(tmp_path, "another")
        table = repository.settings(tls={"ca_file": stranger.ca_file})
        with forwarding_to(engine, settings_of(table)):
            wait_until(lambda: state(engine)["failures"] > 0)
    assert "its certificate is not trusted" in state(engine)["detail"]
    assert repository.messages() == []


def test_a_fingerprint_that_differs_is_refused(tmp_path: Path) -> None:
    with Repository(tmp_path / "r") as repository:
        table = repository.settings()
        table["tls"]["fingerprint"] = "0" * 64
        with pytest.raises(ArchiveUnavailable, match="required: 0000"):
            syslog.connect(parse({"audit_repository": [table]}).audit_repository[0])


def test_one_repository_that_is_away_does_not_delay_another(tmp_path: Path, engine: Engine) -> None:
    final = record(engine, 50)
    with Repository(tmp_path / "r") as repository:
        away = {"name": "away", "host": "127.0.0.1", "port": free_port(), "alert_seconds": 3600}
        with forwarding_to(engine, settings_of(away, repository.settings())):
            rows = repository.wait_for(final)
            wait_until(lambda: state(engine)["failures"] >= 1)
    assert [row["id"] for row in rows] == sorted(rows_of(engine))


def test_what_cannot_be_reached_makes_two_events_and_not_one_for_each_attempt(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(forwarding, "LONGEST_DELAY", 0.05)
    record(engine, 1)
    away = {"name": "away", "host": "127.0.0.1", "port": free_port(), "alert_seconds": 0}
    with forwarding_to(engine, settings_of(away)):
        wait_until(lambda: state(engine)["failures"] > 20)
    assert [row["event"] for row in rows_of(engine).values()][1:] == [Event.AUDIT_BEHIND.verb]


def test_one_that_takes_events_more_slowly_than_they_come_is_behind(engine: Engine) -> None:
    settings = settings_of({"name": "r", "host": "127.0.0.1", "alert_seconds": 0})
    (repository,) = settings.audit_repository
    record(engine, 10)
    with engine.begin() as connection:
        forwarding.begin(connection, [repository])
        connection.execute(text("DROP TRIGGER audit_event_no_update"))
        connection.execute(text("UPDATE audit_event SET recorded_at = '2020-01-01' WHERE id > 5"))
        assert forwarding.record_taken(connection, repository, 4) is None
        assert forwarding.record_taken(connection, repository, 5) == forwarding.BEHIND
        assert forwarding.record_taken(connection, repository, 6) is None
        assert forwarding.record_taken(connection, repository, 10) == forwarding.SENDING
    events = [row["event"] for row in rows_of(engine).values()][10:]
    assert events == [Event.AUDIT_BEHIND.verb, Event.AUDIT_CAUGHT_UP.verb]


# ---- UDP ---------------------------------------------------------------------------------------


def test_a_datagram_of_more_than_32_kib_is_sent_without_its_longest_text(
    tmp_path: Path, engine: Engine
) -> None:
    record(engine, 1, detail={"studies": ["1.2.3"] * 20_000})
    final = record(engine, 1)
    with Repository(tmp_path / "r", "udp") as repository:
        with forwarding_to(engine, settings_of(repository.settings())):
            repository.wait_for(final)
        stored = repository.messages()
    assert stored[0].row["detail"].startswith("left out: 180013 bytes, SHA-256 ")
    assert max(len(one.content) for one in stored) < 32768
    assert faults(stored[0].content) == ""


def test_a_udp_port_at_which_nobody_listens_is_noticed(tmp_path: Path, engine: Engine) -> None:
    final = record(engine, 5)
    repository = Repository(tmp_path / "r", "udp")
    with forwarding_to(engine, settings_of(repository.settings())):
        wait_until(lambda: state(engine)["failures"] > 0)
        with repository:
            rows = repository.wait_for(final)
    assert in_order_once_each(rows) == sorted(rows_of(engine))
