"""Images that must stay together: copies, near copies, and those of one patient.

A group is in one part of the split only. Where it spans several, Prediction wins over Val, and
Val over Train: what an evaluation sees must never have been trained on.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO

import numpy as np
from numpy.typing import NDArray

from thoracle.dataset.fingerprint import Fingerprint
from thoracle.dataset.layout import PARTS, Entry, Part, patient

MOST_BITS_APART = 52
"""Of 256 bits of the perceptual hash, in near copies."""
LEAST_CORRELATION = 0.94
"""Of thumbnails of 32 x 32 cells, in near copies.

Of 1.25 million pairs of chest radiographs, the copies (scaled, sharpened, with lettering) were up
to 50 bits apart and correlated with 0.951 or more; the nearest two patients were 54 bits apart.
"""
_ROWS_AT_ONCE = 512  # keeps the matrix of all pairs out of memory


@dataclass(frozen=True, slots=True)
class Measured:
    """An image that could be read, with all that is known of it."""

    entry: Entry
    fingerprint: Fingerprint
    patient: str
    """The same on all images of a patient; nothing if unknown."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image goes in a split without leaks."""

    image: Measured
    group: int
    """1, 2, 3, ... in order of the first name in each group."""
    part: Part


def measured(entry: Entry, fingerprint: Fingerprint) -> Measured:
    """Return an image with its patient."""
    return Measured(entry, fingerprint, patient(entry))


def copies(images: Sequence[Measured]) -> list[list[int]]:
    """Return positions of images whose decoded pixels are identical, sets of two or more."""
    return _alike([image.fingerprint.pixels_sha256 for image in images])


def clusters(images: Sequence[Measured]) -> list[list[int]]:
    """Return positions of images that the manifest calls duplicates, sets of two or more."""
    return _alike([image.entry.row.get("dup_cluster", "") for image in images])


def patients(images: Sequence[Measured]) -> list[list[int]]:
    """Return positions of images of the same patient, sets of two or more."""
    return _alike([image.patient for image in images])


def _alike(keys: Iterable[Hashable]) -> list[list[int]]:
    """Return the positions that share a key other than nothing."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        if key:
            places[key].append(position)
    return [found for found in places.values() if len(found) > 1]


def near_copies(images: Sequence[Measured]) -> list[tuple[int, int, int]]:
    """Return pairs that look the same and are no exact copies: two positions and bits apart."""
    signs = np.array([image.fingerprint.bits for image in images], np.float32) * 2 - 1
    thumbnails = np.array([image.fingerprint.thumbnail for image in images])
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(images), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        apart = (signs.shape[1] - signs[rows] @ signs.T) / 2
        alike = thumbnails[rows] @ thumbnails.T >= LEAST_CORRELATION
        for row, column in np.argwhere((apart <= MOST_BITS_APART) & alike).tolist():
            one, other = images[start + row].fingerprint, images[column].fingerprint
            if start + row < column and one.pixels_sha256 != other.pixels_sha256:
                found.append((start + row, column, int(apart[row, column])))
    return found


def groups(images: Sequence[Measured], listed: Sequence[Sequence[int]]) -> list[int]:
    """Return the number of each image's group: whoever shares a list is in one group.

    Parameters
    ----------
    images
        In order of their names, so that numbers do not depend on anything else.
    listed
        Positions of images that belong together.
    """
    parent = list(range(len(images)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = position = parent[parent[position]]
        return position

    for first, *others in listed:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low  # the root is always the first by name
    roots = [root(position) for position in range(len(images))]
    numbers = {first: number for number, first in enumerate(dict.fromkeys(roots), 1)}
    return [numbers[first] for first in roots]


def places(images: Sequence[Measured], numbers: Sequence[int]) -> list[Place]:
    """Return a split without leaks; of exact copies one stays, of those with two labels none.

    Parameters
    ----------
    images
        In order of their names.
    numbers
        The group of each.
    """
    parts: dict[int, Part] = {}
    for image, number in zip(images, numbers, strict=True):
        parts[number] = max(parts.get(number, Part.NONE), image.entry.part, key=PARTS.index)
    same: dict[str, list[Place]] = defaultdict(list)
    for image, number in zip(images, numbers, strict=True):
        same[image.fingerprint.pixels_sha256].append(Place(image, number, parts[number]))
    kept = (
        next((one for one in found if one.image.entry.part == one.part), found[0])
        for found in same.values()
        if len(labels(one.image for one in found)) <= 1
    )
    return sorted(kept, key=lambda place: place.image.entry.name)


def labels(images: Iterable[Measured]) -> set[str]:
    """Return the labels that are stated of these images."""
    return {image.entry.label for image in images} - {""}


def split_file(found: Iterable[Place]) -> str:
    """Return the text of a split file: path, sha256, label, group, split; paths as in the check."""
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("path", "sha256", "label", "group", "split"))
    for place in found:
        entry = place.image.entry
        sha256 = place.image.fingerprint.sha256
        lines.writerow((entry.name, sha256, entry.label, place.group, place.part.value))
    return text.getvalue()


# ---- crops ---------------------------------------------------------------------------------------
# Copies of which a border was cut off: the middle of one image is looked for in every other.
#
# A window of the other image is compared with the middle by the correlation of their values,
# first coarsely in all pairs, then finely in those that are left. Publications and collections
# cut and letter the same radiograph anew, and a hash of the whole image does not see that.

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
