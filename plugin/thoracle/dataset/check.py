"""What is found in a set of images: one value, which the terminal, JSON and a split file tell."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thoracle.dataset import groups
from thoracle.dataset.fingerprint import Fingerprint
from thoracle.dataset.groups import Measured, Place
from thoracle.dataset.layout import PARTS, Entry, Part
from thoracle.errors import NotAnalysable

# ---- shortcuts -----------------------------------------------------------------------------------
# How well the class is predicted without looking at the picture: by the file, or its origin.
#
# The rule is fitted where the model would be trained and counted elsewhere, as the model would
# be.

POSITIVE = "covid"
UNLABELLED = ("", "unknown", "todo")
ORIGIN = ("source_repo", "age_group", "view")
"""Columns of the manifest that should not tell the class either."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """The best rule on one property of the file."""

    name: str
    """Of the property or column; ``nothing`` for the guess that all are of the commoner class."""
    rule: str
    """E.g. ``channels > 1.5``: then the image is taken for COVID-19."""
    accuracy: dict[str, float]
    """Share of images, 0 to 1, that the rule puts into their class, for each part."""


def shortcuts(images: Sequence[Measured]) -> list[Shortcut]:
    """Return the best rule for each property, the most telling first.

    COVID-19 is one class and every other label the other; images without a label do not count.
    Rules are fitted on Train, or on all images when Train lacks a class. Without two classes
    there is nothing to predict, and the list is empty.
    """
    images = [image for image in images if image.entry.label not in UNLABELLED]
    truth = np.array([image.entry.label == POSITIVE for image in images], np.bool_)
    parts = np.array([image.entry.part.value for image in images])
    fitted = parts == Part.TRAIN.value
    if len(set(truth[fitted])) < 2:
        fitted = np.ones_like(truth)
    if len(set(truth[fitted])) < 2:
        return []
    commoner = bool(truth[fitted].mean() >= 0.5)
    guess = "always" if commoner else "never"
    found = [Shortcut("nothing", guess, _accuracy(truth == commoner, parts))]
    for name, values in _properties(images).items():
        best_rule = _threshold if values.dtype.kind in "if" else _categories
        if len(set(values[fitted])) > 1:
            text, said = best_rule(name, values, truth, fitted)
            found.append(Shortcut(name, text, _accuracy(said == truth, parts)))
    shown = Part.VAL.value if Part.VAL.value in parts else str(parts[0])
    return sorted(found, key=lambda one: -one.accuracy[shown])


def _properties(images: Sequence[Measured]) -> dict[str, NDArray[Any]]:
    """Return the values of each property, and of each column that a manifest has."""
    found = {
        name: np.array([image.fingerprint.properties[name] for image in images])
        for name in images[0].fingerprint.properties
    }
    for column in ORIGIN:
        found[column] = np.array([image.entry.row.get(column, "") for image in images])
    return found


def _accuracy(right: NDArray[np.bool_], parts: NDArray[np.str_]) -> dict[str, float]:
    return {str(part): round(float(right[parts == part].mean()), 4) for part in np.unique(parts)}


def _threshold(
    name: str, values: NDArray[np.float64], truth: NDArray[np.bool_], fitted: NDArray[np.bool_]
) -> tuple[str, NDArray[np.bool_]]:
    """Return the best rule "more than" or "less than", and what it says of each image."""
    steps, index = np.unique(values[fitted], return_inverse=True)
    positive = np.bincount(index, truth[fitted], len(steps))
    signed = 2 * positive - np.bincount(index, minlength=len(steps))
    # Right answers of "more than step" beyond those of "always not", for each step but the last.
    gain = signed.sum() - np.cumsum(signed)[:-1]
    more, most = int(np.argmax(gain)), int(np.argmin(gain))
    above = gain[more] >= signed.sum() - gain[most]
    step = more if above else most
    limit = float(steps[step] + steps[step + 1]) / 2
    said = values > limit
    return f"{name} {'>' if above else '<'} {limit:g}", said if above else ~said


def _categories(
    name: str, values: NDArray[np.str_], truth: NDArray[np.bool_], fitted: NDArray[np.bool_]
) -> tuple[str, NDArray[np.bool_]]:
    """Return the values that mostly mean COVID-19, and what they say of each image."""
    score: Counter[str] = Counter()
    for value, positive in zip(values[fitted], truth[fitted], strict=True):
        score[str(value)] += 1 if positive else -1
    telling = sorted(value for value, votes in score.items() if votes > 0)
    return f"{name} is {' or '.join(telling) or 'nothing'}", np.isin(values, telling)


# ---- report --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Near:
    """Two images that look the same and are not."""

    one: str
    other: str
    how: str
    """What was measured, e.g. ``14 of 256 bits apart``."""
    across: bool
    """Whether they lie in different parts."""


@dataclass(frozen=True, slots=True)
class Alike:
    """Images with the same pixels, or of the same patient."""

    names: tuple[str, ...]
    parts: tuple[str, ...]
    """Where they lie, each part once, in rising order."""
    patient: str = ""

    @property
    def across(self) -> bool:
        """Whether they lie in more than one part."""
        return len(self.parts) > 1


@dataclass(frozen=True, slots=True)
class Leak:
    """What one part knows of another that it should know nothing of."""

    part: str
    knows: str
    copies: int
    """Images of ``part`` with an exact copy in ``knows``."""
    near_copies: int
    """Images of ``part`` with a near copy in ``knows``, or one that the manifest calls a duplicate;
    they may have an exact one as well."""
    patients: int
    """Images of ``part`` whose patient has another image in ``knows``: one that is no copy or near
    copy of any image in ``part``, so that it would still be there when copies are taken out."""


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What was found."""

    images: tuple[Measured, ...]
    """All that could be read, in order of their names."""
    unreadable: dict[str, str]
    """Name to reason."""
    copies: tuple[Alike, ...]
    """Sets of two or more images with the same decoded pixels."""
    near_copies: tuple[Near, ...]
    patients: tuple[Alike, ...]
    """Patients with images in more than one part."""
    leaks: tuple[Leak, ...]
    """One for each two parts that share something."""
    two_labels: tuple[tuple[str, ...], ...]
    """Sets of exact copies that are labelled differently."""
    changed: tuple[str, ...]
    """Images that are not the ones the manifest speaks of, by its column ``sha256``."""
    shortcuts: tuple[Shortcut, ...]
    places: tuple[Place, ...]
    """The split without leaks."""

    def counts(self) -> dict[tuple[Part, str], int]:
        """Return how many readable images each part has of each label."""
        return _counts((image.entry.part, image.entry.label) for image in self.images)

    def split_counts(self) -> dict[tuple[Part, str], int]:
        """Return the same for the split without leaks."""
        return _counts((place.part, place.image.entry.label) for place in self.places)

    def views(self) -> dict[str, list[str]]:
        """Return the names of labelled images that the manifest calls no frontal view, by view."""
        found: dict[str, list[str]] = defaultdict(list)
        for image in self.images:
            view = image.entry.row.get("view", "").strip()
            if view.upper() not in ("", "PA", "AP", "UNKNOWN") and _is_labelled(image):
                found[view].append(image.entry.name)
        return dict(sorted(found.items()))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "images": len(self.images),
            "counts": _nested(self.counts()),
            "unreadable": self.unreadable,
            "byte_copies": _repeated(image.fingerprint.sha256 for image in self.images),
            "copies": [asdict(one) for one in self.copies],
            "near_copies": [asdict(one) for one in self.near_copies],
            "patients_across": [asdict(one) for one in self.patients],
            "leaks": [asdict(one) for one in self.leaks],
            "two_labels": [list(names) for names in self.two_labels],
            "changed_since_manifest": list(self.changed),
            "views": self.views(),
            "shortcuts": [asdict(one) for one in self.shortcuts],
            "split": _nested(self.split_counts()),
        }


def check(
    found: Iterable[tuple[Entry, Fingerprint | NotAnalysable]], watch: groups.Watch | None = None
) -> DatasetReport:
    """Return what is found in files that were measured, given in order of their names.

    ``watch`` passes small images on while cropped copies are looked for, e.g. to show progress;
    without it they are not looked for, which takes most of the time.
    """
    unreadable: dict[str, str] = {}
    images: list[Measured] = []
    for entry, one in found:
        if isinstance(one, Fingerprint):
            images.append(groups.measured(entry, one))
        else:
            unreadable[entry.name] = one.detail
    copies, patients = groups.copies(images), groups.patients(images)
    near = _near_pairs(images, copies, watch) if images else {}
    alike = [*groups.clusters(images), *near]
    return DatasetReport(
        images=tuple(images),
        unreadable=unreadable,
        copies=tuple(_alike(images, positions) for positions in copies),
        near_copies=tuple(
            _near(images[one], images[other], how) for (one, other), how in near.items()
        ),
        patients=tuple(
            shared
            for positions in patients
            if (shared := _alike(images, positions, images[positions[0]].patient)).across
        ),
        leaks=tuple(_leaks(images, copies, alike, patients)),
        two_labels=tuple(
            tuple(images[position].entry.name for position in positions)
            for positions in copies
            if len(groups.labels(images[position] for position in positions)) > 1
        ),
        changed=tuple(image.entry.name for image in images if _is_changed(image)),
        shortcuts=tuple(shortcuts(images)),
        places=tuple(groups.places(images, groups.groups(images, [*copies, *alike, *patients]))),
    )


def _alike(images: Sequence[Measured], positions: Iterable[int], patient: str = "") -> Alike:
    found = [images[position].entry for position in positions]
    parts = sorted({entry.part for entry in found}, key=PARTS.index)
    return Alike(tuple(entry.name for entry in found), tuple(map(str, parts)), patient)


def _near_pairs(
    images: Sequence[Measured], copies: Sequence[Sequence[int]], watch: groups.Watch | None
) -> dict[tuple[int, int], str]:
    """Return the positions of near copies, and what tells that they are; exact copies left out."""
    small = [image.fingerprint.small for image in images]
    cropped = groups.cropped_copies(small, watch) if watch else []
    found = {(one, other): f"cropped, correlation {score:.3f}" for one, other, score in cropped}
    for one, other, bits in groups.near_copies(images):
        found[one, other] = f"{bits} of 256 bits apart"
    exact = {pair for positions in copies for pair in combinations(positions, 2)}
    return {pair: found[pair] for pair in sorted(found) if pair not in exact}


def _near(one: Measured, other: Measured, how: str) -> Near:
    across = one.entry.part != other.entry.part
    return Near(one.entry.name, other.entry.name, how, across)


def _leaks(
    images: Sequence[Measured],
    copies: Sequence[Sequence[int]],
    alike: Sequence[Sequence[int]],
    patients: Sequence[Sequence[int]],
) -> Iterable[Leak]:
    """Yield what each part shares with a lower one."""
    for knows, part in combinations(PARTS[1:], 2):
        same = _between(images, copies, part, knows)
        near = _between(images, alike, part, knows) - same
        seen = {other for _, other in same | near}
        related = {
            (one, other)
            for one, other in _between(images, patients, part, knows)
            if other not in seen
        }
        counts = [len({one for one, _ in found}) for found in (same, near, related)]
        if any(counts):
            yield Leak(part.value, knows.value, *counts)


def _between(
    images: Sequence[Measured], lists: Iterable[Sequence[int]], part: Part, knows: Part
) -> set[tuple[int, int]]:
    """Return the pairs within each list of an image in one part and one in the other."""
    return {
        (one, other)
        for positions in lists
        for one, other in product(positions, positions)
        if images[one].entry.part == part and images[other].entry.part == knows
    }


def _is_changed(image: Measured) -> bool:
    stated = image.entry.row.get("sha256", "").lower()
    return bool(stated) and stated != image.fingerprint.sha256


def _is_labelled(image: Measured) -> bool:
    return image.entry.label not in (*UNLABELLED, "other")


def _repeated(values: Iterable[str]) -> int:
    """Return how many values are there once more."""
    return sum(count - 1 for count in Counter(values).values())


def _counts(found: Iterable[tuple[Part, str]]) -> dict[tuple[Part, str], int]:
    counts = Counter(found)
    return {key: counts[key] for key in sorted(counts, key=lambda key: (PARTS.index(key[0]), key))}


def _nested(counts: dict[tuple[Part, str], int]) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = defaultdict(dict)
    for (part, label), number in counts.items():
        nested[part.value][label or "unlabelled"] = number
    return dict(nested)
