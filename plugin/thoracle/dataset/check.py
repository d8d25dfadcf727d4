"""What is found in a set of images: one value, which the terminal, JSON and a split file tell."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from typing import Any

from thoracle.dataset import groups
from thoracle.dataset.fingerprint import Fingerprint
from thoracle.dataset.groups import Measured, Place
from thoracle.dataset.layout import PARTS, Entry, Part
from thoracle.dataset.shortcuts import UNLABELLED, Shortcut, shortcuts
from thoracle.errors import NotAnalysable


@dataclass(frozen=True, slots=True)
class Near:
    """Two images that look the same and are not."""

    one: str
    other: str
    bits_apart: int
    """Of the 256 bits of their perceptual hashes."""
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
class Report:
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


def check(found: Iterable[tuple[Entry, Fingerprint | NotAnalysable]]) -> Report:
    """Return what is found in files that were measured, given in order of their names."""
    unreadable: dict[str, str] = {}
    images: list[Measured] = []
    for entry, one in found:
        if isinstance(one, Fingerprint):
            images.append(groups.measured(entry, one))
        else:
            unreadable[entry.name] = one.detail
    copies, patients = groups.copies(images), groups.patients(images)
    near = groups.near_copies(images) if images else []
    alike = [*groups.clusters(images), *([one, other] for one, other, _ in near)]
    return Report(
        images=tuple(images),
        unreadable=unreadable,
        copies=tuple(_alike(images, positions) for positions in copies),
        near_copies=tuple(_near(images[one], images[other], bits) for one, other, bits in near),
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


def _near(one: Measured, other: Measured, bits: int) -> Near:
    across = one.entry.part != other.entry.part
    return Near(one.entry.name, other.entry.name, bits, across)


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
