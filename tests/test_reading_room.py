"""The reading room in a real browser: list, study, verdict, next; and what the viewer can do."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

import reading_room
from browser import ZOOMED, Visit, visit
from browsing import Site
from ledger import eventually
from radiographs import chest
from thoracle.records import Outcome
from thoracle.study import rows as studies
from thoracle.web.pages import pictures

NAMES = ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Müller^Änne", "Haddad^Layla=حداد^ليلى")
OUTCOMES = (Outcome.NEGATIVE, Outcome.INDETERMINATE, Outcome.REJECTED, Outcome.POSITIVE)
READ = 20
READY = "document.querySelector('figure.viewer:not([hidden])').dataset.ready === 'true'"


class Room:
    """A site with studies to read, and some by name."""

    def __init__(self, site: Site) -> None:
        self.site = site
        same = {"PatientID": "SAME", "IssuerOfPatientID": "H"}
        add = reading_room.add
        self.prior = add(site, chest(StudyDate="20240401", **same), Outcome.NEGATIVE)
        spacing = {"ImagerPixelSpacing": [0.143, 0.143], "WindowCenter": 2048, "WindowWidth": 4096}
        self.newer = add(site, chest(StudyDate="20260401", **same, **spacing), illustrated=True)
        self.failed = add(site, chest(PatientID="LOST"), None)
        names, outcomes = cycle(NAMES), cycle(OUTCOMES)
        self.queue = [
            add(
                site,
                chest(
                    SpecificCharacterSet="ISO_IR 192",
                    PatientName=next(names),
                    PatientID=f"Q{number}",
                    StudyDescription="Queue",
                    Modality="DX",
                ),
                next(outcomes),
            )
            for number in range(READ + 2)
        ]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    site = Site(tmp_path_factory.mktemp("room"), persons={"reader": ["reader"]})
    made = Room(site)
    with site:
        yield made


@pytest.fixture
def reader(browser: Browser, room: Room) -> Iterator[Visit]:
    with visit(browser, room.site, "reader") as found:
        yield found
        assert found.complaints == []


def until(page: Page, expression: str) -> None:
    """Return when an expression is true; Playwright's own way needs what the policy forbids."""
    eventually(lambda: page.evaluate(expression), seconds=60)


def opened(reader: Visit, study: str) -> Page:
    reader.go(f"/study/{study}")
    until(reader.page, READY)
    return reader.page


def drawn(page: Page) -> np.ndarray:
    """Return the grey values that the canvas shows now."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
    values = page.evaluate(
        "(() => { const one = document.querySelector('figure.viewer:not([hidden]) canvas');"
        "const data = one.getContext('2d').getImageData(0, 0, one.width, one.height).data;"
        "return Array.from(data.filter((_, at) => at % 400 === 0)); })()"
    )
    return np.array(values)


def test_pictures_are_rendered_before_they_are_asked_for(room: Room, reader: Visit) -> None:
    ahead = [_picture(room, study) for study in room.queue[11:14]]
    assert not any(path.exists() for path in ahead)
    reader.go(f"/study/{room.queue[10]}?modality=DX&sort=waiting")
    eventually(lambda: all(path.exists() for path in ahead), seconds=90)


def _picture(room: Room, study: str) -> Path:
    """Return where the picture of a study's image is kept once it was rendered."""
    settings = room.site.settings
    with room.site.database.connect() as connection:
        rows = studies.rows(connection, study)
    assert rows is not None
    order = pictures.order(settings, rows, rows.images[0], pictures.RADIOGRAPH)
    assert order is not None
    name = pictures._name(*order)
    return settings.data_folder / "cache" / "pictures" / name[:2] / f"{name}.png"


# ---- the list and the way through it ---------------------------------------------------------


def test_twenty_studies_are_seen_at_once_a_line_each(reader: Visit) -> None:
    whole = reader.page.evaluate(
        "[...document.querySelectorAll('#rows tr')].map((row) => row.getBoundingClientRect())"
        ".filter((box) => box.bottom <= innerHeight).length"
    )
    assert whole >= READ


def test_twenty_studies_are_read_and_judged_with_two_keys_each(room: Room, reader: Visit) -> None:
    page, pressed = reader.page, 0
    reader.go("/?modality=DX&sort=waiting")
    expect(page.locator("#live.on")).to_be_visible()

    def press(key: str) -> None:
        nonlocal pressed
        pressed += 1
        page.keyboard.press(key)

    press("Enter")
    for number, key in zip(range(READ), cycle("adn"), strict=False):
        study = room.queue[number]
        page.wait_for_url(f"**/study/{study}?modality=DX&sort=waiting")
        expect(page.locator("h1")).to_be_visible()
        press(key)
        expect(page.locator("#verdict .said")).to_contain_text("Verdict saved")
        if number + 1 < READ:
            press("j")
    assert pressed <= 2 * READ
    given = room.site.events("verdict given")
    assert [one.study_instance_uid for one in given] == room.queue[:READ]
    page.keyboard.press("k")
    page.keyboard.press("b")
    page.wait_for_url("**/?modality=DX&sort=waiting")
    listed = page.eval_on_selector_all("#rows tr", "all => all.map((row) => row.dataset.uid)")
    assert listed == room.queue[READ:]


def test_a_key_that_is_kept_down_judges_once(room: Room, reader: Visit) -> None:
    study = room.queue[-1]
    page = opened(reader, study)
    before = len(room.site.events("verdict given"))
    for _ in range(4):
        page.keyboard.down("a")
    page.keyboard.up("a")
    expect(page.locator("#verdict .said")).to_be_visible()
    assert len(room.site.events("verdict given")) == before + 1


def test_the_keys_are_the_same_on_both_pages(room: Room, reader: Visit) -> None:
    told = []
    for path in ("/", f"/study/{room.newer}"):
        reader.go(path)
        reader.page.keyboard.press("?")
        told.append(reader.page.inner_text("#keys"))
    assert told[0] == told[1]
    assert "Not applicable" in told[0]


def test_the_scale_shows_the_limits_that_decide(room: Room, reader: Visit) -> None:
    page = opened(reader, room.newer)
    texts = page.locator("svg.scale text").all_text_contents()
    assert texts == ["0", "40", "60", "100 %"]
    told = page.locator("svg.scale").get_attribute("aria-label")
    assert told is not None
    assert told.endswith("positive from 60 %, negative below 40 %, indeterminate between")


def test_the_verdict_is_beside_the_answer_without_scrolling(room: Room, reader: Visit) -> None:
    page = opened(reader, room.newer)
    for button in page.locator("#verdict .opinions button").all():
        box = button.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 900


# ---- the viewer ------------------------------------------------------------------------------


def test_dragging_changes_the_window_of_all_grey_values(room: Room, reader: Visit) -> None:
    page = opened(reader, room.newer)
    stated = drawn(page)
    assert page.locator("[data-values]").first.inner_text().startswith("C ")
    stage = page.locator(".stage").first
    box = stage.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 300, steps=4)
    page.mouse.up()
    narrow = drawn(page)
    assert narrow.std() > stated.std() * 1.2
    page.keyboard.press("i")
    shown = (narrow > 0) & (narrow < 255)
    assert np.abs((255 - drawn(page))[shown] - narrow[shown]).max() <= 1
    page.keyboard.press("i")
    page.keyboard.press("s")
    assert (drawn(page) == stated).all()
    page.select_option("[data-windows]", label="Lungs")
    assert (drawn(page) != stated).any()


def test_one_image_pixel_is_one_screen_pixel(room: Room, reader: Visit) -> None:
    page = opened(reader, room.newer)
    page.keyboard.press("1")
    box = page.locator(".sheet canvas").first.bounding_box()
    assert box is not None
    assert (box["width"], box["height"]) == (512, 512)
    assert page.locator("[data-zoom]").first.inner_text() == "100 %"


def test_the_overlay_lies_where_the_map_is_whatever_is_done_to_the_image(
    room: Room, reader: Visit
) -> None:
    page = opened(reader, room.newer)
    page.keyboard.press("o")
    until(page, "document.querySelector('img.overlay').naturalWidth > 0")
    place = page.evaluate(
        "(() => { const image = document.querySelector('img.overlay');"
        "const one = new OffscreenCanvas(512, 512).getContext('2d');"
        "one.drawImage(image, 0, 0, 512, 512);"
        "const data = one.getImageData(0, 0, 512, 512).data; let x = 0, y = 0, sum = 0;"
        "for (let at = 0; at < 512 * 512; at++) { const weight = data[4 * at + 3];"
        "x += weight * (at % 512); y += weight * (at >> 9); sum += weight; }"
        "return [x / sum, y / sum]; })()"
    )
    assert place == pytest.approx([170, 300], abs=4)  # of reading_room.hot_spot
    for key in ("t", "+", "ArrowLeft"):
        page.locator(".stage").first.press(key)
        boxes = [page.locator(one).first.bounding_box() for one in ("canvas", "img.overlay")]
        assert boxes[0] == boxes[1]
    page.locator("[data-opacity]").first.fill("20")
    assert page.locator("img.overlay").evaluate("one => one.style.opacity") == "0.2"
    page.locator(".stage").first.focus()
    page.keyboard.down("f")
    assert not page.locator("img.overlay").is_visible()
    page.keyboard.up("f")
    assert page.locator("img.overlay").is_visible()


def test_the_prior_is_shown_beside_it_with_the_same_zoom(room: Room, reader: Visit) -> None:
    page = opened(reader, room.newer)
    before = len(room.site.events("study viewed"))
    page.keyboard.press("p")
    until(page, "document.querySelector('#prior figure')?.dataset.ready === 'true'")
    assert "2024-04-01" in page.inner_text("#prior")
    (event,) = room.site.events("study viewed")[before:]
    assert event.study_instance_uid == room.prior
    page.keyboard.press("+")
    page.locator(".stage").first.press("ArrowLeft")
    first, second = (page.locator(".stage .sheet").nth(at).bounding_box() for at in (0, 1))
    stages = [page.locator(".stage").nth(at).bounding_box() for at in (0, 1)]
    assert first is not None
    assert second is not None
    assert stages[0] is not None
    assert stages[1] is not None
    assert second["width"] == pytest.approx(first["width"], abs=1)
    assert second["x"] - stages[1]["x"] == pytest.approx(first["x"] - stages[0]["x"], abs=1)
    assert second["y"] - stages[1]["y"] == pytest.approx(first["y"] - stages[0]["y"], abs=1)
    page.keyboard.press("p")
    assert not page.locator("#prior").is_visible()


def test_no_study_of_another_patient_is_a_prior(room: Room, reader: Visit) -> None:
    answer = reader.page.request.get(
        f"{room.site.url}/study/{room.newer}/prior/{room.failed}", max_redirects=0
    )
    assert answer.status == 404


def test_the_ruler_says_where_it_is_not_calibrated(room: Room, reader: Visit) -> None:
    for study, text in ((room.newer, "mm, uncalibrated"), (room.prior, "pixels, uncalibrated")):
        page = opened(reader, study)
        page.keyboard.press("m")
        box = page.locator(".stage").first.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0] + 100, middle[1])
        page.mouse.up()
        expect(page.locator(".ruler text").first).to_contain_text(text)


def test_a_failed_study_says_why_and_what_to_do(room: Room, reader: Visit) -> None:
    reader.go(f"/study/{room.failed}")
    said = reader.page.inner_text(".side")
    assert "Analysis failed. No AI result." in said
    assert "Cause: Stored file is missing" in said
    assert "Send the study again" in said


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_pages_follow_the_theme_of_the_system_and_have_no_barrier(
    room: Room, browser: Browser, scheme: str
) -> None:
    with visit(browser, room.site, "reader", color_scheme=scheme) as found:
        page = found.page
        assert page.get_attribute("html", "data-theme") == scheme
        for path in ("/?review=all", f"/study/{room.newer}", f"/study/{room.failed}"):
            found.go(path)
            page.keyboard.press("?")
            assert found.faults() == []
            page.keyboard.press("Escape")
            assert found.faults() == []
            page.set_viewport_size({"width": ZOOMED[0], "height": ZOOMED[1]})
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            if "review" in path:
                lines = page.eval_on_selector_all(
                    "#rows td", "all => all.map((one) => one.offsetHeight)"
                )
                assert max(lines) < 60  # a line or two of a card, not a letter a line
            page.set_viewport_size({"width": 1440, "height": 900})
        assert found.complaints == []


def test_paper_shows_no_controls(room: Room, reader: Visit) -> None:
    page = opened(reader, room.newer)
    page.emulate_media(media="print")
    for hidden in (".viewer .tools", ".opinions", "#verdict-title", ".walk", ".bar nav"):
        assert not page.locator(hidden).first.is_visible()
    assert page.locator(".outcome").is_visible()
    assert page.locator("footer").is_visible()
