"""The page of a study as a person meets it: a real browser, its keys, its zoom, its policy."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from browser import ZOOMED, Visit, visit
from ledger import rows
from sender import Sender
from ward import HOSTILE, Ward, of_study, ward


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with ward(tmp_path_factory.mktemp("ward")) as running:
        yield running


@pytest.fixture
def visited(here: Ward, browser: Browser) -> Iterator[Visit]:
    """Yield the visit of somebody who may do everything; the browser must not complain."""
    with visit(browser, here.site, "chief") as found:
        yield found
        assert found.complaints == []


@pytest.fixture
def page(visited: Visit) -> Page:
    return visited.page


def open_study(page: Page, here: Ward, study: str) -> None:
    page.goto(f"{here.site.url}/study/{study}")
    until(
        page,
        "[...document.querySelectorAll('figure:not([hidden]) .radiograph')]"
        ".every(one => one.complete && one.naturalWidth > 0)",
    )


def until(page: Page, expression: str, seconds: float = 30) -> None:
    """Return when an expression is true; Playwright's own way needs what the policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def matrix(page: Page) -> dict[str, float]:
    """Return scale and translation of the image that is shown."""
    found: dict[str, float] = page.evaluate(
        "(() => { const one = new DOMMatrix(getComputedStyle(document.querySelector("
        "'figure:not([hidden]) .sheet')).transform); return {a: one.a, e: one.e, f: one.f}; })()"
    )
    return found


def zoom(page: Page) -> int:
    """Return the zoom that is shown, in percent of a screen pixel an image pixel."""
    return int(page.locator("figure:not([hidden]) [data-zoom]").inner_text().removesuffix(" %"))


def pixel(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return which part of the radiograph, 0 to 1 across and along, is at a place of the window."""
    box = page.locator("figure:not([hidden]) .radiograph").bounding_box()
    assert box is not None
    return (x - box["x"]) / box["width"], (y - box["y"]) / box["height"]


def test_what_the_model_used_is_shown_when_asked_for(here: Ward, page: Page) -> None:
    open_study(page, here, here.studies["plain"])
    overlay, button = page.locator("img.overlay"), page.locator("[data-do=overlay]")
    assert not overlay.is_visible()
    assert overlay.get_attribute("src") is None  # it is not even fetched
    page.keyboard.press("o")
    overlay.wait_for()
    assert button.get_attribute("aria-pressed") == "true"
    base, laid = page.locator("img.radiograph").bounding_box(), overlay.bounding_box()
    assert base == laid
    until(page, "document.querySelector('img.overlay').naturalWidth > 0")
    button.click()
    assert not overlay.is_visible()
    page.keyboard.press("h")
    until(page, "document.querySelector('img.key').naturalWidth > 0")
    page.keyboard.press("i")
    assert page.locator("img.radiograph.inverted").count() == 1


def test_the_image_is_enlarged_and_moved_by_keys(here: Ward, page: Page) -> None:
    open_study(page, here, here.studies["plain"])
    fit = matrix(page)
    page.focus(".stage")
    for _ in range(3):
        page.keyboard.press("+")
    enlarged = matrix(page)
    assert enlarged["a"] == pytest.approx(fit["a"] * 1.25**3, rel=1e-4)
    page.keyboard.press("ArrowRight")
    assert matrix(page)["e"] == pytest.approx(enlarged["e"] - 60)
    page.keyboard.press("ArrowUp")
    assert matrix(page)["f"] == pytest.approx(enlarged["f"] + 60)
    page.keyboard.press("1")
    assert zoom(page) == 100
    page.keyboard.press("0")
    assert matrix(page) == fit


def test_the_wheel_enlarges_what_is_under_the_pointer_and_dragging_moves_it(
    here: Ward, page: Page
) -> None:
    open_study(page, here, here.studies["plain"])
    page.keyboard.press("v")
    fit = matrix(page)
    box = page.locator("img.radiograph").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.6
    before = pixel(page, x, y)
    page.mouse.move(x, y)
    for _ in range(2):
        first = zoom(page)
        page.mouse.wheel(0, -100)
        until(page, f"parseInt(document.querySelector('[data-zoom]').textContent) > {first}")
    assert pixel(page, x, y) == pytest.approx(before, abs=0.002)
    page.mouse.down()
    page.mouse.move(x + 40, y - 30)
    page.mouse.up()
    assert pixel(page, x + 40, y - 30) == pytest.approx(before, abs=0.002)
    page.mouse.dblclick(x, y)
    assert matrix(page) == fit


def test_two_fingers_enlarge(here: Ward, browser: Browser) -> None:
    with visit(browser, here.site, "reader", has_touch=True) as found:
        open_study(found.page, here, here.studies["plain"])
        fit = matrix(found.page)["a"]
        spread_fingers(found.page)
        assert matrix(found.page)["a"] == pytest.approx(2 * fit, rel=0.01)
        assert found.complaints == []


def spread_fingers(page: Page) -> None:
    """Put two fingers on the image and spread them to twice their distance."""
    page.locator(".stage").scroll_into_view_if_needed()
    box = page.locator(".stage").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *apart: float) -> None:
        points = [{"x": x + side, "y": y, "id": n} for n, side in enumerate(apart)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -50, 50)
    touch("touchMove", -75, 75)
    touch("touchMove", -100, 100)
    touch("touchEnd")


def test_each_image_of_a_study_can_be_chosen(here: Ward, page: Page) -> None:
    open_study(page, here, here.studies["two"])
    buttons = page.locator(".chooser button")
    assert buttons.count() == 2
    rejected = page.locator(".chooser button", has_text="View is not frontal")
    assert rejected.get_attribute("aria-pressed") == "false"
    rejected.focus()
    page.keyboard.press("Enter")
    assert rejected.get_attribute("aria-pressed") == "true"
    shown = page.locator("figure.viewer:visible")
    assert shown.count() == 1
    assert "NOT-FRONTAL" in shown.inner_text()


def test_a_verdict_is_given_by_keyboard_alone(here: Ward, page: Page) -> None:
    study = here.studies["stranger"]
    open_study(page, here, study)
    fit = matrix(page)
    page.keyboard.press("c")
    page.keyboard.type("a d n o k i + - 0 <i>seen</i>")
    assert matrix(page) == fit  # keys belong to whom they are typed for
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.locator("#verdict .said", has_text="Verdict saved: disagree.").wait_for()
    assert page.inner_text("ol.history li:first-child").split()[:3] == ["disagree", "✓", "current"]
    assert page.inner_text(".comment") == "a d n o k i + - 0 <i>seen</i>"
    (given,) = rows(here.gateway, "SELECT * FROM verdict WHERE study_instance_uid = ?", study)
    assert (given["opinion"], given["person"]) == ("disagree", "chief")


def test_a_result_shows_itself_when_it_is_there(here: Ward, page: Page) -> None:
    (image,) = of_study(1, PatientID="P20")
    study = str(image.StudyInstanceUID)
    with Sender(here.gateway.port) as sender:  # while it stays open, more may come
        assert sender.store(image).status == 0x0000
        page.goto(f"{here.site.url}/study/{study}")
        assert page.locator("#state .chip").inner_text().split() == ["◷", "queued"]
        assert "the study is not complete yet" in page.inner_text("main")
    page.locator(".figure", has_text="calibrated probability").wait_for(timeout=60_000)
    viewed = [one for one in here.site.events("study viewed") if one.study_instance_uid == study]
    assert len(viewed) == 2  # before and after; what it asked for in between tells nothing


def test_a_new_result_does_not_take_away_what_somebody_is_writing(
    here: Ward, visited: Visit
) -> None:
    page = visited.page
    study = here.send(*of_study(1, PatientID="P21"))
    open_study(page, here, study)
    page.fill("textarea[name=comment]", "half a sen")
    answer = page.request.post(
        f"{here.site.url}/study/{study}/reanalyse",
        form={"csrf_token": page.locator("input[name=csrf_token]").first.input_value()},
        max_redirects=0,
    )
    assert answer.status == 303
    notice = page.locator("#state a", has_text="Show the current state")
    notice.wait_for(timeout=90_000)
    assert page.input_value("textarea[name=comment]") == "half a sen"
    page.get_by_role("button", name="Agree", exact=False).first.click()
    page.locator(".verdict-fault", has_text="The result has changed").wait_for()
    assert page.input_value("textarea[name=comment]") == "half a sen"
    assert rows(here.gateway, "SELECT * FROM verdict WHERE study_instance_uid = ?", study) == []
    assert "409" in visited.complaints.pop()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_serious_barrier_and_nothing_beyond_the_edge_at_200_percent(
    here: Ward, visited: Visit, theme: str
) -> None:
    page = visited.page
    page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
    page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
    for name in ("two", "hand", "held"):
        open_study(page, here, here.studies[name])
        page.evaluate("document.querySelectorAll('main details').forEach(one => one.open = true)")
        assert page.get_attribute("html", "data-theme") == theme
        check(visited)
    visited.go("/model-card")
    check(visited)


def check(visited: Visit) -> None:
    assert visited.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert visited.faults() == []


def test_an_image_that_cannot_be_shown_says_so(here: Ward, visited: Visit) -> None:
    study = here.send(*of_study(1, PatientID="P22"))
    (image,) = rows(here.gateway, "SELECT path FROM instance WHERE study_instance_uid = ?", study)
    path = here.gateway.data_folder / image["path"]
    path.write_bytes(path.read_bytes()[:3000])
    visited.go(f"/study/{study}")
    visited.page.locator(".broken", has_text="This image cannot be shown.").wait_for()
    assert not visited.page.locator("img.radiograph").is_visible()
    visited.page.keyboard.press("+")
    assert "422" in visited.complaints.pop()


def test_nothing_in_hostile_headers_and_comments_runs(here: Ward, page: Page) -> None:
    fields = ("PatientName", "PatientID", "AccessionNumber", "StudyDescription", "StationName")
    study = here.send(*of_study(1, **dict.fromkeys(fields, HOSTILE)))
    open_study(page, here, study)
    page.fill("textarea[name=comment]", HOSTILE)
    page.get_by_role("button", name="Disagree").click()
    page.locator("#verdict .said").wait_for()
    assert page.inner_text(".comment") == HOSTILE
    assert page.locator("main script, main img[src='x']").count() == 0
