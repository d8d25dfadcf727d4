"""The worklist as a browser gets it: filter, order, pages, audit, hostile text, live."""

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update

from browsing import Site
from sources import BUNDLE
from test_worklist import study
from thoracle.outbox import rows as outbox
from thoracle.records import Kind
from thoracle.report import sentences
from thoracle.store import bundles
from thoracle.store.tables import analysis
from thoracle.store.tables import study as study_table
from thoracle.study import instances, reading_list, results
from thoracle.study.instances import Description
from thoracle.web.pages.worklist import PAGE, sending, shown, viewer_address, waited
from thoracle.web.session import seen

VIEWER = 'viewer_url = "https://viewer.example/?study={StudyInstanceUID}&a={AccessionNumber}"'
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE worklist; --",
    "{{ 7 * 7 }}",
    "Doe^Jane\r\nSet-Cookie: x=1\x00\x1b[31m",
    "=1+1",
    "A" * 60_000,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site"), VIEWER) as running:
        yield running


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with site.client("reader") as signed_in:
        yield signed_in


@pytest.fixture(autouse=True)
def _empty(site: Site) -> None:
    with site.database.begin() as connection:
        for table in ("worklist", "study"):
            connection.exec_driver_sql(f"DELETE FROM {table}")


def add(site: Site, number: int, *, name: str = "Doe^Jane", **changes: object) -> str:
    image = study(number, **changes)
    image = replace(image, description=Description(name, "DX", "Chest PA", "20261124", "101500"))
    with site.database.begin() as connection:
        instances.lock_study(connection, image)
        reading_list.arrive(connection, image)
    return image.study_instance_uid


def say(site: Site, uid: str, state: str, **columns: Any) -> None:
    with site.database.begin() as connection:
        reading_list.set_state(connection, uid, state, **columns)


class Rows(HTMLParser):
    """The studies of a page in their order, the elements and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.uids: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.add(tag)
        self.attributes |= found.keys()
        if uid := found.get("data-uid"):
            self.uids.append(uid)

    def handle_data(self, data: str) -> None:
        self.text += data


def listed(client: httpx.Client, query: str = "") -> list[str]:
    answer = client.get(f"/{query}")
    assert answer.status_code == 200, answer.text
    return Rows(answer.text).uids


def test_a_row_says_what_is_known_of_a_study(site: Site, client: httpx.Client) -> None:
    uid = add(site, 1)
    say(site, uid, "positive", probability=0.931, threshold=0.5, bundle_version="covid 1.2.3")
    text = " ".join(Rows(client.get("/").text).text.split())
    for part in ("Doe, Jane", "P1", "A1", "DX", "Chest PA", "2026-11-24 10:15", "positive"):
        assert part in text
    assert "93.1 %" in text
    assert "covid 1.2.3" not in text  # its column is not among the usual ones
    assert "Research use only, not for diagnosis" in text


def test_the_rule_that_decides_stands_once_above_the_rows(site: Site, client: httpx.Client) -> None:
    with site.database.begin() as connection:
        bundles.remember(connection, BUNDLE)
        for table in ("result", "reading", "analysis"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    for number in (1, 2):
        uid = add(site, number)
        say(site, uid, "positive", probability=0.9, threshold=0.5)
        with site.database.begin() as connection:
            connection.execute(
                insert(analysis).values(
                    study_instance_uid=uid,
                    generation=1,
                    bundle_digest=BUNDLE.digest,
                    finding=BUNDLE.finding.key,
                    state="done",
                    priority=100,
                    content_datetime="2026-11-24T10:15:00.000000Z",
                    sending="held" if number == 1 else "shadow",
                )
            )
            connection.execute(update(study_table).values(generation=1))
    text = " ".join(Rows(client.get("/").text).text.split())
    with site.database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM analysis")
    rule = f"{BUNDLE.name} {BUNDLE.version}: {sentences.rule(BUNDLE.decision)}"
    assert text.count(rule) == 1
    assert "◌ shadow" in text
    assert "‖ held" in text


def test_age_sex_and_every_group_of_a_name_are_shown(site: Site, client: httpx.Client) -> None:
    described = Description(
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        study_date="20261124",
        patient_birth_date="19601125",
        patient_sex="M",
    )
    with site.database.begin() as connection:
        image = replace(study(1), description=described)
        instances.lock_study(connection, image)
        reading_list.arrive(connection, image)
    text = " ".join(Rows(client.get("/").text).text.split())
    assert "Yamada, Tarou 山田, 太郎 やまだ, たろう" in text
    assert "65 y M" in text


def test_a_filter_is_saved_without_what_was_searched_for(site: Site) -> None:
    with site.client("reader") as client:
        back = "/?state=positive&text=doe&since=2026-11-24&sort=waiting"
        answer = client.post("/worklist/filters", data={"title": "Mine", "back": back})
        assert (answer.status_code, answer.headers["location"]) == (303, back)
        page = client.get("/").text
        assert 'href="/?state=positive&amp;sort=waiting">Mine</a>' in page
        with site.client("administrator") as other:
            assert "Mine" not in other.get("/").text
        client.post("/worklist/filters/delete", data={"title": "Mine"})
        assert "Mine" not in client.get("/").text


def test_columns_are_chosen_by_each_person(site: Site) -> None:
    add(site, 1)
    with site.client("reader") as client:
        client.post("/worklist/columns", data={"column": ["bundle", "age"]})
        page = client.get("/").text
        assert page.count("<th scope") == 4  # patient and result are always there
        assert "<th scope" in page
        assert 'class="bundle">Bundle' in page
        with site.client("administrator") as other:
            assert 'class="bundle">Bundle' not in other.get("/").text
        assert client.post("/worklist/columns", data={"column": "x"}).status_code == 422
        client.post("/worklist/columns", data={"usual": "true"})
        assert 'class="accession">' in client.get("/").text


def test_rejected_and_failed_are_said_as_plainly_as_negative(
    site: Site, client: httpx.Client
) -> None:
    say(site, add(site, 1), "rejected", reason_code="NOT-FRONTAL")
    say(site, add(site, 2), "failed")
    say(site, add(site, 3), "negative", probability=0.1, threshold=0.5)
    page = client.get("/").text
    for state in ("rejected", "failed", "negative"):
        assert f'<span class="chip {state}"' in page
    assert "View is not frontal" in page


def test_the_order_is_that_of_rank_and_can_be_another(site: Site, client: httpx.Client) -> None:
    first, second, stat = add(site, 1), add(site, 2), add(site, 3, priority=1)
    with site.database.begin() as connection:
        reading_list.set_head_start(connection, second, 240, "positive")
    assert listed(client) == [stat, second, first]
    assert listed(client, "?sort=received") == [stat, second, first]
    assert listed(client, "?sort=waiting") == [first, second, stat]


def test_filters_are_in_the_address(site: Site, client: httpx.Client) -> None:
    positive, other = add(site, 1, name="Müller^Änne"), add(site, 2, patient_id="X9")
    say(site, positive, "positive")
    assert listed(client, "?state=positive&state=failed") == [positive]
    assert listed(client, "?text=m%C3%9Cller") == [positive]
    assert listed(client, "?text=MULLER+anne") == [positive]
    assert listed(client, "?text=x9") == [other]
    assert listed(client, "?since=2999-01-01") == []
    assert listed(client, f"?until={datetime.now(UTC):%Y-%m-%d}&modality=DX") == [positive, other]
    with site.database.begin() as connection:
        reading_list.review(connection, positive, "agree")
    assert listed(client) == [other]
    assert listed(client, "?review=done") == [positive]


@pytest.mark.parametrize(
    "query",
    ["?state=good", "?sort=name;drop", "?since=yesterday", "?page=0", "?review=x", "?page=10001"],
)
def test_an_address_that_means_nothing_is_refused(client: httpx.Client, query: str) -> None:
    assert client.get(f"/{query}").status_code == 422


def test_pages_hold_all_studies_once(site: Site, client: httpx.Client) -> None:
    made = {add(site, number) for number in range(2 * PAGE + 3)}
    pages = [listed(client, f"?page={number}") for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [PAGE, PAGE, 3]
    assert {uid for page in pages for uid in page} == made
    assert 'rel="next"' in client.get("/?page=2").text
    assert 'rel="next"' not in client.get("/?page=3").text


def test_only_the_rows_come_to_a_page_that_asks_for_no_more(
    site: Site, client: httpx.Client
) -> None:
    uid = add(site, 1)
    answer = client.get("/?sort=waiting", headers={"HX-Request": "true"})
    assert Rows(answer.text).uids == [uid]
    assert "<html" not in answer.text
    assert answer.headers["HX-Push-Url"] == "/?sort=waiting"


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_text_is_inert(site: Site, client: httpx.Client, text: str) -> None:
    uid = add(site, 1, name=text, patient_id=text[:64], accession_number=text[:64])
    say(site, uid, "positive", bundle_version=text[:64], reason_code=text[:16])
    answer = client.get("/")
    page = Rows(answer.text)
    assert page.uids == [uid]
    assert "img" not in page.elements
    assert "onerror" not in page.attributes
    assert "49" not in page.text.split()
    assert "alert(1)</script>" not in answer.text
    assert len(answer.text) < 40_000
    assert listed(client, "?text=" + httpx.URL("/", params={"q": text[:200]}).query.decode()[2:])


def test_each_opened_list_is_one_row_of_the_audit(site: Site, client: httpx.Client) -> None:
    added = [add(site, 1)]
    before = len(site.events("list viewed"))
    client.get("/?text=doe")
    client.get("/?text=doe")
    events = site.events("list viewed")[before:]
    assert [event.user_id for event in events] == ["reader", "reader"]
    assert events[0].detail == {
        "filter": {"page": 1, "review": "open", "sort": "rank", "text": "doe"},
        "means": "GET /",
        "studies": added,
    }


def test_a_list_that_keeps_itself_up_to_date_is_seen_once(site: Site, client: httpx.Client) -> None:
    client.get("/?sort=patient")
    before = len(site.events("list viewed"))
    for _ in range(3):
        client.get("/?sort=patient", headers={"X-Automatic": "1"})
    assert len(site.events("list viewed")) == before


def test_nobody_escapes_the_audit_by_saying_that_it_is_automatic(site: Site) -> None:
    with site.client("reader") as client:
        before = len(site.events("list viewed"))
        client.get("/?text=x", headers={"X-Automatic": "1"})
        client.get("/?text=y", headers={"X-Automatic": "1"})
    assert len(site.events("list viewed")) == before + 2


def test_a_list_whose_row_could_not_be_written_is_recorded_the_next_time(site: Site) -> None:
    path = site.settings.data_folder / "thoracle.sqlite"
    with site.client("reader") as client:
        before = len(site.events("list viewed"))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "CREATE TRIGGER is_full BEFORE INSERT ON audit_event BEGIN "
                "SELECT RAISE(ABORT, 'database or disk is full'); END"
            )
            answer = client.get("/?text=full", headers={"X-Automatic": "1"})
            connection.execute("DROP TRIGGER is_full")
        assert answer.status_code == 500
        client.get("/?text=full", headers={"X-Automatic": "1"})
        client.get("/?text=full", headers={"X-Automatic": "1"})
    assert len(site.events("list viewed")) == before + 1


def test_lists_are_remembered_by_several_threads_at_once() -> None:
    app = SimpleNamespace(state=SimpleNamespace())

    def view(number: int) -> None:
        for turn in range(200):
            state = SimpleNamespace(session=f"{number} {turn}")
            request: Any = SimpleNamespace(app=app, state=state)
            assert not seen.is_recorded(request, "/", ["1.2"])
            seen.recorded(request, "/", ["1.2"], again=True)
            assert seen.is_recorded(request, "/", ["1.2"])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(view, range(4)))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("person", ["auditor"])
def test_the_list_is_for_readers(site: Site, person: str) -> None:
    with site.client(person) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/audit")
        assert client.get("/worklist/events").status_code == 403


def test_the_log_holds_no_text_that_was_looked_for(site: Site, client: httpx.Client) -> None:
    client.get("/?text=Verysecretname")
    assert "Verysecretname" not in site.log.read_text()


def changes(client: httpx.Client, found: list[float], wanted: int) -> None:
    with client.stream("GET", "/worklist/events", timeout=20) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                found.append(time.monotonic())
                if len(found) == wanted:
                    return


def test_every_open_page_is_told_of_a_change(site: Site) -> None:
    add(site, 1)
    with site.client("reader") as one, site.client("administrator") as two:
        found: list[list[float]] = [[], []]
        threads = [
            threading.Thread(target=changes, args=(client, times, 2))
            for client, times in zip((one, two), found, strict=True)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while not all(found) and time.monotonic() < deadline:
            time.sleep(0.02)
        add(site, 2)
        for thread in threads:
            thread.join(20)
    assert [len(times) for times in found] == [2, 2]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (720, "12 min"),
        (7200, "2 h"),
        (12_000, "3 h 20 min"),
        (172_800, "2 d"),
        (187_200, "2 d 4 h"),
    ],
)
def test_spans_of_time_are_said_in_two_units(seconds: float, said: str) -> None:
    assert waited(seconds) == said


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ({}, ("none", "none")),
        ({"delivered": 4}, ("proven", "4 proven")),
        ({"delivered": 3, "sent": 1}, ("arrived", "4 sent")),
        ({"delivered": 3, "waiting": 1}, ("waiting", "3 of 4 sent")),
        ({"delivered": 3, "refused": 1, "waiting": 1}, ("failed", "1 of 5 not sent")),
        ({"held": 2}, ("held", "2 held")),
        ({"withdrawn": 2}, ("none", "none")),
    ],
)
def test_the_worst_of_the_deliveries_speaks(states: dict[str, int], said: tuple[str, str]) -> None:
    assert sending(states) == said


def test_the_address_of_the_viewer_takes_no_text_as_part_of_itself() -> None:
    row = {"study_instance_uid": "1.2", "accession_number": "A&b=1#/..", "patient_id": None}
    template = "https://v.example/{StudyInstanceUID}?a={AccessionNumber}&p={PatientID}"
    assert viewer_address(template, row) == "https://v.example/1.2?a=A%26b%3D1%23%2F..&p="


def test_objects_of_an_earlier_result_do_not_count_as_sent(tmp_path: Path) -> None:
    site = Site(tmp_path)
    uid = add(site, 1)
    with site.database.begin() as connection:
        for generation, state in ((1, "refused"), (2, "delivered")):
            key = results.AnalysisKey(uid, generation, "d")
            made = results.ResultObject(f"2.{generation}", "1.2", "1.3", Kind.SR, "p", "0")
            connection.exec_driver_sql(f"UPDATE study SET generation = {generation}")
            results.add_result(connection, key, made)
            outbox.add_object(connection, made.sop_instance_uid, ["pacs"], state)
        row = reading_list.row_of(connection, uid)
        sent = outbox.by_study(connection, [uid])
    site.database.dispose()
    assert row is not None
    assert shown(row, sent[uid], datetime.now(UTC))["sending"] == ("proven", "1 proven")
