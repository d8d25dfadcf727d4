"""Each element that a stage reads, broken in many ways, one at a time: an answer and a report."""

from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import Comprehensive3DSRStorage

from radiographs import FULL_12_BIT, gradient, radiograph
from sources import NOON
from thoracle.classify import bundle
from thoracle.hl7 import oru
from thoracle.hl7.oru import ReportReference
from thoracle.image import selection
from thoracle.image.attributes import sentences
from thoracle.image.decoder import Decoder
from thoracle.image.header import header_of, read
from thoracle.pipeline.reader import Reader
from thoracle.records import Image, Judgement, Kind, Outcome, Reading, Saliency
from thoracle.report import context, header
from thoracle.report.identity import digest
from thoracle.settings import HL7, Classify, Settings
from thoracle.ups import review

IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""Without these the listener keeps no object."""
SIZE = ("Rows", "Columns", "BitsAllocated")
"""Without these there is no image."""
IMAGE = """
SpecificCharacterSet ImageType Modality Manufacturer InstanceNumber BodyPartExamined ViewPosition
PatientOrientation Laterality ImageLaterality PresentationIntentType AnatomicRegionSequence
ViewCodeSequence ProtocolName SeriesDescription ContributingEquipmentSequence SamplesPerPixel
PhotometricInterpretation PlanarConfiguration NumberOfFrames BitsStored HighBit PixelRepresentation
PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept RescaleType WindowCenter
WindowWidth VOILUTFunction VOILUTSequence ModalityLUTSequence PresentationLUTShape PixelSpacing
ImagerPixelSpacing NominalScannedPixelSpacing PixelAspectRatio LossyImageCompression
LossyImageCompressionRatio LossyImageCompressionMethod BurnedInAnnotation
""".split()  # noqa: SIM905 - as a list it would take a line for each name
MAY_REFUSE = ("SamplesPerPixel", "BitsStored", "NumberOfFrames", "RescaleSlope")
"""Broken so that they can still be read, these may say that the image is another one."""
CONTEXT = sorted(
    {*context.PATIENT, *context.STUDY, *context.ZONE, *context.REQUEST} - {*IDENTITY, *IMAGE}
)

TEXTS = {
    "comma": b"0,15\\0,15 ",
    "nothing": b"",
    "one byte": b"\x01",
    "bytes": b"\xff\xfe\x00\x1b$)A\x81",
    "long": b"Z" * 10240,
    "three values": b"1\\2\\3 ",
    "huge": b"9" * 400,
    "infinite": b"1e999 ",
    "not a number": b"nan ",
    "escape": b"\x1b$)A\xd5\xc5\x1b$B",
    "minus": b"-1",
    "controls": b"A\x07\x00B\n",
}
KINDS = {
    "text": ("LO", b"abc "),
    "number": ("US", b"\x07\x00"),
    "broken number": ("FD", np.array([np.nan]).tobytes()),
    "unknown": ("UN", b"\x00\x01\x02\x03"),
    "no VR": ("ZZ", b"\x00\x01\x02\x03"),
    "sequence": ("SQ", b"\xfe\xff\x00\xe0\x00\x00\x00\x00"),
    "cut sequence": ("SQ", b"\xfe\xff\x00\xe0\xff\x00\x00\x00abcd"),
    "no item": ("SQ", b"abcdefgh"),
    "item of junk": ("SQ", b"\xfe\xff\x00\xe0\x08\x00\x00\x00\x10\x00\x10\x00ZZ\xff\xff"),
}


class Explains:
    """A classifier that says the same of every image, and why."""

    def classify(self, image: Image) -> Judgement:
        return Judgement(0.9)

    def explain(self, image: Image) -> Saliency:
        contributions = np.zeros((8, 8), np.float32)
        contributions[2:4, 2:5] = 1
        return Saliency(contributions)


SETTINGS = Settings.model_validate(
    {
        "select": {"minimum_rows_columns": 64},
        "report": {"sc": ["positive"], "pr": ["positive"], "ko": []},
    }
)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Decoder(memory_megabytes=2048, timeout_seconds=60) as decoder:
        yield Reader(SETTINGS, bundle.identify(Classify()), decoder, Explains)


@cache
def _parts() -> tuple[bytes, dict[int, bytes]]:
    """Return what stands before the data set of an image, and its elements by their tags."""
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    ds = radiograph(gradient(80, 80), **FULL_12_BIT, RequestAttributesSequence=[request])
    ds.ImagerPixelSpacing = [0.15, 0.15]
    head = BytesIO()
    empty = Dataset()
    empty.file_meta = ds.file_meta
    empty.SOPClassUID, empty.SOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    empty.save_as(head, enforce_file_format=True)
    elements = {}
    for element in ds:
        one, written = Dataset(), DicomBytesIO()
        one.add(element)
        written.is_little_endian, written.is_implicit_VR = True, False
        write_dataset(written, one)
        elements[int(element.tag)] = written.getvalue()
    beginning = head.getvalue()
    return beginning[: beginning.index(b"\x08\0\x16\0UI")], elements


def _broken(keyword: str, vr: str, value: bytes, path: Path) -> Path:
    """Write an image with these bytes for an element: pydicom would not write all of them."""
    head, elements = _parts()
    tag = Tag(keyword)
    value += b"\0" * (len(value) % 2)
    long = vr in ("SQ", "UN", "UC", "UT", "OB")
    size = b"\0\0" + len(value).to_bytes(4, "little") if long else len(value).to_bytes(2, "little")
    name = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
    changed = elements | {int(tag): name + vr.encode() + size + value}
    path.write_bytes(head + b"".join(changed[number] for number in sorted(changed)))
    return path


EACH_AND_ALL = pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
"""A third of the ways for each keyword, another third for the next one; all in the slow tests."""


def _ways(keyword: str, every: int = 1) -> list[tuple[str, str, bytes]]:
    vr = dictionary_VR(Tag(keyword))[:2]
    texts = [] if vr == "SQ" else [(name, vr, value) for name, value in TEXTS.items()]
    ways = texts + [(name, *kind) for name, kind in KINDS.items()]
    return ways[int(Tag(keyword)) % every :: every]


def _tell(ds: Dataset, reading: Reading, reader: Reader) -> None:
    """Make what is told of a result to others."""
    oru.oru(
        ds,
        [reading],
        reader.bundle,
        ReportReference("2.25.1", "2.25.2"),
        HL7(name="ris", host="127.0.0.1", port=2575),
        sentence="x",
        control_id="1",
        made=NOON,
        status="preliminary",
    )
    workitem = review.build(
        context.study_context(ds),
        context.referenced_requests([ds]),
        [reading],
        reader.bundle,
        sop_instance_uid="2.25.3",
        worklist_label="AI",
        scheduled="20260101120000",
    )
    workitem.to_json_dict()


def _kept(path: Path) -> None:
    assert context.extract(path) is not None


@pytest.mark.filterwarnings("ignore")
@EACH_AND_ALL
@pytest.mark.parametrize("keyword", IMAGE)
def test_what_is_broken_in_an_image_costs_that_attribute_alone(
    keyword: str, every: int, reader: Reader, tmp_path: Path
) -> None:
    """Where two ways leave the same header, the objects are made of one of them."""
    made: set[str] = set()
    for way, vr, value in _ways(keyword, every):
        path = _broken(keyword, vr, value, tmp_path / "broken.dcm")
        reading = reader.read(path)
        if reading.outcome is Outcome.REJECTED:
            assert keyword in MAY_REFUSE, (way, reading.detail)
            assert reading.detail, way
        else:
            assert reading.outcome is Outcome.POSITIVE, way
        said = digest(header_of(path))
        if said in made:
            continue
        made.add(said)
        objects = reader.report([path], [reading], content_datetime=NOON)
        assert all(one.content for one in objects), way
        if reading.outcome is Outcome.POSITIVE:
            assert [one.kind for one in objects] == [Kind.SR, Kind.SC, Kind.PR], way
        _kept(path)


@pytest.mark.filterwarnings("ignore")
@EACH_AND_ALL
@pytest.mark.parametrize("keyword", CONTEXT)
def test_what_is_broken_in_patient_study_or_request_is_left_out(
    keyword: str, every: int, reader: Reader, tmp_path: Path
) -> None:
    """Of a report all but its content is made, which says nothing of these elements."""
    reading = Reading("2.25.4", "2.25.5", Outcome.POSITIVE, probability=0.9)
    made: set[str] = set()
    for way, vr, value in _ways(keyword, every):
        path = _broken(keyword, vr, value, tmp_path / "broken.dcm")
        ds, faults = read(path)
        selection.check(ds, SETTINGS.select, reader.bundle.finding.population)
        assert sentences(faults) or keyword in ds, way
        if digest(ds) in made:
            continue
        made.add(digest(ds))
        report = header.base(Kind.SR, ds, reader.bundle, NOON, SETTINGS.report)
        header.add_document(report, [ds], None, [])
        finished = header.identified(report, ds, Comprehensive3DSRStorage)
        for element in dcmread(BytesIO(header.encode(finished))).iterall():
            assert element.VR == "SQ" or "\x1b" not in str(element.value), (way, element.keyword)
        _tell(ds, reading, reader)
        _kept(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keyword", SIZE)
def test_without_a_size_there_is_no_image_and_the_report_says_why(
    keyword: str, reader: Reader, tmp_path: Path
) -> None:
    for way, vr, value in _ways(keyword):
        path = _broken(keyword, vr, value, tmp_path / "broken.dcm")
        reading = reader.read(path)
        assert reading.outcome is Outcome.REJECTED, way
        assert reading.detail, way
    (report,) = reader.report([path], [reading], content_datetime=NOON)
    assert report.kind is Kind.SR
    name = {"Rows": "Rows", "Columns": "Columns", "BitsAllocated": "Bits Allocated"}[keyword]
    assert name in str(reading.detail)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keyword", IDENTITY)
def test_an_image_without_identity_gets_an_answer_all_the_same(
    keyword: str, reader: Reader, tmp_path: Path
) -> None:
    for way, vr, value in _ways(keyword):
        reading = reader.read(_broken(keyword, vr, value, tmp_path / "broken.dcm"))
        assert reading.outcome is Outcome.POSITIVE, (way, reading.detail)
