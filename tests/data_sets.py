"""Data sets as they go over the wire, and what the check of completeness says of them."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import dsutils
from pynetdicom.dsutils import create_file_meta

from radiographs import radiograph
from thoracle.errors import ReceiveError
from thoracle.receive import completeness
from thoracle.receive.completeness import Command, Walked
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
    instance = UID(sop_instance or instance_in(data_set, syntax))
    meta = create_file_meta(
        sop_class_uid=sop_class, sop_instance_uid=instance, transfer_syntax=syntax
    )
    path = folder / "object.dcm"
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(file, meta)  # type: ignore[arg-type]  # any file will do
        file.write(data_set)
    return completeness.check(path, Command(sop_class, instance, syntax), budget)


def instance_in(data_set: bytes | bytearray, syntax: UID) -> str:
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
