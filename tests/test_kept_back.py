"""What a rule keeps back is told by no interface: two gateways get the same studies, both keep the
results back, one is positive about them and the other negative, and nothing that they say differs.

Every route of the pages is asked, by each who must not know, in every order and filter; a route
that is in neither list makes a test fail: say there how it is asked, or why it is not.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine

from api_tokens import token
from browsing import Site
from fhir_server import TYPES
from ledger import rows
from opposed_gateways import SCOPES, House, Pair, fill, images, open_house, sign_in
from pacs import Pacs, free_port
from test_crawl import routes
from test_proof import OBJECTS
from thoracle.pipeline import requests
from thoracle.settings import Settings
from thoracle.study.reading_list import SORTS, STATES
from thoracle.web.app import create_app
from workflow import Reader

NOT_OURS = "1.2.826.0.1.3680043.8.498.1"
HEADERS = ("content-type", "cache-control", "location", "hx-refresh", "hx-push-url", "vary", "link")
"""Of an answer, beside status and content; the others are times and random values."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    sent = images()
    with ExitStack() as stack:
        found = []
        for outcome in ("positive", "negative"):
            folder = tmp_path_factory.mktemp(outcome)
            archive = stack.enter_context(Pacs("ARCHIVE", OBJECTS))
            house = open_house(stack, folder, archive, outcome)
            fill(house, sent)
            sign_in(stack, house)
            found.append(house)
        studies = {name: str(image.StudyInstanceUID) for name, image in sent.items()}
        yield Pair((found[0], found[1]), studies)


# ---- What is asked -------------------------------------------------------------------------------

LISTS = [
    *(f"review=all&sort={sort}&state={state}" for sort, state in product(SORTS, STATES)),
    *(f"review={review}&sort={sort}" for sort, review in product(SORTS, ("open", "all", "done"))),
]
WORDS = ("text=P2&review=all", "modality=CR", "modality=DX", "since=2020-01-01", "page=2")
SEARCHES = (
    "",
    "_count=1",
    "_count=0",
    "_lastUpdated=ge2020",
    "patient.identifier=P2",
    "identifier=HELD",
    "identifier={report}",
    "status=registered",
    "status=preliminary",
    "status=entered-in-error",
    "status=cancelled",
    "status=completed",
    "status=on-hold",
    "status=available",
)
ASKED: dict[str, tuple[str, ...]] = {
    "/": tuple(f"/?{one}" for one in (*LISTS, *WORDS)),
    "/api/worklist": tuple(f"/api/worklist?{one}" for one in (*LISTS, *WORDS)),
    "/worklist/events": ("/worklist/events",),
    "/study/{uid}": tuple(f"/study/{{study}}?review=all&sort={one}" for one in SORTS),
    "/study/{uid}/state": (
        "/study/{study}/state",
        "/study/{study}/state?waiting=true",
        "/study/{study}/state?report={report}",
    ),
    "/study/{uid}/prior/{other}": ("/study/{study}/prior/{other}",),
    "/study/{uid}/{kind}/{number}.png": tuple(
        f"/study/{{study}}/{kind}/{number}.png?view={{pass}}"
        for kind in ("radiograph", "pixels", "overlay", "key-image")
        for number in (1, 2)
    ),
    "/dashboard": tuple(f"/dashboard?days={days}" for days in (7, 30, 90, 365)),
    "/dashboard/operations": ("/dashboard/operations",),
    "/alarms": ("/alarms",),
    "/api/studies": (
        "/api/studies?patient_id=P2",
        "/api/studies?accession=HELD",
        "/api/studies?accession=HELD&limit=1",
    ),
    "/api/studies/{study_instance_uid}": ("/api/studies/{study}",),
    "/fhir/{type_}": tuple(f"/fhir/{type_}?{one}" for type_ in TYPES for one in SEARCHES),
    "/fhir/{type_}/{id_}": tuple(f"/fhir/{type_}/{{study}}" for type_ in TYPES),
    "/fhir/{path:path}": ("/fhir/Task/{study}/_history",),
    "/fhir/metadata": ("/fhir/metadata",),
    "/fhir/AuditEvent": ("/fhir/AuditEvent?date=ge2020",),
    "/fhir/AuditEvent/{id_}": ("/fhir/AuditEvent/1",),
    "/api/whoami": ("/api/whoami",),
    "/api/openapi.json": ("/api/openapi.json",),
    "/api/audit/events": ("/api/audit/events?study_instance_uid={study}",),
    "/api/audit/events/{row_id}": ("/api/audit/events/1",),
    "/api/audit/verification": ("/api/audit/verification",),
    "/audit": ("/audit?study_instance_uid={study}",),
    "/audit/event/{row_id}": ("/audit/event/1",),
    "/audit/export.csv": ("/audit/export.csv",),
    "/audit/export.jsonl": ("/audit/export.jsonl",),
    "/audit/verification": ("/audit/verification",),
    "/metrics": ("/metrics",),
    "/people": ("/people",),
    "/people/{name}": ("/people/reader",),
    "/setup": ("/setup",),
    "/setup/callers": ("/setup/callers",),
    "/setup/{table}/add": ("/setup/rule/add",),
    "/setup/{table}/edit/{name}": ("/setup/rule/edit/held",),
    "/account": ("/account",),
    "/account/password": ("/account/password",),
    "/account/second-factor": ("/account/second-factor",),
    "/model-card": ("/model-card",),
}
"""GET routes, with the addresses that are asked of each."""
LEFT_OUT = {
    "/healthz": "says that the pages are up",
    "/static": "files of the package",
    "/login": "nobody is signed in",
    "/login/code": "nobody is signed in",
    "/login/callback": "nobody is signed in",
    "/login/provider": "nobody is signed in",
    "/first-run": "nobody is signed in",
    "/model-card/{name}": "files of the bundle",
}
"""GET routes that are not asked, and why."""
POSTED = {
    "/study/{uid}/verdict": {"opinion": "agree", "report": "{report}"},
    "/study/{uid}/release": {},
    "/study/{uid}/retry": {},
    "/study/{uid}/reanalyse": {},
    "/study/{uid}/reconcile": {"decision": "different"},
    "/study/{uid}/withdraw": {"reason": "test"},
    "/api/studies/{study_instance_uid}/verdicts": {
        "opinion": "agree",
        "report_sop_instance_uid": "{report}",
    },
    "/dashboard/retry/{study}": {},
}
"""Forms and requests about a study, with what is sent."""
CHANGE = {
    **dict.fromkeys(
        ("/login", "/login/code", "/logout", "/first-run"), "who is signed in, and no study"
    ),
    **dict.fromkeys(
        ("/worklist/columns", "/worklist/filters", "/worklist/filters/delete"),
        "what a person keeps: nothing of a study",
    ),
    "/fhir/{path:path}": "refused, whatever the path",
    "/dashboard/retry": "for administrators, who may know",
    "/dashboard/peers/{name}/try": "for administrators, who may know",
    **dict.fromkeys(
        ("/audit/verification", "/api/audit/verification"), "for auditors, who may know"
    ),
}
PREFIXES = ("/account", "/people", "/setup", "/alarms")
"""Routes that change something, and are about no result; and why they are not asked."""


def filled(house: House, pair: Pair, address: str, passes: dict[str, str]) -> Iterator[str]:
    """Yield an address for each study that it can be about."""
    if "{study}" not in address:
        yield address.replace("{report}", house.report(pair.studies["held"]))
        return
    for name, study in pair.studies.items():
        one = address.replace("{study}", study).replace("{pass}", passes.get(study, "none"))
        one = one.replace("{report}", house.report(study))
        if "{other}" not in one:
            yield one
        for other in pair.studies.values() if name == "held" and "{other}" in one else ():
            yield one.replace("{other}", other)


def said(house: House, answer: httpx.Response) -> tuple[int, dict[str, str], str | bytes]:
    """Return what an answer says, without what is random."""
    headers = {name: answer.headers.get(name, "") for name in HEADERS}
    headers = {name: house.without_random(value) for name, value in headers.items()}
    kind = answer.headers.get("content-type", "")
    if kind.startswith(("text/", "application/json", "application/fhir")):
        return answer.status_code, headers, house.without_random(answer.text)
    return answer.status_code, headers, answer.content


def get(client: httpx.Client, address: str) -> httpx.Response:
    """Return an answer; of a stream, its first event."""
    if not address.endswith("/events"):
        return client.get(address)
    with client.stream("GET", address) as answer:
        if answer.status_code != 200:
            answer.read()
            return answer
        lines = answer.iter_lines()
        first = [next(lines), next(lines)]
        headers = {"content-type": answer.headers["content-type"]}
        return httpx.Response(200, headers=headers, text="\n".join(first))


def asked(house: House, pair: Pair, client: httpx.Client, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each address of a route, without what is random, and what is answered to it."""
    passes: dict[str, str] = {}
    for study in pair.studies.values() if any("{pass}" in one for one in ASKED[path]) else ():
        if found := re.search(r"view=(\d+-[0-9a-f]{64})", client.get(f"/study/{study}").text):
            passes[study] = found[1]
    for address in ASKED[path]:
        for one in filled(house, pair, address, passes):
            yield house.without_random(one), said(house, get(client, one))


def differing(pair: Pair, person: str, path: str) -> list[str]:
    """Return the addresses of a route at which the gateways do not say the same to a person."""
    one, other = (list(asked(house, pair, house.clients[person], path)) for house in pair.houses)
    assert [address for address, _ in one] == [address for address, _ in other]
    return [
        address
        for (address, positive), (_, negative) in zip(one, other, strict=True)
        if positive != negative
    ]


# ---- Tests ---------------------------------------------------------------------------------------


def test_every_route_is_asked_or_is_left_out_for_a_reason() -> None:
    app = create_app(Settings(), create_engine("sqlite://"))
    known = list(routes(app))
    assert {path for path, methods in known if "GET" in methods} == {*ASKED, *LEFT_OUT}
    changing = {path for path, methods in known if methods - {"GET", "HEAD"}}
    rest = {one for one in changing if not one.startswith(PREFIXES)}
    assert rest == {*POSTED, *CHANGE}


@pytest.mark.parametrize("path", ASKED)
def test_no_page_tells_a_reader_what_is_kept_back(pair: Pair, path: str) -> None:
    assert differing(pair, "reader", path) == []


PROGRAMS = [path for path in ASKED if path.startswith(("/api/", "/fhir/"))]


@pytest.mark.parametrize("person", ["token of reader", "token of chief"])
@pytest.mark.parametrize("path", PROGRAMS)
def test_no_interface_tells_a_program_what_is_kept_back(pair: Pair, person: str, path: str) -> None:
    assert differing(pair, person, path) == []


def test_no_form_tells_what_is_kept_back(pair: Pair) -> None:
    answers: list[list[Any]] = [[], []]
    for house, mine in zip(pair.houses, answers, strict=True):
        client = house.clients["reader"]
        for path, values in POSTED.items():
            for name in ("held", "shadow", "again", "withdrawn"):
                study = pair.studies[name]
                address = re.sub(r"\{\w+\}", study, path)
                form = {k: v.replace("{report}", house.report(study)) for k, v in values.items()}
                given: Any = {"json": form} if path.startswith("/api/") else {"data": form}
                mine.append((path, name, said(house, client.post(address, **given))))
    assert answers[0] == answers[1]
    assert {answer[0] for _, _, answer in answers[0]} == {403, 409}


def test_no_metric_tells_what_is_kept_back(pair: Pair) -> None:
    figures = []
    for house in pair.houses:
        text = house.clients["metrics of chief"].get("/metrics").text
        assert 'thoracle_analyses{outcome="held"} 4.0' in text
        # Of the machine and the moment.
        other = ("thoracle_disk", "thoracle_oldest", "thoracle_queue")
        figures.append([line for line in text.splitlines() if not line.startswith(other)])
    assert figures[0] == figures[1]


def test_no_workitem_tells_what_is_kept_back(pair: Pair) -> None:
    answers = []
    for house in pair.houses:
        offered = rows(house.gateway, "SELECT sop_instance_uid FROM workitem")
        with Reader(house.gateway.port) as reader:
            found = reader.find()
            uids = [one["sop_instance_uid"] for one in offered] or [NOT_OURS]
            got = {reader.get(uid)[0] for uid in uids}
            claimed = {reader.claim(uid) for uid in uids}
        answers.append((found, reader.statuses, got, claimed, house.station.reports))
        assert bool(offered) is (house.outcome == "positive"), "there is something to tell"
    assert answers[0] == answers[1]
    assert answers[0][0] == []


def test_who_may_know_sees_it(pair: Pair) -> None:
    """And nothing of the above is blind: the same questions find it."""
    pages = differing(pair, "chief", "/study/{uid}")
    for name in ("held", "shadow", "again"):
        assert any(pair.studies[name] in one for one in pages), name
    for path in ("/", "/dashboard", "/audit"):
        assert differing(pair, "chief", path) != [], path


def test_readers_see_it_where_a_setting_lets_them_and_programs_do_not(pair: Pair) -> None:
    house, study = pair.houses[0], pair.studies["held"]
    config = house.gateway.config.with_name("seen.toml")
    told = f"port = {free_port()}\nreaders_see_kept_back = true\n"
    text = house.gateway.config.read_text()
    config.write_text(text.replace(f"port = {house.site.port}\n", told))
    secret = token(house.site.database, "reader", *SCOPES)
    with Site(config.parent, config=config, persons={}) as site, site.client("reader") as client:
        page, listed = client.get(f"/study/{study}").text, client.get("/?state=held").text
        with site.visitor(headers={"Authorization": f"Bearer {secret}"}) as program:
            answer = program.get(f"/api/studies/{study}").json()
    assert "held by a rule: not sent" in page
    assert "calibrated probability" in page
    assert "positive" in listed[listed.index('<tbody id="rows">') :]
    assert (answer["state"], answer["result"], answer["deliveries"]) == ("held", None, [])


def test_what_is_released_is_told_everywhere(pair: Pair) -> None:
    """The last one, for it changes the studies."""
    study = pair.studies["held"]
    for house in pair.houses:
        requests.release(house.site.database, study, "test")
        house.gateway.wait_for_event("delivery succeeded", study)
    told = (
        "/",
        "/study/{uid}",
        "/api/worklist",
        "/api/studies/{study_instance_uid}",
        "/fhir/{type_}",
        "/fhir/{type_}/{id_}",
        "/dashboard",
    )
    for path in told:
        assert differing(pair, "reader", path) != [], path
    with Reader(pair.houses[0].gateway.port) as reader:
        assert [one.StudyInstanceUID for one in reader.find()] == [study]
    text = pair.houses[0].clients["reader"].get("/?review=all").text
    first, *_ = re.findall(r'data-uid="([0-9.]+)"', text)
    assert first == study, "positive, and STAT by a rule"
