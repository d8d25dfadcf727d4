"""The check that an object is whole, and is what its C-STORE command said.

pydicom reads a file that is cut short without complaint, so every element's end is compared with
the end of the file here. Values are skipped, not read: the cost does not grow with the image.
"""

import re
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings
from pydicom.filereader import data_element_generator, read_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from thoracle.errors import CannotUnderstand, DataSetMismatch

UNDEFINED_LENGTH = 0xFFFFFFFF
LARGE_VALUE = 4096
"""Values longer than this many bytes are skipped."""
INFLATE_RATIO = 100
"""A deflated data set may grow at most so many times; more is a bomb, not an image."""
INFLATE_FLOOR = 16 * 1024 * 1024
INFLATE_CEILING = 1024 * 1024 * 1024
"""Bytes; the decoder takes no larger image either."""
LARGEST_PADDING = 1024 * 1024
DEEPEST_NESTING = 64
PIXEL_DATA = Tag("PixelData")
_UID = re.compile(r"[0-9.]{1,64}")

_HEADER = tuple(
    Tag(keyword)
    for keyword in (
        "SpecificCharacterSet",
        "SOPClassUID",
        "SOPInstanceUID",
        "AccessionNumber",
        "PatientID",
        "IssuerOfPatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SamplesPerPixel",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "StudyPriorityID",
        "RequestedProcedurePriority",
        "PatientName",
        "Modality",
        "StudyDescription",
        "StudyDate",
        "StudyTime",
        "StationName",
        "ManufacturerModelName",
    )
)


@dataclass(frozen=True, slots=True)
class Command:
    """What the C-STORE-RQ announced (PS3.7 Section 9.1.1.1)."""

    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class Walked:
    """A data set whose elements all lie inside the file."""

    header: Dataset
    """The elements of ``_HEADER`` that are present."""
    data_set_offset: int
    """Where the data set begins in the file, bytes."""
    pixel_data_length: int | None
    """Bytes of native pixel data; ``None`` when encapsulated."""

    def text(self, keyword: str, longest: int = 64) -> str:
        """Return an element as text of at most so many characters, empty when absent."""
        return str(self.header.get(keyword) or "")[:longest]


def check(path: Path, command: Command) -> Walked:
    """Return the header of a Part 10 file that is whole and agrees with its command.

    Raises
    ------
    CannotUnderstand
        The data set is cut short, cannot be parsed or inflates without measure.
    DataSetMismatch
        UIDs differ from the command or are missing, or pixel data is shorter than its image.
    """
    read_file_meta_info(path)  # raises InvalidDicomError; pynetdicom wrote it
    try:
        with path.open("rb") as file:
            walked = _walk(file, UID(command.transfer_syntax_uid), path.stat().st_size)
        list(walked.header)  # converts each value, so that none fails later
        _agree(walked.header, command)
        _enough_pixels(walked)
    # pydicom raises all of these, and more in future, on bytes from outside: to the sender they
    # are one and the same. The three of ours pass through.
    except (CannotUnderstand, DataSetMismatch):
        raise
    except Exception as error:
        raise CannotUnderstand(f"data set: {type(error).__name__}") from error
    return walked


def _walk(file: BinaryIO, syntax: UID, size: int) -> Walked:
    offset = _data_set_offset(file)
    file.seek(offset)
    source: BinaryIO = file
    if syntax == DeflatedExplicitVRLittleEndian:
        source, size = _inflate(file, size - offset)
    else:
        source.seek(offset)
    found: dict[BaseTag, Any] = {}
    pixel_data_length = None
    end = source.tell()
    element: Any  # RawDataElement, or DataElement for a sequence of undefined length
    for element in data_element_generator(
        source, syntax.is_implicit_VR, syntax.is_little_endian, defer_size=LARGE_VALUE
    ):
        end = _end_of(element, source, size)
        _limit_nesting(element, DEEPEST_NESTING)
        if element.tag in _HEADER and element.value is not None:
            found[element.tag] = element
        if element.tag == PIXEL_DATA:
            pixel_data_length = element.length
    source.seek(end)
    # Some writers pad with zeros; those are no loss.
    if size - end > LARGEST_PADDING or source.read().strip(b"\0"):
        raise CannotUnderstand(f"data set ends at byte {end} of {size}")
    if pixel_data_length is None:
        raise DataSetMismatch("no Pixel Data (7FE0,0010)")
    if syntax.is_encapsulated:
        pixel_data_length = None
    return Walked(_dataset(found, syntax), offset, pixel_data_length)


def _end_of(element: Any, source: BinaryIO, size: int) -> int:
    length = getattr(element, "length", UNDEFINED_LENGTH)
    if length == UNDEFINED_LENGTH:
        return source.tell()
    end = int(element.value_tell + length)
    if end > size:
        raise CannotUnderstand(f"{element.tag} ends at byte {end} of {size}")
    return end


def _limit_nesting(element: Any, levels: int) -> None:
    # Sequences of defined length are still bytes here: pydicom parses them when they are read.
    if not isinstance(element, DataElement) or element.VR != "SQ":
        return
    if levels == 0:
        raise CannotUnderstand(f"sequences nested deeper than {DEEPEST_NESTING}")
    for item in element.value:
        for below in item.values():
            _limit_nesting(below, levels - 1)


def _dataset(found: dict[BaseTag, Any], syntax: UID) -> Dataset:
    header = Dataset(found)
    encoding = convert_encodings(header.get("SpecificCharacterSet") or "ISO_IR 6")
    header.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian, encoding)
    return header


def _data_set_offset(file: BinaryIO) -> int:
    """Return where the data set begins: after preamble, prefix and File Meta Information."""
    file.seek(132)
    group_length = file.read(12)
    if group_length[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        raise CannotUnderstand("File Meta Information without its group length")
    return 144 + int.from_bytes(group_length[8:], "little")


def _inflate(file: BinaryIO, compressed: int) -> tuple[BytesIO, int]:
    limit = min(max(compressed * INFLATE_RATIO, INFLATE_FLOOR), INFLATE_CEILING)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(file.read(), limit)
    if inflater.unconsumed_tail:
        raise CannotUnderstand(f"deflated data set grows beyond {limit} bytes")
    if not inflater.eof:
        raise CannotUnderstand("deflated data set is cut short")
    # The stream marks its own end. Old writers put a checksum behind it, which is no loss.
    return BytesIO(inflated), len(inflated)


def _agree(header: Dataset, command: Command) -> None:
    for keyword, announced in (
        ("SOPClassUID", command.affected_sop_class_uid),
        ("SOPInstanceUID", command.affected_sop_instance_uid),
        ("StudyInstanceUID", None),
        ("SeriesInstanceUID", None),
    ):
        value = str(header.get(keyword, "") or "")
        if not _UID.fullmatch(value):
            raise DataSetMismatch(f"{keyword}: no valid UID")
        if announced is not None and value != announced:
            raise DataSetMismatch(f"{keyword} differs from the command's")


def _enough_pixels(walked: Walked) -> None:
    found = walked.pixel_data_length
    if found is None:
        return
    header = walked.header
    frame = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel", 1) or 1)
    frames = int(header.get("NumberOfFrames", 1) or 1)
    required = frame * frames * int(header.BitsAllocated) // 8
    if found < required:
        raise DataSetMismatch(f"Pixel Data has {found} of {required} bytes")
