"""The child process that makes pictures: files of strangers are opened there alone.

``python -m thoracle.web.pages.rendering MEGABYTES SECONDS`` reads an order, one JSON object, and
writes a PNG file, or a sentence that says why there is none. It has limits on memory and time, so
an image made to harm costs one picture and never the pages.

The radiograph is what the model is given (``thoracle.image.pixels``: PS3.4 Section N.2), made
smaller. The overlay lies on it, transparent but for what the gateway stored with the result: the
outlines of its presentation state.
"""

import io
import json
import math
import os
import resource
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypedDict

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw
from pydicom import Dataset, dcmread

from thoracle.errors import NotAnalysable
from thoracle.image import pixels
from thoracle.image.codecs import decode_file
from thoracle.report.heatmap import OUTLINE

LONGEST_SIDE: Final = 1600
"""Pixels: more than a page shows on most screens, and a few hundred kilobytes."""
LARGEST_PICTURE: Final = 32 * 2**20
"""Bytes; the child cannot write more."""
SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_LINE_WIDTH: Final = 1 / 400
"""Of an outline, as a share of the longest side."""


class Order(TypedDict):
    """What is to be made: ``image`` alone makes the radiograph, with others its overlay."""

    image: str
    """Path of the DICOM file."""
    states: list[str]
    """Paths of presentation states that outline something on it."""
    key_image: bool
    """``image`` is a picture of ours, shown as it is."""


def radiograph(path: Path) -> Pillow.Image:
    """Return the radiograph in a file as the model is given it, made smaller; bright is dense."""
    image = pixels.read_image(path)
    grey = (image.array[0] * 255 + 0.5).astype(np.uint8)
    return _fitted(Pillow.fromarray(grey), Pillow.Resampling.BOX)


def key_image(path: Path) -> Pillow.Image:
    """Return a Secondary Capture of ours, made smaller."""
    return _fitted(Pillow.fromarray(decode_file(path).array), Pillow.Resampling.BOX)


def overlay(path: Path, states: list[Path]) -> Pillow.Image:
    """Return what lies on the radiograph in a file, as large as its picture, with transparency."""
    header = dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    rows, columns = int(header.Rows), int(header.Columns)
    scale = _scale(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    canvas = Pillow.new("RGBA", size)
    draw = ImageDraw.Draw(canvas)
    width = max(2, round(max(size) * _LINE_WIDTH))
    for outline in (points for one in states for points in _outlines(dcmread(one))):
        corners = [(x * scale, y * scale) for x, y in outline]
        # Dark beneath bright, so that it is seen on lung and bone alike.
        draw.line(corners, fill=(0, 0, 0, 160), width=width * 2, joint="curve")
        draw.line(corners, fill=(*OUTLINE, 255), width=width, joint="curve")
    return canvas


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
    """Return the PNG file that an order asks for.

    Raises
    ------
    NotAnalysable
        The image cannot be decoded, or is without contrast.
    """
    path = Path(order["image"])
    if order["key_image"]:
        picture = key_image(path)
    elif order["states"]:
        picture = overlay(path, [Path(one) for one in order["states"]])
    else:
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
