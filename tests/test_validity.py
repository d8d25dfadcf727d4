"""Every object of every outcome, of every kind of source, passes every validator for it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from sources import BUNDLE, COMMON, GREEK, JAPANESE, cr, dx, named, real
from thoracle.records import Box, Image, Outcome, Reading, Reason, Saliency
from thoracle.report import header, keyobject, result_set, sr
from thoracle.report.result_set import Picture
from thoracle.settings import Report
from validators import dciodvfy, dcmpschk, pixelmed

EVERY = ("positive", "indeterminate", "negative")
SETTINGS = Report(sc=(*EVERY, "rejected"), pr=EVERY, ko=EVERY)
SOURCES: dict[str, Callable[[], Dataset]] = {
    "CR MONOCHROME1": cr,
    "DX": dx,
    "JPEG 2000": lambda: real("RG1_J2KR.dcm"),
    "Greek": lambda: named(GREEK),
    "Japanese": lambda: named(JAPANESE),
    "no Accession Number": lambda: dx(AccessionNumber=None, RequestAttributesSequence=None),
}
OUTCOMES: dict[str, tuple[Outcome, float | None, int]] = {
    "positive, two regions": (Outcome.POSITIVE, 0.91, 2),
    "positive, one region": (Outcome.POSITIVE, 0.91, 1),
    "positive, no region": (Outcome.POSITIVE, 0.91, 0),
    "negative": (Outcome.NEGATIVE, 0.0825, 0),
    "indeterminate": (Outcome.INDETERMINATE, 0.5, 1),
    "rejected": (Outcome.REJECTED, None, 0),
}
IODS = {
    "SC": "SCImage",
    "PR": "GrayscaleSoftcopyPresentationState",
    "KO": "KeyObjectSelectionDocument",
}
"""How dciodvfy calls what is no structured report."""
PAIRS = [
    pytest.param(
        outcome,
        source,
        marks=()
        if source == "CR MONOCHROME1" or outcome == "positive, one region"
        else pytest.mark.slow,
    )
    for source in SOURCES
    for outcome in OUTCOMES
]
"""Each outcome and each source once; all pairs of them in the slow tests."""
IN_SHORT = [
    ("positive, two regions", "CR MONOCHROME1"),
    ("positive, one region", "JPEG 2000"),
    ("indeterminate", "Japanese"),
    ("rejected", "DX"),
]
"""Pairs for PixelMed, of which a document takes seconds; all of them in the slow tests."""


def saliency(places: int) -> Saliency:
    contributions = np.full((32, 32), -1, np.float32)
    for place in range(places):
        contributions[6 + 14 * place : 12 + 14 * place, 6 + 10 * place : 14 + 10 * place] = 1
    return Saliency(contributions)


@cache
def objects(outcome: str, source: str) -> dict[str, Dataset]:
    """Return the objects of a result, of its withdrawal, and the note that rejects them."""
    ds = SOURCES[source]()
    found, probability, regions = OUTCOMES[outcome]
    reading = Reading(
        str(ds.SOPClassUID),
        str(ds.SOPInstanceUID),
        found,
        Reason.FLAT if probability is None else None,
        probability=probability,
        limitations=("The image was compressed with loss.",),
        lung_box=Box(200, 150, 1500, 1700),
    )
    if probability is None:
        reading = replace(reading, detail="found one grey value, required: several")
    image = Image(np.full((1, int(ds.Rows), int(ds.Columns)), 0.5, np.float32))
    pictures = {} if probability is None else {ds.SOPInstanceUID: Picture(image, saliency(regions))}
    common: dict[str, Any] = {**COMMON, "settings": SETTINGS}
    built = result_set.build([ds], [reading], pictures, BUNDLE, **common)
    made = {str(kind): one for kind, one in built}
    made["comprehensive"] = sr.as_comprehensive_sr(made["sr"])
    made["withdrawal"] = sr.withdrawal(
        [ds], header.instance(made["sr"]), "Wrong patient", BUNDLE, **common
    )
    named_ones = [header.instance(one) for one in made.values()]
    made["rejection"] = keyobject.rejection(named_ones, [ds], BUNDLE, **common)
    return made


def written(ds: Dataset, folder: Path) -> Path:
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    path.write_bytes(header.encode(ds))
    return path


@pytest.mark.parametrize(("outcome", "source"), PAIRS)
def test_dciodvfy_and_dcmpschk_find_no_error(outcome: str, source: str, tmp_path: Path) -> None:
    found = {}
    made = objects(outcome, source)
    for kind, ds in made.items():
        path = written(ds, tmp_path)
        iod = IODS["SC" if kind == "sc" else ds.Modality] if ds.Modality != "SR" else "SR"
        found[kind] = dciodvfy(path, iod)
        if kind == "pr":
            found[kind] += dcmpschk(path)
    assert found == {kind: [] for kind in made}
    assert ("pr" in made) == (OUTCOMES[outcome][2] > 0)
    assert "sc" in made


def check_documents(outcome: str, source: str, folder: Path) -> None:
    documents = {
        kind: ds for kind, ds in objects(outcome, source).items() if ds.Modality in ("SR", "KO")
    }
    found = {kind: pixelmed(written(ds, folder)) for kind, ds in documents.items()}
    assert found == {kind: [] for kind in documents}


@pytest.mark.parametrize(("outcome", "source"), IN_SHORT)
def test_pixelmed_finds_no_error(outcome: str, source: str, tmp_path: Path) -> None:
    check_documents(outcome, source, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_pixelmed_finds_no_error_in_any_of_all(outcome: str, source: str, tmp_path: Path) -> None:
    check_documents(outcome, source, tmp_path)
