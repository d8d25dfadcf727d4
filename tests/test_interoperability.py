"""What programs of others show of our objects: the part of docs/interoperability.md that repeats.

The objects are made of a real chest radiograph by the shipped model, as if it had been positive.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from associations import delivered
from orthanc import Orthanc
from peers import require
from sources import BUNDLE, NOON, positive
from thoracle.classify.classifier import Classifier
from thoracle.deliver import stowrs
from thoracle.deliver.association import Peer
from thoracle.deliver.dicomweb import WebPeer
from thoracle.image import pixels
from thoracle.records import Kind, Region
from thoracle.report import codes, header, keyobject, result_set, sr
from thoracle.report.heatmap import OUTLINE
from thoracle.report.regions import regions
from thoracle.report.result_set import Picture
from thoracle.settings import Report, Settings
from validators import dsr2html

LUNG = (slice(420, 560), slice(540, 640))
MEDIASTINUM = (slice(900, 1100), slice(900, 1000))
"""Rows and columns of the radiograph that is used."""


@dataclass(frozen=True)
class Shown:
    """A radiograph with the objects of its result, as files."""

    source: Path
    picture: Picture
    outlines: tuple[Region, ...]
    objects: dict[str, Path]

    def dataset(self, kind: str) -> Dataset:
        """Return an object as it is read from its file."""
        return pydicom.dcmread(self.objects[kind])


@pytest.fixture(scope="module")
def monochrome1(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The radiograph as it came, in which a low value is bright."""
    folder = tmp_path_factory.mktemp("monochrome1")
    ds = pydicom.dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    assert ds.PhotometricInterpretation == "MONOCHROME1"
    return shown(ds, folder)


@pytest.fixture(scope="module")
def monochrome2(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The same, in which a high value is bright."""
    ds = pydicom.dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    most = 2**ds.BitsStored - 1
    ds.PixelData = (most - ds.pixel_array).astype("<u2").tobytes()
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.WindowCenter = most - ds.WindowCenter + 1
    return shown(ds, tmp_path_factory.mktemp("monochrome2"))


@pytest.fixture(scope="module", params=["C-STORE", "STOW-RS"])
def archive(
    request: pytest.FixtureRequest, monochrome1: Shown, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Orthanc, dict[str, str]]]:
    """An Orthanc that got all objects one way or the other, and its identifier of each."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        peer = Peer("ORTHANC", "127.0.0.1", orthanc.port, "THORACLE", 30)
        named = {}
        for kind, path in monochrome1.objects.items():
            before = set(orthanc.instances())
            if request.param == "C-STORE":
                receipt = delivered(peer, path)
            else:
                receipt = stowrs.store(WebPeer(orthanc.dicomweb, 30), path)
            assert receipt.status in ("0x0000", "200")
            (named[kind],) = set(orthanc.instances()) - before
        yield orthanc, named


def shown(ds: Dataset, folder: Path) -> Shown:
    source = folder / "source.dcm"
    ds.save_as(source)
    image = pixels.read_image(source)
    saliency = Classifier.load(Settings().classify).explain(image)
    assert saliency is not None
    picture = Picture(image, saliency)
    reading = positive(ds)
    common: dict[str, Any] = {"content_datetime": NOON, "settings": Report()}
    made: dict[str, Dataset] = {
        str(kind): one
        for kind, one in result_set.build(
            [ds], [reading], {reading.sop_instance_uid: picture}, BUNDLE, **common
        )
    }
    report = header.instance(made["sr"])
    made["withdrawal"] = sr.withdrawal([ds], report, "Wrong patient", BUNDLE, **common)
    named = [header.instance(one) for one in made.values()]
    made["rejection"] = keyobject.rejection(named, [ds], BUNDLE, **common)
    objects = {}
    for kind, one in made.items():
        objects[kind] = folder / f"{kind}.dcm"
        objects[kind].write_bytes(header.encode(one))
    return Shown(source, picture, regions(saliency, ds.Rows, ds.Columns), objects)


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=True,
    )
    return done.stdout.decode("utf-8", errors="replace")


def grey(path: Path | BytesIO) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


# ---- the presentation state ------------------------------------------------------------------


@pytest.mark.parametrize("polarity", ["monochrome1", "monochrome2"])
def test_dcmtk_shows_lungs_dark_through_the_presentation_state(
    polarity: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    one: Shown = request.getfixturevalue(polarity)
    out = tmp_path / "out.pgm"
    program = require("dcmp2pgm", "dcmtk")
    run(program, "--pstate", one.objects["pr"], one.source, out)
    rendered = grey(out).astype(int)
    assert rendered[LUNG].mean() < rendered[MEDIASTINUM].mean() - 50
    # And not only the polarity: what a reader sees is what the model saw.
    seen = np.rint(one.picture.image.array[0] * 255).astype(int)
    assert np.abs(rendered - seen).max() <= 2


def test_dcmtk_finds_outline_and_words_in_the_presentation_state(
    monochrome1: Shown, tmp_path: Path
) -> None:
    found, said = outlines(monochrome1, tmp_path)
    assert len(found) == len(monochrome1.outlines) > 0
    for one, region in zip(found, monochrome1.outlines, strict=True):
        np.testing.assert_allclose(one, region.outline, atol=0.01)
    assert said.count("type=polyline filled=no units=pixel") == len(found)
    assert 'text 1: "AI: COVID-19 91 % (research, not verified)"' in said


def test_the_outlines_that_dcmtk_reads_lie_on_those_of_the_heat_map(
    monochrome1: Shown, tmp_path: Path
) -> None:
    found, _ = outlines(monochrome1, tmp_path)
    drawn = (monochrome1.dataset("sc").pixel_array == OUTLINE).all(axis=2)
    assert drawn.sum() > 500
    # How high the caption is, by which the radiograph is smaller, is what fits best.
    assert max(covered(found, drawn, caption) for caption in range(50, 500, 2)) > 0.99


def covered(found: list[list[list[float]]], drawn: NDArray[np.bool_], caption: int) -> float:
    """Return the share of what is drawn that is at most 3 pixels from outlines of the original.

    The radiograph is made smaller by the height of the caption, in the middle, at the upper edge.
    """
    rows, columns = drawn.shape
    scale = (rows - caption) / rows
    left = (columns - columns * scale) / 2
    canvas = Image.new("L", (columns, rows))
    for outline in found:
        places = [(left + column * scale, row * scale) for column, row in outline]
        ImageDraw.Draw(canvas).line(places, fill=255, width=7)
    return float((np.asarray(canvas) > 0)[drawn].mean())


def outlines(shown: Shown, folder: Path) -> tuple[list[list[list[float]]], str]:
    """Return the corners of each outline as DCMTK reads them, and all that it says."""
    program = require("dcmp2pgm", "dcmtk")
    said = run(program, "-v", "-p", shown.objects["pr"], shown.source, folder / "out.pgm")
    found = [
        [[float(number) for number in corner.split("\\")] for corner in line.split(", ")]
        for line in re.findall(r"coordinates: (.*\d)", said)
    ]
    return found, said


# ---- the heat map ----------------------------------------------------------------------------


def test_dcmtk_shows_the_heat_map(monochrome1: Shown, tmp_path: Path) -> None:
    out = tmp_path / "out.ppm"
    run(require("dcml2pnm", "dcmtk"), monochrome1.objects["sc"], out)
    assert (grey(out) == monochrome1.dataset("sc").pixel_array).all()


@pytest.mark.parametrize("path", ["/instances/{0}/preview", "/instances/{0}/rendered"])
def test_orthanc_shows_the_heat_map_as_it_was_drawn(
    path: str, monochrome1: Shown, archive: tuple[Orthanc, dict[str, str]]
) -> None:
    orthanc, named = archive
    picture = grey(BytesIO(orthanc.get(path.format(named["sc"]))))
    assert (picture == monochrome1.dataset("sc").pixel_array).all()


def test_dicomweb_renders_the_picture(
    monochrome1: Shown, archive: tuple[Orthanc, dict[str, str]]
) -> None:
    orthanc, _ = archive
    ds = monochrome1.dataset("sc")
    study = f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
    rendered = grey(BytesIO(orthanc.get(f"{study}/instances/{ds.SOPInstanceUID}/rendered")))
    assert rendered.shape[:2] == (ds.Rows, ds.Columns)


@pytest.mark.parametrize("kind", ["sr", "pr", "ko", "rejection"])
def test_orthanc_keeps_what_it_has_no_picture_of(
    kind: str, monochrome1: Shown, archive: tuple[Orthanc, dict[str, str]]
) -> None:
    orthanc, named = archive
    with pytest.raises(HTTPError, match="415"):
        orthanc.get(f"/instances/{named[kind]}/preview")
    kept = pydicom.dcmread(BytesIO(orthanc.get(f"/instances/{named[kind]}/file")))
    assert kept == monochrome1.dataset(kind)


def test_orthanc_hides_nothing_for_a_rejection_note(
    monochrome1: Shown, archive: tuple[Orthanc, dict[str, str]]
) -> None:
    orthanc, _ = archive
    uids = sorted(monochrome1.dataset(kind).SOPInstanceUID for kind in monochrome1.objects)
    assert orthanc.sop_instance_uids() == uids


# ---- documents -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sr", "COVID-19 finding suggested: probability 91 %"),
        ("withdrawal", "Reason stated: &quot;Wrong patient&quot;"),
        ("ko", "COVID-19 finding suggested: probability 91 %"),
        ("rejection", "Results of Thoracle (AI for research) on this study are withdrawn"),
    ],
)
def test_dsr2html_shows_the_words_of_each_document(
    kind: str, words: str, monochrome1: Shown
) -> None:
    page = " ".join(dsr2html(monochrome1.objects[kind]).split())
    assert words in page
    assert "not for diagnosis" in page or "AI for research" in page


@pytest.mark.parametrize("kind", ["sr", "withdrawal", "ko", "rejection"])
def test_dcsrdump_reads_each_document_without_a_fault(kind: str, monochrome1: Shown) -> None:
    lines = run(require("dcsrdump", "dicom3tools"), monochrome1.objects[kind]).splitlines()
    assert len(lines) > 5
    assert [line for line in lines if "rror" in line or "arning" in line] == []


# ---- highdicom -------------------------------------------------------------------------------


def test_highdicom_reads_the_outline_from_the_report(monochrome1: Shown) -> None:
    report = highdicom.sr.srread(monochrome1.objects["sr"])
    content: Any = report.content  # of this template: with the accessors of its groups
    groups = content.get_image_measurement_groups(finding_type=codes.SELECTED_REGION)
    found = [group.get_measurements()[0].referenced_coordinates[0].value for group in groups]
    wanted = [np.array(region.outline) for region in monochrome1.outlines]
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=0.01)


@pytest.mark.parametrize("kind", ["ko", "rejection"])
def test_highdicom_resolves_what_a_key_object_selection_names(
    kind: str, monochrome1: Shown
) -> None:
    document = highdicom.ko.KeyObjectSelectionDocument.from_dataset(monochrome1.dataset(kind))
    series = monochrome1.dataset(Kind.SC)
    assert document.resolve_reference(series.SOPInstanceUID) == (
        series.StudyInstanceUID,
        series.SeriesInstanceUID,
        series.SOPInstanceUID,
    )
