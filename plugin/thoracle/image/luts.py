"""Look-up tables and windows of PS3.3 Section C.11, over an array of values.

pydicom's own functions are not used: they take neither 12 bit Modality LUTs nor 8 bit VOI LUTs of
more than 256 entries, and raise on a window of no width.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset


def modality(ds: Dataset, values: NDArray[Any]) -> NDArray[Any]:
    """Return values after the Modality LUT or rescale (PS3.3 Section C.11.1)."""
    if ds.get("ModalityLUTSequence"):
        return _look_up(ds, ds.ModalityLUTSequence[0], values)[0]
    slope = ds.get("RescaleSlope")
    intercept = ds.get("RescaleIntercept")
    if slope is None and intercept is None:
        return values
    return values * float(1 if slope is None else slope) + float(intercept or 0)


def voi(ds: Dataset, values: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return values after the VOI LUT or window, 0 to 1; ``None`` when the image states neither.

    Of several the first is taken, of windows the first that has a width.

    References
    ----------
    PS3.3 C.11.2.
    """
    if ds.get("VOILUTSequence"):
        entries, largest = _look_up(ds, ds.VOILUTSequence[0], values)
        return entries / largest
    function = ds.get("VOILUTFunction") or "LINEAR"
    windows = zip(numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth"), strict=False)
    for center, width in windows:
        if width >= 1 or (width > 0 and function != "LINEAR"):
            return _window(values, center, width, function)
    return None


def numbers(ds: Dataset, keyword: str) -> list[float]:
    """Return the values of an element as a list, empty ones left out."""
    if keyword not in ds:
        return []
    element = ds[keyword]
    values = element.value if element.VM > 1 else [element.value]
    return [float(value) for value in values if value not in (None, "")]


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
    """Return the entries of a LUT for values, and the largest value an entry may have."""
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
