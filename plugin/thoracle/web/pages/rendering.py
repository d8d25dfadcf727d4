"""The child process that makes pictures: files of strangers are opened there alone.

``python -m thoracle.web.pages.rendering MEGABYTES SECONDS`` reads an order, one JSON object, and
writes a PNG file or grey values, or a sentence that says why there is none. It has limits on memory
and time, so an image made to harm costs one picture and never the pages.

The radiograph is what the model is given (``thoracle.image.pixels``: PS3.4 Section N.2), made
smaller. The overlay lies on it in the same geometry, transparent but for what the gateway stored
with the result: the colours of its picture, and the outlines of its presentation state. The grey
values are all of them, in 16 bit, for the window of the viewer.
"""

import contextlib
import io
import json
import math
import os
import resource
import signal
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw
from pydicom import Dataset, dcmread

from thoracle.errors import NotAnalysable
from thoracle.image import luts, pixels
from thoracle.image.codecs import decode_file
from thoracle.image.header import header_of
from thoracle.report import heatmap
from thoracle.report.heatmap import OUTLINE

LONGEST_SIDE: Final = 1600
"""Pixels: more than a page shows on most screens, and a few hundred kilobytes."""
LARGEST_PICTURE: Final = 32 * 2**20
"""Bytes; the child cannot write more."""
SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
GREY_VALUES: Final = b"THGV"
"""By which grey values begin (:func:`grey_values`)."""
LONGEST_OF_GREY_VALUES: Final = 5000
"""Pixels: above it, an image is halved; browsers hold no larger canvas everywhere."""
LARGEST_MAP: Final = 512
"""Pixels of the longest side of the colours; a map has no more places."""
_LINE_WIDTH: Final = 1 / 400
"""Of an outline, as a share of the longest side."""


class Order(TypedDict):
    """What is to be made: ``image`` alone makes the radiograph, with others its overlay."""

    kind: str
    """``radiograph``, ``overlay``, ``key-image`` or ``pixels``."""

    image: str
    """Path of the DICOM file."""
    states: list[str]
    """Paths of presentation states that outline something on it; for an overlay."""
    heat_map: str
    """Path of the picture with colours that was made of it, empty without one; for an overlay."""


def radiograph(path: Path) -> Pillow.Image:
    """Return the radiograph in a file as the model is given it, made smaller; bright is dense."""
    image = pixels.read_image(path)
    grey = (image.array[0] * 255 + 0.5).astype(np.uint8)
    return _fitted(Pillow.fromarray(grey), Pillow.Resampling.BOX)


def key_image(path: Path) -> Pillow.Image:
    """Return a Secondary Capture of ours, made smaller."""
    return _fitted(Pillow.fromarray(decode_file(path).array), Pillow.Resampling.BOX)


def overlay(path: Path, states: list[Path], heat_map: Path | None) -> Pillow.Image:
    """Return what lies on the radiograph in a file, as large as its picture, with transparency."""
    header = dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    rows, columns = int(header.Rows), int(header.Columns)
    scale = _scale(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    canvas = Pillow.new("RGBA", size)
    if heat_map is not None:
        with contextlib.suppress(ValueError):  # of another version: the outlines are left
            canvas = colours(path, heat_map).resize(size, Pillow.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    width = max(2, round(max(size) * _LINE_WIDTH))
    for outline in (points for one in states for points in _outlines(dcmread(one))):
        corners = [(x * scale, y * scale) for x, y in outline]
        # Dark beneath bright, so that it is seen on lung and bone alike.
        draw.line(corners, fill=(0, 0, 0, 160), width=width * 2, joint="curve")
        draw.line(corners, fill=(*OUTLINE, 255), width=width, joint="curve")
    return canvas


def colours(path: Path, heat_map: Path) -> Pillow.Image:
    """Return the colours that were laid on a radiograph, without it and in its own geometry.

    The picture of ours has a caption below a radiograph that was made smaller for it, and no
    element says by how much. So the places that a caption of some lines leaves are tried: where
    no colour lies, the picture must be the radiograph, grey value by grey value.

    Raises
    ------
    NotAnalysable
        The radiograph cannot be decoded.
    ValueError
        The picture is not of this radiograph, or was made by another version.
    """
    picture = decode_file(heat_map).array.astype(np.int32)
    grey = (pixels.read_image(path).array[0] * 255 + 0.5).astype(np.uint8)
    if picture.shape != (*grey.shape, 3):
        raise ValueError(f"found a picture of {picture.shape}, required: {grey.shape} and 3")
    place = min(heatmap.placements(*grey.shape), key=lambda one: _difference(picture, grey, one, 8))
    if (found := _difference(picture, grey, place, 1)) > 2:
        raise ValueError(f"found a mean difference of {found:.1f}, required: 2 at most")
    left, width, height = place
    shown = picture[:height, left : left + width]
    step = max(1, max(width, height) // LARGEST_MAP)
    shown = shown[step // 2 :: step, step // 2 :: step]
    index = (shown[..., 0] - shown[..., 1] + 255) * 511 + (shown[..., 1] - shown[..., 2] + 255)
    levels = _levels_by_colour()[index]
    ramp = heatmap.ramp()[levels]
    return Pillow.fromarray(np.dstack([ramp, levels]), "RGBA")


def _difference(
    picture: NDArray[np.int32], grey: NDArray[np.uint8], place: tuple[int, int, int], step: int
) -> float:
    """Return by how much picture and radiograph differ where no colour lies, at one place."""
    left, width, height = place
    shown = picture[:height:step, left : left + width : step]
    expected = np.asarray(
        Pillow.fromarray(grey).resize((width, height), Pillow.Resampling.LANCZOS), np.int32
    )[::step, ::step]
    bare = (shown[..., 0] == shown[..., 1]) & (shown[..., 1] == shown[..., 2])
    if not bare.any():
        return float("inf")
    return float(np.abs(shown[..., 0] - expected)[bare].mean())


@cache
def _levels_by_colour() -> NDArray[np.uint8]:
    """Return the level, 0 to 255, for each pair of red less green and green less blue.

    A level adds its colour to grey by its own opacity. Grey cancels out in these differences.
    """
    levels = np.arange(256)
    opacity = heatmap.OPACITY * levels / 255
    ramp = heatmap.ramp().astype(np.float64)
    one, two = (opacity * (ramp[:, a] - ramp[:, a + 1]) for a in (0, 1))
    y, x = np.mgrid[-255:256, -255:256]
    nearest = np.zeros(y.size, np.uint8)
    for start in range(0, y.size, 8192):
        part = slice(start, start + 8192)
        distance = np.hypot(y.ravel()[part, None] - one, x.ravel()[part, None] - two)
        nearest[part] = distance.argmin(1)
    return nearest


def grey_values(path: Path) -> bytes:
    """Return the radiograph in a file as grey values of 16 bit, for the window of the viewer.

    Four letters, the length of what follows (32 bit, little endian) and a JSON object with
    ``columns``, ``rows``, ``slope``, ``intercept``, ``inverse``, ``halved`` and ``windows``; then
    deflated: 65536 bytes of what each value looks like by default, the high and the low bytes of
    all values, each less its left neighbour.

    Raises
    ------
    NotAnalysable
        As :func:`radiograph`.
    """
    ds = header_of(path)
    grey = pixels.grey_values(ds, decode_file(path).array)
    values, halved = grey.values, False
    if max(values.shape) > LONGEST_OF_GREY_VALUES:
        values, halved = _halved(values), True
    delta = values.copy()
    delta[:, 1:] -= values[:, :-1]
    head = {
        "columns": values.shape[1],
        "rows": values.shape[0],
        "slope": grey.slope,
        "intercept": grey.intercept,
        "inverse": grey.inverse,
        "halved": halved,
        "windows": _windows(ds),
    }
    described = json.dumps(head).encode()
    body = b"".join(
        (
            grey.display.tobytes(),
            _bytes(delta >> 8),
            _bytes(delta),
        )
    )
    return GREY_VALUES + struct.pack("<I", len(described)) + described + zlib.compress(body, 1)


def _bytes(values: NDArray[Any]) -> bytes:
    return values.astype(np.uint8).tobytes()


def _halved(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    rows, columns = (length // 2 * 2 for length in values.shape)
    blocks = values[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).astype(np.uint32)
    halved: NDArray[np.uint16] = (blocks.sum((1, 3)) // 4).astype(np.uint16)
    return halved


def _windows(ds: Dataset) -> list[dict[str, object]]:
    """Return the windows that the image states, with what they are called."""
    names = ds.get("WindowCenterWidthExplanation") or []
    names = [names] if isinstance(names, str) else [str(one) for one in names]
    pairs = zip(luts.numbers(ds, "WindowCenter"), luts.numbers(ds, "WindowWidth"), strict=False)
    return [
        {
            "name": (names[number] if number < len(names) else "")[:32],
            "center": center,
            "width": width,
        }
        for number, (center, width) in enumerate(pairs)
        if width >= 1
    ][:8]


def _outlines(state: Dataset) -> Iterator[list[tuple[float, float]]]:
    """Yield the polylines of a presentation state, columns and rows in pixels of the image."""
    for annotation in state.get("GraphicAnnotationSequence", []):
        for graphic in annotation.get("GraphicObjectSequence", []):
            if graphic.GraphicType == "POLYLINE" and graphic.GraphicAnnotationUnits == "PIXEL":
                numbers = [float(number) for number in graphic.GraphicData]
                yield list(zip(numbers[::2], numbers[1::2], strict=True))


def _scale(rows: int, columns: int) -> float:
    return min(1.0, LONGEST_SIDE / max(rows, columns))


def _fitted(picture: Pillow.Image, resampling: Pillow.Resampling) -> Pillow.Image:
    scale = _scale(picture.height, picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, resampling)


def rendered(order: Order) -> bytes:
    """Return the PNG file, or the grey values, that an order asks for.

    Raises
    ------
    NotAnalysable
        The image cannot be decoded, or is without contrast.
    """
    path = Path(order["image"])
    match order["kind"]:
        case "pixels":
            return grey_values(path)
        case "key-image":
            picture = key_image(path)
        case "overlay":
            heat_map = Path(order["heat_map"]) if order["heat_map"] else None
            picture = overlay(path, [Path(one) for one in order["states"]], heat_map)
        case _:
            picture = radiograph(path)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return file.getvalue()


def _limit(memory_megabytes: int, seconds: float) -> None:
    memory = memory_megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_PICTURE, LARGEST_PICTURE))
    signal.alarm(math.ceil(seconds) + 1)  # the parent's deadline comes first


def _main(memory_megabytes: int, seconds: float) -> None:
    _limit(memory_megabytes, seconds)
    warnings.simplefilter("ignore")
    # Codecs print to standard output, too.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        made = rendered(json.load(sys.stdin))
    except NotAnalysable as error:
        made = str(error).encode("utf-8", "replace")
    answer.write(made)
    answer.flush()


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]))
