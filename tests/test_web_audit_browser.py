"""The audit in a real browser: by keyboard, at 200 %, dark and light, without a grave fault."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from browser import ZOOMED, Visit, chromium, visit
from browsing import Site
from test_web_audit import HOSTILE, PERSONS, STUDY, filled
from thoracle.store import anchors

OPEN = f"/audit?study_instance_uid={STUDY}&destination=pacs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("site"), persons=PERSONS)
    filled(running.database)
    anchors.drop_anchor(running.database, running.settings.data_folder / anchors.ANCHORS_FILE)
    with running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def auditor(browser: Browser, site: Site) -> Iterator[Visit]:
    with visit(browser, site, "auditor") as found:
        yield found
        assert found.complaints == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_page_of_the_audit_has_a_grave_fault(auditor: Visit, theme: str) -> None:
    page = auditor.page
    if theme == "light":
        page.get_by_role("button", name="Switch between dark and light").click()
    for path in (OPEN, "/audit?patient_id=nobody", "/audit/event/131", "/audit/verification"):
        auditor.go(path)
        assert page.locator("html").get_attribute("data-theme") == theme
        if page.locator("details.event").count():
            page.locator("details.event").first.evaluate("one => one.open = true")
        assert auditor.faults() == [], path


def test_at_200_percent_nothing_has_to_be_scrolled_sideways(auditor: Visit) -> None:
    page = auditor.page
    page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
    for path in ("/audit", OPEN, "/audit/event/131", "/audit/verification"):
        auditor.go(path)
        if page.locator("details.event").count():
            page.locator("details.event").first.evaluate("one => one.open = true")
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path


def test_an_auditor_lands_at_the_audit_asks_and_opens_an_event_by_keyboard(auditor: Visit) -> None:
    page = auditor.page
    expect(page.get_by_role("heading", name="Audit", exact=True)).to_be_visible()
    page.get_by_label("Study Instance UID", exact=True).focus()
    page.keyboard.type(STUDY)
    page.get_by_text("More filters").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Destination").focus()
    page.keyboard.type("pacs")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url.endswith(OPEN))
    event = page.locator("details.event")
    expect(event).to_have_count(1)
    event.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(event.get_by_text("0xA700", exact=True)).to_be_visible()
    expect(event.locator("pre")).to_contain_text(HOSTILE.replace('"', '\\"', 1))
    assert page.get_by_role("link", name="Open the study").count() == 0


def test_the_export_is_a_file_of_what_was_asked(auditor: Visit, tmp_path: Path) -> None:
    auditor.go(OPEN)
    with auditor.page.expect_download() as download:
        auditor.page.get_by_role("link", name="Export CSV").click()
    target = tmp_path / download.value.suggested_filename
    download.value.save_as(target)
    assert target.name == "audit.csv"
    header, row = target.read_text(encoding="utf-8").splitlines()
    assert header.startswith("id,recorded_at,event,")
    assert STUDY in row


def test_a_verification_is_asked_for_and_says_that_all_is_well(auditor: Visit) -> None:
    auditor.go("/audit")
    auditor.page.get_by_role("button", name="Verify all").click()
    expect(auditor.page.get_by_role("status").get_by_text("OK")).to_be_visible()
    expect(auditor.page.get_by_text("are unchanged, verified on")).to_be_visible()
    assert auditor.faults() == []
