"""Images that must stay together: copies, near copies, and those of one patient.

A group is in one part of the split only. Where it spans several, Prediction wins over Val, and
Val over Train: what an evaluation sees must never have been trained on.
"""

import csv
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO

import numpy as np

from thoracle.dataset.fingerprint import Fingerprint
from thoracle.dataset.layout import PARTS, Entry, Part
from thoracle.dataset.patients import patient

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
