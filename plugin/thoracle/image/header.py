"""The header of a DICOM file: its data set without the pixels, each attribute read by itself."""

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.misc import is_dicom
from pydicom.tag import Tag
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEG2000MCLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from thoracle.errors import NotAnalysable
from thoracle.image import attributes, image_pixel
from thoracle.image.attributes import Fault
from thoracle.records import Reason

# ---- Part 10 -------------------------------------------------------------------------------------
# A Part 10 file is taken apart by pydicom, also where its Specific Character Set is no text.
#
# pydicom looks at that one element while it reads, and raises; what it says of the others can wait
# until :mod:`attributes` reads them.

_CHARACTER_SET = b"\x08\x00\x05\x00"
_BIG_ENDIAN_CHARACTER_SET = b"\x00\x08\x00\x05"
_BEHIND_PREFIX = 132
_CHUNK = 65536
_PIXEL_DATA = (Tag("PixelData"), Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))


class Parsed(NamedTuple):
    """A file that was taken apart."""

    ds: FileDataset
    file: BinaryIO
    """Where it stands now: at Pixel Data, if these were not read."""
    without_character_set: bool
    """Whether its Specific Character Set was left out."""


def parse(
    file: BinaryIO,
    *,
    stop_before_pixels: bool = False,
    specific_tags: tuple[str, ...] | None = None,
) -> Parsed:
    """Return the elements of a file.

    Raises
    ------
    Exception
        Whatever pydicom raises: the elements cannot be told apart.
    """
    tags = None if specific_tags is None else list(specific_tags)
    try:
        if stop_before_pixels and (ds := _inflated(file, tags)) is not None:
            return Parsed(ds, file, False)
        file.seek(0)
        ds = dcmread(file, stop_before_pixels=stop_before_pixels, specific_tags=tags)
        return Parsed(ds, file, False)
    except Exception:
        file.seek(0)
        content = file.read()
        places = [
            content.find(tag, _BEHIND_PREFIX) for tag in (_CHARACTER_SET, _BIG_ENDIAN_CHARACTER_SET)
        ]
        at = min((place for place in places if place >= 0), default=None)
        if at is None:
            raise
    # An odd group is private, and so read by nobody.
    odd = bytes(byte | 1 if byte == 8 else byte for byte in content[at : at + 2])
    file = BytesIO(content[:at] + odd + content[at + 2 :])
    ds = dcmread(file, stop_before_pixels=stop_before_pixels, specific_tags=tags)
    return Parsed(ds, file, True)


class _Inflating:
    """A deflated data set that is inflated as far as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._inflated = bytearray()
        self._position = 0

    def read(self, length: int) -> bytes:
        """Return so many bytes, or those that are left."""
        end = self._position + length
        while len(self._inflated) < end and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(_CHUNK)
            if not packed:
                break
            self._inflated += self._inflater.decompress(packed, _CHUNK)
        value = bytes(memoryview(self._inflated)[self._position : end])
        self._position += len(value)
        return value

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte, counted from the beginning or from here."""
        self._position = offset + (self._position if whence else 0)
        return self._position


def _inflated(file: BinaryIO, tags: list[str] | None) -> FileDataset | None:
    """Return the elements before the pixels of a deflated file; ``None`` of another one.

    pydicom inflates all of a file at once, twice as large as its pixels.
    """
    try:
        preamble = read_preamble(file, force=False)
        meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    except Exception:  # noqa: BLE001 - whatever it is, dcmread meets it, too
        return None
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    inflating: Any = _Inflating(file)
    ds = read_dataset(
        inflating,
        False,
        True,
        stop_when=lambda tag, _vr, _length: tag in _PIXEL_DATA,
        specific_tags=None if tags is None else [Tag(one) for one in tags],
    )
    found = FileDataset(BytesIO(), ds, preamble, FileMetaDataset(meta), False, True)
    found.set_original_encoding(False, True, ds._character_set)
    return found


# ---- header --------------------------------------------------------------------------------------


class Header(NamedTuple):
    """What a file says of itself."""

    ds: Dataset
    """Every value is of its kind; empty for a file that is no DICOM."""
    faults: tuple[Fault, ...] = ()
    """What could not be read, or cannot be meant."""


def read(path: Path) -> Header:
    """Return the header of a file; a value that cannot be read costs that attribute alone.

    Lossy Image Compression is what the code stream says, where that says more than the attribute
    (PS3.3 Section C.7.6.1.1.5).

    Raises
    ------
    NotAnalysable
        The file is gone, or its elements cannot be told apart.
    """
    try:
        if not is_dicom(path):
            return Header(Dataset())
        with path.open("rb") as file:
            parsed = parse(file, stop_before_pixels=True)
            found, faults = attributes.readable(parsed.ds)
            if parsed.without_character_set:
                faults += (attributes.NO_CHARACTER_SET,)
            faults += image_pixel.complete(found)
            syntax = found.file_meta.get("TransferSyntaxUID")
            if syntax is not None and is_lossy(parsed.file, syntax):
                found.LossyImageCompression = "01"
    except FileNotFoundError as error:
        raise NotAnalysable(Reason.UNDECODABLE, "the stored file is missing") from error
    # pydicom raises all kinds of errors on bytes from outside, RecursionError among them.
    except Exception as error:
        detail = f"the header cannot be parsed ({type(error).__name__})"
        if isinstance(error, OSError) and error.strerror:  # pydicom's own have none
            detail = f"the stored file cannot be read ({error.strerror})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
    return Header(found, faults)


def header_of(path: Path) -> Dataset:
    """Return the data set of :func:`read`.

    Raises
    ------
    NotAnalysable
        As :func:`read`.
    """
    return read(path).ds


# ---- code stream ---------------------------------------------------------------------------------
# Whether compression lost something, read from the code stream itself: one answer for everybody.
#
# Lossy Image Compression (0028,2110) is set by whoever remembers it. The code stream cannot forget:
# JPEG says it by its process, JPEG-LS by NEAR, JPEG 2000 and HTJ2K by the wavelet. No codec is used
# and no more than markers are read, so it happens where headers are read.

_JPEG = (
    JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless,
    JPEGLSNearLossless,
)  # fmt: skip
_JPEG_2000 = (
    JPEG2000, JPEG2000Lossless, JPEG2000MC, JPEG2000MCLossless, HTJ2K, HTJ2KLossless,
    HTJ2KLosslessRPCL,
)  # fmt: skip
MOST_BYTES = 2**20
"""Bytes of a frame within which its markers are looked for."""
_ITEM = b"\xfe\xff\x00\xe0"
_LOSSY_FRAMES = (0xC0, 0xC1, 0xC2, 0xC5, 0xC6, 0xC9, 0xCA, 0xCD, 0xCE)
"""Start of frame: DCT. C3, C7, CB and CF are lossless (ISO/IEC 10918-1 Table B.1)."""
_LOSSLESS_FRAMES = (0xC3, 0xC7, 0xCB, 0xCF)
_LS_FRAME, _SCAN, _END = 0xF7, 0xDA, 0xD9
_CODING_STYLE, _START_OF_TILE = 0x52, 0x90


def is_lossy(file: BinaryIO, syntax: UID) -> bool | None:
    """Return whether the first frame has lost something; ``None`` when its stream does not say.

    Parameters
    ----------
    file
        At the element Pixel Data of a file in an encapsulated transfer syntax.
    syntax
        The transfer syntax.

    References
    ----------
    PS3.5 8.2, A.4; ISO/IEC 10918-1 B.2.2; ISO/IEC 14495-1 C.2.3; ISO/IEC 15444-1 A.6.1.
    """
    if syntax not in (*_JPEG, *_JPEG_2000):
        return None
    stream = _first_frame(file)
    return _of_jpeg(stream) if syntax in _JPEG else _of_jpeg_2000(stream)


def _first_frame(file: BinaryIO) -> bytes:
    """Return the beginning of the first fragment behind the Basic Offset Table."""
    file.seek(12, 1)  # tag, VR, reserved, undefined length: encapsulated is always explicit
    for number in range(2):
        head = file.read(8)
        if len(head) < 8 or head[:4] != _ITEM:
            return b""
        length = int.from_bytes(head[4:], "little")
        if number:
            return file.read(min(length, MOST_BYTES))
        file.seek(length, 1)
    return b""


def _of_jpeg(stream: bytes) -> bool | None:
    """Return what the frame of JPEG says, or of JPEG-LS its scan."""
    at = 2  # behind SOI
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in _LOSSY_FRAMES:
            return True
        if marker in _LOSSLESS_FRAMES:
            return False
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker == _SCAN:
            near = at + 5 + 2 * stream[at + 4] if at + 4 < len(stream) else len(stream)
            return stream[near] > 0 if near < len(stream) else None
        if marker == _END or length < 2:
            return None
        at += 2 + length
    return None


def _of_jpeg_2000(stream: bytes) -> bool | None:
    """Return whether the wavelet of the main header is the irreversible one."""
    at = stream.find(b"\xff\x4f\xff\x51")  # SOC, SIZ; some writers put a JP2 file around it
    if at < 0:
        return None
    at += 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF or stream[at + 1] == _START_OF_TILE:
            return None
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] == _CODING_STYLE:
            # Lcod 2, Scod 1, SGcod 4, then levels, block width, height, style, transformation
            wavelet = at + 2 + 2 + 1 + 4 + 4
            return stream[wavelet] == 0 if wavelet < len(stream) else None
        if length < 2:
            return None
        at += 2 + length
    return None
