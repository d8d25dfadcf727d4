"""The labels of a site: a CSV file, read strictly, because a label misread is a wrong figure."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from thoracle.errors import NotAnalysable, ThoracleError
from thoracle.image.codecs import MALFORMED
from thoracle.image.header import header_of
from thoracle.records import Finding

# ---- file ----------------------------------------------------------------------------------------

KEYS = ("path", "sop_instance_uid", "study_instance_uid", "accession_number")
"""One of these columns says which images a label is for."""
POSITIVE = ("1", "positive")
"""And what the finding is called."""
NEGATIVE = ("0", "negative", "normal", "pneumonia", "other")
"""Whatever is not the finding, a sick chest too; but for what the finding is called."""
OTHERS = ("label", "group", "patient")
MOST_FAULTS = 8


@dataclass(frozen=True, slots=True)
class Label:
    """One line of the file."""

    line: int
    key: str
    """What its first column says: a path, a UID or an Accession Number."""
    positive: bool
    group: str
    """Empty when not stated."""
    patient: str
    """Empty when not stated; never printed."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The whole file."""

    key: str
    """One of ``KEYS``; ``verdicts`` when they are no file."""
    has_patients: bool
    rows: tuple[Label, ...]
    unused: tuple[str, ...]
    """Columns that mean nothing here."""
    caveat: str | None = None
    """What is to be known before any figure is read."""


def words(finding: Finding) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels that say a finding is there, and those that say it is not.

    It may be called by its name, its short name, its code's meaning, or the first word of the name.
    """
    names = (finding.name, finding.short_name, finding.code.meaning)
    first = re.split(r"\W", finding.name, maxsplit=1)[0]
    positive = tuple(dict.fromkeys(one.casefold() for one in (*POSITIVE, first, *names) if one))
    return positive, tuple(one for one in NEGATIVE if one not in positive)


def read(path: Path, finding: Finding) -> Labels:
    """Return the labels in a CSV file (UTF-8, a header, commas or semicolons).

    ``finding`` is what they are about.

    Raises
    ------
    ThoracleError
        The file cannot be read, a column is missing or a label is not one of those allowed; with
        line, value found and values allowed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = ";" if ";" in head and "," not in head else ","
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = [name.strip().casefold() for name in next(lines, [])]
        key = _key(path, columns)
        rows: list[Label] = []
        faults: list[str] = []
        allowed = words(finding)
        for values in lines:
            if any(value.strip() for value in values):
                _take(lines.line_num, key, columns, values, allowed, rows, faults)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ThoracleError(f"{path}: {error}") from error
    if faults:
        more = len(faults) - MOST_FAULTS
        said = faults[:MOST_FAULTS] + ([f"and {more} more lines like these"] if more > 0 else [])
        raise ThoracleError("\n".join(f"{path}: {fault}" for fault in said))
    if not rows:
        raise ThoracleError(f"{path}: found no labels, required: a line for each")
    unused = tuple(name for name in columns if name not in (*KEYS, *OTHERS))
    return Labels(key, "patient" in columns, tuple(rows), unused)


def _key(path: Path, columns: list[str]) -> str:
    """Return which column says what a label is for; raise when the header is not as required."""
    keys = [name for name in columns if name in KEYS]
    twice = [name for name in (*KEYS, *OTHERS) if columns.count(name) > 1]
    if len(keys) != 1 or "label" not in columns or twice:
        found = ", ".join(columns) or "nothing"
        raise ThoracleError(
            f"{path}: found the columns {found}; required: `label` and one of "
            f"{', '.join(KEYS)}, each once; `group` and `patient` may be given"
        )
    return keys[0]


def _take(
    line: int,
    key: str,
    columns: list[str],
    values: list[str],
    allowed: tuple[tuple[str, ...], tuple[str, ...]],
    rows: list[Label],
    faults: list[str],
) -> None:
    """Add the label of a line to ``rows``, or what is wrong with it to ``faults``."""
    if len(values) != len(columns):
        faults.append(
            f"line {line}: found {len(values)} values, required: {len(columns)} as in the header"
        )
        return
    row = {name: value.strip() for name, value in zip(columns, values, strict=True)}
    label = row["label"].casefold()
    positive, negative = allowed
    if not row[key]:
        faults.append(f"line {line}: found no {key}, required: one")
    elif not row[key].isprintable():
        faults.append(f"line {line}: found {row[key]!r} as {key}, required: printable characters")
    elif label not in (*positive, *negative):
        faults.append(
            f"line {line}: found label {row['label']!r}, allowed are {', '.join(positive)} "
            f"(positive) and {', '.join(negative)} (negative)"
        )
    else:
        rows.append(
            Label(line, row[key], label in positive, row.get("group", ""), row.get("patient", ""))
        )


# ---- images of labels ----------------------------------------------------------------------------
# Which images a label is for, and what finds no partner.

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
