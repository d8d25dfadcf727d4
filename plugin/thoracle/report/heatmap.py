"""The picture of a result: what a radiologist sees of it in every viewer.

A positive image has a heat map. All others are quiet: a small grey radiograph with a frame around
the part that the model looked at, because colours would suggest a finding. The radiograph is made
smaller, so that caption and colour bar have a band of their own beneath it and hide nothing.
Nothing about the patient is written on it.
"""

import textwrap
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from thoracle.records import (
    BundleIdentity,
    Image,
    Outcome,
    Reading,
    Region,
    Saliency,
    SaliencyKind,
)
from thoracle.report import sentences
from thoracle.wording import MAPS, ON_PICTURES

RAMP: Final = (
    (106, 23, 110),
    (147, 38, 103),
    (188, 55, 84),
    (221, 81, 58),
    (243, 120, 25),
    (252, 165, 10),
    (246, 215, 70),
)
"""Red, green, blue from low to high: inferno from 0.3 to 0.9 in steps of 0.1, by N. Smith and
S. van der Walt (CC0), in which equal steps look equal. Its ends are left out: they look like the
radiograph's own black and white."""
OPACITY: Final = 0.5
"""Greatest opacity of the colours, 0 to 1: half of the radiograph's contrast is left there."""
OUTLINE: Final = (120, 220, 255)
"""Red, green, blue of the outlines: in no radiograph, and not in the ramp."""
TEXT_HEIGHT: Final = 1 / 36
"""Size of the font as a share of the width: 14 pixels where the picture is shown 512 wide."""
FRAME: Final = (140, 150, 160)
"""Red, green, blue of the frame around what the model looked at: to be seen, not to be noticed."""
QUIET: Final = 1024
"""Rows and columns of a picture without a heat map, at most."""
CARD: Final = (512, 512)
"""Rows and columns of a picture without a radiograph."""

_WHITE, _GREY, _AMBER = (255, 255, 255), (205, 205, 205), (255, 190, 60)
_LUNG = 110
"""Grey, 0 to 255, on which the colour bar stands: that of a lung, often."""
_LINE = 1.4
"""Distance of two lines of text in sizes of the font."""
_BAR = 4.5
"""Length of the colour bar in sizes of the font."""


class Words(NamedTuple):
    """A part of the caption."""

    text: str
    colour: tuple[int, int, int]


def caption(reading: Reading, bundle: BundleIdentity) -> tuple[Words, ...]:
    """Return what is written below the picture of an image: its outcome first."""
    return (
        *_result(reading, bundle),
        Words(f"{bundle.name} {bundle.version}", _GREY),
        Words(ON_PICTURES, _AMBER),
    )


def _result(reading: Reading, bundle: BundleIdentity) -> tuple[Words, ...]:
    if reading.probability is None:
        assert reading.reason is not None  # what is rejected has a reason
        return Words("Not analysed", _WHITE), Words(reading.reason.code.meaning, _GREY)
    colour = _WHITE if reading.outcome is Outcome.POSITIVE else _GREY
    return (
        Words(f"{reading.outcome.capitalize()} for {bundle.finding.name}", colour),
        Words(f"probability {sentences.percent(reading.probability)} %", colour),
        Words(sentences.rule(bundle.decision), _GREY),
    )


def render(
    image: Image,
    saliency: Saliency | None,
    regions: Sequence[Region],
    words: Sequence[Words],
    frame: Sequence[tuple[float, float]] = (),
    legend: str = MAPS[SaliencyKind.OPACITIES].legend,
) -> NDArray[np.uint8]:
    """Return the radiograph with its saliency, outlines, a caption and a colour bar.

    Colours are relative to the map's own maximum: where the map has no place that speaks for the
    positive class, the radiograph stays grey.

    Parameters
    ----------
    image
        The radiograph.
    saliency
        Its contributions; only positive ones are shown. ``None``: a quiet picture, which has
        neither colours nor a colour bar.
    regions
        Outlined parts, in pixels of the radiograph.
    words
        The caption: its parts stand side by side as far as there is room, else below each other.
    frame
        Corners of the part that the model looked at, in pixels of the radiograph.
    legend
        What the colours mean.

    Returns
    -------
    NDArray
        ``(rows, columns, 3)`` red, green, blue: as many rows and columns as the radiograph has, a
        quiet one at most ``QUIET``.
    """
    rows, columns = image.array.shape[1:]
    reduced = min(1.0, QUIET / max(rows, columns)) if saliency is None else 1.0
    height, width = round(rows * reduced), round(columns * reduced)
    band = _band(width, words, legend if saliency is not None else "")
    scale = (height - band.height) / height
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    left = (width - size[0]) // 2
    canvas = Pillow.new("RGB", (width, height))
    grey = Pillow.fromarray((image.array[0] * 255 + 0.5).astype(np.uint8))
    shown = grey.resize(size, Pillow.Resampling.LANCZOS)
    if saliency is not None:
        shown = _coloured(shown, _levels(saliency, size))
    canvas.paste(shown, (left, 0))
    scales = (size[0] / columns, size[1] / rows)
    _line(canvas, frame, FRAME, left, scales)
    for region in regions:
        _line(canvas, region.outline, OUTLINE, left, scales)
    canvas.paste(band, (0, height - band.height))
    return np.asarray(canvas)


def card(words: Sequence[Words]) -> NDArray[np.uint8]:
    """Return a picture of words alone, ``(rows, columns, 3)``: of an image that has no other."""
    canvas = Pillow.new("RGB", CARD[::-1])
    band = _band(CARD[1], words, "")
    canvas.paste(band, (0, (CARD[0] - band.height) // 2))
    return np.asarray(canvas)


def placements(rows: int, columns: int) -> list[tuple[int, int, int]]:
    """Return where the radiograph may lie in a picture with colours, by the lines of its caption.

    Each is its left edge, width and height in pixels; its upper edge is that of the picture.
    """
    size = max(1, round(columns * TEXT_HEIGHT))
    found = []
    for lines in range(1, 7):
        band = round(size / 2 + lines * _LINE * size)
        if band >= rows:
            break
        scale = (rows - band) / rows
        width, height = max(1, round(columns * scale)), max(1, round(rows * scale))
        found.append(((columns - width) // 2, width, height))
    return found


def ramp() -> NDArray[np.uint8]:
    """Return the colours of the levels 0 to 255, ``(256, 3)`` red, green, blue."""
    steps = np.linspace(0, 255, len(RAMP))
    channels = [np.interp(np.arange(256), steps, one) for one in zip(*RAMP, strict=True)]
    return np.stack(channels, 1).round().astype(np.uint8)


def _levels(saliency: Saliency, size: tuple[int, int]) -> Pillow.Image:
    """Return the positive contributions in ``size``, 255 being the largest."""
    positive = np.maximum(saliency.contributions, 0)
    levels = positive * (255 / (float(positive.max()) or 1))
    return Pillow.fromarray(levels.round().astype(np.uint8)).resize(size, Pillow.Resampling.BICUBIC)


def _coloured(grey: Pillow.Image, levels: Pillow.Image) -> Pillow.Image:
    """Return grey values under the colours of their levels; level 0 leaves them as they are."""
    colours = Pillow.fromarray(np.asarray(levels), mode="P")
    colours.putpalette(ramp().tobytes())
    opacity = levels.point([round(OPACITY * level) for level in range(256)])
    return Pillow.composite(colours.convert("RGB"), grey.convert("RGB"), opacity)


def _line(
    canvas: Pillow.Image,
    corners: Sequence[tuple[float, float]],
    colour: tuple[int, int, int],
    left: int,
    scale: tuple[float, float],
) -> None:
    """Draw a line through corners that are in pixels of the radiograph."""
    width = max(1, round(canvas.width / 500))
    places = [(left + x * scale[0], y * scale[1]) for x, y in corners]
    ImageDraw.Draw(canvas).line(places, fill=colour, width=width, joint="curve")


def _band(columns: int, words: Sequence[Words], legend: str) -> Pillow.Image:
    """Return caption and colour bar on black, as wide as the picture and as high as they need."""
    font = ImageFont.load_default(max(1, round(columns * TEXT_HEIGHT)))
    assert isinstance(font, ImageFont.FreeTypeFont)  # what a wheel of Pillow has
    margin = font.size / 2
    bar = _legend(font, legend) if legend else Pillow.new("RGB", (0, 0))
    lines = _lines(words, font, columns - 2 * margin)
    last = sum(font.getlength(text) + font.size for text, _ in lines[-1])
    if last + bar.width > columns - 2 * margin:
        lines.append([])
    band = Pillow.new("RGB", (columns, round(margin + len(lines) * _LINE * font.size)))
    draw = ImageDraw.Draw(band)
    y = margin / 2
    for line in lines:
        x = margin
        for text, colour in line:
            draw.text((x, y), text, fill=colour, font=font)
            x += font.getlength(text) + font.size
        y += _LINE * font.size
    band.paste(bar, (round(columns - margin - bar.width), round(y - _LINE * font.size)))
    return band


def _lines(words: Sequence[Words], font: ImageFont.FreeTypeFont, width: float) -> list[list[Words]]:
    """Return the caption in lines that are at most ``width`` long."""
    lines: list[list[Words]] = []
    room = 0.0
    for whole, colour in words:
        for text in _broken(whole, font, width):
            length = font.getlength(text)
            if not lines or length > room:
                lines.append([])
                room = width
            lines[-1].append(Words(text, colour))
            room -= length + font.size
    return lines


def _broken(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Return a text in as few parts as are needed for each to be at most ``width`` long."""
    parts = [text]
    characters = len(text)
    while max(map(font.getlength, parts)) > width:
        characters -= 1
        parts = textwrap.wrap(text, characters)
    return parts


def _legend(font: ImageFont.FreeTypeFont, meaning: str) -> Pillow.Image:
    """Return what the colours mean, as they look on a lung."""
    low, high = f"{meaning}: low  ", "  high"
    start, end = round(font.getlength(low)), round(font.getlength(high))
    length, height = round(_BAR * font.size), round(font.size)
    levels = np.tile(np.linspace(0, 255, length).round().astype(np.uint8), (height, 1))
    bar = _coloured(Pillow.new("L", (length, height), _LUNG), Pillow.fromarray(levels))
    legend = Pillow.new("RGB", (start + length + end, round(_LINE * font.size)))
    draw = ImageDraw.Draw(legend)
    draw.text((0, 0), low, fill=_GREY, font=font)
    legend.paste(bar, (start, height // 8))
    draw.text((start + length, 0), high, fill=_GREY, font=font)
    return legend
