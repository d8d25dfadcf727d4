"""The picture with a heat map: nothing hidden, nothing coloured without cause, all to be read."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from radiographs import lungs
from sources import FINDING
from thoracle.image import pixels
from thoracle.records import (
    BundleIdentity,
    Decision,
    Image,
    Outcome,
    Reading,
    Reason,
    Region,
    Saliency,
)
from thoracle.report import heatmap
from thoracle.report.heatmap import FRAME, OUTLINE, TEXT_HEIGHT, Words

BUNDLE = BundleIdentity("covid_cxr", "0.1.0", "5f" * 32, Decision(0.5, 0.4, 0.6), "none", FINDING)
CAPTION = heatmap.caption(Reading("1", "2", Outcome.POSITIVE, probability=0.9125), BUNDLE)
NOTHING = Saliency(np.full((16, 16), -1, np.float32))
SIZES = [(512, 512), (853, 512), (512, 870), (1200, 1000)]
each_size = pytest.mark.parametrize(("rows", "columns"), SIZES)


def even(rows: int = 512, columns: int = 512, grey: float = 0.5) -> Image:
    return Image(np.full((1, rows, columns), grey, np.float32))


def chest() -> Image:
    return Image((lungs()[np.newaxis] / 4095).astype(np.float32))


def slope() -> Saliency:
    """Return what grows from nothing on the left to its maximum on the right."""
    return Saliency(np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1)))


def render(
    image: Image,
    saliency: Saliency = NOTHING,
    *regions: Region,
    words: tuple[Words, ...] = CAPTION,
) -> NDArray[np.uint8]:
    return heatmap.render(image, saliency, regions, words)


def shown(picture: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return where the radiograph is in the picture of an even grey one without saliency."""
    grey = (picture == 128).all(axis=2)
    rows = np.flatnonzero(grey.mean(axis=1) > 0.3)
    columns = np.flatnonzero(grey[: rows[-1]].mean(axis=0) > 0.9)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def test_the_caption_says_outcome_probability_rule_model_and_status_in_this_order() -> None:
    assert [words.text for words in CAPTION] == [
        "Positive for COVID-19",
        "probability 91.25 %",
        "positive from 60 %, negative below 40 %, indeterminate between",
        "covid_cxr 0.1.0",
        "AI - research - not for diagnosis",
    ]


def test_the_caption_of_what_was_not_analysed_has_the_reason_and_no_probability() -> None:
    reading = Reading("1", "2", Outcome.REJECTED, Reason.NOT_FRONTAL)
    text = [words.text for words in heatmap.caption(reading, BUNDLE)]
    assert text[:2] == ["Not analysed", "View is not frontal"]
    assert not any("%" in part for part in text)


@each_size
def test_a_quiet_picture_is_small_grey_and_framed_and_has_no_colour_bar(
    rows: int, columns: int
) -> None:
    image = even(rows * 3, columns * 3)
    corners = ((300.0, 400.0), (900.0, 400.0), (900.0, 800.0), (300.0, 800.0), (300.0, 400.0))
    plain = heatmap.render(image, None, (), CAPTION)
    framed = heatmap.render(image, None, (), CAPTION, corners)
    assert max(plain.shape) == heatmap.QUIET
    where = shown(plain)
    assert (plain[where] == 128).all()
    changed = (plain != framed).any(axis=2)
    assert {tuple(pixel) for pixel in framed[changed]} == {FRAME}
    scale = (where[0].stop - where[0].start) / (rows * 3)
    y, x = np.nonzero(changed)
    found = [x.min() - where[1].start, x.max() - where[1].start, y.min(), y.max()]
    assert found == pytest.approx(np.array([300, 900, 400, 800]) * scale, abs=3)
    with_bar = heatmap.render(even(*plain.shape[:2]), NOTHING, (), CAPTION)
    assert shown(plain)[0].stop >= shown(with_bar)[0].stop


def test_what_has_no_picture_is_told_in_words() -> None:
    made = heatmap.card(heatmap.caption(Reading("1", "2", Outcome.REJECTED, Reason.FLAT), BUNDLE))
    assert made.shape == (512, 512, 3)
    assert (made.max(axis=(1, 2)) > 100).sum() >= 2 * 10
    assert (made.max(axis=2) > 100).mean() < 0.1


@each_size
def test_the_picture_has_the_size_of_the_radiograph(rows: int, columns: int) -> None:
    picture = render(even(rows, columns), slope())
    assert picture.shape == (rows, columns, 3)
    assert picture.dtype == np.uint8


@each_size
def test_the_whole_radiograph_is_shown_in_its_proportions(rows: int, columns: int) -> None:
    picture = render(even(rows, columns))
    where = shown(picture)
    assert (picture[where] == 128).all()
    height, width = picture[where].shape[:2]
    assert where[0].start == 0
    assert abs(where[1].start - (columns - where[1].stop)) <= 1
    assert height / width == pytest.approx(rows / columns, rel=0.01)
    assert height > 0.7 * rows


def test_the_edges_of_the_radiograph_are_shown() -> None:
    framed = even(800, 700)
    framed.array[0, :4] = framed.array[0, -4:] = 1
    framed.array[0, :, :4] = framed.array[0, :, -4:] = 1
    where = shown(render(even(800, 700)))
    part = render(framed)[where]
    for edge in (part[0], part[-1], part[:, 0], part[:, -1]):
        assert (edge > 230).all()


@each_size
def test_caption_and_colour_bar_stand_below_the_radiograph(rows: int, columns: int) -> None:
    picture = render(even(rows, columns))
    bottom = shown(picture)[0].stop
    band = picture[bottom:]
    written = band.max(axis=(1, 2)) > 100
    # Runs of rows with text are lines: at least two, each as high as its letters have to be.
    starts = np.flatnonzero(np.diff(written.astype(int), prepend=0) == 1)
    assert len(starts) >= 2
    assert written.sum() / len(starts) >= 0.7 * TEXT_HEIGHT * columns
    assert (band.max(axis=2) - band.min(axis=2)).max() > 50  # the bar and the warning


def test_text_can_be_read_at_512_pixels() -> None:
    assert TEXT_HEIGHT * 512 >= 14


def test_other_words_change_nothing_but_the_band() -> None:
    image, saliency = chest(), slope()
    negative = heatmap.caption(Reading("1", "2", Outcome.NEGATIVE, probability=0.01), BUNDLE)
    one, other = render(image, saliency), render(image, saliency, words=negative)
    bottom = shown(render(even()))[0].stop
    assert (one[:bottom] == other[:bottom]).all()
    assert (one[bottom:] != other[bottom:]).any()


@each_size
def test_long_names_are_wrapped_and_not_cut(rows: int, columns: int) -> None:
    long = (
        *CAPTION,
        Words("a name that never ends, " * 8, (255, 255, 255)),
        Words("W" * 90, (9, 200, 9)),
    )
    band = render(even(rows, columns), words=long)[
        shown(render(even(rows, columns), words=long))[0].stop :
    ]
    margin = columns // 100
    assert (band[:, -margin:] == 0).all()
    assert (band[-2:] == 0).all()
    letters = band[..., 1].astype(int) - band[..., 0] > 100
    assert letters.sum(axis=1).max() > 5  # the last of the words is there


def test_without_contributions_the_radiograph_stays_grey() -> None:
    image = chest()
    rows, _ = shown(render(even()))
    part = render(image)[rows].astype(int)
    assert (part.max(axis=2) == part.min(axis=2)).all()
    assert part.std() > 30


def test_colour_grows_with_the_contribution() -> None:
    where = shown(render(even()))
    row = render(even(), slope())[where][100].astype(int)
    change = np.linalg.norm(row - 128, axis=1)
    assert change[0] == 0
    assert (np.diff(change[:: len(change) // 16]) > 0).all()


def test_higher_colours_are_lighter() -> None:
    luma = np.array(heatmap.RAMP) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luma) > 10).all()


def test_detail_of_the_lung_stays_visible_below_the_strongest_colour() -> None:
    stripes = even(1024, 1024)
    stripes.array[0, :, (np.arange(1024) // 64) % 2 == 0] = 0.2
    everywhere = Saliency(np.ones((8, 8), np.float32))
    _, columns = shown(render(even(1024, 1024)))
    plain = render(stripes)[200, columns].astype(int).mean(axis=1)
    below = render(stripes, everywhere)[200, columns].astype(int).mean(axis=1)
    assert np.ptp(below) >= 0.45 * np.ptp(plain)


def test_outlines_are_drawn_where_the_regions_are() -> None:
    corners = ((100.0, 200.0), (400.0, 200.0), (400.0, 600.0), (100.0, 600.0), (100.0, 200.0))
    picture = render(even(1000, 800), NOTHING, Region(corners, 1.0))
    rows, columns = shown(render(even(1000, 800)))
    y, x = np.nonzero((picture == OUTLINE).all(axis=2))
    scale = (rows.stop - rows.start) / 1000
    found = [x.min() - columns.start, x.max() - columns.start, y.min(), y.max()]
    assert found == pytest.approx(np.array([100, 400, 200, 600]) * scale, abs=3)


def test_monochrome1_and_its_compressed_form_look_the_same_each_time() -> None:
    pictures = []
    for name in ("RG1_UNCR.dcm", "RG1_J2KR.dcm"):
        path = get_testdata_file(name, download=False)
        assert isinstance(path, str)
        image = pixels.read_image(Path(path))
        pictures += [render(image, slope()) for _ in range(2)]
    assert all((picture == pictures[0]).all() for picture in pictures)
    # Bright is dense: the mediastinum is brighter than the lung beside it.
    rows, columns = pictures[0].shape[:2]
    grey = render(image).mean(axis=2)
    assert grey[rows // 3, columns // 2] > grey[rows // 3, columns // 3] + 30
