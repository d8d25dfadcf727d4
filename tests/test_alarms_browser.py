"""The page of alarms: by HTTP as each role, and in a real browser."""

import html
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, expect

from browser import ZOOMED, visit
from browsing import Site
from thoracle.monitoring import conditions, occurrences
from thoracle.monitoring.alarms import record

HOSTILE = "device <img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(autouse=True)
def _alarms(site: Site) -> None:
    """Two that stand, and one that ended; nothing of an earlier test."""
    record(site.database, [], None)
    ended = conditions.alarm("storage", "Storage", "No image is taken: 10 MB free.", "Make room.")
    record(site.database, [ended], None)
    standing = [
        conditions.alarm("destination pacs", "pacs", "pacs has taken nothing.", "Test it."),
        conditions.alarm(HOSTILE, "device", "All images were refused.", "Compare <headers>."),
    ]
    record(site.database, standing, None)


def number(site: Site, subject: str) -> int:
    with site.database.connect() as connection:
        found = {row.subject: row.id for row in occurrences.standing(connection)}
    return int(found[subject])


@pytest.mark.parametrize("person", ["reader", "auditor"])
def test_alarms_are_for_administrators(site: Site, person: str) -> None:
    with site.client(person) as client:
        assert client.get("/alarms").status_code == 403
        path = f"/alarms/{number(site, 'destination pacs')}/acknowledge"
        for post in (path, "/alarms/silence", "/alarms/unsilence"):
            form = {"subject": "destination pacs", "hours": "1"}
            assert client.post(post, data=form).status_code == 403


def test_a_form_of_another_site_changes_nothing(site: Site) -> None:
    with site.client("administrator") as client:
        del client.headers["X-CSRF-Token"]
        form = {"subject": "destination pacs", "hours": "1"}
        assert client.post("/alarms/silence", data=form).status_code == 403


def test_an_alarm_is_acknowledged_and_silenced_once(site: Site) -> None:
    with site.client("administrator") as client:
        page = client.get("/alarms").text
        assert html.escape(HOSTILE) in page
        assert "<img" not in page
        assert "No image is taken: 10 MB free." in page
        path = f"/alarms/{number(site, 'destination pacs')}/acknowledge"
        done = client.post(path, data={"comment": "<b>cable</b>"})
        assert (done.status_code, done.headers["location"]) == (303, "/alarms?said=acknowledged")
        again = client.post(path)
        assert again.status_code == 422
        assert "found an acknowledgement by administrator" in again.text
        assert "&lt;b&gt;cable&lt;/b&gt;" in again.text
        until = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M}"
        form = {"subject": "destination pacs", "hours": "4", "until": until, "comment": "move"}
        assert client.post("/alarms/silence", data=form).status_code == 303
        page = client.get("/alarms").text
        assert f"silenced until {until.replace('T', ' ')} UTC" in page
        assert "silenced until" in client.get("/dashboard").text
        for wrong in ({"until": "2999-01-01T00:00"}, {"hours": "-1"}, {}):
            refused = client.post("/alarms/silence", data={"subject": "storage", **wrong})
            assert refused.status_code == 422
            assert "required" in refused.text
        record(site.database, [], None)  # silenced though it does not stand
        assert "Silenced, not open now: 1" in client.get("/alarms").text
        form = {"subject": "destination pacs"}
        assert client.post("/alarms/unsilence", data=form).status_code == 303
        assert client.post("/alarms/unsilence", data=form).status_code == 422
        assert client.post("/alarms/999999999999999999999/acknowledge").status_code == 422
    (silenced,) = site.events("alarm silenced")
    assert (silenced.user_id, silenced.network_address) == ("administrator", "127.0.0.1")
    assert silenced.detail["until"].startswith(until)


def test_alarms_by_keyboard_without_a_grave_fault(site: Site, browser: Browser) -> None:
    with visit(browser, site, "administrator") as found:
        page = found.page
        found.go("/alarms")
        card = page.get_by_role("article", name="destination pacs")
        card.locator("summary").first.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.type("on the phone with them")
        assert found.faults() == []
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Alarm acknowledged.")
        expect(card).to_contain_text("on the phone with them")
        card.locator("summary").first.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")  # 12 hours
        card.get_by_role("button", name="Silence").press("Enter")
        expect(card.locator(".chip.held")).to_contain_text("silenced until")
        for theme in ("dark", "light"):
            assert page.locator("html").get_attribute("data-theme") == theme
            assert found.faults() == []
            page.get_by_role("button", name="Switch between dark and light").click()
        page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert found.complaints == []
