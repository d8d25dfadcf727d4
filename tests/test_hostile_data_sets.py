"""Data sets that two readers would take for two things, that cost too much, or that are noise."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

import hostile
from data_sets import (
    COLUMNS,
    ITEM_DELIMITER,
    NATIVE,
    ROWS,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    WARNS,
    check,
    encoded,
    image,
    instance_in,
    refused,
)
from thoracle.errors import BeyondBudget, ReceiveError
from thoracle.image.characters import REPLACEMENT
from thoracle.receive.walk import walk
from thoracle.settings import Budget

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
    instance = instance_in(whole, syntax)
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
