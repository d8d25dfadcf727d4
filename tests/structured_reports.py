"""Structured reports of each outcome and kind of image, and the content items of each."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
)

from sources import ARABIC, BUNDLE, GREEK, JAPANESE, KOREAN, NOON, STUDY, cr, dx, named, real
from thoracle.records import Outcome, Reading, Reason, Region
from thoracle.report import header, sr
from thoracle.report.content import Illustration
from thoracle.report.header import Instance
from thoracle.settings import Report as ReportSettings

SAID: dict[str, dict[str, Any]] = {
    "positive": {"outcome": Outcome.POSITIVE, "probability": 0.91},
    "negative": {
        "outcome": Outcome.NEGATIVE,
        "probability": 0.0825,
        "limitations": ("The image was compressed with loss.",),
    },
    "indeterminate": {"outcome": Outcome.INDETERMINATE, "probability": 0.5},
    "flat": {
        "outcome": Outcome.REJECTED,
        "reason": Reason.FLAT,
        "detail": "Found one value, required: several.",
    },
    "lateral": {"outcome": Outcome.REJECTED, "reason": Reason.NOT_FRONTAL},
}
SOURCES: dict[str, Callable[[], list[Dataset]]] = {
    "CR MONOCHROME1": lambda: [cr()],
    "DX MONOCHROME2": lambda: [dx()],
    "no Accession Number": lambda: [dx(AccessionNumber=None, RequestAttributesSequence=None)],
    "no Study Description": lambda: [cr(StudyDescription=None)],
    "JPEG 2000": lambda: [real("RG1_J2KR.dcm")],
    "three images": lambda: [dx(1), dx(2, SeriesInstanceUID=f"{STUDY}.2"), cr(3)],
    "Greek": lambda: [named(GREEK)],
    "Japanese": lambda: [named(JAPANESE)],
    "Arabic": lambda: [named(ARABIC)],
    "Korean": lambda: [named(KOREAN)],
}
HEAT_MAP = Instance(SecondaryCaptureImageStorage, "2.25.8.1", "2.25.8")
OUTLINES = Instance(GrayscaleSoftcopyPresentationStateStorage, "2.25.9.1", "2.25.9")
REGIONS = (
    Region(((700.0, 900.5), (880.25, 940.0), (760.0, 1210.75), (700.0, 900.5)), 0.73146),
    Region(((1200.0, 800.0), (1290.0, 830.0), (1190.0, 900.0), (1200.0, 800.0)), 0.5),
)
each_said = pytest.mark.parametrize("said", SAID)
each_source = pytest.mark.parametrize("source", SOURCES)


def read(source: Dataset, said: str) -> Reading:
    return Reading(str(source.SOPClassUID), str(source.SOPInstanceUID), **SAID[said])


def report(sources: Sequence[Dataset], *said: str, **changes: Any) -> Dataset:
    """Return the report of sources; what was said of the last is said of the rest too."""
    names = [*said, *[said[-1]] * (len(sources) - len(said))]
    readings = [read(source, name) for source, name in zip(sources, names, strict=True)]
    arguments = {"content_datetime": NOON, "settings": ReportSettings(), **changes}
    bundle = arguments.pop("bundle", BUNDLE)
    return sr.build(sources, readings, bundle, **arguments)


def mixed_study() -> Dataset:
    sources = [dx(number) for number in range(1, 1 + len(SAID))]
    earlier = Instance(Comprehensive3DSRStorage, "2.25.7.1", "2.25.7")
    return report(sources, *SAID, predecessor=earlier)


def illustrated(sources: Sequence[Dataset]) -> Dataset:
    """Return a positive report whose first image, of all, has regions and what shows them."""
    shown = Illustration(REGIONS, HEAT_MAP, OUTLINES)
    return report(sources, "positive", illustrations={sources[0].SOPInstanceUID: shown})


def withdrawn(sources: Sequence[Dataset], reason: str = "Wrong film", **changes: Any) -> Dataset:
    arguments = {"content_datetime": NOON, "settings": ReportSettings(), **changes}
    earlier = header.instance(report(sources, "positive"))
    return sr.withdrawal(sources, earlier, reason, BUNDLE, **arguments)


def written(dataset: Dataset, folder: Path) -> Path:
    path = folder / "report.dcm"
    path.write_bytes(header.encode(dataset))
    return path


def reread(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(BytesIO(header.encode(dataset)))


def items(dataset: Dataset, name: str) -> list[Dataset]:
    """Return the content items with this concept name, wherever they stand in the tree."""
    found = []
    for item in dataset.get("ContentSequence", []):
        if item.ConceptNameCodeSequence[0].CodeMeaning == name:
            found.append(item)
        found += items(item, name)
    return found


def values(dataset: Dataset, name: str) -> list[str]:
    return [item.ConceptCodeSequence[0].CodeMeaning for item in items(dataset, name)]


def texts(dataset: Dataset, name: str) -> list[str]:
    return [item.TextValue for item in items(dataset, name)]
