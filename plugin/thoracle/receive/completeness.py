"""The check that an object is whole, within its budget, and what its C-STORE command said.

pydicom reads a file that is cut short without complaint, and believes whatever nests or inflates.
So a walk of our own goes first (``walk.py``); what it brings back is compared here.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from thoracle.errors import CannotUnderstand, DataSetMismatch, OutOfResources
from thoracle.image import attributes
from thoracle.receive.walk import UNDEFINED_LENGTH, Pixels, walk
from thoracle.settings import Budget

LONGEST_VALUE = 4096
"""Bytes of a value that we keep; the longest is a name of five components in three writings."""
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
"""Components without leading zeros are what the standard asks for; the field has others, too."""

_HEADER = frozenset(
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
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PlanarConfiguration",
        "StudyPriorityID",
        "RequestedProcedurePriority",
        "PatientName",
        "Modality",
        "StudyDescription",
        "PatientBirthDate",
        "PatientSex",
        "PatientAge",
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
    pixels: Pixels | None

    def text(self, keyword: str, longest: int = 64) -> str:
        """Return an element as one text of at most so many characters, empty when absent.

        Each is one value: the standard has no backslash in it (PS3.5 Section 6.2), so one that is
        there is part of the value. One that cannot be read is empty.
        """
        return attributes.text(self.header, keyword)[:longest]


REQUIRED = ("PatientID", "IssuerOfPatientID", "Rows", "Columns")
"""Whose object it is, and its size: such a value has to be readable; others are left out."""


def check(path: Path, command: Command, budget: Budget) -> Walked:
    """Return the header of a Part 10 file that is whole and agrees with its command.

    Raises
    ------
    CannotUnderstand
        The data set is cut short or cannot be parsed.
    BeyondBudget
        It costs more than the budget.
    DataSetMismatch
        UIDs differ from the command or are missing, or pixel data is shorter than its image.
    OutOfResources
        The file cannot be read, e.g. for want of memory or descriptors.
    """
    syntax = UID(command.transfer_syntax_uid)
    try:
        # pynetdicom wrote it; a data set that begins with group 0002 is taken for a part of it.
        read_file_meta_info(path)
        found = walked(path, syntax, budget)
        _agree(found, command)
        _pixels(found, syntax)
    except (CannotUnderstand, DataSetMismatch):
        raise
    except (OSError, MemoryError) as error:  # of this machine, not of the object: sent again
        raise OutOfResources(getattr(error, "strerror", None) or type(error).__name__) from error
    # pydicom raises many errors, and more in future, on bytes from outside: to the sender they
    # are one and the same.
    except Exception as error:
        raise CannotUnderstand(f"data set: {type(error).__name__}") from error
    return found


def walked(path: Path, syntax: UID, budget: Budget) -> Walked:
    """Return the header of a Part 10 file that is whole, whatever it says.

    Raises
    ------
    CannotUnderstand, BeyondBudget
        As by :func:`check`.
    """
    with path.open("rb") as file:
        offset = _data_set_offset(file.read(144))
        file.seek(offset)
        size = path.stat().st_size
        found = walk(file, size, syntax, _HEADER, LONGEST_VALUE, budget)
    header, faults = attributes.readable(_dataset(found.elements, syntax))
    for fault in faults:
        if fault.keyword in REQUIRED and fault.keyword not in header:
            raise CannotUnderstand(fault.detail)
    return Walked(header, offset, found.pixels)


def _dataset(found: dict[BaseTag, DataElement | RawDataElement], syntax: UID) -> Dataset:
    header = Dataset(found)
    header.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian)
    return header


def _data_set_offset(beginning: bytes) -> int:
    """Return where the data set begins: after preamble, prefix and File Meta Information."""
    group_length = beginning[132:144]
    if group_length[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        raise CannotUnderstand("File Meta Information without its group length")
    return 144 + int.from_bytes(group_length[8:], "little")


def _agree(walked: Walked, command: Command) -> None:
    for keyword, announced in (
        ("SOPClassUID", command.affected_sop_class_uid),
        ("SOPInstanceUID", command.affected_sop_instance_uid),
        ("StudyInstanceUID", None),
        ("SeriesInstanceUID", None),
    ):
        value = str(walked.header.get(keyword, "") or "")
        if not _UID.fullmatch(value):
            raise DataSetMismatch(f"{keyword}: no valid UID")
        if announced is not None and value != announced:
            raise DataSetMismatch(f"{keyword} differs from the command's")


def _pixels(walked: Walked, syntax: UID) -> None:
    if walked.pixels is None:
        raise DataSetMismatch("no Pixel Data (7FE0,0010)")
    for keyword in ("Rows", "Columns"):
        if keyword not in walked.header or walked.header[keyword].is_empty:
            raise CannotUnderstand(f"{keyword}: found nothing, required at least 1")
        if _number(walked, keyword, 0) < 1:
            raise DataSetMismatch(f"{keyword}: found 0, required at least 1")
    if syntax.is_encapsulated or walked.pixels.length == UNDEFINED_LENGTH:
        return
    required = required_bytes(walked)
    if walked.pixels.length < required:
        raise DataSetMismatch(f"Pixel Data has {walked.pixels.length} of {required} bytes")


def required_bytes(walked: Walked) -> int:
    """Return how many bytes of native pixel data the image calls for."""
    samples = _number(walked, "Rows", 0) * _number(walked, "Columns", 0)
    samples *= _number(walked, "SamplesPerPixel", 1) * _number(walked, "NumberOfFrames", 1)
    return samples * _number(walked, "BitsAllocated", 0) // 8


def _number(walked: Walked, keyword: str, default: int) -> int:
    """Return a number; one that cannot be read is for the stages that need it to judge."""
    return int(walked.header.get(keyword) or default)
