"""A structured report of ours as text: its content tree (PS3.3 C.17.3), each item a line.

Everything is a plain string; the template escapes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, dcmread

LIMITATION = "Limitation: "
"""Stands in a comment of ours that says what an image lacks (report/content.py)."""


@dataclass(frozen=True, slots=True)
class ContentItem:
    """A content item with those below it."""

    name: str
    """Meaning of its Concept Name Code; empty when it has none."""
    value: str
    """Empty for a container."""
    code: str
    """Value and scheme of a coded value, else empty."""
    items: tuple["ContentItem", ...] = field(default=())


def read(path: Path) -> ContentItem:
    """Return the content of the report in a file.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    return item(dcmread(path))


def item(ds: Dataset) -> ContentItem:
    """Return a content item and what is below it."""
    value, code = _value(ds)
    return ContentItem(
        name=_meaning(ds, "ConceptNameCodeSequence"),
        value=value,
        code=code,
        items=tuple(item(child) for child in ds.get("ContentSequence") or []),
    )


def limitations(root: ContentItem) -> list[str]:
    """Return what a report says of limits of its images, each once, with the image before it."""
    found = (one.value for one in walk(root) if LIMITATION in one.value)
    return list(dict.fromkeys(value.replace(LIMITATION, "", 1) for value in found))


def walk(root: ContentItem) -> Iterator[ContentItem]:
    """Yield a content item and all below it, in the order of the document."""
    yield root
    for one in root.items:
        yield from walk(one)


def _meaning(ds: Dataset, keyword: str) -> str:
    codes = ds.get(keyword) or []
    return str(codes[0].get("CodeMeaning", "")) if codes else ""


def _value(ds: Dataset) -> tuple[str, str]:
    """Return the value of an item as a person reads it, and the code when it is one."""
    match ds.get("ValueType"):
        case "CODE":
            code = ds.ConceptCodeSequence[0]
            return str(code.CodeMeaning), f"{_code_value(code)}, {code.CodingSchemeDesignator}"
        case "NUM":
            return _measured(ds), ""
        case "IMAGE" | "COMPOSITE" | "WAVEFORM":
            return f"Instance {ds.ReferencedSOPSequence[0].ReferencedSOPInstanceUID}", ""
        case "SCOORD":
            corners = len(ds.GraphicData) // 2
            return f"{ds.GraphicType.lower()} with {corners} corners", ""
        case "CONTAINER" | None:
            return "", ""
        case kind:
            return str(ds.get(_KEYWORDS.get(str(kind), ""), "")), ""


_KEYWORDS = {
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "PNAME": "PersonName",
    "DATETIME": "DateTime",
    "DATE": "Date",
    "TIME": "Time",
}


def _code_value(code: Dataset) -> str:
    return str(code.get("CodeValue") or code.get("LongCodeValue") or code.get("URNCodeValue") or "")


def _measured(ds: Dataset) -> str:
    measured = ds.get("MeasuredValueSequence") or []
    if not measured:
        return "no value"
    unit = measured[0].MeasurementUnitsCodeSequence[0]
    shown = _code_value(unit)
    shown = "" if shown == "1" else f" {shown}"
    return f"{measured[0].NumericValue}{shown}"
