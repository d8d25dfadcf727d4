"""A file or data set becomes an image: one look-up table from stored value to display value.

PS3.4 Section N.2 maps each stored value without regard to its neighbours. So the chain runs once
over the distinct values (at most 65536 for 16 bit), and the pixels are looked up in its result.
"""

from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

from thoracle.decoder import Decoder, StoredPixels, decode_file
from thoracle.errors import NotAnalysable
from thoracle.records import Image, Reason

PERCENTILES = (0.5, 99.5)
"""Window, in percent of the pixels, of an image that states none."""
LEAST_CONTRAST = 0.01
"""Least distance between these percentiles, of the display range 0 to 1."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in PS3.3 Section C.7.6.3.1.2
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    StructError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class _Levels:
    """The distinct stored values of an image."""

    values: NDArray[Any]
    """``(levels,)``, int64 after mask and sign, or float."""
    counts: NDArray[np.int64]
    """``(levels,)``, how many pixels have each value; padding counts as 0."""
    padding: NDArray[np.bool_]
    """``(levels,)``, whether the value stands for "no pixel here"."""
    index: NDArray[Any]
    """``(rows, columns)``, position of each pixel's value in ``values``."""


def read_image(path: Path, decoder: Decoder | None = None) -> Image:
    """Return the image in a DICOM, PNG or JPEG file.

    Parameters
    ----------
    path
        The file.
    decoder
        The child process that decodes; ``None`` decodes in this process, for trusted files.

    Raises
    ------
    NotAnalysable
        The pixels cannot be decoded, or are without contrast.
    """
    stored = decoder.decode(path) if decoder else decode_file(path)
    if stored.format != "DICOM":
        return _picture(stored)
    try:
        ds = dcmread(path, stop_before_pixels=True)
    except _MALFORMED as error:
        raise _malformed(error) from error
    return radiograph(ds, stored.array)


def radiograph(ds: Dataset, stored: NDArray[Any]) -> Image:
    """Return the image that PS3.4 Section N.2 makes of stored values: bright is dense.

    Parameters
    ----------
    ds
        The data set, for its Image Pixel, Modality LUT and VOI LUT modules; needs no pixel data.
    stored
        ``(rows, columns)`` stored values, or ``(rows, columns, 3)`` red, green, blue. Unused
        bits may hold anything.

    Returns
    -------
    Image
        ``(1, rows, columns)`` float32 in [0, 1]; pixel padding is 0.

    Raises
    ------
    NotAnalysable
        The image is without contrast, or a look-up table is malformed.

    References
    ----------
    PS3.4 N.2, PS3.3 C.7.6.3, C.7.5.1.1.2, C.11.1, C.11.2, C.11.6.
    """
    try:
        if ds.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"):
            array, limitations = _greyscale(ds, stored)
        else:
            array, limitations = _luma(ds, stored), ["The image is a colour image."]
        limitations += _limitations(ds)
    except _MALFORMED as error:
        raise _malformed(error) from error
    return Image(array[np.newaxis], tuple(limitations))


def _malformed(error: Exception) -> NotAnalysable:
    """Return the refusal of a data set whose elements cannot be made sense of."""
    # The message of the cause may quote an element's value, so only its kind is named.
    detail = f"image attributes are malformed ({type(error).__name__})"
    return NotAnalysable(Reason.UNDECODABLE, detail)


def _picture(stored: StoredPixels) -> Image:
    """Return the image of a PNG or JPEG file, full scale being 1."""
    array = stored.array / np.float32(np.iinfo(stored.array.dtype).max)
    if array.ndim == 3:
        array = array @ _LUMA.astype(np.float32)
    _check_contrast(float(array.min()), float(array.max()))
    limitations = ["Lossy compression: JPEG file."] if stored.format == "JPEG" else []
    return Image(np.ascontiguousarray(array, np.float32)[np.newaxis], tuple(limitations))


def _luma(ds: Dataset, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return the brightness of a colour image, 0 to 1."""
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, ds)
        largest = np.iinfo(stored.dtype).max
    else:
        largest = 2 ** int(ds.BitsStored) - 1
    array: NDArray[np.float32] = (stored[..., :3] @ _LUMA / largest).astype(np.float32)
    _check_contrast(float(array.min()), float(array.max()))
    return array


def _greyscale(ds: Dataset, stored: NDArray[Any]) -> tuple[NDArray[np.float32], list[str]]:
    """Return display values, 0 to 1, and sentences about how they came about."""
    levels = _levels(ds, stored)
    values = _modality(ds, levels.values)
    display, limitations = _voi(ds, values, levels.counts)
    if ds.get("PresentationLUTShape") == "INVERSE" and ds.PhotometricInterpretation[-1] == "2":
        limitations.append("MONOCHROME2 with Presentation LUT Shape INVERSE: shown inverted.")
        display = 1 - display
    elif ds.PhotometricInterpretation == "MONOCHROME1":
        # Its Presentation LUT Shape INVERSE says the same thing again (PS3.3 C.8.11.3.1.2).
        display = 1 - display
    _check_contrast(*_percentiles(display, levels.counts))
    table = np.where(levels.padding, 0, display).astype(np.float32)
    return table[levels.index], limitations


def _levels(ds: Dataset, stored: NDArray[Any]) -> _Levels:
    """Return the distinct values of an image after mask, sign and padding."""
    if stored.ndim != 2:
        raise ValueError(f"found shape {stored.shape}, required are rows and columns")
    if stored.dtype.kind == "f":
        values, index, counts = np.unique(stored, return_inverse=True, return_counts=True)
        padding = ~np.isfinite(values)
        return _Levels(np.where(padding, 0, values), np.where(padding, 0, counts), padding, index)
    cells = stored.view(f"u{stored.dtype.itemsize}")
    if cells.dtype.itemsize <= 2:
        cell_values = np.arange(256**cells.dtype.itemsize)
        index, counts = cells, np.bincount(cells.ravel(), minlength=len(cell_values))
    else:
        cell_values, index, counts = np.unique(cells, return_inverse=True, return_counts=True)
    values = _unpack(ds, cell_values.astype(np.int64))
    padding = _is_padding(ds, values)
    return _Levels(values, np.where(padding, 0, counts), padding, index)


def _unpack(ds: Dataset, cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the stored values in pixel cells (PS3.5 Section 8.1.1)."""
    bits = int(ds.BitsStored)
    syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax is None or not syntax.is_compressed:  # codecs right-justify what they decode
        cells = cells >> max(0, int(ds.get("HighBit", bits - 1)) - bits + 1)
    return _signed(cells & (2**bits - 1), bits) if ds.PixelRepresentation else cells & (2**bits - 1)


def _signed(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return the two's complement of values of so many bits."""
    return np.where(values >= 2 ** (bits - 1), values - 2**bits, values)


def _is_padding(ds: Dataset, values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which stored values are pixel padding (PS3.3 Section C.7.5.1.1.2)."""
    first = ds.get("PixelPaddingValue")
    if first is None:
        return np.zeros(len(values), np.bool_)
    ends = [int(first), int(ds.get("PixelPaddingRangeLimit") or first)]
    if ds.PixelRepresentation:
        # Often written as US although the pixels are signed, which makes -2000 a 63536.
        ends = [end - 65536 if end > 32767 else end for end in ends]
    return (values >= min(ends)) & (values <= max(ends))


def _modality(ds: Dataset, values: NDArray[Any]) -> NDArray[Any]:
    """Return values after the Modality LUT or rescale (PS3.3 Section C.11.1)."""
    if ds.get("ModalityLUTSequence"):
        return _look_up(ds, ds.ModalityLUTSequence[0], values)[0]
    slope = ds.get("RescaleSlope")
    intercept = ds.get("RescaleIntercept")
    if slope is None and intercept is None:
        return values
    return values * float(1 if slope is None else slope) + float(intercept or 0)


def _voi(
    ds: Dataset, values: NDArray[Any], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], list[str]]:
    """Return values after the VOI LUT or window, 0 to 1 (PS3.3 Section C.11.2)."""
    if ds.get("VOILUTSequence"):
        entries, largest = _look_up(ds, ds.VOILUTSequence[0], values)
        return entries / largest, []
    function = ds.get("VOILUTFunction") or "LINEAR"
    windows = zip(_multiple(ds, "WindowCenter"), _multiple(ds, "WindowWidth"), strict=False)
    for center, width in windows:
        if width >= 1 or (width > 0 and function != "LINEAR"):
            return _window(values, center, width, function), []
    low, high = _percentiles(values, counts)
    limitation = "The image states no usable window: percentiles of its grey values were used."
    display = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    return display, [limitation]


def _multiple(ds: Dataset, keyword: str) -> list[float]:
    """Return the values of an element as a list, empty ones left out."""
    element = ds.get_item(keyword) and ds[keyword]
    if not element or element.VM == 0:
        return []
    values = [element.value] if element.VM == 1 else element.value
    return [float(value) for value in values if value is not None]


def _window(
    values: NDArray[Any], center: float, width: float, function: str
) -> NDArray[np.float64]:
    """Return values after a window, 0 to 1 (PS3.3 Sections C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -700, 700)
        return np.asarray(1 / (1 + np.exp(exponent)))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _look_up(ds: Dataset, item: Dataset, values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return the entries of a LUT for values, and the largest value an entry may have.

    pydicom's own functions take neither 12 bit Modality LUTs nor more than 256 entries of 8 bit.
    """
    count, first, _ = (int(number) for number in item.LUTDescriptor)
    count = count & 0xFFFF or 65536  # 0 stands for 65536, and US may have been read as SS
    if first > 32767 and values.min() < 0:
        first -= 65536  # likewise SS read as US
    entries = _entries(item.LUTData, count, ds.original_encoding[1] is False)
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)
    # The bits per entry in the descriptor are often overstated, which would darken the image.
    return entries[index], 2 ** int(entries.max()).bit_length() - 1


def _entries(data: Any, count: int, big_endian: bool) -> NDArray[np.int64]:
    """Return the entries of LUT Data, which is bytes (VR OW) or a list of words (VR US)."""
    if not isinstance(data, bytes):
        words = np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF
        if len(words) >= count:
            return words[:count]
        data = words.astype("<u2").tobytes()
        big_endian = False
    if len(data) >= 2 * count:
        return np.frombuffer(data, ">u2" if big_endian else "<u2", count).astype(np.int64)
    # Two entries of 8 bit in a word, the first in the less significant byte.
    packed = np.frombuffer(data, "<u2").byteswap().tobytes() if big_endian else data
    return np.frombuffer(packed, np.uint8, count).astype(np.int64)


def _percentiles(values: NDArray[Any], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the values at ``PERCENTILES`` of the pixels."""
    used = np.flatnonzero(counts)
    if not used.size:
        raise NotAnalysable(Reason.FLAT, "all pixels are padding")
    order = used[np.argsort(values[used], kind="stable")]
    share = np.cumsum(counts[order]) / counts[order].sum() * 100
    low, high = (values[order[np.searchsorted(share, percent)]] for percent in PERCENTILES)
    return float(low), float(high)


def _check_contrast(low: float, high: float) -> None:
    """Refuse an image whose display values, 0 to 1, hardly differ."""
    if not high - low >= LEAST_CONTRAST:
        detail = f"display values span {high - low:.4f}, required is {LEAST_CONTRAST:g}"
        raise NotAnalysable(Reason.FLAT, detail)


def _limitations(ds: Dataset) -> list[str]:
    """Return sentences about what was done to the image before it was sent."""
    found = []
    syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    if ds.get("LossyImageCompression") == "01" or syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
        ratios = _multiple(ds, "LossyImageCompressionRatio")
        stated = f"ratio {ratios[-1]:g}" if ratios else "ratio not stated"
        found.append(f"Lossy compression, {stated}.")
    if ds.get("BurnedInAnnotation") == "YES":
        found.append("Burned-in annotation: text in the image may influence the result.")
    return found
