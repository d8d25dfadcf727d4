"""Stored pixel values of a file, through the codecs: in the decoder child, or for trusted files."""

from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array

from thoracle.errors import NotAnalysable
from thoracle.records import Reason

Format = Literal["DICOM", "PNG", "JPEG"]

LARGEST_IMAGE_BYTES = 2**30
"""Decoded size, bytes, above which an image is refused before it is decoded."""
LONGEST_DETAIL = 300
"""Longest text of a codec's own that is passed on, characters."""
MALFORMED = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    StructError,
    TypeError,
    ValueError,
)
"""What reading an element of a malformed data set may raise."""


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """Pixel values as they are stored, before any look-up table."""

    array: NDArray[Any]
    """``(rows, columns)`` or ``(rows, columns, 3)`` (red, green, blue), integer or float.

    Of DICOM files all allocated bits, unused ones included: what they mean is in the data set.
    """
    format: Format


def decode_file(path: Path) -> StoredPixels:
    """Return the stored pixel values of a single-frame DICOM, PNG or JPEG file.

    Runs codecs in this process: for files that are trusted, such as training data.

    Raises
    ------
    NotAnalysable
        The file has no pixel data, several frames, more than ``LARGEST_IMAGE_BYTES``, or
        cannot be decoded.
    """
    try:
        with path.open("rb") as file:
            signature = file.read(8)
        if signature == b"\x89PNG\r\n\x1a\n" or signature.startswith(b"\xff\xd8\xff"):
            return _decode_picture(path)
        ds = dcmread(path)
    except (NotAnalysable, MemoryError):
        raise
    except Exception as error:
        # The message may quote an element's value, which may be the patient's name.
        detail = f"the file cannot be read ({type(error).__name__})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
    return _decode_dicom(ds)


def _decode_dicom(ds: Dataset) -> StoredPixels:
    """Return the one frame of a data set, YBR converted to RGB."""
    try:
        _check_pixel_module(ds)
        # Unused bits stay: pydicom clears them as if High Bit were always Bits Stored - 1.
        array = pixel_array(ds, correct_unused_bits=False)
    except (NotAnalysable, MemoryError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {str(error)[:LONGEST_DETAIL]!r}"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
    return StoredPixels(array, "DICOM")


def _check_pixel_module(ds: Dataset) -> None:
    """Refuse data sets without pixels, with several frames, or too large to decode."""
    if not any(name in ds for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise NotAnalysable(Reason.NO_IMAGE, "found no pixel data")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames != 1:
        raise NotAnalysable(Reason.GEOMETRY, f"found {frames} frames, required is 1")
    bits = int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel", 1)) * ds.BitsAllocated
    _check_size(bits // 8)


def _check_size(found: int) -> None:
    """Refuse an image of more than ``LARGEST_IMAGE_BYTES``."""
    if found > LARGEST_IMAGE_BYTES:
        detail = f"found {found} bytes of pixels, required are at most {LARGEST_IMAGE_BYTES}"
        raise NotAnalysable(Reason.UNDECODABLE, detail)


def _decode_picture(path: Path) -> StoredPixels:
    """Return the pixels of a PNG or JPEG file; Exif orientation and transparency are ignored."""
    with Image.open(path, formats=("PNG", "JPEG")) as picture:
        _check_size(picture.width * picture.height * 4)
        format_: Format = "PNG" if picture.format == "PNG" else "JPEG"
        if picture.mode.startswith("I"):  # 16 bit; older Pillow widens it to 32
            return StoredPixels(np.asarray(picture).astype("<u2"), format_)
        grey = picture.mode in ("1", "L", "LA")
        return StoredPixels(np.asarray(picture.convert("L" if grey else "RGB")), format_)
