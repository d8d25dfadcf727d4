"""What is in each kind of our objects and where it comes from: found by building them in two ways.

Each input is changed alone: an attribute that changes with it comes from it, one that never changes
is fixed, and one that always equals the image's is copied. A part of conformance.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

import sources
import thoracle
from bundles import PNEUMONIA
from thoracle.records import BundleIdentity, Decision, Image, Outcome, Reading, Reason, Saliency
from thoracle.report import context, header, keyobject, result_set
from thoracle.report.header import Instance
from thoracle.report.result_set import Picture
from thoracle.settings import Report

Path = tuple[str, ...]
"""Keywords from the top of the data set down."""

IODS = {
    "sr": ("Comprehensive 3D SR", "comprehensive-3d-sr"),
    "sc": ("Secondary Capture Image", "secondary-capture-image"),
    "pr": ("Grayscale Softcopy Presentation State", "grayscale-softcopy-presentation-state"),
    "ko": ("Key Object Selection Document", "key-object-selection-document"),
    "rejection": ("Key Object Selection Document", "key-object-selection-document"),
}
"""Name of each kind's IOD, for people and in highdicom's tables (made from PS3.3)."""
TREES = {("sr", "ContentSequence"), ("ko", "ContentSequence"), ("rejection", "ContentSequence")}
EARLIER = Instance(Comprehensive3DSRStorage, "2.25.7.1", "2.25.7")
CONTEXT = {*context.PATIENT, *context.STUDY, *context.ZONE}
EVERY: Any = ("positive", "indeterminate", "negative")
RICH: dict[str, Any] = {
    "Rows": 256,
    "Columns": 256,
    "PatientOrientation": ["L", "F"],
    "BurnedInAnnotation": "NO",
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 10,
    "LossyImageCompressionMethod": "ISO_10918_1",
    "RescaleIntercept": 0,
    "RescaleSlope": 1,
    "RescaleType": "US",
    "WindowCenter": 2048,
    "WindowWidth": 4096,
    "VOILUTFunction": "LINEAR",
    "ImagerPixelSpacing": [0.1, 0.1],
    "TimezoneOffsetFromUTC": "+0000",
    "InstanceNumber": 7,
}
OTHER_STUDY = "2.25.2002"
OTHER: dict[str, Any] = {
    "StudyInstanceUID": OTHER_STUDY,
    "AccessionNumber": "ACC2",
    "Rows": 320,
    "Columns": 300,
    "PatientOrientation": ["R", "F"],
    "BurnedInAnnotation": "YES",
    "LossyImageCompressionRatio": 20,
    "LossyImageCompressionMethod": "ISO_15444_1",
    "RescaleIntercept": -1,
    "RescaleSlope": 2,
    "RescaleType": "OD",
    "WindowCenter": 1024,
    "WindowWidth": 2048,
    "VOILUTFunction": "SIGMOID",
    "ImagerPixelSpacing": [0.2, 0.2],
    "InstanceNumber": 8,
}
LEFT_OUT = ("IssuerOfPatientID", "StudyDescription", "AccessionNumber", "ViewPosition")
ABBREVIATED = {word: word.upper() for word in ("sr", "sc", "sop", "voi", "lut")}
OPTIONAL = "if there is one"
TREE = "see the tree of the document"
ALL_BUT_ONE = 5
"""Inputs that a value follows from when it is said to follow from all of the content."""
LONGEST = 100
"""Characters of a fixed value that are shown."""


def cross(side: int, shift: int) -> Saliency:
    """Return a map with two places that speak for the positive class."""
    contributions: NDArray[np.float32] = np.zeros((side, side), np.float32)
    contributions[5 + shift : 12, 4:9] = 0.5 + 0.1 * shift
    contributions[20:25, 18 : 24 + shift] = 0.4
    return Saliency(contributions)


@dataclass(frozen=True)
class Inputs:
    """Whatever shapes a result."""

    image: Callable[[int], Dataset] = field(default_factory=lambda: first_image)
    probability: float = 0.91
    saliency: Saliency = field(default_factory=lambda: cross(32, 0))
    bundle: BundleIdentity = sources.BUNDLE
    moment: datetime = sources.NOON
    settings: Report = field(
        default_factory=lambda: Report(sc=EVERY, pr=EVERY, ko=EVERY, institution_name="Hospital")
    )

    predecessor: Instance | None = EARLIER
    number: int = 1
    """Of the image that is positive; the other of 1 and 2 is rejected."""

    rejected: bool = True
    """Whether there is that other image."""

    def build(self) -> dict[str, Dataset]:
        """Return the objects by their kind."""
        shown, other = self.image(self.number), self.image(3 - self.number)
        reading = replace(sources.positive(shown), probability=self.probability)
        why = (Outcome.REJECTED, Reason.FLAT, "found one grey value, required: several")
        refused = Reading(str(other.SOPClassUID), str(other.SOPInstanceUID), *why)
        images = [shown, other] if self.rejected else [shown]
        pixels = np.full((1, shown.Rows, shown.Columns), 0.5, np.float32)
        common: dict[str, Any] = {"content_datetime": self.moment, "settings": self.settings}
        made = {
            str(kind): ds
            for kind, ds in result_set.build(
                images,
                [reading, refused][: len(images)],
                {reading.sop_instance_uid: Picture(Image(pixels), self.saliency)},
                self.bundle,
                predecessor=self.predecessor,
                **common,
            )
        }
        named = [header.instance(ds) for ds in made.values()]
        note = keyobject.rejection(named, images, self.bundle, **common)
        return {**made, "rejection": note}


def _request(identifier: str) -> Dataset:
    request = Dataset()
    request.RequestedProcedureID = identifier
    request.RequestedProcedureDescription = f"Procedure {identifier}"
    request.ScheduledProcedureStepID = f"S{identifier}"
    return request


def first_image(number: int) -> Dataset:
    """Return a DX with what a modality may say."""
    return sources.dx(number, **RICH, RequestAttributesSequence=[_request("RP1")])


def second_image(number: int) -> Dataset:
    """Return a CR that says something else everywhere."""
    uids = {
        "SOPInstanceUID": f"{OTHER_STUDY}.1.{number}",
        "SeriesInstanceUID": f"{OTHER_STUDY}.1",
        "RequestAttributesSequence": [_request("RP2")],
    }
    return sources.cr(number, **{**RICH, **OTHER, **uids})


def poor_image(number: int) -> Dataset:
    """Return a CR that says no more than it has to."""
    return sources.cr(number, Rows=256, Columns=256, **dict.fromkeys(LEFT_OUT))


# ---- Attributes --------------------------------------------------------------------------------


@cache
def varied() -> dict[str, dict[str, Dataset]]:
    """Return the objects by kind, for each input that was changed; under "" none was."""
    usual = Inputs()
    earlier = Instance(ComprehensiveSRStorage, "2.25.8.1", "2.25.8")
    bundle = BundleIdentity("other", "0.2.0", "7e" * 32, Decision(0.6, 0.5, 0.7), "none", PNEUMONIA)
    changed = Report(sc=EVERY, pr=EVERY, ko=EVERY, institution_name="Clinic", series_number=8001)
    inputs = {
        "": usual,
        "the image": replace(usual, image=second_image, number=2),
        "the result": replace(usual, probability=0.87, saliency=cross(32, 4)),
        "the model": replace(usual, bundle=bundle),
        "the time of the result": replace(usual, moment=usual.moment + timedelta(days=1, hours=1)),
        "the settings": replace(usual, settings=changed),
        "the earlier report": replace(usual, predecessor=earlier),
    }
    return {name: one.build() for name, one in inputs.items()}


@cache
def poor() -> dict[str, Dataset]:
    """Return the objects made of an image that says little, with settings that add nothing."""
    settings = Report(sc=EVERY, pr=EVERY, ko=EVERY)
    least: dict[str, Any] = {
        "image": poor_image,
        "settings": settings,
        "predecessor": None,
        "rejected": False,
    }
    return replace(Inputs(), **least).build()


def walk(ds: Dataset, kind: str, above: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield path and value of each element; coded items are values, content trees are left out."""
    for element in ds:
        path = (*above, element.keyword)
        assert element.keyword, f"found the private element {element.tag} in {kind}"
        if element.VR != "SQ":
            yield path, _text(element.value)
        elif (kind, element.keyword) in TREES:
            yield path, TREE
        elif len(element.value) > 0 and "CodeValue" in element.value[0]:
            yield path, "; ".join(coded(item) for item in element.value)
        else:
            yield path, "" if len(element.value) == 0 else "items"
            for item in element.value:
                yield from walk(item, kind, path)


def coded(item: Dataset) -> str:
    """Return a coded item as (value, scheme, "meaning")."""
    meaning = item.CodeMeaning
    return f'({item.CodeValue}, {item.CodingSchemeDesignator}, "{meaning}")'


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return sha256(value).hexdigest()
    if isinstance(value, MultiValue | list):
        return "\\".join(map(str, value))
    return "" if value is None else str(value)


def values(ds: Dataset, kind: str) -> dict[Path, tuple[str, ...]]:
    """Return the values at each path, of all items that have it, whatever their order."""
    found: dict[Path, list[str]] = {}
    for path, value in walk(ds, kind):
        found.setdefault(path, []).append(value)
    return {path: tuple(sorted(set(all_of_it))) for path, all_of_it in found.items()}


def attributes(kind: str) -> Iterator[str]:
    """Yield the rows of the table of a kind, but for patient and study."""
    made = {name: values(objects[kind], kind) for name, objects in varied().items()}
    usual, least = made.pop(""), values(poor()[kind], kind)
    types = dict(_types(kind))
    for path, value in usual.items():
        if path[0] in CONTEXT:
            continue
        sources_of_it = [name for name, one in made.items() if one.get(path) != value]
        if path in least and least[path] != value and "the image" not in sources_of_it:
            sources_of_it.insert(0, "the image")
        module, needed = types.get(path, ("", ""))
        there = "empty" if not any(value) else "always" if any(least.get(path, ())) else OPTIONAL
        tag = Tag(tag_for_keyword(path[-1]) or 0)
        name = ">" * (len(path) - 1) + dictionary_description(tag)
        cells = [module, name, f"({tag.group:04X},{tag.elem:04X})", dictionary_VR(tag), needed]
        yield f"| {' | '.join(cells)} | {there} | {_origin(path, value, made, sources_of_it)} |"


def _origin(
    path: Path,
    value: tuple[str, ...],
    made: dict[str, dict[Path, tuple[str, ...]]],
    sources_of_it: list[str],
) -> str:
    """Return where a value comes from, in words."""
    shown = "; ".join(value)
    if shown in ("items", TREE, ""):
        return shown.removeprefix("items")
    if sources_of_it == ["the image"] and len(path) == 1:
        pairs = ((value, first_image(1)), (made["the image"].get(path), second_image(2)))
        if all(found == values(image, "").get(path) for found, image in pairs):
            return "copied from the image"
    if not sources_of_it:
        if shown == thoracle.__version__:
            return "fixed: the version of Thoracle"
        return f"fixed: {shown if len(shown) <= LONGEST else shown[:LONGEST] + ' ...'}"
    if len(sources_of_it) >= ALL_BUT_ONE:
        return "generated from all of the content"
    return f"generated from {', '.join(sources_of_it)}"


def _types(kind: str) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Yield module and type of each path of a kind's IOD; of the last module first."""
    for module in reversed(get_iod_module_map()[IODS[kind][1]]):
        for one in get_module_attribute_map()[module["key"]]:
            words = [ABBREVIATED.get(word, word.title()) for word in module["key"].split("-")]
            yield (*one["path"], one["keyword"]), (" ".join(words), one["type"])
