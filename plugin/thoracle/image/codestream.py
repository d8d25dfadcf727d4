"""Whether compression lost something, read from the code stream itself: one answer for everybody.

Lossy Image Compression (0028,2110) is set by whoever remembers it. The code stream cannot forget:
JPEG says it by its process, JPEG-LS by NEAR, JPEG 2000 and HTJ2K by the wavelet. No codec is used
and no more than markers are read, so it happens where headers are read.
"""

from typing import BinaryIO

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
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
