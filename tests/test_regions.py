"""Outlines of salient places: where they are, which are kept, and what they look like."""

import numpy as np
import pytest
from numpy.typing import NDArray

from thoracle.records import Region, Saliency
from thoracle.report.regions import MOST_CORNERS, MOST_REGIONS, regions

ROWS, COLUMNS = 2000, 1600


def hill(
    row: float, column: float, width: float = 0.1, size: tuple[int, int] = (64, 64)
) -> NDArray[np.float32]:
    """Return a Gaussian of height 1; place and standard deviation are shares of the image."""
    y, x = (np.mgrid[0 : size[0], 0 : size[1]].T + 0.5).T / np.reshape(size, (2, 1, 1))
    distance = (y - row) ** 2 + (x - column) ** 2
    values: NDArray[np.float32] = np.exp(-distance / (2 * width**2)).astype(np.float32)
    return values


def outlined(contributions: NDArray[np.float32]) -> tuple[Region, ...]:
    return regions(Saliency(contributions), ROWS, COLUMNS)


def box(region: Region) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom."""
    x, y = np.array(region.outline).T
    return float(x.min()), float(x.max()), float(y.min()), float(y.max())


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (50, 300), (28, 28)])
def test_an_outline_is_where_the_map_has_half_its_maximum(size: tuple[int, int]) -> None:
    (found,) = outlined(hill(0.3, 0.6, size=size))
    radius = 0.1 * np.sqrt(2 * np.log(2))  # of a Gaussian at half its height
    expected = (0.6 - radius, 0.6 + radius, 0.3 - radius, 0.3 + radius)
    shares = np.array(box(found)) / (COLUMNS, COLUMNS, ROWS, ROWS)
    assert shares == pytest.approx(expected, abs=0.01)


def test_a_single_place_is_outlined_around_its_centre() -> None:
    contributions = np.zeros((8, 4), np.float32)
    contributions[5, 1] = 2
    (found,) = outlined(contributions)
    # Halfway to the centres of its neighbours, of which each place has ROWS / 8 and COLUMNS / 4.
    assert box(found) == (400, 800, 1250, 1500)
    assert found.saliency == 2


def test_the_saliency_of_a_region_is_the_mean_inside() -> None:
    contributions = np.full((32, 32), -1, np.float32)
    contributions[4:12, 4:12] = 3
    contributions[20:28, 4:12] = 2
    assert [region.saliency for region in outlined(contributions)] == [3, 2]


@pytest.mark.parametrize(("row", "column"), [(0, 0.5), (1, 1), (0.5, 0)])
def test_a_region_at_the_border_is_closed_within_the_image(row: float, column: float) -> None:
    (found,) = outlined(hill(row, column))
    assert found.outline[0] == found.outline[-1]
    left, right, top, bottom = box(found)
    assert (left, right)[round(column)] == column * COLUMNS if column != 0.5 else 0 < left < right
    assert (top, bottom)[round(row)] == row * ROWS if row != 0.5 else 0 < top < bottom


@pytest.mark.parametrize("value", [0, -1])
def test_nothing_is_outlined_where_nothing_speaks_for_the_positive_class(value: float) -> None:
    assert outlined(np.full((16, 16), value, np.float32)) == ()


def test_the_largest_contribution_comes_first_and_specks_are_dropped() -> None:
    high_and_narrow, low_and_wide, speck = (
        hill(0.2, 0.2, 0.05),
        0.8 * hill(0.7, 0.7, 0.1),
        0.9 * hill(0.2, 0.8, 0.015),
    )
    wide, narrow = outlined(high_and_narrow + low_and_wide + speck)
    assert box(wide)[0] > COLUMNS / 2
    assert box(narrow)[1] < COLUMNS / 2


def test_a_few_regions_are_enough() -> None:
    contributions = np.zeros((64, 64), np.float32)
    contributions[8::16, 8::16] = 1
    assert len(outlined(contributions)) == MOST_REGIONS


def test_a_hole_is_not_outlined() -> None:
    (ring,) = outlined(hill(0.5, 0.5, 0.2) - hill(0.5, 0.5, 0.05))
    left, right, _, _ = box(ring)
    assert right - left > 0.4 * COLUMNS


@pytest.mark.parametrize("seed", range(20))
def test_an_outline_of_noise_is_closed_within_the_image_and_has_few_corners(seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = random.normal(size=random.integers(1, 200, 2)).astype(np.float32)
    found = outlined(noise)
    assert bool(found) is bool((noise > 0).any())
    assert found == outlined(noise.copy())
    for region in found:
        assert region.outline[0] == region.outline[-1]
        assert 4 <= len(region.outline) <= MOST_CORNERS
        corners = np.array(region.outline)
        assert (corners >= 0).all()
        assert (corners <= (COLUMNS, ROWS)).all()
        assert (np.round(corners, 2) == corners).all()


def test_fewer_corners_keep_the_shape() -> None:
    y, x = np.mgrid[0:64, 0:64] / 64 - 0.5
    star = 0.3 + 0.1 * np.sin(7 * np.arctan2(y, x)) - np.hypot(x, y)
    (found,) = outlined(np.clip(star * 30, 0, 1).astype(np.float32))
    x, y = np.array(found.outline).T
    area = abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
    assert len(found.outline) == MOST_CORNERS
    assert area / (ROWS * COLUMNS) == pytest.approx((star > 0.5 / 30).mean(), rel=0.02)
