"""The dashboard as a browser gets it: figures, alarms, and what an administrator does with it."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert

from browser import ZOOMED, visit
from browsing import Site
from certificates import DAY, NOW, Authority
from gateway import Gateway, destination
from history import Study, studies, write
from ledger import eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from thoracle.monitoring import figures
from thoracle.monitoring import operations as stored
from thoracle.monitoring.certificates import certificates
from thoracle.store import tables
from thoracle.store.database import open_database, sqlite_url
from thoracle.web.pages import charts, operations
from thoracle.web.pages.dashboard import AnswerCache
from thoracle.web.session.cookies import digest

HOSTILE = "<script>alert('x')</script>\n\x1b[31m{{191*193}}"
PATIENT = "Doe^Jane"


def history() -> list[Study]:
    """Return ten weeks of work; in the last one a new device sends half of the images, sharper."""
    now = datetime.now(UTC)
    before = studies(1400, 70, now=now - timedelta(days=7))
    before = [
        replace(
            one,
            state="rejected" if one.number % 20 == 0 else "failed" if one.number % 200 == 1 else "",
            verdict=("disagree" if one.number % 30 == 3 else "agree")
            if one.number % 3 == 0
            else None,
        )
        for one in before
    ]
    week = [
        replace(one, device=HOSTILE, features={**one.features, "sharpness": 25.0})
        if one.number % 2
        else one
        for one in studies(200, 7, now=now, seed=2, first=5000)
    ]
    week[-1].rows["outbox"] = {
        "state": "refused",
        "attempts": 3,
        "detail": f"answered 0xA900 '{PATIENT} is not {HOSTILE}'",
    }
    week[-2].rows["outbox"] = {"state": "waiting", "proof": None}
    return before + week


@pytest.fixture(scope="module")
def made() -> list[Study]:
    return history()


@pytest.fixture(scope="module")
def pacs() -> Pacs:
    return Pacs()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs, made: list[Study]) -> Iterator[Site]:
    archive = (
        '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'
        f"port = {pacs.port}\n"
    )
    receiver = f'[[hl7]]\nname = "ris"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    listener = f"[receive]\nport = {free_port()}\n"
    running = Site(tmp_path_factory.mktemp("site"), listener + archive + receiver)
    write(running.database, made)
    with running:
        yield running


def text_of(answer: httpx.Response) -> str:
    """Return what a page says, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


# ---- who sees what ---------------------------------------------------------------------------


def test_readers_see_figures_and_administrators_operations_too(site: Site) -> None:
    with site.client("reader") as client:
        page = client.get("/dashboard")
        assert page.status_code == 200
        assert ">Drift" in page.text
        assert "Dead letters" not in page.text
        assert client.get("/dashboard/operations").status_code == 403
        for action in ("peers/pacs/try", "retry/1.2.3", "retry"):
            assert client.post(f"/dashboard/{action}").status_code == 403
    with site.client("administrator") as client:
        assert "Dead letters: 1" in client.get("/dashboard").text
        assert "Dead letters: 1" in client.get("/dashboard/operations").text
    with site.client("auditor") as client:
        assert client.get("/dashboard").status_code == 403
    with site.visitor() as client:
        assert client.get("/dashboard").status_code == 303


def test_a_button_needs_the_token_of_the_page(site: Site) -> None:
    with site.client("administrator") as client:
        del client.headers["X-CSRF-Token"]
        assert client.post("/dashboard/peers/pacs/try").status_code == 403


def test_no_patient_and_no_hostile_text_is_on_the_page(site: Site) -> None:
    with site.client("administrator") as client:
        page = client.get("/dashboard?days=90").text
    for text in (PATIENT, "Generated^", "<script>alert", "\x1b"):
        assert text not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;??[31m{{191*193}}" in page
    assert "answered 0xA900 (with a comment)" in page
    assert "Research use only, not for diagnosis" in page
    assert not [event for event in site.events("list viewed", "study viewed") if event.patient_id]


# ---- figures ---------------------------------------------------------------------------------


def test_the_alarm_says_what_where_and_what_to_do(site: Site) -> None:
    with site.client("reader") as client:
        said = text_of(client.get("/dashboard"))
    assert "Images: sharpness and noise of the last 7 days differ strongly from the" in said
    assert "which is new (50% of the images)" in said
    assert "What to do: look at ten of the newest images" in said
    assert "Scores of the last 7 days are like the reference" in said


@pytest.mark.parametrize("days", [7, 30, 90, 365])
def test_every_chart_has_its_numbers_and_they_add_up(
    site: Site, made: list[Study], days: int
) -> None:
    with site.client("reader") as client:
        page = client.get(f"/dashboard?days={days}").text
    assert page.count('role="img" aria-label=') == page.count("Data table: ")
    table = page.split("Data table: studies by ")[1].split("</table>")[0]
    totals = re.findall(r'<td class="number">([\d,]+)</td></tr>', table)
    shown = re.search(r"<dt>Studies</dt><dd>([\d,]+)</dd>", page)
    assert shown is not None
    total = sum(int(number.replace(",", "")) for number in totals)
    assert f"{total:,}" == shown[1]
    since = f"{datetime.now(UTC) - timedelta(days=days - 1):%Y-%m-%d}" if days < 365 else "2000"
    assert total == sum(f"{one.received:%Y-%m-%d}" >= since for one in made)


def test_other_spans_are_refused(site: Site) -> None:
    with site.client("reader") as client:
        assert client.get("/dashboard?days=31").status_code == 404
        assert client.get("/dashboard?days=all").status_code == 422


@pytest.mark.parametrize(
    ("largest", "end", "labels"),
    [(0, 1, 2), (1, 1, 6), (7, 8, 5), (30, 30, 4), (101, 150, 4), (0.3, 0.3, 4)],
)
def test_axes_end_at_round_numbers(largest: float, end: float, labels: int) -> None:
    top, ticks = charts.scale(largest)
    assert (round(top, 6), len(ticks)) == (end, labels)
    assert top >= largest


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "none"),
        (0.42, "0.4 s"),
        (42, "42 s"),
        (210, "3.5 min"),
        (9000, "2.5 h"),
        (2e5, "2.3 d"),
    ],
)
def test_durations_are_said_for_people(seconds: float | None, said: str) -> None:
    assert charts.duration(seconds) == said


def test_one_day_alone_is_seen_in_the_chart_of_times() -> None:
    durations = figures.Durations(2, 40.0, 58.0, 60.0)
    found = {"2026-11-29": figures.TurnAround(durations, durations, durations)}
    shown = charts.turn_around(found, ["2026-11-28", "2026-11-29"], "day")
    assert [point.text for point in shown.points] == [
        "2026-11-29: 95th percentile 58 s",
        "2026-11-29: median 40 s",
    ]
    assert len({(point.x, point.y) for point in shown.points}) == 2


def test_an_answer_is_kept_for_its_time_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    kept = AnswerCache(60)
    assert (kept.get("a", make), kept.get("a", make), kept.get("b", make)) == (1, 1, 2)
    kept.forget()
    assert kept.get("a", make) == 3
    never = AnswerCache(0)
    assert (never.get("a", make), never.get("a", make)) == (4, 5)


# ---- operations ------------------------------------------------------------------------------


def test_an_archive_is_tried_when_it_is_up_and_when_it_is_down(site: Site, pacs: Pacs) -> None:
    with site.client("administrator", headers={"HX-Request": "true"}) as client:
        with pacs:
            well = client.post("/dashboard/peers/pacs/try")
        down = client.post("/dashboard/peers/pacs/try")
        receiver = client.post("/dashboard/peers/ris/try")
        ourselves = client.post("/dashboard/peers/gateway/try")
        assert client.post("/dashboard/peers/nobody/try").status_code == 404
    assert "pacs answers C-ECHO" in well.text
    for answer in (down, receiver, ourselves):
        assert answer.status_code == 200
        assert "no answer" in answer.text
        assert "not reached" in answer.text
    tried = site.events("peer tried")
    assert [one.destination for one in tried] == ["pacs", "pacs", "ris", "gateway"]
    assert [one.event_outcome for one in tried] == [0, 4, 4, 4]
    assert {one.user_id for one in tried} == {"administrator"}


def test_without_scripts_a_button_leads_back_to_the_page(site: Site) -> None:
    with site.client("administrator") as client:
        answer = client.post("/dashboard/peers/pacs/try")
        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard#operations")
        refused = client.post("/dashboard/retry/1.2.3")
    assert refused.status_code == 409
    assert "found nothing refused or given up" in refused.text


def test_what_waits_is_counted_and_how_long(site: Site) -> None:
    with site.client("administrator") as client:
        said = text_of(client.get("/dashboard/operations"))
    assert re.search(r"deliveries 1 [\d.]+ (min|h)", said)
    assert "not accepting connections" in said


def test_comments_of_others_are_left_out_of_details() -> None:
    assert stored.plain(None) == ""
    assert stored.plain("answered 0xA700 'Doe\n^Jane''s'") == "answered 0xA700 (with a comment)"
    assert stored.plain('answered 0xA700 "Doe\'s"') == "answered 0xA700 (with a comment)"
    assert stored.plain("PACS@h:1 not reached") == "PACS@h:1 not reached"


def test_certificates_are_found_wherever_the_settings_name_them(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, old = authority.issue("good"), authority.issue("old", not_after=NOW - DAY)
    soon = authority.issue("soon", not_after=NOW + 9.5 * DAY)
    text = f"""
certificate_file = "{soon.certificate_file}"
key_file = "{soon.key_file}"
[receive.tls]
certificate_file = "{good.certificate_file}"
key_file = "{good.key_file}"
client_ca_file = "{authority.ca_file}"
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
[destination.tls]
ca_file = "{old.certificate_file}"
[[hl7]]
name = "ris"
host = "127.0.0.1"
port = 2575
[hl7.tls]
ca_file = "{tmp_path / "missing.pem"}"
"""
    found = {
        one.setting: (one.level, one.text) for one in certificates(Site(tmp_path, text).settings)
    }
    assert found["web.certificate_file"] == ("queued", "9 days left: renew it")
    assert found["receive.tls.certificate_file"][0] == "good"
    assert found["receive.tls.client_ca_file"][0] == "good"
    assert found["destination pacs tls.ca_file"] == ("failed", "has expired")
    assert found["hl7 ris tls.ca_file"][0] == "failed"
    assert len(found) == 5


def test_the_parts_of_the_data_folder_are_measured(tmp_path: Path) -> None:
    (tmp_path / "images" / "ab").mkdir(parents=True)
    (tmp_path / "images" / "ab" / "1.dcm").write_bytes(bytes(1000))
    (tmp_path / "thoracle.sqlite").write_bytes(bytes(10))
    assert operations.parts(tmp_path) == [("images", 1000), ("database", 10)]


# ---- metrics ---------------------------------------------------------------------------------


def token(site: Site, person: str, *scopes: str) -> dict[str, str]:
    """Return the header of a new token."""
    text = f"{person}-{'-'.join(scopes)}"
    row = {"person": person, "label": "test", "scopes": list(scopes)}
    with site.database.begin() as connection:
        connection.execute(
            insert(tables.api_token).values(
                **row, digest=digest(text), created_at=tables.now(), expires_at=None
            )
        )
    return {"Authorization": f"Bearer {text}"}


def test_metrics_are_for_tokens_of_administrators_and_name_nobody(site: Site) -> None:
    with site.visitor() as client:
        assert client.get("/metrics").status_code == 401
        other = token(site, "administrator", "worklist:read")
        assert client.get("/metrics", headers=other).status_code == 403
        reader = token(site, "reader", "admin")
        assert client.get("/metrics", headers=reader).status_code == 403
        answer = client.get("/metrics", headers=token(site, "administrator", "admin"))
    assert answer.status_code == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    assert found["thoracle_dead_letters"] == {(): 1}
    assert found["thoracle_up"] == {(): 0}
    assert found["thoracle_deliveries"][("dicom", "refused")] == 1
    assert found["thoracle_deliveries"][("dicom", "waiting")] == 1
    assert found["thoracle_oldest_waiting_seconds"][("deliveries",)] > 60
    assert found["thoracle_disk_free_bytes"][()] > 1e6
    assert found["thoracle_analyses"][("rejected",)] == 70
    assert found["thoracle_analyses"][("failed",)] == 7
    for text in (PATIENT, "2.25.", "script"):
        assert text not in answer.text


# ---- with a gateway --------------------------------------------------------------------------


def test_a_dead_letter_is_sent_again_by_the_gateway_when_its_button_is_pressed(
    tmp_path: Path,
) -> None:
    with Pacs() as archive:
        archive.status = 0xC000
        reports = destination(archive, kinds=["sr"])
        with Gateway(tmp_path, reports, web={"port": free_port()}) as gateway:
            ds = chest()
            assert send(gateway.port, ds).status == 0x0000
            study = str(ds.StudyInstanceUID)
            state = "SELECT state, attempts FROM outbox"
            eventually(lambda: [one["state"] for one in rows(gateway, state)] == ["refused"])
            (measured,) = rows(gateway, "SELECT features FROM reading")
            assert {"mean", "sharpness"} <= set(json.loads(measured["features"]))
            archive.status = 0x0000
            with (
                Site(tmp_path, config=gateway.config) as pages,
                pages.client("administrator", headers={"HX-Request": "true"}) as client,
            ):
                before = client.get("/dashboard/operations").text
                assert "Dead letters: 1" in before
                assert f'action="/dashboard/retry/{study}"' in before
                assert "accepting connections" in before
                assert "answers C-ECHO" in client.post("/dashboard/peers/gateway/try").text
                answer = client.post(f"/dashboard/retry/{study}")
                assert f"1 of study {study} queued to be sent again" in answer.text
                eventually(lambda: [one["state"] for one in rows(gateway, state)] == ["delivered"])
                again = client.post(f"/dashboard/retry/{study}").text
                assert "found nothing refused or given up" in again
                assert "Dead letters: 0" in again
            (event,) = rows(gateway, "SELECT * FROM audit_event WHERE event = 'delivery retried'")
            assert (event["user_id"], event["study_instance_uid"]) == ("administrator", study)
        assert len(archive.reports_on(study)) == 1


def test_the_gateway_raises_the_alarm_without_anybody_looking(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, Pacs())
    gateway.data_folder.mkdir()
    database = open_database(sqlite_url(gateway.data_folder))
    write(database, history())
    database.dispose()
    # The history has a dead letter, too, which is an alarm of its own.
    statement = (
        "SELECT * FROM audit_event WHERE event = 'alarm raised' "
        "AND json_extract(detail, '$.subject') = 'input sharpness'"
    )
    with gateway:
        (event,) = eventually(lambda: rows(gateway, statement))
        assert "sharpness and noise of the last 7 days" in event["detail"]
        said = gateway.run("status", "--limit", "1")
        assert "Images: sharpness and noise of the last 7 days differ" in said
    assert "alarm raised: Images: sharpness and noise" in gateway.log.read_text()
    loaded = gateway.log.read_text().count("classifier loaded")  # perhaps killed before it was
    with gateway:  # a start is no new alarm
        eventually(lambda: gateway.log.read_text().count("classifier loaded") > loaded)
        assert gateway.terminate() == 0
    assert len(rows(gateway, statement)) == 1


# ---- in a browser ----------------------------------------------------------------------------


def test_the_page_has_no_grave_fault_of_access_in_either_theme(
    site: Site, browser: Browser
) -> None:
    with visit(browser, site, "administrator") as visitor:
        visitor.go("/dashboard")
        for theme in ("dark", "light"):
            assert visitor.page.evaluate("document.documentElement.dataset.theme") == theme
            for summary in visitor.page.query_selector_all(".dashboard summary"):
                if not summary.evaluate("one => one.parentElement.open"):
                    summary.click()
            assert visitor.faults() == []
            visitor.page.click("#theme")
        assert visitor.complaints == []


def test_a_refresh_keeps_the_focus_and_a_press_shows_its_answer(
    site: Site, browser: Browser
) -> None:
    with visit(browser, site, "administrator") as visitor:
        visitor.go("/dashboard")
        page = visitor.page
        page.focus("#try-pacs")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=not reached")
        assert page.evaluate("document.activeElement.id") == "try-pacs"
        page.focus("#retry-all")
        page.evaluate("document.activeElement.dataset.before = '1'")
        page.evaluate(
            "htmx.ajax('GET', '/dashboard/operations', {target: '#operations', swap: 'innerHTML'})"
        )
        page.wait_for_function("!document.getElementById('retry-all').dataset.before")
        assert page.evaluate("document.activeElement.id") == "retry-all"
        assert visitor.complaints == []


def test_the_operations_refresh_themselves(site: Site, browser: Browser) -> None:
    with visit(browser, site, "administrator") as visitor:
        visitor.page.clock.install()
        visitor.go("/dashboard")
        with visitor.page.expect_request("**/dashboard/operations") as asked:
            visitor.page.clock.fast_forward(31_000)
        assert asked.value.headers["x-automatic"] == "1"
        assert visitor.complaints == []


def test_a_refresh_that_fails_is_said(site: Site, browser: Browser) -> None:
    with visit(browser, site, "administrator") as visitor:
        visitor.go("/dashboard")
        page = visitor.page
        refresh = "() => { htmx.ajax('GET', '/dashboard/operations', '#operations') }"
        says = "said => document.getElementById('operations-fault').textContent.includes(said)"
        page.route("**/dashboard/operations", lambda route: route.fulfill(status=503))
        page.evaluate(refresh)
        page.wait_for_function(says, arg="answered 503")
        page.unroute("**/dashboard/operations")
        page.route("**/dashboard/operations", lambda route: route.abort())
        page.evaluate(refresh)
        page.wait_for_function(says, arg="does not answer")
        page.unroute("**/dashboard/operations")
        page.evaluate(refresh)
        page.locator("#operations-fault").wait_for(state="hidden")


def test_at_twice_the_size_nothing_is_cut_off(site: Site, browser: Browser) -> None:
    with visit(browser, site, "administrator") as visitor:
        visitor.page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
        visitor.go("/dashboard")
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= ZOOMED[0]
