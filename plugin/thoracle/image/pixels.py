"""A file or data set becomes an image: one look-up table from stored value to display value.

PS3.4 Section N.2 maps each stored value without regard to its neighbours. So the chain runs once
over the distinct values (at most 65536 for 16 bit), and the pixels are looked up in its result.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut

from thoracle.errors import NotAnalysable
from thoracle.image import image_pixel, luts
from thoracle.image.codecs import MALFORMED, StoredPixels, decode_file
from thoracle.image.decoder import Decoder, frames_digest
from thoracle.image.header import header_of
from thoracle.records import Image, Reason

PERCENTILES = (0.5, 99.5)
"""Window, in percent of the pixels, of an image that states none."""
LEAST_CONTRAST = 0.01
"""Least distance between these percentiles, of the display range 0 to 1."""

_BLOCK = 128
"""Rows that fit the processor's cache: up to twice as fast as all at once."""
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in PS3.3 Section C.7.6.3.1.2


@dataclass(frozen=True, slots=True)
class GreyValues:
    """An image in grey values of 16 bit that can be windowed, and what its own window shows."""

    values: NDArray[np.uint16]
    """``(rows, columns)``; 0 is pixel padding."""
    display: NDArray[np.uint8]
    """``(65536,)``: what each value looks like as the model was given it, 255 is bright."""
    slope: float
    intercept: float
    """``slope * value + intercept`` is the value after the Modality LUT, which windows are of."""
    inverse: bool
    """Whether high values are dark (MONOCHROME1)."""


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


def read_image(path: Path, decoder: Decoder | None = None, header: Dataset | None = None) -> Image:
    """Return the image in a DICOM, PNG or JPEG file.

    Parameters
    ----------
    path
        The file.
    decoder
        The child process that decodes; ``None`` decodes in this process, for trusted files.
    header
        What :func:`header.read` said of the file, where that was asked already.

    Raises
    ------
    NotAnalysable
        The pixels cannot be decoded, or are without contrast.
    """
    stored = decoder.decode(path) if decoder else decode_file(path)
    if stored.format != "DICOM":
        return _picture(stored)
    image = radiograph(header or header_of(path), stored.array)
    return replace(image, frames_sha256=frames_digest(stored.array))


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
        image_pixel.complete(ds)
        if ds.PhotometricInterpretation in image_pixel.GREY:
            array, limitations = _greyscale(ds, stored)
        else:
            array, limitations = _luma(ds, stored), ["The image is a colour image."]
        limitations += _limitations(ds)
    except MALFORMED as error:
        # The message of the cause may quote an element's value, so only its kind is named.
        detail = f"the pixels do not agree with their attributes ({type(error).__name__})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
    return Image(array[np.newaxis], tuple(limitations))


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
        largest = 2 ** int(stored.max()).bit_length() - 1  # 8 bit entries may stand in 16 bit words
    else:
        largest = 2 ** int(ds.BitsStored) - 1
    array: NDArray[np.float32] = np.clip(stored[..., :3] @ _LUMA / largest, 0, 1).astype(np.float32)
    _check_contrast(float(array.min()), float(array.max()))
    return array


def _greyscale(ds: Dataset, stored: NDArray[Any]) -> tuple[NDArray[np.float32], list[str]]:
    """Return display values, 0 to 1, and sentences about how they came about."""
    levels = _levels(ds, stored)
    _values, display, limitations = _displayed(ds, levels)
    table = np.where(levels.padding, 0, display).astype(np.float32)
    return _looked_up(table, levels.index), limitations


def grey_values(ds: Dataset, stored: NDArray[Any]) -> GreyValues:
    """Return an image in values that a viewer can window, whatever its window is.

    Parameters
    ----------
    ds, stored
        As for :func:`radiograph`. Of a colour image it is the brightness.

    Raises
    ------
    NotAnalysable
        As :func:`radiograph`.
    """
    try:
        image_pixel.complete(ds)
        if ds.PhotometricInterpretation not in image_pixel.GREY:
            luma = _luma(ds, stored)
            ramp = np.linspace(0, 255, 65536).round().astype(np.uint8)
            values = (luma * 65535).round().astype(np.uint16)
            return GreyValues(values, ramp, 1.0, 0.0, inverse=False)
        return _windowable(ds, _levels(ds, stored))
    except MALFORMED as error:
        detail = f"the pixels do not agree with their attributes ({type(error).__name__})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error


def _windowable(ds: Dataset, levels: _Levels) -> GreyValues:
    values, display, _limitations = _displayed(ds, levels)
    values = np.asarray(values, np.float64)
    used = np.flatnonzero((levels.counts > 0) & ~levels.padding)
    low, high = float(values[used].min()), float(values[used].max())
    whole = bool((values[used] == np.round(values[used])).all()) and high - low < 65535
    slope = 1.0 if whole else (high - low) / 65534
    codes = np.clip((values - low) / slope + 1, 1, 65535).round().astype(np.uint16)
    codes[levels.padding] = 0
    order = used[np.argsort(codes[used], kind="stable")]
    shown = np.interp(np.arange(65536), codes[order], display[order] * 255)
    shown[0] = 0
    return GreyValues(
        codes[levels.index],
        shown.round().astype(np.uint8),
        slope,
        low - slope,
        inverse=_is_inverse(ds),
    )


def _is_inverse(ds: Dataset) -> bool:
    # INVERSE only repeats what MONOCHROME1 says (PS3.3 C.8.11.3.1.2): one inversion, never two.
    inverse = ds.get("PresentationLUTShape") == "INVERSE"
    return bool(inverse or ds.PhotometricInterpretation == "MONOCHROME1")


def _displayed(ds: Dataset, levels: _Levels) -> tuple[NDArray[Any], NDArray[np.float64], list[str]]:
    """Return the levels after the Modality LUT, and as displayed, 0 to 1, with sentences on how."""
    values = luts.modality(ds, levels.values)
    display, limitations = luts.voi(ds, values), []
    if display is None:
        low, high = _percentiles(values, levels.counts)
        display = np.clip((values - low) / ((high - low) or 1), 0, 1)
        limitations.append("No usable window is stated: percentiles of the grey values were used.")
    if _is_inverse(ds):
        if ds.PhotometricInterpretation != "MONOCHROME1":
            limitations.append("MONOCHROME2 with Presentation LUT Shape INVERSE: shown inverted.")
        display = 1 - display
    _check_contrast(*_percentiles(display, levels.counts))
    return values, np.asarray(display, np.float64), limitations


def _levels(ds: Dataset, stored: NDArray[Any]) -> _Levels:
    """Return the distinct values of an image after mask, sign and padding."""
    if stored.ndim != 2:
        raise ValueError(f"found shape {stored.shape}, required: rows and columns")
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if stored.dtype.kind == "f":
        values, index, counts = np.unique(stored, return_inverse=True, return_counts=True)
        padding = ~np.isfinite(values)
        return _Levels(np.where(padding, 0, values), np.where(padding, 0, counts), padding, index)
    cells = stored.view(f"u{stored.dtype.itemsize}")
    if cells.dtype.itemsize <= 2:
        cell_values = np.arange(256**cells.dtype.itemsize)
        index, counts = cells, _histogram(cells, len(cell_values))
    else:
        cell_values, index, counts = np.unique(cells, return_inverse=True, return_counts=True)
    values = image_pixel.stored_values(ds, cell_values.astype(np.int64))
    padding = _is_padding(ds, values)
    return _Levels(values, np.where(padding, 0, counts), padding, index)


def _histogram(cells: NDArray[Any], length: int) -> NDArray[np.int64]:
    """Return how many pixels have each value below `length`."""
    counts = np.zeros(length, np.int64)
    for start in range(0, len(cells), _BLOCK):
        counts += np.bincount(cells[start : start + _BLOCK].ravel(), minlength=length)
    return counts


def _looked_up(table: NDArray[np.float32], index: NDArray[Any]) -> NDArray[np.float32]:
    """Return the entry of a table for each pixel, ``(rows, columns)``."""
    found = np.empty(index.shape, np.float32)
    for start in range(0, len(index), _BLOCK):
        # Any mode but "raise" writes straight to the result; no index is beyond the table.
        rows = slice(start, start + _BLOCK)
        np.take(table, index[rows], out=found[rows], mode="clip")
    return found


def _is_padding(ds: Dataset, values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which stored values are pixel padding (PS3.3 Section C.7.5.1.1.2)."""
    first = ds.get("PixelPaddingValue")
    if first is None:
        return np.zeros(len(values), np.bool_)
    last = ds.get("PixelPaddingRangeLimit")
    ends = [int(first), int(first if last is None else last)]
    if ds.PixelRepresentation:
        # Often written as US although the pixels are signed, which makes -2000 a 63536.
        cells = 2 ** int(ds.BitsAllocated)
        ends = [end - cells if end >= cells // 2 else end for end in ends]
    return (values >= min(ends)) & (values <= max(ends))


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
        detail = f"display values span {high - low:.4f}, required: {LEAST_CONTRAST:g}"
        raise NotAnalysable(Reason.FLAT, detail)


def _limitations(ds: Dataset) -> list[str]:
    """Return sentences about what was done to the image before it was sent."""
    found = luts.limitations(ds)
    if ds.get("LossyImageCompression") == "01":
        ratios = luts.numbers(ds, "LossyImageCompressionRatio")
        steps = " then ".join(f"{ratio:g}" for ratio in ratios)
        stated = f"ratio {steps}" if ratios else "ratio not stated"
        found.append(f"Lossy compression, {stated}.")
    if ds.get("BurnedInAnnotation") == "YES":
        found.append("Burned-in annotation: text in the image may influence the result.")
    return found
