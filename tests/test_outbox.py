"""One outbox: what waits for a peer goes in one call, and one item holds up no other."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dbos import DBOS
from pydicom.uid import generate_uid
from pynetdicom import evt
from sqlalchemy import Connection, Engine, text

from gateway import destination
from ledger import eventually
from orthanc import Orthanc
from pacs import Pacs, smallest_report
from test_store import plan, received, store
from thoracle import pipeline
from thoracle.audit import query
from thoracle.outbox import attempts
from thoracle.outbox import rows as outbox
from thoracle.outbox.workflow import enqueue
from thoracle.pipeline import Line
from thoracle.records import Kind
from thoracle.settings import Deliver, parse
from thoracle.store import engine, workflows
from thoracle.store.database import open_database, sqlite_url
from thoracle.study import results
from thoracle.study.results import AnalysisKey, ResultObject

STUDY = "1.2.840"
KEY = AnalysisKey(STUDY, 1, "d")


class Fussy(Pacs):
    """An archive that ends the association when it sees some objects."""

    hated: frozenset[str] = frozenset()

    def __init__(self, ae_title: str = "PACS") -> None:
        super().__init__(ae_title)
        self.associations: list[int] = []

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]  # C-STORE
        if id(event.assoc) not in self.associations:
            self.associations.append(id(event.assoc))
        if uid in self.hated:
            event.assoc.abort()
            return 0xC000
        return super()._store(event)


class Outbox:
    """A database with an engine at work and a study whose objects are to be sent."""

    def __init__(self, folder: Path, *archives: Any) -> None:
        self.folder = folder
        self.settings = parse(
            {
                "data_folder": str(folder),
                "destination": [
                    one if isinstance(one, dict) else destination(one, proof="status")
                    for one in archives
                ],
                "deliver": {"first_delay_seconds": 0.5, "longest_delay_seconds": 1, "jitter": 0},
            }
        )
        self.database: Engine = open_database(sqlite_url(folder))
        store(self.database, received(1))
        plan(self.database)

    def add(self, *uids: str) -> None:
        """Put reports into the outbox, and have them sent."""
        for uid in uids:
            self.write(uid)
        with self.database.begin() as connection:
            for uid in uids:
                made = ResultObject(uid, "1.88", "9.0", Kind.SR, f"results/{uid}.dcm", "0")
                results.add_result(connection, KEY, made)
                names = [one.name for one in self.settings.destination]
                outbox.add_object(connection, uid, names)
            batches = outbox.begin(connection, STUDY)
        enqueue(batches)

    def write(self, uid: str) -> None:
        ds = smallest_report(StudyInstanceUID=STUDY, SOPInstanceUID=uid)
        (self.folder / "results").mkdir(exist_ok=True)
        ds.save_as(self.folder / "results" / f"{uid}.dcm", enforce_file_format=True)

    def states(self, peer: str = "pacs") -> dict[str, str]:
        """Return the state of each object for a peer."""
        with self.database.connect() as connection:
            rows = outbox.of_studies(connection, [STUDY])
        return {row.item: row.state for row in rows if row.peer == peer}

    def attempts(self) -> dict[str, int]:
        with self.database.connect() as connection:
            return {row.item: row.attempts for row in outbox.of_studies(connection, [STUDY])}


@pytest.fixture
def working(tmp_path: Path) -> Iterator[Any]:
    """Give a function that makes an outbox for archives, with the engine at work on it."""
    made: list[Outbox] = []

    def make(*archives: Any) -> Outbox:
        here = Outbox(tmp_path, *archives)
        made.append(here)
        pipeline.bind(Line(here.settings, here.database, SimpleNamespace()))
        engine.start(here.database, here.settings.deliver)
        return here

    yield make
    engine.stop(5)
    DBOS.destroy()
    for one in made:
        one.database.dispose()


def uids(number: int) -> list[str]:
    return [str(generate_uid()) for _ in range(number)]


def test_the_objects_of_a_study_go_on_one_association(working: Any) -> None:
    with Fussy() as pacs:
        here = working(pacs)
        wanted = uids(4)
        here.add(*wanted)
        eventually(lambda: set(here.states().values()) == {"delivered"})
    assert set(pacs.kept) == set(wanted)
    assert len(pacs.associations) == 1
    assert {len(copies) for copies in pacs.kept.values()} == {1}


def test_an_object_that_ends_the_association_holds_up_no_other(working: Any) -> None:
    with Fussy() as pacs:
        here = working(pacs)
        wanted = uids(4)
        pacs.hated = frozenset(wanted[:2])
        here.add(*wanted)
        eventually(lambda: set(pacs.kept) == set(wanted[2:]))
        eventually(lambda: all(here.attempts()[uid] > 1 for uid in wanted[:2]))
        assert [here.states()[uid] for uid in wanted] == ["waiting"] * 2 + ["delivered"] * 2
        pacs.hated = frozenset()
        eventually(lambda: set(here.states().values()) == {"delivered"})
    assert {len(copies) for copies in pacs.kept.values()} == {1}


def test_one_whose_file_is_gone_holds_up_no_other(working: Any) -> None:
    with Fussy() as pacs:
        here = working(pacs)
        wanted = uids(3)
        here.add()
        with here.database.begin() as connection:
            made = ResultObject(wanted[0], "1.88", "9.0", Kind.SR, "results/nowhere.dcm", "0")
            results.add_result(connection, KEY, made)
            outbox.add_object(connection, wanted[0], ["pacs"])
        here.add(*wanted[1:])
        eventually(lambda: set(pacs.kept) == set(wanted[1:]))
        eventually(lambda: here.attempts()[wanted[0]] > 0)
        assert here.states()[wanted[0]] == "waiting"


def test_an_archive_that_is_away_costs_one_call_an_attempt(working: Any) -> None:
    pacs = Fussy()
    here = working(pacs)
    wanted = uids(3)
    here.add(*wanted)
    eventually(lambda: set(here.attempts().values()) == {2})
    with here.database.connect() as connection:
        batches = {row.batch for row in outbox.of_studies(connection, [STUDY])}
        told = [row["event"] for row in query.events(connection, query.Question(STUDY))]
    assert len(batches) == 1
    assert told.count("delivery postponed") in (6, 9)
    with pacs:
        eventually(lambda: set(here.states().values()) == {"delivered"})
    assert len(pacs.associations) == 1


def test_orthanc_gets_all_in_one_request_and_a_bad_one_holds_up_no_other(
    tmp_path: Path, working: Any
) -> None:
    (tmp_path / "orthanc").mkdir()
    with Orthanc(tmp_path / "orthanc") as orthanc:
        here = working({"name": "pacs", "url": orthanc.dicomweb, "proof": "status"})
        wanted = uids(3)
        here.add(*wanted)
        eventually(lambda: set(here.states().values()) == {"delivered"})
        assert len(orthanc.instances()) == 3
        bad, good = uids(2)
        here.write = lambda uid: (
            (here.folder / "results" / f"{uid}.dcm").write_bytes(b"no DICOM")
            if uid == bad
            else Outbox.write(here, uid)
        )
        here.add(bad, good)
        eventually(lambda: here.states()[good] == "delivered")
        eventually(lambda: here.states()[bad] != "waiting")
        assert here.states()[bad] in ("failed", "refused")


def table(database: Engine) -> str:
    with database.connect() as connection:
        return str(workflows.table(connection, workflows.STATUS))


def test_what_no_workflow_is_going_to_send_is_sent(working: Any) -> None:
    with Fussy() as pacs:
        here = working(pacs)
        (here.folder / "x").touch()
        lost, loose, ended = uids(3)
        for uid in (lost, loose, ended):
            here.write(uid)
        with here.database.begin() as connection:
            for uid in (lost, loose, ended):
                made = ResultObject(uid, "1.88", "9.0", Kind.SR, f"results/{uid}.dcm", "0")
                results.add_result(connection, KEY, made)
                outbox.add_object(connection, uid, ["pacs"])
            rows = {row.item: row for row in outbox.of_studies(connection, [STUDY])}
            outbox.batched(connection, [rows[lost]])  # a crash kept it from being enqueued
            (batch,) = outbox.batched(connection, [rows[ended]])
            connection.execute(
                text(
                    f"INSERT INTO {table(here.database)} (workflow_uuid, status, name) "
                    "VALUES (:id, 'ERROR', 'send')"
                ),
                {"id": f"send:pacs:{batch.name}"},
            )
        pipeline.recover()
        eventually(lambda: set(here.states().values()) == {"delivered"})
        pipeline.recover()  # nothing is sent twice
        assert {len(copies) for copies in pacs.kept.values()} == {1}
        assert here.attempts() == {lost: 1, loose: 1, ended: 2}


def test_what_is_given_up_or_taken_back_is_not_sent(working: Any) -> None:
    pacs = Fussy()
    here = working(pacs)
    (uid,) = uids(1)
    here.add(uid)
    eventually(lambda: here.attempts()[uid] == 1)
    with here.database.begin() as connection:
        outbox.withdraw(connection, STUDY)
    with pacs:
        pipeline.recover()
        eventually(lambda: not _under_way(here.database))
        assert here.states() == {uid: "withdrawn"}
    assert pacs.kept == {}


def _under_way(database: Engine) -> bool:
    question = f"SELECT 1 FROM {table(database)} WHERE status IN ('ENQUEUED', 'DELAYED', 'PENDING')"
    with database.connect() as connection:
        return connection.execute(text(question)).first() is not None


def test_the_ladder_ends_with_a_dead_letter(tmp_path: Path) -> None:
    database = open_database(sqlite_url(tmp_path))
    store(database, received(1))
    plan(database)
    with database.begin() as connection:
        made = ResultObject("9.1", "1.88", "9.0", Kind.SR, "x.dcm", "0")
        results.add_result(connection, KEY, made)
        outbox.add_object(connection, "9.1", ["pacs"])
        (number,) = [row.id for row in outbox.of_studies(connection, [STUDY])]
        settings = Deliver(first_delay_seconds=10, longest_delay_seconds=40, jitter=0)
        delays = [_fail(connection, number, settings) for _ in range(4)]
        assert delays == [10, 20, 40, 40]
        assert _fail(connection, number, Deliver(give_up_days=1e-9)) is None
        assert len(outbox.dead(connection, STUDY)) == 1
        batches, kinds = outbox.retry(connection, STUDY)
    assert (len(batches), kinds) == (1, {"dicom": 1})
    database.dispose()


def _fail(connection: Connection, number: int, settings: Deliver) -> float | None:
    answer = {number: {"state": "waiting", "detail": "away"}}
    again, studies = attempts.answered(connection, answer, [number], settings, "test")
    assert studies == [STUDY]
    return again[0].delay if again else None
