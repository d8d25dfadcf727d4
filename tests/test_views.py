"""Who saw a patient: each way of seeing is recorded with whom it showed, and can be asked for."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

import sources
from api_tokens import token
from browsing import Site
from stored_studies import concluded, said
from test_migrations import at_revision
from thoracle.audit import contents, query
from thoracle.audit.query import Question
from thoracle.cli import app
from thoracle.records import Outcome
from thoracle.retention import rows as retained
from thoracle.store import chain, database, trail
from thoracle.store.object_files import Objects
from thoracle.store.tables import audit_event, audit_view
from thoracle.store.trail import Event
from workflow import Reader
from workitem_listener import Listener

PERSONS = {"reader": ["reader"], "chief": ["reader", "administrator", "auditor"]}
SCOPES = ("results:read", "worklist:read", "fhir:read", "audit:read")
PATIENT, ISSUER, STUDY = "P7", "2.16.840.1", "1.2.840.77.1"
OFFERED = "1.2.840.77.5"
"""Another study of the patient, with a workitem."""
OTHER, OTHERS_STUDY = "P8", "1.2.840.77.2"
SPAN = {"date": ["ge2020-01-01", "lt2100"]}


@dataclass
class Place:
    """Pages, workitems and a token, with a study of one patient and one of another."""

    site: Site
    listener: Listener
    token: str
    workitem: str

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """Ask as a program does."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.site.url}{path}"
        answer = httpx.get(url, params=parameters or None, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer

    def page(self, path: str, **headers: str) -> None:
        """Look as a person does."""
        with self.site.client("chief") as client:
            assert client.get(path, headers=headers).status_code == 200

    def command(self, *arguments: str) -> str:
        found = CliRunner().invoke(app, [*arguments, "--config", str(self.site.config)])
        assert found.exit_code in (0, 3), found.output
        return found.stdout

    def saw(self, after: int, patient: str = PATIENT) -> list[dict[str, Any]]:
        """Return the events behind a row about a patient, as those that ask have them."""
        with self.site.database.connect() as connection:
            question = Question(patient_id=patient, shown=True)
            return [one for one in query.events(connection, question) if one["id"] > after]

    def last(self) -> int:
        with self.site.database.connect() as connection:
            return chain.head(connection)[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    site = Site(tmp_path_factory.mktemp("views"), persons=PERSONS)
    for study, patient in ((STUDY, PATIENT), (OTHERS_STUDY, OTHER)):
        reading = said(study, Outcome.POSITIVE, probability=0.9)
        concluded(site.database, study, reading, patient_id=patient)
    reading = said(OFFERED, Outcome.POSITIVE, probability=0.9)
    concluded(site.database, OFFERED, reading, patient_id=PATIENT, accession_number="A8")
    for study in (STUDY, OFFERED):
        with site.database.begin() as connection:
            columns: trail.Columns = {"patient_id": PATIENT, "study_instance_uid": study}
            columns["issuer_of_patient_id"] = ISSUER
            trail.record(connection, Event.INSTANCE_STORED, columns)
    listener = Listener(site.settings.data_folder)
    same: dict[str, Any] = {"PatientID": PATIENT, "IssuerOfPatientID": ISSUER}
    workitem = listener.offer(sources.dx(StudyInstanceUID=OFFERED, **same))
    with site:
        yield Place(site, listener, token(site.database, "chief", *SCOPES), workitem)
    listener.stop()


def by_ups(act: Callable[[Reader], object]) -> Callable[[Place], object]:
    def seen(place: Place) -> None:
        with Reader(place.listener.port) as reader:
            assert act(reader)

    return seen


WAYS: dict[str, Callable[[Place], object]] = {
    "worklist": lambda place: place.page("/"),
    "worklist search": lambda place: place.page(f"/?text={PATIENT}"),
    "study": lambda place: place.page(f"/study/{STUDY}"),
    "audit page": lambda place: place.page(f"/audit?study_instance_uid={STUDY}"),
    "audit page of all": lambda place: place.page("/audit?event=instance+stored"),
    "worklist API": lambda place: place.get("/api/worklist"),
    "studies API": lambda place: place.get("/api/studies", accession="A7"),
    "study API": lambda place: place.get(f"/api/studies/{STUDY}"),
    "audit API": lambda place: place.get("/api/audit/events", event="instance stored"),
    "FHIR search": lambda place: place.get("/fhir/Task"),
    "FHIR read": lambda place: place.get(f"/fhir/Task/{STUDY}"),
    "FHIR audit": lambda place: place.get("/fhir/AuditEvent", **SPAN, subtype="instance-stored"),
    "workitem query": by_ups(lambda reader: reader.find()),
    "status": lambda place: place.command("status"),
    "status of a study": lambda place: place.command("status", STUDY),
    "several studies": lambda place: place.command("status", "A7"),
    "audit why": lambda place: place.command("audit", "why", "--accession", "A7"),
    "audit of a patient": lambda place: place.command("audit", "--patient", PATIENT),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_seeing_is_found_by_the_patient(place: Place, way: str) -> None:
    before = place.last()
    WAYS[way](place)
    found = place.saw(before)
    assert found, way
    assert {one["event"] for one in found} <= {"list viewed", "study viewed", "audit read"}


def test_a_workitem_that_is_read_is_found_by_the_patient(place: Place) -> None:
    before = place.last()
    with Reader(place.listener.port) as reader:
        assert reader.get(place.workitem)
    assert place.saw(before)


def test_who_saw_another_patient_alone_is_not_found(place: Place) -> None:
    before = place.last()
    place.page(f"/study/{OTHERS_STUDY}")
    place.page(f"/?text={OTHER}")
    assert place.saw(before) == []
    assert len(place.saw(before, OTHER)) == 2


def test_a_list_that_keeps_itself_up_to_date_is_recorded_when_it_shows_another_study(
    place: Place,
) -> None:
    with place.site.client("reader") as client:
        client.get("/?text=new")
        before = place.last()
        for _ in range(2):
            client.get("/?text=new", headers={"X-Automatic": "1"})
        assert place.last() == before
        study = "1.2.840.77.3"
        reading = said(study, Outcome.NEGATIVE, probability=0.1)
        concluded(place.site.database, study, reading, patient_id="NEW")
        before = place.last()
        client.get("/?text=new", headers={"X-Automatic": "1"})
        client.get("/?text=new", headers={"X-Automatic": "1"})
    (event,) = place.saw(before, "NEW")
    assert event["user_id"] == "reader"


def test_page_commands_rest_and_fhir_give_the_same_answer(place: Place) -> None:
    for way in ("worklist", "studies API", "FHIR search", "workitem query", "status"):
        WAYS[way](place)
    until = place.last()
    lists = {one["id"] for one in place.saw(0) if one["event"] == "list viewed"}
    assert len(lists) >= 5
    lines = place.command("audit", "--patient", PATIENT, "--json").splitlines()
    by_command = {json.loads(line)["id"] for line in lines}
    asked = {"patient_id": PATIENT, "event": "list viewed", "limit": 200}
    by_rest = {one["id"] for one in place.get("/api/audit/events", **asked).json()["events"]}
    asked = {"patient.identifier": f"{ISSUER}|{PATIENT}", "subtype": "list-viewed", "_count": 200}
    bundle = place.get("/fhir/AuditEvent", **SPAN, **asked).json()
    by_fhir = {int(one["resource"]["id"]) for one in bundle["entry"]}
    with place.site.client("chief") as client:
        page = client.get("/audit", params={"patient_id": PATIENT, "event": "list viewed"}).text
    for answer in (by_command, by_rest, by_fhir):
        assert lists <= answer
        assert all(one in answer for one in lists if one <= until)
    assert all(f"/audit/event/{one}" in page for one in lists)


def test_to_record_whom_a_list_showed_costs_less_than_two_milliseconds(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    none, all_of_page = (median_milliseconds(engine, number) for number in (0, 50))
    assert all_of_page - none < 2


def median_milliseconds(engine: Engine, studies: int) -> float:
    """Return the processor time of recording a list of so many studies."""
    took = []
    for number in range(40):
        shown = [f"1.2.826.0.1.3680043.10.{(number * 37 + one) % 4000}" for one in range(studies)]
        with engine.begin() as connection:
            began = time.thread_time()
            trail.record(connection, Event.LIST_VIEWED, {"detail": {"studies": shown}})
            took.append((time.thread_time() - began) * 1000)
    return statistics.median(took)


def test_views_go_with_their_events_and_not_before(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    for number in range(4):
        with engine.begin() as connection:
            detail = {"studies": ["1.2", "1.2", f"1.2.{number}"]}
            trail.record(connection, Event.LIST_VIEWED, {"detail": detail})
    for statement in ("DELETE FROM audit_view", "UPDATE audit_view SET event_id = 9"):
        with engine.begin() as connection, pytest.raises(IntegrityError, match="only ever added"):
            connection.execute(text(statement))
    with engine.begin() as connection:
        retained.set_checkpoint(connection, 2, "test")
        assert retained.delete_events(connection, 10) == 2
    with engine.connect() as connection:
        ids = connection.execute(select(audit_view.c.event_id).distinct()).scalars().all()
    assert sorted(ids) == [3, 4]


def test_an_index_that_hides_who_saw_a_study_is_found(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    for uid in ("1.2.3", "1.2.4"):
        with engine.begin() as connection:
            trail.record(connection, Event.LIST_VIEWED, {"detail": {"studies": [uid]}})
    assert contents.check(engine, Objects(tmp_path)).faults == ()
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_view_no_delete"))
        connection.execute(text("DELETE FROM audit_view WHERE event_id = 2"))
    (fault,) = contents.check(engine, Objects(tmp_path)).faults
    assert fault.startswith("row 2: the index of who saw which study")


def test_views_of_before_are_found_after_an_upgrade(tmp_path: Path) -> None:
    engine = at_revision(tmp_path, "0017")
    with engine.begin() as connection:
        connection.execute(insert(audit_event).values(
            recorded_at="2026", event="list viewed", event_id="110112", action="E",
            event_outcome=0, detail={"studies": ["1.2.3", "1.2.4"]},
        ))  # fmt: skip
    engine.dispose()
    engine = database.open_database(database.sqlite_url(tmp_path))
    with engine.connect() as connection:
        question = Question(study_instance_uid="1.2.4", shown=True)
        assert len(list(query.events(connection, question))) == 1
