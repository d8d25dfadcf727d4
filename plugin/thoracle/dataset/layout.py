"""Which images a folder holds, and what folders and manifest say of each: nothing is decoded here.

The layout is that of Kaggle: ``Dataset/{Train,Val}/{Covid,Normal}`` and ``Dataset/Prediction``, or
any tree whose folders are named in that spirit.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from thoracle.errors import ThoracleError

PICTURES = (".png", ".jpg", ".jpeg")
MANIFEST = "manifest.csv"


class Part(StrEnum):
    """What an image is for, by the folder it lies in; the later one wins over the earlier."""

    NONE = "none"
    """In no folder that says so."""
    TRAIN = "train"
    VAL = "val"
    PREDICTION = "prediction"


PARTS = tuple(Part)
"""In rising order: a group that spans several goes to the last of them."""
PUBLISHED = {
    (Part.TRAIN, "covid"): 144,
    (Part.TRAIN, "normal"): 144,
    (Part.VAL, "covid"): 30,
    (Part.VAL, "normal"): 30,
}
"""Images that Kaggle's "Chest X-Ray for COVID-19 Detection" states: 288 and 60."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An image file, not opened yet."""

    path: Path
    name: str
    """Path below the folder that was asked for, with ``/``."""
    part: Part
    label: str
    """``covid``, ``normal``, ``pneumonia``, another folder's or manifest's word, or nothing."""
    row: Mapping[str, str] = field(default_factory=dict)
    """What the manifest says of it: column to text. Empty without a manifest."""


def entries(folder: Path, manifest: Path | None = None) -> list[Entry]:
    """Return the PNG and JPEG files below a folder, by their extensions, in order of their names.

    Parameters
    ----------
    folder
        A folder that holds ``Dataset``, ``Dataset`` itself, or any other.
    manifest
        A CSV file with a column ``path``, relative to its own folder or one above. Without it each
        ``manifest.csv`` in the folder, beside it, and in the folders right below it is read.

    Raises
    ------
    ThoracleError
        There is no such folder or no image in it, or the manifest cannot be read.
    """
    if not folder.is_dir():
        raise ThoracleError(f"{folder}: found no folder, required: one with images")
    rows: dict[Path, Mapping[str, str]] = {}
    for file in [manifest] if manifest else _manifests(folder):
        rows |= _rows(file)
    files = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    found = [_entry(path, folder, rows) for path in sorted(files) if path.is_file()]
    if not found:
        raise ThoracleError(f"{folder}: found no {', '.join(PICTURES)} file, required: one")
    return found


def _manifests(folder: Path) -> list[Path]:
    """Return the manifests that may speak of the folder, the nearest last."""
    above = folder.resolve().parent / MANIFEST
    return [
        file
        for file in (above, *sorted(folder.glob(f"*/{MANIFEST}")), folder / MANIFEST)
        if file.is_file()
    ]


def _rows(manifest: Path) -> dict[Path, Mapping[str, str]]:
    """Return the rows of a manifest by the file that each speaks of."""
    try:
        with manifest.open(newline="", encoding="utf-8") as lines:
            rows = [
                {key: value or "" for key, value in row.items() if key}
                for row in csv.DictReader(lines)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ThoracleError(f"{manifest}: found no CSV in UTF-8 ({error})") from error
    if not rows or "path" not in rows[0]:
        raise ThoracleError(f"{manifest}: found no column 'path', required: one")
    home = manifest.resolve().parent
    return {base / row["path"]: row for base in (home.parent, home) for row in rows}


def _entry(path: Path, folder: Path, rows: Mapping[Path, Mapping[str, str]]) -> Entry:
    """Return what is known of a file without opening it."""
    row = rows.get(path.resolve(), {})
    name = path.relative_to(folder)
    # The folder asked for may itself be Train or Covid, so its own name counts.
    folders = [part.lower() for part in (folder.resolve().name, *name.parts[:-1])]
    parts = [Part(word) for word in folders if word in PARTS and word != Part.NONE]
    return Entry(
        path, name.as_posix(), parts[-1] if parts else Part.NONE, _label(folders[-1], row), row
    )


def _label(folder: str, row: Mapping[str, str]) -> str:
    """Return the class that a folder's name states, else the manifest, else nothing."""
    if "abnormal" not in folder:
        for word in ("covid", "normal", "pneumonia"):
            if word in folder:
                return word
    return row.get("label", "").lower()


# ---- patients ------------------------------------------------------------------------------------
# Who is on an image: the manifest knows, or the name of the file tells; else nobody does.

_FOREIGN = re.compile(r"^[a-z0-9]+__")  # "source__name", where files of several were put together
_NAMES = (
    re.compile(r"^(\d{8})_\d{3}$"),  # NIH ChestX-ray14: patient_follow-up
    re.compile(r"^((?:normal2-)?im-\d+)-\d+"),  # Kermany, normal: patient-image
    re.compile(r"^(person\d+)_"),  # Kermany, pneumonia
    re.compile(r"^(\d{5})_\d+_\d+$"),  # Eurorad: case_figure_part
    re.compile(r"^(covid-19-pneumonia-\d+)(?![0-9])"),  # Radiopaedia: number of the case
    re.compile(r"^([0-9a-f]{32})-[0-9a-f]{4}-\d+$"),  # SIRM
    re.compile(r"^(.+?)[-_.]?day[-_]?\d+"),  # a series over days
    re.compile(r"^(.+?)[-_](?:pa|ap|l|lat|lateral)$"),  # two views of one visit
)
"""Patterns over the name without its extension, in lower case; group 1 stands for the patient."""


def patient(entry: Entry) -> str:
    """Return a name for the patient, the same on all of a patient's images; nothing if unknown."""
    stated = entry.row.get("patient_id", "").strip()
    return stated or patient_of_name(entry.path.stem)


def patient_of_name(stem: str) -> str:
    """Return what a file's name tells of the patient; nothing when it follows no known pattern."""
    name = _FOREIGN.sub("", stem.lower())
    for pattern in _NAMES:
        match = pattern.match(name)
        if match:
            return f"name:{match[1]}"
    return ""
