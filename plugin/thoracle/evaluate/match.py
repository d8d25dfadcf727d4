"""Which images a label is for, and what finds no partner."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from thoracle.errors import NotAnalysable
from thoracle.evaluate.labels import Label, Labels
from thoracle.image.codecs import MALFORMED
from thoracle.image.header import header_of

KEYWORDS = {
    "sop_instance_uid": "SOPInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
    "accession_number": "AccessionNumber",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A label with its images: one, or all of a study."""

    label: Label
    paths: tuple[Path, ...]


@dataclass(slots=True)
class Matched:
    """Cases, and by reason what became none: never silently."""

    cases: list[Case] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Note what is not evaluated."""
        self.left_out.setdefault(reason, []).append(name)


def match(labels: Labels, root: Path, images: list[Path]) -> Matched:
    """Return each label with its images.

    Parameters
    ----------
    labels
        As :func:`thoracle.evaluate.labels.read` gives them.
    root
        The folder or file that was named; paths in labels may be relative to it.
    images
        The files below ``root``.
    """
    matched = Matched()
    if labels.key == "path":
        find = _by_path(root, images, matched)
    else:
        find = _by_element(KEYWORDS[labels.key], images, matched)
    found = [(label, find(label.key)) for label in labels.rows]
    _decide(found, matched)
    used = {path for _, paths in found for path in paths}
    malformed = set(matched.left_out.get("images with a malformed header", ()))
    twice = set(matched.left_out.get("further files of the same SOP Instance", ()))
    for path in images:
        if path not in used and str(path) not in malformed | twice:
            matched.leave_out("images without a label", str(path))
    return matched


def _decide(found: list[tuple[Label, tuple[Path, ...]]], matched: Matched) -> None:
    """Make cases of labels with images, one for the same images."""
    said: dict[tuple[Path, ...], set[bool]] = {}
    for label, paths in found:
        said.setdefault(paths, set()).add(label.positive)
    done: set[tuple[Path, ...]] = set()
    ambiguous = set(matched.left_out.get("labels with a file name that several images have", ()))
    for label, paths in found:
        if not paths:
            if label.key not in ambiguous:
                matched.leave_out("labels without an image", label.key)
        elif len(said[paths]) > 1:
            matched.leave_out("labels that contradict another of the same image", label.key)
        elif paths in done:
            matched.leave_out("labels given twice", label.key)
        else:
            done.add(paths)
            matched.cases.append(Case(label, paths))


def _by_path(root: Path, images: list[Path], matched: Matched) -> Callable[[str], tuple[Path, ...]]:
    """Return what finds the image of a path, or of a file name that only one image has."""
    base = (root if root.is_dir() else root.parent).resolve()
    places = {path.resolve(): path for path in images}
    names = Counter(path.name for path in images)
    by_name = {path.name: path for path in images}

    def find(key: str) -> tuple[Path, ...]:
        for text in (key, key.replace("\\", "/")):
            place = (base / text).resolve()
            if place in places:
                return (places[place],)
            if place.is_relative_to(base) and place.is_file():
                return (place,)  # no image by its name or first bytes: the reader says what it is
        if names[key] > 1:
            matched.leave_out("labels with a file name that several images have", key)
        return (by_name[key],) if names[key] == 1 else ()

    return find


def _by_element(
    keyword: str, images: Iterable[Path], matched: Matched
) -> Callable[[str], tuple[Path, ...]]:
    """Return what finds the images whose header has a value."""
    groups: dict[str, list[Path]] = {}
    seen: set[str] = set()
    for path in images:
        try:
            header = header_of(path)
            uid = str(header.get("SOPInstanceUID") or "")
            value = str(header.get(keyword) or "").strip()
        except (NotAnalysable, *MALFORMED):
            matched.leave_out("images with a malformed header", str(path))
            continue
        if uid and uid in seen:
            matched.leave_out("further files of the same SOP Instance", str(path))
            continue
        seen.add(uid)
        if value:
            groups.setdefault(value, []).append(path)
    return lambda key: tuple(groups.get(key, ()))
