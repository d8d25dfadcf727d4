"""Writers of the embedded database: each in its turn, nobody forgotten, readers never kept out."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

import sender
from browsing import PASSWORD, Site, log_in
from gateway import Gateway
from pacs import free_port
from radiographs import chest
from thoracle.store import sqlite, writers
from thoracle.store.writers import WriterQueue

MANY = 50
"""As many associations as there may be by default."""
IMAGES = 6
INSERT = text("INSERT INTO entry VALUES (:number)")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = sqlite.create(sqlite.url(tmp_path))
    with found.connect() as connection:
        assert not sqlite.faults(connection)
        connection.exec_driver_sql("CREATE TABLE entry (number INTEGER)")
    yield found
    found.dispose()


def entries(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT number FROM entry ORDER BY rowid")).scalars())


def write(engine: Engine, number: int) -> None:
    with engine.begin() as connection:
        connection.execute(INSERT, {"number": number})


def started(engine: Engine, number: int) -> threading.Thread:
    thread = threading.Thread(target=write, args=(engine, number), daemon=True)
    thread.start()
    return thread


def test_writers_have_their_turn_in_the_order_in_which_they_asked(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(INSERT, {"number": 0})
        threads = []
        for number in range(1, 6):
            threads.append(started(engine, number))
            time.sleep(0.1)
        assert all(thread.is_alive() for thread in threads)
        assert entries(engine) == []  # a reader waits for nobody
    for thread in threads:
        thread.join(10)
    assert entries(engine) == [0, 1, 2, 3, 4, 5]


def test_fifty_writers_all_get_on_and_nobody_waits_for_a_connection(engine: Engine) -> None:
    longest, done, lock = 0.0, [0] * MANY, threading.Lock()
    until = time.monotonic() + 3

    def work(number: int) -> None:
        nonlocal longest
        while time.monotonic() < until:
            began = time.monotonic()
            write(engine, number)
            with lock:
                longest = max(longest, time.monotonic() - began)
                done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(MANY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One turn each, round by round: no writer is a round behind another, but for who began late.
    assert min(done) > 0
    assert max(done) - min(done) <= max(3, max(done) // 2)
    assert longest < writers.WAIT_SECONDS
    assert len(entries(engine)) == sum(done)


def test_a_writer_that_ends_in_an_error_gives_its_turn_on(engine: Engine) -> None:
    def fails() -> None:
        with engine.begin() as connection:
            connection.execute(INSERT, {"number": 1})
            connection.execute(text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(OperationalError):
        fails()
    with engine.connect() as connection:
        connection.execute(INSERT, {"number": 2})
        connection.rollback()
        connection.execute(INSERT, {"number": 3})
        connection.invalidate()  # closed within its transaction, as when a thread is lost
    write(engine, 4)
    assert entries(engine) == [4]


def test_who_waits_too_long_is_told_as_sqlite_tells_it_and_is_not_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "WAIT_SECONDS", 0.2)
    with engine.begin() as connection:
        connection.execute(INSERT, {"number": 0})
        with pytest.raises(OperationalError, match="database is locked"):
            write(engine, 1)
    write(engine, 2)
    assert entries(engine) == [0, 2]


def test_when_another_process_writes_too_long_the_turn_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(sqlite.file(tmp_path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=100")
            with pytest.raises(OperationalError, match="database is locked"):
                connection.execute(INSERT, {"number": 1})
            connection.rollback()
        other.execute("ROLLBACK")
    write(engine, 2)
    assert entries(engine) == [2]


def test_a_turn_that_comes_while_the_wait_ends_is_not_lost() -> None:
    queue = WriterQueue()
    for _ in range(200):
        assert queue.enter(1)
        results: list[bool] = []
        waits = threading.Thread(target=lambda found=results: found.append(queue.enter(0.002)))
        waits.start()
        time.sleep(0.002)
        queue.leave()
        waits.join()
        if results[0]:
            queue.leave()
    assert queue.enter(0)


def test_fifty_associations_at_once_store_everything_and_people_can_log_in(tmp_path: Path) -> None:
    together = threading.Barrier(MANY + 1)
    answers: list[int] = []
    studies = [generate_uid() for _ in range(MANY)]
    images = [[chest(StudyInstanceUID=study) for _ in range(IMAGES)] for study in studies]

    def sends(number: int) -> None:
        together.wait()
        address = f"127.0.3.{number + 1}"
        with sender.Sender(gateway.port, calling=f"ROOM{number}", address=address) as assoc:
            answers.extend(assoc.store(image).status for image in images[number])

    with (
        Gateway(tmp_path, web={"port": free_port()}) as gateway,
        Site(tmp_path, config=gateway.config) as site,
    ):
        threads = [threading.Thread(target=sends, args=(number,)) for number in range(MANY)]
        for thread in threads:
            thread.start()
        together.wait()
        with site.visitor() as client:
            assert log_in(client, "reader", PASSWORD).status_code == 303
        for thread in threads:
            thread.join()
        assert answers == [0x0000] * MANY * IMAGES
        for study in studies:
            gateway.wait_for_event("study complete", study)
        assert not gateway.events("instance refused")
        for said in ("database is locked", "QueuePool", "not queued", "not stored"):
            assert said not in gateway.log.read_text()
