"""Acknowledged means whole: data sets that are cut short, or that are not what they claim."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)
from pynetdicom import dsutils
from pynetdicom.dsutils import create_file_meta

import hostile
from radiographs import radiograph
from thoracle.errors import (
    BeyondBudget,
    CannotUnderstand,
    DataSetMismatch,
    OutOfResources,
    ReceiveError,
)
from thoracle.image.characters import REPLACEMENT
from thoracle.receive import completeness
from thoracle.receive.completeness import Command, Walked
from thoracle.receive.data_set_bytes import CHUNK, Inflated
from thoracle.receive.walk import walk
from thoracle.settings import Budget

NATIVE = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
ANY = NATIVE[0]
ROWS, COLUMNS = 16, 10
DEFAULT = Budget()
WARNS = pytest.mark.filterwarnings("ignore::UserWarning")
"""pydicom warns of what it mends."""
SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
ITEM_DELIMITER = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
UNDEFINED = b"\xff\xff\xff\xff"


def image(**attributes: object) -> Dataset:
    """A radiograph of 16 x 10 pixels; the check does not care for its size."""
    stored = np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)
    return radiograph(stored, **attributes)


def encoded(ds: Dataset, syntax: UID = ANY) -> bytes:
    """The data set as it goes over the wire."""
    if not syntax.is_little_endian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    wire = dsutils.encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert wire is not None
    return wire


def check(
    folder: Path,
    data_set: bytes,
    syntax: UID = ANY,
    *,
    sop_class: UID = ComputedRadiographyImageStorage,
    sop_instance: str | None = None,
    budget: Budget = DEFAULT,
) -> Walked:
    """Check bytes in a file such as the listener writes."""
    instance = UID(sop_instance or _instance_in(data_set, syntax))
    meta = create_file_meta(
        sop_class_uid=sop_class, sop_instance_uid=instance, transfer_syntax=syntax
    )
    path = folder / "object.dcm"
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(file, meta)  # type: ignore[arg-type]  # any file will do
        file.write(data_set)
    return completeness.check(path, Command(sop_class, instance, syntax), budget)


def _instance_in(data_set: bytes | bytearray, syntax: UID) -> str:
    plain = zlib.decompressobj(-15).decompress(data_set) if syntax.is_deflated else data_set
    order = "<" if syntax.is_little_endian else ">"
    start = plain.find(struct.pack(f"{order}HH", 0x0008, 0x0018)) + 8
    (length,) = struct.unpack(f"{order}H", plain[start - 2 : start])
    if syntax.is_implicit_VR:
        (length,) = struct.unpack("<I", plain[start - 4 : start])
    return plain[start : start + length].decode().rstrip("\0")


def refused(folder: Path, data_set: bytes, syntax: UID = ANY) -> ReceiveError:
    """The error that answers these bytes."""
    with pytest.raises(ReceiveError) as raised:
        check(folder, data_set, syntax, sop_instance="1.2.3")
    return raised.value


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


# ---- what one reader takes and the next does not -----------------------------------------------


@pytest.mark.parametrize(
    ("tag", "value"), [(0x00100020, b"OTHER "), (0x0020000D, b"1.2.3\0"), (0x00100021, b"WARD")]
)
def test_what_is_behind_the_pixels_is_nobody_s_identity(
    tmp_path: Path, tag: int, value: bytes
) -> None:
    ds = image(IssuerOfPatientID="HOME")
    behind = hostile.element(tag >> 16, tag & 0xFFFF, "UI" if tag >> 16 == 0x20 else "LO", value)
    walked = check(tmp_path, encoded(ds) + behind)
    assert walked.text("PatientID") == "P1"
    assert walked.text("StudyInstanceUID") == ds.StudyInstanceUID
    assert walked.text("IssuerOfPatientID") == "HOME"


def test_pixels_in_front_leave_an_object_without_identity(tmp_path: Path) -> None:
    data_set = encoded(image(SOPInstanceUID="1.2.3"))
    at = data_set.index(b"\xe0\x7f\x10\0")
    assert refused(tmp_path, data_set[at:] + data_set[:at]).status == 0xA900


@pytest.mark.parametrize("value", [b"OTHER ", b"P1"])
def test_an_identity_that_is_there_twice_has_to_be_one(tmp_path: Path, value: bytes) -> None:
    ds = image(SOPInstanceUID="1.2.3")
    data_set = encoded(ds)
    at = data_set.index(b"\x10\0\x30\0DA")
    doubled = data_set[:at] + hostile.element(0x10, 0x20, "LO", value) + data_set[at:]
    if value == b"P1":
        assert check(tmp_path, doubled).text("PatientID") == "P1"
    else:
        said = str(refused(tmp_path, doubled))
        assert said == "(0010,0020) is there twice, with different values"


def test_an_identity_is_no_sequence(tmp_path: Path) -> None:
    data_set = encoded(image(SOPInstanceUID="1.2.3"))
    at = data_set.index(b"\x10\0\x30\0DA")
    for length in (0, 0xFFFFFFFF):
        second = hostile.element(0x10, 0x20, "SQ", b"", length) + SEQUENCE_DELIMITER * bool(length)
        said = str(refused(tmp_path, data_set[:at] + second + data_set[at:]))
        assert said == "(0010,0020) is a sequence, required: one value"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=str)
def test_a_data_set_that_begins_with_file_meta_information_is_refused(
    tmp_path: Path, syntax: UID
) -> None:
    data_set = encoded(image(SOPInstanceUID="1.2.3"), syntax)
    for number, value in ((0, b"\0"), (0x10, b"1.2 ")):
        explicit = hostile.element(2, number, "UI", value)
        first = hostile.implicit(2, number, value) if syntax.is_implicit_VR else explicit
        assert refused(tmp_path, first + data_set, syntax).status == 0xC000


# ---- what is hostile ---------------------------------------------------------------------------


def test_a_deflate_bomb_is_refused(tmp_path: Path) -> None:
    ds = image(SOPInstanceUID="1.2.3")
    ds.PixelData = bytes(64_000_000)
    bomb = encoded(ds, DeflatedExplicitVRLittleEndian)
    assert len(bomb) < 100_000
    error = refused(tmp_path, bomb, DeflatedExplicitVRLittleEndian)
    assert error.status == 0xC000
    assert "grows beyond" in str(error)


def test_what_is_no_deflated_stream_is_told_as_such(tmp_path: Path) -> None:
    wire = zlib.compress(encoded(image(SOPInstanceUID="1.2.3")))  # with a header that has no place
    said = str(refused(tmp_path, wire, DeflatedExplicitVRLittleEndian))
    assert said == "deflated data set cannot be inflated"


@pytest.mark.parametrize("depth", [65, 1000, 50_000])
def test_nesting_without_end_is_refused(tmp_path: Path, depth: int) -> None:
    down = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF)
    down += b"\xfe\xff\x00\xe0" + UNDEFINED
    whole = encoded(image(SOPInstanceUID="1.2.3"))
    place = whole.rindex(b"\xe0\x7f\x10\x00OW")
    nested = down * depth + (ITEM_DELIMITER + SEQUENCE_DELIMITER) * depth
    assert refused(tmp_path, whole[:place] + nested + whole[place:]).status == 0xC000


@pytest.mark.parametrize("name", hostile.COSTLY)
def test_what_costs_more_than_the_budget_is_refused_with_its_name(
    tmp_path: Path, name: str
) -> None:
    make, number, comment = hostile.COSTLY[name]
    made = make(number)
    tracemalloc.start()
    error = refused(tmp_path, made.data_set, made.syntax)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (error.status, len(str(error)) <= 64) == (0xC000, True)
    assert comment in str(error)
    assert peak < 4_000_000  # bytes, whatever the object's


@pytest.mark.parametrize(
    "make",
    [hostile.nested, hostile.nested_undefined, hostile.nested_unknown, hostile.nested_faulty],
)
def test_sixty_levels_of_sequences_are_accepted(
    tmp_path: Path, make: Callable[[int], hostile.Hostile]
) -> None:
    made = make(60)
    check(tmp_path, made.data_set, made.syntax)
    assert refused(tmp_path, make(65).data_set).status == 0xC000


def test_a_clock_that_runs_out_ends_the_walk(tmp_path: Path) -> None:
    made = hostile.elements(40_000)
    clock = iter(range(0, 10_000, 6))
    with pytest.raises(BeyondBudget, match="more than 10 seconds"):
        walk(
            BytesIO(made.data_set),
            len(made.data_set),
            made.syntax,
            (),
            4096,
            Budget(),
            lambda: next(clock),
        )


def test_an_item_that_is_cut_costs_its_sequence_alone(tmp_path: Path) -> None:
    cut = hostile.item(struct.pack("<HH2sH", 8, 0x100, b"SH", 6))
    made = hostile.image(hostile.element(8, 0x2218, "SQ", cut))
    assert check(tmp_path, made.data_set).text("PatientID") == "HOSTILE"


def test_a_backslash_in_a_patient_id_is_part_of_it(tmp_path: Path) -> None:
    made = hostile.image(
        hostile.element(8, 0x50, "SH", b"2024\\17"),
        patient=hostile.element(0x10, 0x20, "LO", b" AB\\123"),
    )
    walked = check(tmp_path, made.data_set)
    assert (walked.text("PatientID"), walked.text("AccessionNumber")) == ("AB\\123", "2024\\17")


@WARNS
@pytest.mark.parametrize("uid", ["..", "1..2", ".1", "1.", "1.2a"])
def test_dots_alone_make_no_uid(tmp_path: Path, uid: str) -> None:
    made = hostile.image(study=uid)
    assert refused(tmp_path, made.data_set).status == 0xA900


@WARNS
def test_a_uid_with_leading_zeros_is_accepted(tmp_path: Path) -> None:
    check(tmp_path, hostile.image(study="1.02.003").data_set)


@pytest.mark.parametrize("size", [(0, 0), (0, 32), (32, 0)])
def test_an_image_of_no_size_is_a_mismatch(tmp_path: Path, size: tuple[int, int]) -> None:
    made = hostile.image(rows=size[0], columns=size[1])
    assert refused(tmp_path, made.data_set).status == 0xA900


@WARNS
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=str)
def test_what_is_accepted_is_what_pydicom_reads(tmp_path: Path, syntax: UID) -> None:
    """A difference between the two would be a way around the walk."""
    inner = Dataset()
    inner.RequestedProcedureID = "RP"
    inner.CodeValue = "A"
    uids = {
        f"{level}InstanceUID": f"1.2.3.{number}"  # always as long: the same bytes are changed
        for number, level in enumerate(("SOP", "Series", "Study"))
    }
    whole = bytearray(
        encoded(
            image(RequestAttributesSequence=[inner, inner], IssuerOfPatientID="H", **uids), syntax
        )
    )
    header = len(whole) - ROWS * COLUMNS * 2
    noise = np.random.default_rng(20261129)
    instance = _instance_in(whole, syntax)
    accepted = 0
    for _ in range(500):
        mutant = bytearray(whole)
        for _ in range(int(noise.integers(1, 4))):
            mutant[int(noise.integers(0, header))] = int(noise.integers(0, 256))
        try:
            walked = check(tmp_path, bytes(mutant), syntax, sop_instance=instance)
        except ReceiveError:
            continue
        accepted += 1
        read = dcmread(tmp_path / "object.dcm")
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows"):
            assert walked.header[keyword].value == read[keyword].value
        # pydicom keeps a control character where ours says that it is none.
        found, expected = str(walked.header.get("PatientID")), str(read.get("PatientID"))
        assert len(found) == len(expected)
        assert all(a in (b, REPLACEMENT) for a, b in zip(found, expected, strict=True))
    assert accepted > 50


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(20261122)
    for syntax in NATIVE:
        for _ in range(50):
            error = refused(tmp_path, noise.bytes(4000), syntax)
            assert error.status in (0xA900, 0xC000)


def test_a_file_that_this_machine_cannot_read_is_asked_for_again(tmp_path: Path) -> None:
    with pytest.raises(OutOfResources, match="No such file or directory"):
        completeness.check(tmp_path / "gone.dcm", Command("1.2", "1.3", ANY), DEFAULT)
