"""Accounts and log-in in a real browser: by hand, by keyboard, without a grave fault of access."""

from collections.abc import Iterator

import pyotp
import pytest
from playwright.sync_api import Browser, expect

from browser import ZOOMED, Visit, visit
from browsing import PASSWORD, Site, add_person
from thoracle.accounts import rows as people

OTHER = "another long password"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def boss(browser: Browser, site: Site) -> Iterator[Visit]:
    with visit(browser, site, "administrator") as found:
        yield found
        assert found.complaints == []


def test_a_person_is_added_comes_in_and_chooses_a_password(
    site: Site, browser: Browser, boss: Visit
) -> None:
    boss.go("/people")
    page = boss.page
    page.get_by_label("User name").fill("newcomer")
    page.get_by_label("Display name").fill("Nia Newcomer")
    page.get_by_label("reader").check()
    page.get_by_role("button", name="Add and show a one-time password").click()
    password = page.locator(".secret").inner_text()
    assert boss.faults() == []
    context = browser.new_context()
    theirs = context.new_page()
    theirs.goto(f"{site.url}/people?x=1")
    theirs.get_by_label("Name").fill("newcomer")
    theirs.get_by_label("Password").fill(password)
    theirs.keyboard.press("Enter")
    expect(theirs.get_by_role("heading", name="Change password")).to_be_visible()
    theirs.get_by_label("Current password").fill(password)
    theirs.get_by_label("New password", exact=True).fill(OTHER)
    theirs.get_by_label("New password again").fill(OTHER)
    theirs.get_by_role("button", name="Change password").click()
    expect(theirs.get_by_role("heading", name="Worklist")).to_be_attached()
    theirs.get_by_text("Nia Newcomer").click()
    theirs.get_by_role("button", name="Log out").click()
    expect(theirs.get_by_role("heading", name="Log in")).to_be_visible()
    context.close()


def test_a_token_is_made_and_revoked(boss: Visit) -> None:
    boss.go("/account")
    page = boss.page
    page.get_by_label("Label").fill("the RIS")
    page.get_by_label("fhir:read").check()
    page.get_by_role("button", name="Add token").click()
    assert page.locator(".secret").inner_text().startswith("thoracle_")
    assert boss.faults() == []
    page.get_by_role("button", name="Revoke the RIS").click()
    expect(page.get_by_text("Token revoked.")).to_be_visible()
    expect(page.locator("td .chip")).to_contain_text("revoked")


def test_an_authenticator_app_is_set_up_and_asked_for(site: Site, browser: Browser) -> None:
    with site.database.begin() as connection:
        add_person(connection, "careful", ["reader"])
    with visit(browser, site, "careful") as found:
        page = found.page
        found.go("/account")
        page.get_by_role("link", name="Set up an authenticator app").click()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Set up an authenticator app").click()
        assert page.locator(".qr").evaluate("picture => picture.naturalWidth") > 0
        assert found.faults() == []
        secret = page.locator("#key").inner_text().replace(" ", "")
        page.get_by_label("Code that the app shows now").fill(pyotp.TOTP(secret).now())
        page.keyboard.press("Enter")
        expect(page.locator(".secret li")).to_have_count(10)
        codes = page.locator(".secret li").all_inner_texts()
        assert found.faults() == []
        page.get_by_role("link", name="Continue").click()
        expect(page.get_by_role("heading", name="Worklist")).to_be_attached()
        found.go("/account/second-factor")
        expect(page.get_by_text("recovery codes left: 10")).to_be_visible()
        assert found.faults() == []
        page.locator(".menu summary").click()
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Name").fill("careful")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Enter the code")).to_be_visible()
        assert found.faults() == []
        page.keyboard.type(codes[0])  # the field has the focus
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Worklist")).to_be_attached()
        found.go("/account/second-factor")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_label("Code of the app").fill(codes[1])
        page.get_by_role("button", name="Remove the second factor").click()
        expect(page.get_by_text("Second factor removed.")).to_be_visible()
        assert found.complaints == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_page_about_people_has_a_grave_fault(site: Site, boss: Visit, theme: str) -> None:
    page = boss.page
    if theme == "light":
        page.get_by_role("button", name="Switch between dark and light").click()
    with site.database.begin() as connection:
        people.set_attempts(connection, "reader", 0, "2999-01-01T00:00:00.000000Z")
    for path in (
        "/people",
        "/people/reader",
        "/people/administrator",
        "/account",
        "/account/password",
        "/account/second-factor",
    ):
        boss.go(path)
        assert page.locator("html").get_attribute("data-theme") == theme
        assert boss.faults() == [], path
    page.locator(".menu summary").click()
    assert boss.faults() == []
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert boss.faults() == []
    page.get_by_label("Name").fill("nobody")
    page.get_by_label("Password").fill("x")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    assert boss.faults() == []
    # The browser itself tells of an answer 401.
    assert [one for one in boss.complaints if "401" not in one] == []
    boss.complaints.clear()


def test_at_200_percent_nothing_has_to_be_scrolled_sideways(boss: Visit) -> None:
    page = boss.page
    page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
    for path in ("/people", "/people/reader", "/account", "/account/second-factor"):
        boss.go(path)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path


def test_the_log_in_works_by_keyboard_alone(site: Site, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/account")
    page.keyboard.type("auditor")  # the first field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Account: auditor")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    context.close()


def test_a_session_that_ends_takes_the_page_from_the_screen(site: Site, browser: Browser) -> None:
    with visit(browser, site, "auditor") as found:
        page = found.page
        page.clock.install()
        found.go("/account")
        expect(page.get_by_role("heading", name="Account: auditor")).to_be_visible()
        with site.database.begin() as connection:
            people.end_sessions(connection, "auditor")
        page.clock.fast_forward(31_000)
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
