"""The Secondary Capture with a heat map: valid, true to its source, the same each time."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
)

from peers import require
from sources import FINDING, GREEK, STUDY, cr, dx, named
from thoracle.errors import NotAnalysable, ReportError
from thoracle.image import selection
from thoracle.records import BundleIdentity, Decision, Outcome, Reading, Reason
from thoracle.report import header, keyimage
from thoracle.settings import Report as ReportSettings
from thoracle.settings import Select
from validators import dciodvfy

BUNDLE = BundleIdentity("covid_cxr", "0.1.0", "5f" * 32, Decision(0.5, 0.4, 0.6), "none", FINDING)
NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
LOSSY: dict[str, Any] = {
    "LossyImageCompression": "01",
    "LossyImageCompressionRatio": 12.5,
    "LossyImageCompressionMethod": "ISO_15444_1",
}
SOURCES: dict[str, Callable[[], Dataset]] = {
    "CR MONOCHROME1": cr,
    "DX MONOCHROME2": lambda: dx(PatientOrientation=["L", "F"]),
    "JPEG 2000": lambda: cr(**LOSSY),
    "Greek": lambda: named(GREEK),
    "no Accession Number": lambda: dx(AccessionNumber=None, RequestAttributesSequence=None),
    "no Study Description": lambda: cr(StudyDescription=None),
}
each_source = pytest.mark.parametrize("source", SOURCES)


def drawn(seed: int = 1, rows: int = 301, columns: int = 203) -> NDArray[np.uint8]:
    """Return noise: what no codec keeps by chance; an odd number of bytes."""
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


def key_image(source: Dataset, picture: NDArray[np.uint8] | None = None, **changes: Any) -> Dataset:
    reading = Reading(
        str(source.SOPClassUID),
        str(source.SOPInstanceUID),
        Outcome.POSITIVE,
        probability=0.91,
    )
    arguments = {
        "content_datetime": NOON,
        "settings": ReportSettings(),
        "instance_number": 1,
        "context_source": source,
        **changes,
    }
    shown = drawn() if picture is None else picture
    return keyimage.build(source, shown, arguments.pop("reading", reading), BUNDLE, **arguments)


def reread(ds: Dataset) -> Dataset:
    return pydicom.dcmread(BytesIO(header.encode(ds)))


def written(ds: Dataset, folder: Path) -> Path:
    path = folder / "keyimage.dcm"
    path.write_bytes(header.encode(ds))
    return path


@each_source
def test_a_key_image_is_valid(source: str, tmp_path: Path) -> None:
    built = key_image(SOURCES[source]())
    assert built.SOPClassUID == SecondaryCaptureImageStorage
    assert dciodvfy(written(built, tmp_path), "SCImage") == []


@each_source
def test_a_key_image_without_compression_is_valid_too(source: str, tmp_path: Path) -> None:
    native = reread(key_image(SOURCES[source]()))
    native.decompress(generate_instance_uid=False)
    assert native.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert native.PhotometricInterpretation == "RGB"
    assert dciodvfy(written(native, tmp_path), "SCImage") == []


@each_source
def test_patient_and_study_are_those_of_the_source(source: str) -> None:
    received = SOURCES[source]()
    built = reread(key_image(received))
    keywords = """
        PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex StudyInstanceUID
        StudyDate StudyTime StudyID StudyDescription ReferringPhysicianName AccessionNumber
    """.split()  # noqa: SIM905 - as a list it would take a line for each name
    for keyword in keywords:
        assert (built.get(keyword) or None) == (received.get(keyword) or None), keyword
    assert built.SeriesInstanceUID != received.SeriesInstanceUID
    assert built.SeriesNumber == 9002


@pytest.mark.parametrize("plugin", ["pyjpegls", "gdcm"])
def test_every_decoder_gets_the_picture_back_exactly(plugin: str) -> None:
    built = reread(key_image(cr()))
    assert built.file_meta.TransferSyntaxUID == JPEGLSLossless
    found = pixel_array(built, decoding_plugin=plugin)
    assert (found == drawn()).all()


def test_an_empty_picture_takes_a_small_part_of_its_bytes() -> None:
    black = np.zeros((2000, 1800, 3), np.uint8)
    assert len(header.encode(key_image(cr(), black))) < black.nbytes / 100


def test_the_same_input_gives_the_same_bytes() -> None:
    assert header.encode(key_image(dx())) == header.encode(key_image(dx()))


@pytest.mark.parametrize(
    "change",
    [
        {"picture": drawn(2)},
        {"instance_number": 2},
        {"content_datetime": datetime(2026, 1, 2, 12, 1, tzinfo=UTC)},
        {"settings": ReportSettings(institution_name="Hospital")},
    ],
    ids=["picture", "number", "time", "settings"],
)
def test_another_input_gets_another_uid(change: dict[str, Any]) -> None:
    assert key_image(dx(), **change).SOPInstanceUID != key_image(dx()).SOPInstanceUID


def test_one_changed_pixel_gets_another_uid() -> None:
    changed = drawn()
    changed[200, 100, 1] ^= 1
    assert key_image(dx(), changed).SOPInstanceUID != key_image(dx()).SOPInstanceUID


def test_the_key_images_of_a_study_share_patient_study_and_series() -> None:
    first, second = dx(1), cr(2, StudyDescription="Other")
    one = key_image(first, context_source=first)
    other = key_image(second, context_source=first, instance_number=2)
    assert one.SeriesInstanceUID == other.SeriesInstanceUID
    assert other.StudyDescription == "Chest"
    assert other.RequestAttributesSequence[0].RequestedProcedureID == "RP1"
    assert other.SourceImageSequence[0].ReferencedSOPInstanceUID == second.SOPInstanceUID
    assert one.SOPInstanceUID != other.SOPInstanceUID


def test_a_key_image_says_what_it_is_and_of_what() -> None:
    source = dx(PatientOrientation=["L", "F"])
    built = reread(key_image(source))
    assert built.ImageType == ["DERIVED", "SECONDARY", "OTHER", "AI_RESULT"]
    assert built.ConversionType == "WSD"
    assert built.PatientOrientation == ["L", "F"]
    assert "not for diagnosis" in built.ImageComments
    assert "probability 91 %" in built.ImageComments
    (image,) = built.SourceImageSequence
    assert image.ReferencedSOPClassUID == source.SOPClassUID
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    # The radiograph was made smaller: its spacing would measure wrong.
    assert not any("Spacing" in element.keyword for element in built)


def test_a_picture_of_a_lossy_image_stays_marked_as_lossy() -> None:
    built = key_image(cr(**LOSSY))
    assert {keyword: built.get(keyword) for keyword in LOSSY} == LOSSY
    assert key_image(cr()).LossyImageCompression == "00"


@pytest.mark.parametrize("stated", ["YES", "NO", None])
def test_burned_in_annotation_is_what_the_source_says(stated: str | None) -> None:
    assert key_image(cr(BurnedInAnnotation=stated)).get("BurnedInAnnotation") == stated


def test_a_key_image_is_never_analysed_itself() -> None:
    with pytest.raises(NotAnalysable) as refusal:
        selection.check(reread(key_image(cr())), Select(), FINDING.population)
    assert refusal.value.reason is Reason.OWN_OUTPUT


def test_a_reading_of_another_image_is_refused() -> None:
    reading = Reading("1", "2", Outcome.POSITIVE, probability=0.91)
    with pytest.raises(ReportError, match=f"found SOP Instance UID 2, required: .* {STUDY}.1.1"):
        key_image(cr(), reading=reading)


def test_dcmtk_reads_the_patient_and_gets_the_picture_back_exactly(tmp_path: Path) -> None:
    path = written(key_image(named(GREEK)), tmp_path)
    shown = subprocess.run(
        [require("dcmdump", "dcmtk"), "+U8", str(path)], capture_output=True, check=True
    )
    assert GREEK[1] in shown.stdout.decode()
    native = tmp_path / "native.dcm"
    subprocess.run([require("dcmdjpls", "dcmtk"), str(path), str(native)], check=True)
    assert (pydicom.dcmread(native).pixel_array == drawn()).all()
