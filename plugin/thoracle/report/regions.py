"""Outlines: of the part of an image that was looked at, and of what a positive result rests on.

Those of the salient places are contours of the map of contributions, by contourpy (marching
squares). A contour of a fine map has thousands of corners, of which a presentation state or a
report needs a few dozen.
"""

from typing import Final

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from thoracle.records import Box, Region, Saliency

LEVEL: Final = 0.5
"""Share of the map's maximum at which a place counts as salient."""
SPECK: Final = 0.1
"""Outlines are dropped whose contribution is below this share of the largest one's."""
MOST_REGIONS: Final = 4
"""Outlines that are kept at most."""
MOST_CORNERS: Final = 60
"""Corners that an outline has at most, the last of which is the first again."""
DECIMALS: Final = 2
"""Digits of a coordinate behind the point, in pixels."""

INSET: Final = 0.04
"""Share of the image, at each side, that a frame keeps free: a viewer writes beside it."""

_FINEST = 64
"""Rows and columns of a map that is outlined, at most: a finer one is made smaller, because it
has no more to tell (a network's last feature maps have a few dozen) but jagged edges."""


def frame(lung_box: Box | None, rows: int, columns: int) -> tuple[tuple[float, float], ...]:
    """Return the outline of the part of an image that was looked at, inside the image by a margin.

    Parameters
    ----------
    lung_box
        That part, in pixels; ``None``: the whole image.
    rows, columns
        Of the image.

    Returns
    -------
    tuple
        Corners as in :class:`Region`: five, the last of which is the first.
    """
    box = lung_box or Box(0, 0, columns, rows)
    left, right = (_inside(edge, columns) for edge in (box.left, box.right))
    top, bottom = (_inside(edge, rows) for edge in (box.top, box.bottom))
    return (left, top), (right, top), (right, bottom), (left, bottom), (left, top)


def _inside(edge: float, length: int) -> float:
    return round(min(max(edge, INSET * length), (1 - INSET) * length), DECIMALS)


def regions(saliency: Saliency, rows: int, columns: int) -> tuple[Region, ...]:
    """Return outlines of what speaks most for the positive class; holes in it are left out.

    Parameters
    ----------
    saliency
        Its map is stretched over the whole image: the place (i, j) of a map of n x m places has
        its centre at the row (i + 0.5) / n * rows and column (j + 0.5) / m * columns.
    rows, columns
        Of the image that is outlined.

    Returns
    -------
    tuple of Region
        At most ``MOST_REGIONS``, the one with the largest contribution first; empty where no
        place speaks for the positive class. Corners are within 0 to ``columns`` and 0 to
        ``rows``.
    """
    positive = _reduced(np.maximum(saliency.contributions, 0))
    if not positive.any():
        return ()
    # A border of zeros closes what reaches the edge of the image.
    padded = np.pad(positive, 1)
    generator = contour_generator(z=padded, name="serial", fill_type=FillType.OuterOffset)
    level = LEVEL * float(padded.max())
    scale = np.array([columns, rows]) / np.array(positive.shape[::-1])
    found: list[tuple[float, Region]] = []
    for polygon, ends in zip(*generator.filled(level, np.inf), strict=True):
        ring = polygon[: ends[1] - 1]  # the outer one, without its repeated corner
        # The mask has the places that the outline touches, too.
        inside = padded[_within(ring, padded.shape) & (padded >= level)]
        # -0.5: the border is one place wide, and a place's centre is half a place inside it.
        corners = np.clip((ring - 0.5) * scale, 0, [columns, rows])
        region = Region(_closed(_simplified(corners)), float(inside.mean(dtype=np.float64)))
        found.append((float(inside.sum(dtype=np.float64)), region))
    found.sort(key=lambda pair: -pair[0])
    return tuple(r for total, r in found[:MOST_REGIONS] if total >= SPECK * found[0][0])


def _reduced(contributions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map of at most ``_FINEST`` rows and columns, each place the mean of its area."""
    rows, columns = contributions.shape
    size = (min(columns, _FINEST), min(rows, _FINEST))
    return np.asarray(Image.fromarray(contributions).resize(size, Image.Resampling.BOX))


def _within(ring: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the places inside or at an outline, as a mask of the map's shape."""
    mask = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in ring], fill=1)
    return np.asarray(mask)


def _simplified(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return fewer corners: again and again the one is dropped that changes the area least.

    References
    ----------
    M. Visvalingam, J. D. Whyatt: Line generalisation by repeated elimination of points.
    The Cartographic Journal 30 (1993), 46-51.
    """
    while len(ring) > MOST_CORNERS - 1:
        before, after = np.roll(ring, 1, axis=0) - ring, np.roll(ring, -1, axis=0) - ring
        areas = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
        ring = np.delete(ring, areas.argmin(), axis=0)
    return ring


def _closed(ring: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    corners = [(round(float(x), DECIMALS), round(float(y), DECIMALS)) for x, y in ring]
    return (*corners, corners[0])
