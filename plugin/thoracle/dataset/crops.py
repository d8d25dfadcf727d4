"""Copies of which a border was cut off: the middle of one image is looked for in every other.

A window of the other image is compared with the middle by the correlation of their values, first
coarsely in all pairs, then finely in those that are left. Publications and collections cut and
letter the same radiograph anew, and a hash of the whole image does not see that.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIDDLE = 0.72
"""Side of the middle that is looked for, of the shorter side of its image."""
SMALLEST = 0.45
"""Side of the smallest window that is looked at, of the shorter side of its image."""
STEP = 1.08
"""From the side of a window to that of the next larger one."""
LEAST_STEP = 0.1
"""By which a window is moved at last, in pixels of the small image."""
COARSE, FINE = 12, 40
"""Rows and columns in which a window is compared."""
COARSE_CORRELATION = 0.97
LEAST_CROP_CORRELATION = 0.99
"""Of the values in a window, in copies.

Among 1.25 million pairs of chest radiographs from five collections, cropped copies correlated with
0.993 or more (0.974 or more coarsely), and different patients with 0.987 or less. Two images of
one patient, taken at two occasions, correlated with 0.991: no copies, and yet to be kept in one
part.
"""

Small = NDArray[np.float32]
Watch = Callable[[list[Small]], Iterable[Small]]


@dataclass(frozen=True, slots=True)
class _Grid:
    """Square windows of one size in an image: in each row of windows, in each column."""

    columns: NDArray[np.float64]
    """``(across,)`` of the left edges, pixels."""
    rows: NDArray[np.float64]
    """``(down,)`` of the upper edges, pixels."""
    side: float

    def window(self, number: int) -> "_Grid":
        """Return one of the windows, counted row by row."""
        row, column = divmod(number, len(self.columns))
        return _Grid(self.columns[column : column + 1], self.rows[row : row + 1], self.side)


def cropped_copies(images: Sequence[Small], watch: Watch = iter) -> list[tuple[int, int, float]]:
    """Return pairs that show the same with another border: two positions and their correlation.

    Parameters
    ----------
    images
        ``(rows, columns)`` of any size and shape, scaled alike in both directions.
    watch
        Passes the images on while they are compared, e.g. to draw a progress bar.
    """
    middles = np.concatenate([_values(image, _middle(image), COARSE) for image in images])
    found: dict[tuple[int, int], float] = {}
    for position, image in enumerate(watch(list(images))):
        grids = list(_grids(image))
        scores = [_values(image, grid, COARSE) @ middles.T for grid in grids]
        best = np.array([score.max(axis=0) for score in scores])
        for other in np.flatnonzero(best.max(axis=0) >= COARSE_CORRELATION).tolist():
            pair = (min(position, other), max(position, other))
            if position != other and found.get(pair, 0) < LEAST_CROP_CORRELATION:
                number = int(best[:, other].argmax())
                start = grids[number].window(int(scores[number][:, other].argmax()))
                found[pair] = max(found.get(pair, 0), _refined(image, start, images[other]))
    return [
        (*pair, score) for pair, score in sorted(found.items()) if score >= LEAST_CROP_CORRELATION
    ]


def _middle(image: Small) -> _Grid:
    rows, columns = image.shape
    side = MIDDLE * min(rows, columns)
    return _Grid(np.array([(columns - side) / 2]), np.array([(rows - side) / 2]), side)


def _grids(image: Small) -> Iterator[_Grid]:
    """Yield windows of all sizes and places, about a twelfth of their side apart."""
    shorter = min(image.shape)
    side = SMALLEST * shorter
    while side <= shorter:
        down, across = (
            np.linspace(0, length - side, 1 + round((length - side) * 12 / side))
            for length in image.shape
        )
        yield _Grid(across, down, side)
        side *= STEP


def _values(image: Small, grid: _Grid, cells: int) -> Small:
    """Return ``(windows, cells * cells)`` values, each row of mean 0 and length 1."""
    rows, columns = image.shape
    down = _weights(grid.rows, grid.side, cells, rows)
    across = _weights(grid.columns, grid.side, cells, columns)
    values = (down @ image @ across.T).reshape(len(grid.rows), cells, len(grid.columns), cells)
    windows = values.transpose(0, 2, 1, 3).reshape(-1, cells * cells)
    windows = windows - windows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(windows, axis=1, keepdims=True)
    return np.asarray(windows / np.maximum(lengths, 1e-6), np.float32)


def _weights(edges: NDArray[np.float64], side: float, cells: int, length: int) -> Small:
    """Return ``(windows * cells, length)``: how much of each pixel is in each cell.

    A tent as wide as two cells, or two pixels when these are larger: linear interpolation.
    """
    width = side / cells
    centres = (edges[:, None] + (np.arange(cells) + 0.5) * width).reshape(-1, 1)
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centres) / max(1, width))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _refined(image: Small, start: _Grid, other: Small) -> float:
    """Return the best correlation of the other's middle with windows near the one given."""
    middle = _values(other, _middle(other), FINE)[0]
    best, step, score = start, start.side / 24, -1.0
    while step > LEAST_STEP:
        better = score
        for grid in _near(best, step, image):
            scores = _values(image, grid, FINE) @ middle
            if scores.max() > better:
                better, found = float(scores.max()), grid.window(int(scores.argmax()))
        if better > score:
            score, best = better, found
        else:
            step /= 2
    return score


def _near(window: _Grid, step: float, image: Small) -> Iterator[_Grid]:
    """Yield windows a step smaller, as large, and a step larger, moved by a step each way."""
    for wider in (-step, 0.0, step):
        side = min(window.side + wider, *image.shape)
        moved = np.array([-step, 0.0, step]) - wider / 2
        rows, columns = image.shape
        yield _Grid(
            np.clip(window.columns + moved, 0, columns - side),
            np.clip(window.rows + moved, 0, rows - side),
            side,
        )
