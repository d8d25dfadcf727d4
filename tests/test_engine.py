"""What the engine does beyond DBOS: work that stopped without a trace is taken up again."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS, SetWorkflowID
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import OperationalError

from ledger import eventually
from postgres import Server, server
from test_store import made, plan, received, store
from thoracle import pipeline
from thoracle.audit import query
from thoracle.classify import bundle
from thoracle.errors import DataFolderInUse
from thoracle.gateway import LateClassifier
from thoracle.image.decoder import Decoder
from thoracle.monitoring import conditions
from thoracle.outbox import attempts
from thoracle.outbox import rows as outbox
from thoracle.pipeline import Line, analyse, overview
from thoracle.pipeline.reader import Reader
from thoracle.settings import Deliver, Settings
from thoracle.store import engine, polling, workflows
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.delays import Delays
from thoracle.store.tables import now
from thoracle.study import instances, results
from thoracle.study.instances import Received
from thoracle.study.results import AnalysisKey
from thoracle.ups import review

runs: list[str] = []


@DBOS.workflow(name="test_counted")
def counted() -> None:
    runs.append(str(DBOS.workflow_id))


@DBOS.workflow(name="test_broken")
def broken() -> None:
    raise ValueError("a fault of the program")


may_end = threading.Event()


@DBOS.workflow(name="test_occupying")
def occupying() -> None:
    runs.append(str(DBOS.workflow_id))
    may_end.wait(30)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server() as one:
        yield one


@pytest.fixture(params=["sqlite", "postgresql"])
def database(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "sqlite":
        database = open_database(sqlite_url(tmp_path))
    else:
        database = open_database(request.getfixturevalue("running").create())
    runs.clear()
    engine.start(database, Deliver())
    yield database
    engine.stop(5)
    DBOS.destroy()
    database.dispose()


def table(database: Engine) -> str:
    """Return how the table of DBOS's workflows is named."""
    with database.connect() as connection:
        return str(workflows.table(connection, workflows.STATUS))


def state(database: Engine, workflow_id: str) -> str:
    with database.connect() as connection:
        return str(
            connection.execute(
                text(f"SELECT status FROM {table(database)} WHERE workflow_uuid = :id"),
                {"id": workflow_id},
            ).scalar_one()
        )


def test_a_workflow_that_stopped_without_a_trace_is_taken_up_again(database: Engine) -> None:
    with SetWorkflowID("lost"):
        DBOS.enqueue_workflow(engine.ANALYSE, counted)
    eventually(lambda: state(database, "lost") == "SUCCESS")
    with database.begin() as connection:  # as a checkpoint that could not be written leaves it
        connection.execute(
            text(f"UPDATE {table(database)} SET status = 'PENDING' WHERE workflow_uuid = 'lost'")
        )
    idle = engine.requeue_stalled(set())
    assert idle == {"lost"}
    assert runs == ["lost"]  # seen once, it might be about to begin
    engine.requeue_stalled(idle)
    eventually(lambda: runs == ["lost", "lost"])
    eventually(lambda: state(database, "lost") == "SUCCESS")
    assert engine.requeue_stalled(set()) == set()


def test_the_work_of_a_dead_executor_is_taken_up_and_not_that_of_one_at_work(
    database: Engine,
) -> None:
    left = f"UPDATE {table(database)} SET status = 'PENDING', executor_id = :executor "
    for name, executor in (("dead", "host-1-0badf00d"), ("ours", "local")):
        with SetWorkflowID(name):
            DBOS.enqueue_workflow(engine.ANALYSE, counted).get_result()
        with database.begin() as connection:  # as a process leaves it that was killed
            values = {"executor": executor, "name": name}
            connection.execute(text(f"{left}WHERE workflow_uuid = :name"), values)
    for _ in range(2):  # the second time changes nothing
        engine.recover_executors(database)
        eventually(lambda: state(database, "dead") == "SUCCESS")
    assert runs == ["dead", "ours", "dead"]
    assert state(database, "ours") == "PENDING"


def test_an_analysis_that_the_engine_gave_up_is_recorded_as_failed_once(
    database: Engine,
) -> None:
    settings = Settings()
    reader = Reader(
        settings, bundle.identify(settings.classify), Decoder(2048, 60), LateClassifier()
    )
    pipeline.bind(Line(settings, database, reader))
    received = Received(
        "1.2", "1.3", "1.4", "1.5", "1.6", "P", "", "A", 100, "images/p", 1, "0", "PACS", ""
    )
    with database.begin() as connection:
        instances.lock_study(connection, received)
        instances.add(connection, received)
        instances.plan(connection, "1.4", "d", "SCT:1", now())
    with SetWorkflowID("analyse:1.4:d:1"):
        DBOS.enqueue_workflow(engine.ANALYSE, counted)
    eventually(lambda: state(database, "analyse:1.4:d:1") == "SUCCESS")
    with database.begin() as connection:  # as DBOS leaves one that kept killing the process
        connection.execute(
            text(
                f"UPDATE {table(database)} SET name = 'analyse', "
                "status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' WHERE workflow_uuid LIKE 'analyse:%'"
            )
        )
    for _ in range(2):
        pipeline.fail_abandoned_analyses()
    with database.connect() as connection:
        told = [row["event"] for row in query.events(connection, query.Question("1.4"))]
        assert told == ["analysis failed"]
        assert overview.counts(connection)["analyses"] == {"failed": 1}


def test_an_analysis_that_the_database_ended_is_begun_again_and_at_last_failed(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error as psycopg has it, e.g. while the server is switched over."""
    settings = Settings()
    identity = bundle.identify(settings.classify)
    reader = Reader(settings, identity, Decoder(2048, 60), LateClassifier())
    pipeline.bind(Line(settings, database, reader))
    store(database, received(1))
    with database.begin() as connection:
        instances.plan(connection, "1.2.840", identity.digest, "SCT:1", now())

    def away(*_: object) -> dict[str, object]:
        raise OperationalError("SELECT 1", {}, Exception("server closed the connection"))

    monkeypatch.setattr(analyse, "_result", away)
    monkeypatch.setattr(analyse, "DATABASE_ATTEMPTS", 2)
    first = f"analyse:1.2.840:{identity.digest}:1"
    analyse.enqueue_analyse("1.2.840", identity.digest, 1, 1)
    eventually(lambda: state(database, first) == "ERROR")
    for _ in range(2):
        pipeline.fail_abandoned_analyses()
    eventually(lambda: state(database, f"{first}:2") == "ERROR")
    with database.connect() as connection:
        assert overview.counts(connection)["analyses"] == {"planned": 1}
        assert workflows.given_up(connection, time.time() - 60) == {"analyse": 2}
    pipeline.fail_abandoned_analyses()
    with database.connect() as connection:
        assert overview.counts(connection)["analyses"] == {"failed": 1}


def test_a_workitem_that_could_not_be_offered_and_work_that_was_given_up_are_alarms(
    database: Engine,
) -> None:
    store(database, received(1))
    with database.begin() as connection:
        fault = {review.FAULT: "could not be built: KeyError"}
        review.withhold(connection, "1.2.840", "d", fault, "analyse:1")
    with SetWorkflowID("broken"):
        DBOS.enqueue_workflow(engine.INTAKE, broken)
    eventually(lambda: state(database, "broken") == "ERROR")
    with database.connect() as connection:
        found = conditions.check(connection, Settings(), datetime.now(UTC))
    told = {one.subject: one.sentence for one in found}
    assert "1.2.840" in told["workitems"]
    assert "1 x test_broken" in told["work given up"]
    assert all(conditions.of_service(subject) for subject in told)


def test_what_has_ended_is_forgotten_and_what_others_ask_for_is_done(database: Engine) -> None:
    engine.request(database, engine.INTAKE, "test_counted", "asked")
    eventually(lambda: state(database, "asked") == "SUCCESS")
    engine.request(database, engine.INTAKE, "test_counted", "asked")  # the same: nothing happens
    later = datetime.now(UTC) + timedelta(days=1)
    assert engine.delete_ended(database, later, 10) == 1
    assert runs == ["asked"]
    assert engine.delete_ended(database, later, 10) == 0


def test_queues_are_looked_at_seldom_at_rest_and_at_once_when_work_comes(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def note(*found: Any) -> None:
        if "queues.name = " in found[2]:
            looks.append(found[2])

    event.listen(database, "before_cursor_execute", note)
    time.sleep(1)
    monkeypatch.setattr(polling, "REST_AFTER_SECONDS", 0.0)
    time.sleep(1)  # the waits that have begun
    looks.clear()
    time.sleep(6)
    at_rest = len(looks)
    event.remove(database, "before_cursor_execute", note)
    limit = 16 if database.dialect.name == "sqlite" else 60  # by DBOS alone 6 x 30
    assert 0 < at_rest <= limit
    if database.dialect.name == "sqlite":
        engine.request(database, engine.INTAKE, "test_counted", "at rest")
        eventually(lambda: state(database, "at rest") == "SUCCESS", 2)  # long before 5 s


def test_a_queue_of_which_as_much_runs_as_may_is_not_looked_at_until_a_place_is_free(
    database: Engine,
) -> None:
    looks: list[str] = []

    def note(*found: Any) -> None:
        if "queues.name = " in found[2] and engine.ANALYSE in str(found[3]):
            looks.append(found[2])

    may_end.clear()
    for number in range(2):
        with SetWorkflowID(f"held-{number}"):
            DBOS.enqueue_workflow(engine.ANALYSE, occupying)
    eventually(lambda: "held-0" in runs)
    time.sleep(0.5)  # a look that has begun
    event.listen(database, "before_cursor_execute", note)
    time.sleep(1.5)
    assert not looks
    assert runs == ["held-0"]
    may_end.set()
    eventually(lambda: runs == ["held-0", "held-1"], 1)
    event.remove(database, "before_cursor_execute", note)


def test_a_delay_is_ended_when_it_is_over_and_no_end_of_one_stops_the_others() -> None:
    ended: list[float] = []

    def end() -> None:
        ended.append(time.monotonic())
        raise RuntimeError

    delays = Delays(end)
    began = time.monotonic()
    for seconds in (0.6, 0.2, 0.21):
        delays.announce(seconds)
    eventually(lambda: ended and ended[-1] >= began + 0.6, 10)
    assert ended[0] >= began + 0.2
    delays.close()
    delays.announce(0)
    time.sleep(0.3)
    assert 2 <= len(ended) <= 3  # those of 0.2 and 0.21 s may be in two tenths of a second


begun, held = threading.Event(), threading.Event()


@DBOS.workflow(name="test_attempted")
def attempted(number: int) -> None:
    begun.set()
    assert held.wait(30)
    engine.transaction(_answered, number)


def _answered(connection: Connection, number: int) -> int:
    answer = {"state": "waiting", "detail": "out of reach"}
    again, _ = attempts.answered(connection, {number: answer}, [number], Deliver(), "attempt")
    return len(again)


def test_a_delivery_that_is_taken_back_meanwhile_is_not_put_back(database: Engine) -> None:
    store(database, received(1))
    plan(database)
    one = made(1)
    begun.clear()
    held.clear()
    with database.begin() as connection:
        results.add_result(connection, AnalysisKey("1.2.840", 1, "d"), one)
        outbox.add_object(connection, one.sop_instance_uid, ["pacs"])
        number = outbox.row_of(connection, "dicom", "pacs", one.sop_instance_uid).id
    with SetWorkflowID("attempted"):
        handle = DBOS.start_workflow(attempted, number)
    assert begun.wait(30)
    with database.begin() as connection:
        outbox.set_rows(connection, [number], state="withdrawn")
        held.set()
        time.sleep(0.5)  # meanwhile the attempt would read what is not so any more
    handle.get_result()
    with database.connect() as connection:
        row = outbox.row_of(connection, "dicom", "pacs", one.sop_instance_uid)
    assert row.state == "withdrawn"


def test_two_processes_never_share_a_data_folder(tmp_path: Path) -> None:
    with engine.lock(tmp_path), pytest.raises(DataFolderInUse, match="required: none"):
        engine.lock(tmp_path)
    engine.lock(tmp_path).close()
