"""What people do with the pages, in a real browser and with a gateway at work behind them."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from browser import ZOOMED, Visit, visit
from ledger import rows
from radiographs import chest
from sender import send
from thoracle.study import reading_list
from ward import HOSTILE, Ward, of_study, ward

PAGES = {
    "reader": ["/", "/?review=all", "/?text=nobody", "/dashboard", "/account", "/model-card"],
    "chief": ["/", "/dashboard", "/people", "/account", "/nowhere"],
    "auditor": ["/account", "/model-card"],
}
STUDIES = ("plain", "two", "hand", "held")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with ward(tmp_path_factory.mktemp("ward")) as running:
        yield running


@pytest.fixture
def reader(browser: Browser, here: Ward) -> Iterator[Visit]:
    with visit(browser, here.site, "reader") as found:
        yield found
        assert found.complaints == []


def row(page: Page, study: str) -> str:
    """Return the selector of a study's row."""
    return f'#rows tr[data-uid="{study}"]'


def listed(page: Page) -> list[str]:
    found: list[str] = page.eval_on_selector_all("#rows tr", "all => all.map(r => r.dataset.uid)")
    return found


def hurry(here: Ward, study: str, minutes: int) -> None:
    """Give a study so many minutes more of a head start."""
    with here.site.database.begin() as connection:
        found = reading_list.row_of(connection, study)
        assert found is not None
        reading_list.set_head_start(connection, study, found.head_start_minutes + minutes, "test")


# ---- the worklist ----------------------------------------------------------------------------


def test_a_study_appears_live_while_it_is_processed(here: Ward, reader: Visit) -> None:
    page = reader.page
    expect(page.locator("#live.on")).to_be_visible()
    page.mouse.move(5, 5)
    (image,) = of_study(1, PatientName="Live^Lea", PatientID="P77")
    states: list[str] = []
    page.expose_function("told", lambda said: states.append(said))
    page.evaluate(
        """() => new MutationObserver(() => {
             const row = [...document.querySelectorAll("#rows tr")]
               .find(row => row.textContent.includes("P77"));
             const chip = row?.querySelector("[data-label='AI result'] .chip");
             if (chip) window.told(chip.textContent.trim().split(" ").at(-1));
           }).observe(document.getElementById("list"), {childList: true, subtree: true})"""
    )
    assert send(here.gateway.port, image).status == 0x0000
    mine = page.locator(row(page, str(image.StudyInstanceUID)))
    outcome = (
        mine.locator("[data-label='AI result'] .chip")
        .filter(has_text="positive")
        .or_(mine.locator("[data-label='AI result'] .chip").filter(has_text="negative"))
        .or_(mine.locator("[data-label='AI result'] .chip").filter(has_text="indeterminate"))
    )
    expect(outcome).to_be_visible(timeout=60_000)
    expect(mine.locator("[data-label=Sent]")).to_contain_text("proven", timeout=30_000)
    assert "queued" in states  # it was there before it had a result


def test_the_row_under_the_pointer_stays_and_its_cells_change(here: Ward, reader: Visit) -> None:
    page = reader.page
    before = listed(page)
    last = before[-1]
    page.locator(row(page, before[1])).hover()
    top = page.locator(row(page, before[1])).bounding_box()
    hurry(here, last, 10_000)
    expect(page.locator(f"{row(page, last)} .why")).to_have_attribute(
        "title", re.compile("^Test: moved up")
    )
    expect(page.locator("#apply")).to_have_text("Order changed: show (r)")
    assert listed(page) == before
    assert page.locator(row(page, before[1])).bounding_box() == top
    page.mouse.move(5, 5)
    expect(page.locator("#apply")).to_be_hidden()
    assert listed(page)[0] == last
    hurry(here, last, -10_000)


def test_the_row_with_the_cursor_keeps_it_while_the_list_changes(here: Ward, reader: Visit) -> None:
    page = reader.page
    page.mouse.move(5, 5)
    page.keyboard.press("j")
    before = listed(page)
    expect(page.locator(f"{row(page, before[0])} a").first).to_be_focused()
    hurry(here, before[0], 7)
    expect(page.locator(f"{row(page, before[0])} .why")).to_have_attribute(
        "title", re.compile("^Test: moved up")
    )
    expect(page.locator(f"{row(page, before[0])} a").first).to_be_focused()
    hurry(here, before[-1], 10_000)
    expect(page.locator("#apply")).to_be_visible()
    page.keyboard.press("r")
    assert listed(page)[0] == before[-1]
    expect(page.locator(f"{row(page, before[0])} a").first).to_be_focused()
    hurry(here, before[0], -7)
    hurry(here, before[-1], -10_000)


def test_the_list_is_worked_with_by_keyboard_alone(here: Ward, reader: Visit) -> None:
    page = reader.page
    second = listed(page)[1]
    for key in ("j", "j", "j", "k"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/study/{second}")
    page.go_back()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("p8")
    expect(page.locator("#rows tr")).to_have_count(1)
    assert page.url.endswith("/?text=p8")


def test_filters_stay_in_the_address_and_survive_a_reload(here: Ward, reader: Visit) -> None:
    page = reader.page
    page.click("#states summary")
    page.check("input[value=rejected]")
    expect(page.locator("#rows tr")).to_have_count(1)
    assert page.url.endswith("/?state=rejected")
    page.reload()
    assert listed(page) == [here.studies["hand"]]
    assert page.is_checked("input[value=rejected]")


# ---- a study ---------------------------------------------------------------------------------


def test_a_reader_opens_a_study_looks_closely_and_judges(here: Ward, reader: Visit) -> None:
    page = reader.page
    study = here.studies["plain"]
    page.click(f"{row(page, study)} a")
    page.wait_for_url(f"**/study/{study}*")
    radiograph = page.locator("img.radiograph").first
    expect(radiograph).to_be_visible()
    assert radiograph.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    overlay = page.locator("img.overlay").first
    expect(overlay).to_be_hidden()
    page.locator(".stage[tabindex]").first.focus()
    page.keyboard.press("o")
    expect(overlay).to_be_visible()
    fitted = page.locator("[data-zoom]").first.inner_text()
    page.keyboard.press("+")
    expect(page.locator("[data-zoom]").first).not_to_have_text(fitted)
    page.keyboard.press("0")
    expect(page.locator("[data-zoom]").first).to_have_text(fitted)
    page.fill("[name=comment]", HOSTILE)
    page.click("#verdict button[value=disagree]")
    expect(page.locator("#verdict .said")).to_contain_text("Verdict saved: disagree.")
    expect(page.locator("#verdict")).to_contain_text(HOSTILE)
    (given,) = rows(here.gateway, "SELECT * FROM verdict WHERE study_instance_uid = ?", study)
    assert (given["opinion"], given["person"]) == ("disagree", "reader")
    reader.go("/")
    assert study not in listed(page)
    reader.go("/?review=done")
    assert listed(page) == [study]


def test_names_in_every_script_and_hostile_ones_are_shown_as_they_are(
    here: Ward, reader: Visit
) -> None:
    names = ["Ωνάσης^Αλέξανδρος", "Иванов^Иван", "山田^太郎", "<b>Bold</b>^Bob"]
    for number, name in enumerate(names):
        image = chest(SpecificCharacterSet="ISO_IR 192", PatientName=name, PatientID=f"N{number}")
        assert send(here.gateway.port, image).status == 0x0000
    page = reader.page
    for name in names:
        link = page.get_by_role("link", name=name.replace("^", ", "), exact=True)
        expect(link).to_be_visible()


# ---- every page ------------------------------------------------------------------------------


def every_page(here: Ward, person: str) -> list[str]:
    studies = [] if person == "auditor" else [f"/study/{here.studies[name]}" for name in STUDIES]
    return PAGES[person] + studies


@pytest.mark.parametrize("person", PAGES)
def test_no_page_has_a_grave_fault_of_accessibility_or_breaks_its_policy(
    here: Ward, browser: Browser, person: str
) -> None:
    with visit(browser, here.site, person) as found:
        root = found.page.locator("html")
        faults = {}
        for path in every_page(here, person):
            found.go(path)
            expect(root).to_have_attribute("data-theme", "dark")
            expect(found.page.locator("footer")).to_contain_text("Research use only")
            faults[path] = found.faults()
            found.page.click("#theme")
            expect(root).to_have_attribute("data-theme", "light")
            faults[path] += found.faults("color-contrast")  # the themes differ in colours alone
            found.page.click("#theme")
        # The one page that is not there is said so by the browser, too.
        complaints = [text for text in found.complaints if "404 (Not Found)" not in text]
    assert {path: found for path, found in faults.items() if found} == {}
    assert complaints == []


def test_the_log_in_has_no_grave_fault(here: Ward, browser: Browser) -> None:
    page = browser.new_page()
    found = Visit(page, here.site)
    found.go("/login")
    assert found.faults() == []
    page.close()


@pytest.mark.parametrize("person", ["chief"])
def test_at_200_percent_nothing_has_to_be_scrolled_sideways(
    here: Ward, browser: Browser, person: str
) -> None:
    with visit(browser, here.site, person) as found:
        found.page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
        too_wide = {}
        for path in every_page(here, person):
            found.go(path)
            width = found.page.evaluate("document.documentElement.scrollWidth")
            if width > ZOOMED[0]:
                too_wide[path] = width
            assert found.faults() == []
    assert too_wide == {}


def test_a_session_that_ended_ends_the_live_list(here: Ward, browser: Browser) -> None:
    with visit(browser, here.site, "reader") as found:
        other = found.page.context.new_page()
        other.goto(here.site.url + "/account")
        other.locator("details.menu summary").click()
        other.get_by_role("button", name="Log out").click()
        other.wait_for_url("**/login*")
        found.page.reload()
        expect(found.page).to_have_url(f"{here.site.url}/login")
