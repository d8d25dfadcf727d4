"""Acknowledged means whole: data sets that are cut short, or that are not what they claim."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    JPEG2000Lossless,
    generate_uid,
)

from data_sets import (
    ANY,
    COLUMNS,
    DEFAULT,
    NATIVE,
    ROWS,
    SEQUENCE_DELIMITER,
    check,
    encoded,
    image,
    refused,
)
from thoracle.errors import CannotUnderstand, DataSetMismatch, OutOfResources
from thoracle.receive import completeness
from thoracle.receive.completeness import Command
from thoracle.receive.data_set_bytes import CHUNK, Inflated

# ---- what is whole is accepted -----------------------------------------------------------------


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_a_whole_object_is_accepted_in_every_native_transfer_syntax(
    tmp_path: Path, syntax: UID
) -> None:
    ds = image(AccessionNumber="A7")
    walked = check(tmp_path, encoded(ds, syntax), syntax)
    assert walked.text("StudyInstanceUID") == ds.StudyInstanceUID
    assert (walked.header.Rows, walked.text("AccessionNumber")) == (ROWS, "A7")


def test_a_false_sequence_delimiter_inside_compressed_bytes_does_not_end_the_pixels(
    tmp_path: Path,
) -> None:
    ds = image()
    ds.PixelData = encapsulate([b"\xff\x4f" + SEQUENCE_DELIMITER + b"compressed", b"second"])
    ds["PixelData"].is_undefined_length = True
    ds.NumberOfFrames = 2
    walked = check(tmp_path, encoded(ds, JPEG2000Lossless), JPEG2000Lossless)
    assert walked.text("SOPInstanceUID") == ds.SOPInstanceUID


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_sequences_of_undefined_length_are_walked(tmp_path: Path, syntax: UID) -> None:
    inner = Dataset()
    inner.RequestedProcedureID = "RP"
    inner.is_undefined_length_sequence_item = True
    ds = image(RequestAttributesSequence=[inner, inner])
    ds["RequestAttributesSequence"].is_undefined_length = True
    check(tmp_path, encoded(ds, syntax), syntax)


def test_values_longer_than_the_check_reads_are_accepted(tmp_path: Path) -> None:
    ds = image(ImageComments="x" * 10_000)
    ds.add_new(0x00091001, "UN", b"y" * 10_000)
    check(tmp_path, encoded(ds))


def test_trailing_padding_as_the_standard_has_it_is_accepted(tmp_path: Path) -> None:
    ds = image()
    ds.DataSetTrailingPadding = bytes(50)
    check(tmp_path, encoded(ds))


# ---- what is cut short is not ------------------------------------------------------------------


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_no_beginning_of_an_object_is_accepted(tmp_path: Path, syntax: UID) -> None:
    whole = encoded(image(), syntax)
    header = len(whole) - 2 * ROWS * COLUMNS if not syntax.is_deflated else len(whole)
    cuts = [*range(max(header - 120, 0), min(header + 8, len(whole)), 3), 0, 1, 7, 8, 100]
    # The padding byte behind a deflated stream is no loss.
    cuts += [len(whole) - 2 - syntax.is_deflated]
    for cut in cuts:
        assert refused(tmp_path, whole[:cut], syntax).status in (0xA900, 0xC000), cut


def test_no_beginning_of_a_compressed_object_is_accepted(tmp_path: Path) -> None:
    ds = image()
    ds.PixelData = encapsulate([b"a frame" + SEQUENCE_DELIMITER + b"more" * 20])
    ds["PixelData"].is_undefined_length = True
    whole = encoded(ds, JPEG2000Lossless)
    for cut in range(len(whole) - 150, len(whole)):
        error = refused(tmp_path, whole[:cut], JPEG2000Lossless)
        assert error.status in (0xA900, 0xC000), cut


def test_an_object_cut_within_its_pixels_says_where(tmp_path: Path) -> None:
    whole = encoded(image())
    error = refused(tmp_path, whole[:-20])
    assert isinstance(error, CannotUnderstand)
    assert "(7FE0,0010) ends at byte" in str(error)


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
def test_impossible_lengths_are_refused(tmp_path: Path, length: int) -> None:
    whole = encoded(image())
    place = whole.rindex(b"OW\0\0") + 4
    data_set = whole[:place] + struct.pack("<I", length) + whole[place + 4 :]
    assert refused(tmp_path, data_set).status == 0xC000


def test_a_sequence_cut_within_an_item_is_refused(tmp_path: Path) -> None:
    inner = Dataset()
    inner.RequestedProcedureID = "RP"
    ds = image(RequestAttributesSequence=[inner], PixelData=b"")
    ds["RequestAttributesSequence"].is_undefined_length = True
    whole = encoded(ds)
    end = whole.index(SEQUENCE_DELIMITER)
    for cut in range(end - 20, end + 8):
        assert refused(tmp_path, whole[:cut]).status in (0xA900, 0xC000), cut


@pytest.mark.parametrize("junk", [b"\0\0\0\1", b"junk", b"\0" * 7 + b"\1", b"junk" * 40])
def test_bytes_behind_the_last_element_are_refused(tmp_path: Path, junk: bytes) -> None:
    assert refused(tmp_path, encoded(image(SOPInstanceUID="1.2.3")) + junk).status == 0xC000


@pytest.mark.parametrize("syntax", NATIVE[:3], ids=lambda syntax: syntax.keyword)
def test_zero_bytes_behind_the_last_element_lose_nothing(tmp_path: Path, syntax: UID) -> None:
    whole = encoded(image(), syntax)
    for number in (1, 7, 8, 9, 64):
        check(tmp_path, whole + b"\0" * number, syntax)


def test_bytes_behind_the_end_mark_of_a_deflated_stream_lose_nothing(tmp_path: Path) -> None:
    syntax = DeflatedExplicitVRLittleEndian
    check(tmp_path, encoded(image(), syntax) + b"checksum", syntax)


@pytest.mark.parametrize("behind", [1, 120, 257])
def test_a_deflated_stream_that_ends_shortly_behind_a_chunk_is_whole(behind: int) -> None:
    """All of its bytes are taken by then, and the rest waits in the decompressor."""
    content = bytes(CHUNK + behind)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(content) + deflate.flush()
    for cut in (0, 1):
        source = Inflated(BytesIO(packed[: len(packed) - cut]), len(packed), 2 * len(content))
        if cut:
            with pytest.raises(CannotUnderstand, match="cut short"):
                source.read(len(content) + 1)
        else:
            assert source.read(len(content) + 1) == content


# ---- what is not what it claims ----------------------------------------------------------------


def test_another_sop_class_than_the_command_s_is_a_mismatch(tmp_path: Path) -> None:
    with pytest.raises(DataSetMismatch, match="SOPClassUID differs"):
        check(tmp_path, encoded(image()), sop_class=DigitalXRayImageStorageForPresentation)


def test_another_sop_instance_than_the_command_s_is_a_mismatch(tmp_path: Path) -> None:
    with pytest.raises(DataSetMismatch, match="SOPInstanceUID differs"):
        check(tmp_path, encoded(image()), sop_instance=generate_uid())


# The gateway ignores pydicom's warnings, which quote values (log.py).
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
@pytest.mark.parametrize("value", [None, "", "../../etc/x", "1.2\\3.4"])
def test_a_missing_or_invalid_uid_is_a_mismatch(
    tmp_path: Path, keyword: str, value: str | None
) -> None:
    ds = image()
    instance = ds.SOPInstanceUID
    del ds[keyword]
    with disable_value_validation():
        if value is not None:
            setattr(ds, keyword, value)
        data_set = encoded(ds)
    with pytest.raises(DataSetMismatch, match=keyword):
        check(tmp_path, data_set, sop_instance=instance)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_less_pixel_data_than_rows_and_columns_call_for_is_a_mismatch(
    tmp_path: Path, syntax: UID
) -> None:
    with pytest.raises(DataSetMismatch, match="Pixel Data has 320 of 340 bytes"):
        check(tmp_path, encoded(image(Rows=ROWS + 1), syntax), syntax)


def test_an_object_without_pixel_data_is_a_mismatch(tmp_path: Path) -> None:
    ds = image()
    del ds.PixelData
    with pytest.raises(DataSetMismatch, match="no Pixel Data"):
        check(tmp_path, encoded(ds))


def test_text_is_read_by_its_character_set(tmp_path: Path) -> None:
    ds = image(SpecificCharacterSet=["", "ISO 2022 IR 58"])
    data_set = encoded(ds).replace(b"Doe^Jane", b"\x1b$)A\xd5\xc5^ ")
    assert check(tmp_path, data_set).text("PatientName") == "张^"


def test_a_value_that_cannot_be_read_refuses_no_object(tmp_path: Path) -> None:
    data_set = encoded(image(NumberOfFrames=1)).replace(
        b"\x28\0\x08\0IS\x02\x001 ", b"\x28\0\x08\0IS\x02\x00x "
    )
    assert "NumberOfFrames" not in check(tmp_path, data_set).header


def test_pixels_without_rows_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, encoded(image(Rows=None, SOPInstanceUID="1.2.3"))).status == 0xC000


def test_a_size_that_cannot_be_read_is_told_as_it_is(tmp_path: Path) -> None:
    ds = image(SOPInstanceUID="1.2.3")
    data_set = encoded(ds).replace(b"US\x02\0\x10\0", b"US\x04\0\x10\0\x10\0", 1)
    said = str(refused(tmp_path, data_set))
    assert said == r"Rows (0028,0010): found '16\\16', required: a whole number"


def test_a_file_that_this_machine_cannot_read_is_asked_for_again(tmp_path: Path) -> None:
    with pytest.raises(OutOfResources, match="No such file or directory"):
        completeness.check(tmp_path / "gone.dcm", Command("1.2", "1.3", ANY), DEFAULT)
