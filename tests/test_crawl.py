"""Whoever shows patient data leaves one row: every route of the pages, and every command.

A route or command that is in none of the lists makes a test fail: say there which it is.
"""

import getpass
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import FastAPI
from sqlalchemy import create_engine

import processes
from api_tokens import token
from browsing import Site
from gateway import Gateway
from pacs import Pacs, free_port
from radiographs import chest
from thoracle.cli import app as commands
from thoracle.settings import Settings
from thoracle.web.app import ROUTERS, create_app
from ward import PERSONS, Ward

IDENTIFIERS = {
    "PatientID": "CRAWLEDPATIENT",
    "PatientName": "Crawled^Carla",
    "AccessionNumber": "CRAWLEDORDER",
}
TOLD = ("CRAWLEDPATIENT", "CRAWLEDORDER", "Crawled", "Carla")
"""What stands in an answer that shows the patient."""
READS, VIEWS, LISTS = "audit read", "study viewed", "list viewed"


@dataclass(frozen=True)
class View:
    """What shows patient data, and the row that it adds."""

    address: str
    """Of the route; ``{study}``, ``{row}`` and ``{order}`` are filled in."""
    event: str
    names: str = "column"
    """Where the row names the study: its column, or the list in ``detail``."""


ORDER = "patient_id=CRAWLEDPATIENT"
ASKED = "study_instance_uid={study}"
SHOWN = {
    "/": View("/?text=CRAWLEDPATIENT", LISTS, "detail"),
    "/study/{uid}": View("/study/{study}", VIEWS),
    "/api/studies": View(f"/api/studies?{ORDER}", LISTS, "detail"),
    "/api/studies/{study_instance_uid}": View("/api/studies/{study}", VIEWS),
    "/api/worklist": View("/api/worklist?text=CRAWLEDPATIENT", LISTS, "detail"),
    "/fhir/{type_}": View("/fhir/Task?patient.identifier=CRAWLEDPATIENT", LISTS, "detail"),
    "/fhir/{type_}/{id_}": View("/fhir/ImagingStudy/{study}", VIEWS),
    "/audit": View(f"/audit?{ASKED}", READS),
    "/audit/event/{row_id}": View("/audit/event/{row}", READS),
    "/audit/export.csv": View(f"/audit/export.csv?{ASKED}", READS),
    "/audit/export.jsonl": View(f"/audit/export.jsonl?{ASKED}", READS),
    "/api/audit/events": View(f"/api/audit/events?{ASKED}", READS),
    "/api/audit/events/{row_id}": View("/api/audit/events/{row}", READS),
    "/fhir/AuditEvent": View(
        "/fhir/AuditEvent?date=ge2020&date=lt2100&patient.identifier=CRAWLEDPATIENT", READS, ""
    ),
    "/fhir/AuditEvent/{id_}": View("/fhir/AuditEvent/{row}", READS),
}
"""GET routes that show patient data: each adds exactly one row."""
SILENT = {
    "/healthz": ("/healthz", 200),
    "/account": ("/account", 200),
    "/alarms": ("/alarms", 200),  # names studies as the dashboard does
    "/account/password": ("/account/password", 200),
    "/account/second-factor": ("/account/second-factor", 200),
    "/api/openapi.json": ("/api/openapi.json", 200),
    "/api/whoami": ("/api/whoami", 200),
    "/api/audit/verification": ("/api/audit/verification", 200),
    "/audit/verification": ("/audit/verification", 200),
    "/dashboard": ("/dashboard", 200),  # names dead letters by their study, and no patient
    "/dashboard/operations": ("/dashboard/operations", 200),
    "/fhir/metadata": ("/fhir/metadata", 200),
    "/fhir/{path:path}": ("/fhir/ImagingStudy/{study}/_history", 404),
    "/first-run": ("/first-run", 404),
    "/login": ("/login", 303),
    "/login/code": ("/login/code", 303),
    "/login/callback": ("/login/callback", 404),
    "/login/provider": ("/login/provider", 404),
    "/metrics": ("/metrics", 200),
    "/model-card": ("/model-card", 200),
    "/model-card/{name}": ("/model-card/none.png", 404),
    "/people": ("/people", 200),
    "/people/{name}": ("/people/reader", 200),
    "/setup": ("/setup", 200),
    "/setup/callers": ("/setup/callers", 200),
    "/setup/{table}/add": ("/setup/rule/add", 200),
    "/setup/{table}/edit/{name}": ("/setup/destination/edit/archive", 200),
    "/static": ("/static/style.css", 200),
    "/study/{uid}/state": ("/study/{study}/state", 200),
}
"""GET routes that show none: they add no row, and their answers have none of ``TOLD``."""
PART = "/study/{uid}/{kind}/{number}.png"
STREAM = "/worklist/events"
PRIOR = "/study/{uid}/prior/{other}"
"""Three that tests of their own look at; the last one in tests/test_reading_room.py."""


def routes(app: FastAPI) -> Iterator[tuple[str, set[str]]]:
    """Yield path and methods of every route."""
    own = [one for one in app.routes if hasattr(one, "path")]
    for route in [*own, *(one for router in ROUTERS for one in router.routes)]:
        yield route.path, set(getattr(route, "methods", None) or {"GET"})  # type: ignore[attr-defined]  # each has a path


def leaves(command: Any, name: str = "") -> Iterator[str]:
    """Yield every command by its words."""
    for word, one in getattr(command, "commands", {}).items():
        yield from leaves(one, f"{name} {word}".strip())
    if not getattr(command, "commands", {}) or getattr(command, "invoke_without_command", False):
        yield name


@dataclass
class Crawled:
    """A ward with one study that has a result, and its rows."""

    ward: Ward
    study: str
    row: int
    """Of an event of the study with its patient."""

    def filled(self, text: str) -> str:
        return text.replace("{study}", self.study).replace("{row}", str(self.row))

    def new(self, before: int) -> list[Any]:
        """Return the rows behind one that somebody made by asking."""
        asked = (READS, VIEWS, LISTS, "exported")
        rows = [one for one in self.ward.site.events() if one.id > before]
        return [one for one in rows if one.event in asked or one.user_id]

    def last(self) -> int:
        return int(self.ward.site.events()[-1].id)


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crawled]:
    folder = tmp_path_factory.mktemp("crawl")
    with Pacs("ARCHIVE") as archive:
        gateway = Gateway(folder, archive, web={"port": free_port()})
        with gateway, Site(folder, config=gateway.config, persons=PERSONS) as site:
            ward = Ward(gateway, archive, site)
            study = ward.send(chest(**IDENTIFIERS))
            rows = [one for one in site.events("image read") if one.study_instance_uid == study]
            yield Crawled(ward, study, rows[0].id)


# ---- Pages and interfaces ----------------------------------------------------------------------


def test_every_route_is_in_a_list() -> None:
    app = create_app(Settings(), create_engine("sqlite://"))
    known = {path for path, methods in routes(app) if "GET" in methods}
    assert known == {*SHOWN, *SILENT, PART, STREAM, PRIOR}
    assert len(app.routes) == len(ROUTERS) + 2, "a router that is not in ROUTERS"


@pytest.mark.parametrize("path", SHOWN)
def test_what_shows_patient_data_adds_one_row_with_person_study_and_means(
    crawled: Crawled, path: str
) -> None:
    view = SHOWN[path]
    with crawled.ward.site.client("chief") as client:
        before = crawled.last()
        answer = client.get(crawled.filled(view.address))
        (row,) = crawled.new(before)
    assert answer.status_code == 200
    assert crawled.study in answer.text
    assert (row.event, row.user_id) == (view.event, "chief")
    assert (row.network_address, row.detail["means"]) == ("127.0.0.1", f"GET {path}")
    if view.names == "column":
        assert row.study_instance_uid == crawled.study
    elif view.names == "detail":
        assert row.detail["studies"] == [crawled.study]


@pytest.mark.parametrize("path", SILENT)
def test_what_shows_no_patient_data_adds_no_row(crawled: Crawled, path: str) -> None:
    address, status = SILENT[path]
    with crawled.ward.site.client("chief") as client:
        before = crawled.last()
        answer = client.get(crawled.filled(address))
        assert crawled.new(before) == []
    assert answer.status_code == status
    assert [one for one in TOLD if one in answer.text] == []


def test_pictures_are_part_of_a_view_that_was_recorded(crawled: Crawled) -> None:
    with crawled.ward.site.client("chief") as client:
        before = crawled.last()
        bare = client.get(f"/study/{crawled.study}/radiograph/1.png?view=x")
        assert (bare.status_code, crawled.new(before)) == (403, [])
        page = client.get(f"/study/{crawled.study}").text
        found = re.search(r'"(/study/[0-9.]+/radiograph/1\.png\?view=[^"]+)"', page)
        assert found is not None
        picture = client.get(found[1].replace("&amp;", "&"))
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        assert [one.event for one in crawled.new(before)] == [VIEWS]


def test_the_stream_says_when_something_changed_and_not_what(crawled: Crawled) -> None:
    with crawled.ward.site.client("chief") as client:
        before = crawled.last()
        with client.stream("GET", "/worklist/events") as answer:
            assert answer.status_code == 200
        assert crawled.new(before) == []


def test_a_token_is_named_by_its_person(crawled: Crawled) -> None:
    site = crawled.ward.site
    secret = token(
        site.database, "chief", "worklist:read", "results:read", "fhir:read", "audit:read"
    )
    for path, view in SHOWN.items():
        if path.startswith(("/api/", "/fhir/")):
            with site.visitor(headers={"Authorization": f"Bearer {secret}"}) as client:
                before = crawled.last()
                assert client.get(crawled.filled(view.address)).status_code == 200
            (row,) = crawled.new(before)
            assert (row.user_id, row.detail["token"], row.event) == ("chief", True, view.event)


# ---- Commands ------------------------------------------------------------------------------------

COMMANDS = {
    "status": (("status", "{study}"), VIEWS, "column"),
    "audit": (("audit", "--study", "{study}"), READS, "column"),
    "audit stats": (("audit", "stats"), READS, ""),
    "audit why": (("audit", "why", "{study}"), READS, "column"),
    "audit export": (("audit", "export", "--parquet", "{folder}/parquet"), READS, ""),
    "research-export": (
        ("research-export", "{folder}/research", "--key", "{folder}/key"),
        "exported",
        "",
    ),
    "subject-export": (
        ("subject-export", "{folder}/all", "--patient", IDENTIFIERS["PatientID"]),
        "exported",
        "",
    ),
    "verdicts": (("verdicts", "--json"), "exported", ""),
    "retention plan": (("retention", "plan"), LISTS, ""),
    "hold list": (("hold", "list"), LISTS, ""),
}
"""Commands that show what the database has of patients, and the row that each adds."""
ELSEWHERE = {
    "audit replay": "takes the classifier: tests/test_replay.py",
    "alarms list": "names studies as the dashboard does, and no patient",
    **dict.fromkeys(
        [f"alarms {one}" for one in ("acknowledge", "silence", "unsilence")],
        "an event of its own",
    ),
    "audit verify": "no row is shown",
    "erase": "wants a key: tests/test_erasure.py",
    "audit key": "shows no patient",
    "audit timestamp": "shows no patient",
    **dict.fromkeys(
        ("move sqlite-to-postgresql", "move postgresql-to-sqlite"), "an event of its own"
    ),
    "evaluate": "with --verdicts it reads the database: tests/test_verdicts.py",
    **dict.fromkeys(("analyse", "route explain", "send", "echo"), "reads files that are given"),
    **dict.fromkeys(("dataset check", "dataset convert"), "reads files that are given"),
    **dict.fromkeys(
        ("version", "init", "check", "serve", "web", "accept-database"), "shows no patient"
    ),
    **dict.fromkeys(
        ("withdraw", "reanalyse", "reconcile", "release", "retry"), "an event of its own"
    ),
    **dict.fromkeys(("hold add", "hold release", "retention run"), "an event of its own"),
    **dict.fromkeys(
        [f"person {one}" for one in ("add", "list", "roles", "disable", "enable", "password")],
        "about who may open the pages",
    ),
    "person reset-second-factor": "about who may open the pages",
}
"""Commands that show none, or of which other tests see the row."""


def test_every_command_is_in_a_list() -> None:
    known = set(leaves(typer.main.get_command(commands)))
    assert known - {*COMMANDS, *ELSEWHERE} == set()
    assert set(COMMANDS) - known == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_shows_patient_data_adds_one_row(
    crawled: Crawled, name: str, tmp_path: Path
) -> None:
    words, event, names = COMMANDS[name]
    arguments = [crawled.filled(one).replace("{folder}", str(tmp_path)) for one in words]
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    before = crawled.last()
    config = str(crawled.ward.gateway.config)
    done = processes.run(*arguments, "--config", config)
    assert done.returncode == 0, done.stderr
    (row,) = crawled.new(before)
    assert (row.event, row.user_id) == (event, getpass.getuser())
    assert f"{row.detail['means']} ".startswith(f"thoracle {name} ")
    if name == "subject-export":
        assert row.patient_id == IDENTIFIERS["PatientID"]
    if names:
        assert row.study_instance_uid == crawled.study
        assert crawled.study in done.stdout
