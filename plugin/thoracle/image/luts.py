"""Look-up tables and windows of PS3.3 Section C.11, over an array of values.

A table or a window that cannot be applied is none: what is not there cannot be applied. The
functions that choose one are asked by the presentation state, too, so that it repeats what was
shown. pydicom's own functions are not used: they take neither 12 bit Modality LUTs nor 8 bit VOI
LUTs of more than 256 entries, and raise on a window of no width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True)
class Table:
    """A look-up table that can be applied."""

    item: Dataset
    """The item of its sequence."""
    first: int
    """The value that the first entry stands for."""
    entries: NDArray[np.int64]
    repeated: int
    """How many entries LUT Data lacks, at most half: the last one stands for them."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window that has a width."""

    center: float
    width: float
    function: str
    """``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``."""


def modality(ds: Dataset, values: NDArray[Any]) -> NDArray[Any]:
    """Return values after the Modality LUT or rescale (PS3.3 Section C.11.1)."""
    found = table(ds, "ModalityLUTSequence")
    if found is not None:
        return _look_up(found, values)
    slope, intercept = rescale(ds)
    return values if (slope, intercept) == (1.0, 0.0) else values * slope + intercept


def rescale(ds: Dataset) -> tuple[float, float]:
    """Return slope and intercept; 1 and 0 where they are not stated, or the slope is 0."""
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    return float(slope or 1), float(intercept or 0)


def voi(ds: Dataset, values: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return values after the VOI LUT or window, 0 to 1; ``None`` when the image states neither.

    Of several the first is taken, of windows the first that has a width.

    References
    ----------
    PS3.3 C.11.2.
    """
    found = table(ds, "VOILUTSequence")
    if found is not None:
        # The bits per entry in the descriptor are often overstated, which would darken the image.
        largest = 2 ** int(found.entries.max()).bit_length() - 1
        display: NDArray[np.float64] = _look_up(found, values) / largest
        return display
    chosen = window(ds)
    return None if chosen is None else _window(values, chosen)


def window(ds: Dataset) -> Window | None:
    """Return the first window that has a width; ``None`` where there is none."""
    function = str(ds.get("VOILUTFunction") or "LINEAR")
    if function not in _FUNCTIONS:
        function = "LINEAR"
    windows = zip(numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth"), strict=False)
    for center, width in windows:
        if width >= 1 or (width > 0 and function != "LINEAR"):
            return Window(center, width, function)
    return None


def limitations(ds: Dataset) -> list[str]:
    """Return sentences about tables and functions that were not applied as they came."""
    found = []
    for keyword, name in (("ModalityLUTSequence", "Modality LUT"), ("VOILUTSequence", "VOI LUT")):
        applied = table(ds, keyword)
        if ds.get(keyword) and applied is None:
            found.append(f"{name}: found no usable LUT Descriptor and LUT Data; it is not applied.")
        if applied is not None and applied.repeated:
            count = len(applied.entries)
            found.append(
                f"{name}: found {count - applied.repeated} entries in LUT Data, required: "
                f"{count}; the last one stands for what is missing."
            )
    if ds.get("RescaleSlope") == 0:
        found.append("Rescale Slope: found 0, required: another number; 1 is taken.")
    function = ds.get("VOILUTFunction")
    if function and function not in _FUNCTIONS:
        names = ", ".join(_FUNCTIONS)
        shown = repr(str(function)[:40])
        found.append(f"VOI LUT Function: found {shown}, required: one of {names}; LINEAR is taken.")
    return found


def numbers(ds: Dataset, keyword: str) -> list[float]:
    """Return the values of an element as a list, empty ones left out."""
    if keyword not in ds:
        return []
    element = ds[keyword]
    values = element.value if element.VM > 1 else [element.value]
    return [float(value) for value in values if value not in (None, "")]


def table(ds: Dataset, keyword: str) -> Table | None:
    """Return the first look-up table of a sequence; ``None`` where it has none that is usable."""
    items = ds.get(keyword)
    item = items[0] if items else Dataset()
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if data is None or not hasattr(descriptor, "__len__") or len(descriptor) != 3:
        return None
    count, first, bits = (int(number) for number in descriptor)
    count = count & 0xFFFF or 65536  # 0 stands for 65536, and US may have been read as SS
    entries = _entries(data, count, bits, ds.original_encoding[1] is False)
    repeated = count - len(entries)
    if repeated > count / 2 or not entries.any():
        return None
    if repeated > 0:
        entries = np.pad(entries, (0, repeated), mode="edge")
    return Table(item, first, entries, max(0, repeated))


def _window(values: NDArray[Any], window: Window) -> NDArray[np.float64]:
    """Return values after a window, 0 to 1 (PS3.3 Sections C.11.2.1.2 and C.11.2.1.3)."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -700, 700)
        return np.asarray(1 / (1 + np.exp(exponent)))
    if window.function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _look_up(table: Table, values: NDArray[Any]) -> NDArray[Any]:
    """Return the entries of a LUT for values."""
    first = table.first
    if first > 32767 and values.min() < 0:
        first -= 65536  # SS read as US
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table.entries) - 1)
    found: NDArray[Any] = table.entries[index]
    return found


def _entries(data: Any, count: int, bits: int, big_endian: bool) -> NDArray[np.int64]:
    """Return the entries of LUT Data, which is bytes (VR OW) or a list of words (VR US).

    They are words, but for entries of 8 bits, of which two may stand in a word (PS3.3 Section
    C.11.1.1.1); some writers give each of these a word, too. May be fewer than ``count``.
    """
    if not isinstance(data, bytes):
        data = (np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF).astype("<u2").tobytes()
        big_endian = False
    words = np.frombuffer(data[: len(data) // 2 * 2], ">u2" if big_endian else "<u2")
    if len(words) >= count or bits > 8:
        return words[:count].astype(np.int64)
    # Two entries of 8 bit in a word, the first in the less significant byte.
    return words.astype("<u2").view(np.uint8)[:count].astype(np.int64)
