"""Where two DICOM objects differ first: which element, and the two values."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest
from typing import Any

from pydicom import DataElement, Dataset, dcmread
from pydicom.errors import InvalidDicomError

from thoracle.audit.sentences import inert
from thoracle.image.codecs import MALFORMED

LONGEST = 120
"""Characters of a value that are shown."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An element that two objects do not have alike."""

    path: str
    """E.g. ``ContentSequence[3].TextValue``; items count from 1."""
    stored: str
    replayed: str


def first_difference(stored: bytes, replayed: bytes) -> Difference | None:
    """Return where two files differ first; ``None`` when they are the same, byte by byte.

    UIDs of our objects follow from their content, so an element that is no UID is named if one
    differs: that is why the UIDs do.
    """
    if stored == replayed:
        return None
    try:
        ours, theirs = (dcmread(BytesIO(one), force=False) for one in (stored, replayed))
        found = [
            *_differences(ours, theirs, ""),
            *_differences(ours.file_meta, theirs.file_meta, ""),
        ]
    except (InvalidDicomError, *MALFORMED) as error:
        return Difference("the file", f"unreadable ({type(error).__name__})", "readable")
    chosen = next((one for vr, one in found if vr != "UI"), found[0][1] if found else None)
    return chosen or Difference(_byte(stored, replayed), *map(_digest, (stored, replayed)))


def _differences(one: Dataset, other: Dataset, path: str) -> Iterator[tuple[str, Difference]]:
    for tag in sorted(set(one.keys()) | set(other.keys())):
        mine, others = one.get(tag), other.get(tag)
        element: Any = mine if mine is not None else others
        name = f"{path}{element.keyword or element.tag}"
        if mine is not None and others is not None and mine.VR == others.VR == "SQ":
            yield from _items(mine, others, name)
        elif mine is None or others is None or mine.VR != others.VR or mine.value != others.value:
            yield element.VR, Difference(name, _value(mine), _value(others))


def _items(one: DataElement, other: DataElement, name: str) -> Iterator[tuple[str, Difference]]:
    for number, (mine, others) in enumerate(zip_longest(one.value, other.value), 1):
        item = f"{name}[{number}]"
        if mine is None or others is None:
            there, missing = "an item", "no such item"
            pair = (missing, there) if mine is None else (there, missing)
            yield "SQ", Difference(item, *pair)
        else:
            yield from _differences(mine, others, f"{item}.")


def _value(element: DataElement | None) -> str:
    if element is None:
        return "no such element"
    if isinstance(element.value, bytes):
        return _digest(element.value)
    return "a sequence" if element.VR == "SQ" else inert(element.value, LONGEST)


def _digest(content: bytes) -> str:
    return f"{len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()[:16]}"


def _byte(one: bytes, other: bytes) -> str:
    number = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return f"byte {min(len(one), len(other)) if number is None else number}"
