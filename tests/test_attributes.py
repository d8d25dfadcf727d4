"""Attributes read one by one: values, faults and their sentences."""

import tracemalloc
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from radiographs import chest, radiograph, saved
from thoracle.errors import NotAnalysable
from thoracle.image import attributes
from thoracle.image.attributes import Fault, readable, sentences
from thoracle.image.header import header_of, read
from thoracle.records import Reason
from thoracle.report import context


def raw(keyword: str, vr: str | None, value: bytes) -> Dataset:
    """Return a data set with one element as it stands in a file."""
    tag = Tag(keyword)
    ds = Dataset()
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, vr is None, True)
    ds.set_original_encoding(vr is None, True, "ascii")
    return ds


def fault(keyword: str, vr: str | None, value: bytes) -> Fault:
    found, faults = readable(raw(keyword, vr, value))
    assert keyword not in found
    (only,) = faults
    assert only.keyword == keyword
    return only


def test_a_fault_names_element_value_found_value_required_and_what_is_taken() -> None:
    assert fault("ImagerPixelSpacing", "DS", b"0,15\\0,15 ").sentence == (
        "Imager Pixel Spacing (0018,1164): found '0,15\\\\0,15', required: a decimal number, or "
        "several; another spacing is taken, or square pixels."
    )
    assert fault("Rows", "US", b"\x01\x02\x03").detail == (
        "Rows (0028,0010): found 3 bytes, required: a whole number"
    )


def test_what_may_name_a_patient_is_not_quoted() -> None:
    for keyword, vr, value in (
        ("PatientWeight", "DS", b"Doe^Jane"),
        ("OtherPatientIDsSequence", "LO", b"Doe^Jane"),
        ("PatientBirthDate", "DA", "Doe^Jané".encode("latin-1")),
    ):
        assert "Doe" not in fault(keyword, vr, value).sentence


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "expected"),
    [
        ("Rows", "US", b"\x00\x02", 512),
        ("Rows", "IS", b"512 ", 512),
        ("Rows", "LO", b"512 ", 512),
        ("Rows", "UN", b"\x00\x02", 512),
        ("Rows", None, b"\x00\x02", 512),
        ("NumberOfFrames", "IS", b"1.0 ", 1),
        ("WindowCenter", "DS", b" 2048 ", 2048),
        ("WindowWidth", "DS", b"4096\\ ", 4096),
        ("RescaleSlope", "FD", b"\0\0\0\0\0\0\xf0\x3f", 1),
        ("PixelPaddingValue", "US", b"\x00\x08", 2048),
        ("PixelPaddingValue", None, b"\x00\x08", 2048),
        ("PixelPaddingValue", "IS", b"-1", -1),
        ("StudyDescription", "UT", b"Chest ", "Chest"),
    ],
)
def test_a_value_in_another_vr_is_read_where_it_is_of_the_kind(
    keyword: str, vr: str | None, value: bytes, expected: object
) -> None:
    found, faults = readable(raw(keyword, vr, value))
    assert faults == ()
    assert found[keyword].value == expected


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("Rows", "US", b"\x00\x02\x00\x02"),
        ("Rows", "FD", b"\0\0\0\0\0\0\xf8\x7f"),  # not a number
        ("Rows", "SS", b"\xff\xff"),
        ("Rows", "OB", b"\x00\x02"),
        ("NumberOfFrames", "IS", b"9" * 400),
        ("RescaleSlope", "DS", b"1\\2 "),
        ("RescaleSlope", "DS", b"1e999 "),
        ("RescaleSlope", "DS", b"nan "),
        ("RescaleSlope", "DS", "١٢".encode()),  # digits, but not those of DICOM
        ("StudyInstanceUID", "UI", b"1.2.x "),
        ("PatientName", "SQ", b"abcdefgh"),
        ("RequestAttributesSequence", "SQ", b"abc"),
        ("RequestAttributesSequence", "LO", b"abc "),
        ("LUTDescriptor", "LO", b"abc "),
        ("LUTData", "LO", b"abc "),
    ],
)
def test_a_value_of_another_kind_is_a_fault(keyword: str, vr: str, value: bytes) -> None:
    fault(keyword, vr, value)


def test_a_backslash_where_one_value_stands_is_a_character() -> None:
    for keyword in ("PatientID", "AccessionNumber", "StudyID", "PatientName"):
        found, _ = readable(raw(keyword, "LO", b"AB\\123"))
        assert str(found[keyword].value) == attributes.text(found, keyword) == "AB\\123"
        assert str(context.copied(found, [keyword])[keyword].value) == "AB\\123"
        buffer = BytesIO()
        found.save_as(buffer, implicit_vr=False, little_endian=True)
        assert b"AB\\123" in buffer.getvalue()


def test_a_line_break_where_one_line_stands_is_a_space_and_said() -> None:
    found, (only,) = readable(raw("PatientName", "PN", b"Doe^Jane\r\nX\n"))
    assert str(found.PatientName) == "Doe^Jane X"
    assert only.sentence == (
        "Patient's Name (0010,0010): found line breaks, required: one line; "
        "a space stands for each."
    )
    found, faults = readable(raw("AdditionalPatientHistory", "LT", b"one\r\ntwo "))
    assert found.AdditionalPatientHistory == "one\r\ntwo"
    assert faults == readable(raw("PatientID", "LO", b"P1\r\n"))[1] == ()


def test_values_of_items_are_faults_of_their_sequence() -> None:
    ds, item = Dataset(), raw("RequestedProcedureID", "US", b"\x01\x02")
    ds.RequestAttributesSequence = [item]
    (only,) = readable(ds)[1]
    assert only.detail.startswith(
        "Request Attributes Sequence > Requested Procedure ID (0040,1001)"
    )


def test_sequences_are_read_to_a_depth() -> None:
    ds = Dataset()
    for _ in range(100):
        outer = Dataset()
        outer.RequestAttributesSequence = [ds]
        ds = outer
    (only,) = readable(ds)[1]
    assert only.required == f"at most {attributes.DEEPEST} levels of items"


def test_many_faults_are_told_by_their_number() -> None:
    faults = tuple(Fault("Rows", str(number), "x") for number in range(100))
    said = sentences(faults)
    assert len(said) == attributes.MOST_SENTENCES + 1
    assert said[-1] == "80 more attributes could not be read."


def test_private_elements_and_overlays_are_left_out() -> None:
    ds = Dataset()
    ds.private_block(0x0009, "MAKER", create=True).add_new(1, "LO", "x")
    ds.add_new(0x60000010, "US", 512)
    assert readable(ds) == (Dataset(), ())


@pytest.mark.filterwarnings("ignore")
def test_a_character_set_that_is_no_text_costs_the_character_set(tmp_path: Path) -> None:
    path = saved(chest(SpecificCharacterSet="ISO_IR 6"), tmp_path / "a.dcm")
    content = path.read_bytes()
    before = b"\x08\0\x05\0CS\x08\0ISO_IR 6"
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, b"\x08\0\x05\0CS\x08\0A\0\x1bBCDEF"))
    with pytest.raises(ValueError, match="null"):
        dcmread(path)
    ds, faults = read(path)
    assert [one.keyword for one in faults] == ["SpecificCharacterSet"]
    assert ds.PatientName == "Doe^Jane"


def test_of_a_deflated_file_no_more_than_the_header_is_inflated(tmp_path: Path) -> None:
    ds = radiograph(np.zeros((4000, 4000), np.uint16), PatientName="Müller^Ä")
    ds.SpecificCharacterSet = "ISO_IR 192"
    plain = read(saved(ds, tmp_path / "plain.dcm"))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = saved(ds, tmp_path / "deflated.dcm")
    tracemalloc.start()
    deflated = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert deflated.ds == plain.ds
    assert deflated.faults == plain.faults
    assert deflated.ds.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    assert context.extract(path) is not None
    assert peak < 4_000_000  # of 32 MB of pixels
    path.write_bytes(path.read_bytes()[:-500])
    assert read(path).ds == plain.ds


def test_a_file_that_has_gone_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotAnalysable) as refusal:
        header_of(tmp_path / "gone.dcm")
    assert refusal.value.reason is Reason.UNDECODABLE
    assert refusal.value.detail == "the stored file is missing"


def test_what_is_no_dicom_file_has_an_empty_header(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert read(tmp_path / "a.txt") == (Dataset(), ())
