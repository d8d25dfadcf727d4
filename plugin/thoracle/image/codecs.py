"""Stored pixel values of a file, through the codecs: in the decoder child, or for trusted files."""

from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGExtended12Bit

from thoracle.errors import NotAnalysable
from thoracle.image import attributes, header, image_pixel
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
"""What using the values of a data set may raise that :mod:`attributes` has not read."""
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


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
        with path.open("rb") as file:
            ds = _readable(header.parse(file).ds)
    except (NotAnalysable, MemoryError):
        raise
    except Exception as error:
        # The message may quote an element's value, which may be the patient's name.
        detail = f"the file cannot be read ({type(error).__name__})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
    return _decode_dicom(ds)


def _readable(ds: Dataset) -> Dataset:
    """Return what can be read of a data set, complete as far as it can be, with its pixels."""
    found, _ = attributes.readable(ds)
    image_pixel.complete(found)
    for keyword in _PIXELS:
        stored = ds.get_item(keyword) if keyword in ds else None
        if stored is not None and isinstance(stored.value, bytes):
            # The bytes as they are: one writer names them OB, the next OW, others UN.
            vr = {"PixelData": "OW", "FloatPixelData": "OF"}.get(keyword, "OD")
            found.add(DataElement(keyword, vr, stored.value, already_converted=True))
    return found


def _decode_dicom(ds: Dataset) -> StoredPixels:
    """Return the one frame of a data set, YBR converted to RGB."""
    try:
        _check_pixel_module(ds)
        if ds.file_meta.get("TransferSyntaxUID") == JPEGExtended12Bit:
            frame = get_frame(ds.PixelData, 0, number_of_frames=1)
            if _precision(frame) == 12:
                return StoredPixels(_decode_jpeg_12(ds, frame), "DICOM")
        # Unused bits stay: pydicom clears them as if High Bit were always Bits Stored - 1.
        array = pixel_array(ds, correct_unused_bits=False)
    except (NotAnalysable, MemoryError):
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {str(error)[:LONGEST_DETAIL]!r}"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
    return StoredPixels(array, "DICOM")


def _precision(frame: bytes) -> int:
    """Return the bits per sample that the frame header of a JPEG states; 0 where there is none."""
    at = 2
    while at + 5 < len(frame) and frame[at] == 0xFF:
        if frame[at + 1] in (0xC0, 0xC1, 0xC2):
            return frame[at + 4]
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return 0


def _decode_jpeg_12(ds: Dataset, frame: bytes) -> NDArray[Any]:
    """Return the pixels of a JPEG of 12 bits, ``(rows, columns)`` uint16.

    GDCM decodes it; pydicom's plug-in for GDCM refuses to ask it.
    """
    import gdcm  # type: ignore[import-untyped]  # made by SWIG; slow to load, and seldom needed

    if ds.SamplesPerPixel != 1:
        raise ValueError(f"found {ds.SamplesPerPixel} samples per pixel, required: 1")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((int(ds.Columns), int(ds.Rows), 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    # SWIG hands out char* as text.
    decoded = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(decoded, "<u2").reshape(int(ds.Rows), int(ds.Columns))


def _check_pixel_module(ds: Dataset) -> None:
    """Refuse data sets without pixels, with several frames, or too large to decode."""
    if not any(name in ds for name in _PIXELS):
        raise NotAnalysable(Reason.NO_IMAGE, "found no pixel data")
    if ds.NumberOfFrames != 1:
        raise NotAnalysable(Reason.GEOMETRY, f"found {ds.NumberOfFrames} frames, required: 1")
    for keyword, name in (
        ("Rows", "Rows"),
        ("Columns", "Columns"),
        ("BitsAllocated", "Bits Allocated"),
    ):
        if not ds.get(keyword):
            detail = f"found no {name} that can be read, required: a whole number"
            raise NotAnalysable(Reason.UNDECODABLE, detail)
    _check_size(int(ds.Rows) * int(ds.Columns) * ds.SamplesPerPixel * ds.BitsAllocated // 8)


def _check_size(found: int) -> None:
    """Refuse an image of more than ``LARGEST_IMAGE_BYTES``."""
    if found > LARGEST_IMAGE_BYTES:
        detail = f"found {found} bytes of pixels, required: at most {LARGEST_IMAGE_BYTES}"
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
