"""Damage to frontal radiographs, which the gate must refuse.

Every function takes an image ``(512, 512)`` float32, 0 to 1, and gives one ``(256, 256)``; random
numbers come from the generator alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from scripts.gate_variations import (
    SIZE,
    Random,
    affine,
    blurred,
    exposure,
    good,
    halved,
    random_grey,
    resized,
    warped,
    window,
)
from torch import Tensor
from torch.nn import functional

HALF = 0.5
"""Probability from which a pixel counts as lung."""
MOST_LUNG = 0.45
"""Share of the lungs that a crop may show to count as incomplete."""
MOST_LUNG_OF_HALF = 0.6
"""The same for halves of an image: a midline is not always in the middle."""


def inverted(image: Tensor, rng: Random) -> Tensor:
    """Return the negative."""
    return 1 - good(image, rng)


def turned(image: Tensor, rng: Random) -> Tensor:
    """Return the image upside down, on its side or tilted by 35 to 70 degrees."""
    kind = rng.integers(0, 4)
    image = good(image, rng)
    if kind == 3:
        degrees = rng.uniform(35, 70) * rng.choice([-1, 1])
        return warped(image, affine(rng, degrees, (0.9, 1.3), 0.05), 0.0)
    return (image.flip(0), torch.rot90(image, 1), torch.rot90(image, 3))[kind]


def cut(image: Tensor, lungs: Tensor, rng: Random) -> Tensor:
    """Return a part that shows less than half of the lungs: neck, shoulder, abdomen, one lung.

    Parameters
    ----------
    image
        ``(512, 512)``.
    lungs
        ``(side, side)``, probability of lung.
    rng
        Random numbers.
    """
    while True:
        high, wide = rng.uniform(0.22, 0.75, 2)
        top, left = rng.uniform(0, 1 - high), rng.uniform(0, 1 - wide)
        box = (top, top + high, left, left + wide)
        if share_inside(lungs, box) < MOST_LUNG:
            return exposure(window(image, box), rng)


def share_inside(lungs: Tensor, box: Sequence[float]) -> float:
    """Return the share of the lungs that a box shows, 0 to 1."""
    top, bottom, left, right = (int(edge * len(lungs)) for edge in box)
    inside = lungs >= HALF
    return float(inside[top:bottom, left:right].sum() / (inside.sum() + 1e-6))


def halves(image: Tensor, lungs: Tensor, rng: Random) -> Tensor:
    """Return one half, left, right, upper or lower, stretched or with the other one blank."""
    while True:
        edge = rng.uniform(0.4, 0.55)
        boxes = ((0, 1, 0, edge), (0, 1, 1 - edge, 1), (0, edge, 0, 1), (1 - edge, 1, 0, 1))
        box = boxes[rng.integers(0, 4)]
        if share_inside(lungs, box) < MOST_LUNG_OF_HALF:
            break
    if rng.random() < 0.5:
        return exposure(window(image, box), rng)
    result = torch.full((SIZE, SIZE), random_grey(rng) / 255)
    top, bottom, left, right = (int(edge * SIZE) for edge in box)
    result[top:bottom, left:right] = exposure(halved(image), rng)[top:bottom, left:right]
    return result


def clipped(image: Tensor, rng: Random) -> Tensor:
    """Return the image with most pixels burnt out or drowned."""
    image = good(image, rng)
    cut = float(torch.quantile(image, float(rng.uniform(0.65, 0.97))))
    if rng.random() < 0.5:
        return ((image - cut) / max(1 - cut, 0.02)).clamp(0, 1)
    cut = float(torch.quantile(image, float(rng.uniform(0.03, 0.3))))
    return (image / max(cut, 0.02)).clamp(0, 1)


def smeared(image: Tensor, rng: Random) -> Tensor:
    """Return the image blurred, noisy or in blocks beyond recognition."""
    image, kind = good(image, rng), rng.integers(0, 3)
    if kind == 0:
        return blurred(image, rng.uniform(9, 25))
    if kind == 1:
        noise = torch.from_numpy(rng.standard_normal(image.shape, np.float32))
        return (image + noise * float(rng.uniform(0.6, 2.0))).clamp(0, 1)
    side = int(rng.integers(4, 12))
    return functional.interpolate(resized(image, side, side)[None, None], SIZE)[0, 0]


def photographed(image: Tensor, rng: Random) -> Tensor:
    """Return a photograph of a screen or light box: perspective, moire, glare, surroundings."""
    result = warped(good(image, rng), _view(rng), -1.0)
    around = float(rng.uniform(0, 0.35))
    room = torch.linspace(0, float(rng.uniform(-0.2, 0.4)), SIZE)[None].expand(SIZE, -1) + around
    result = torch.where(result < -0.02, room, result)
    axis = torch.linspace(0, 1, SIZE)
    waves = torch.zeros(SIZE, SIZE)
    for _ in range(2):
        x, y = rng.uniform(-70, 70, 2)
        bend = 3 * float(rng.uniform(0, 1)) * axis[:, None] ** 2
        waves += torch.sin(2 * np.pi * (x * axis[None] + y * axis[:, None]) + bend)
    result = result * (1 + float(rng.uniform(0.02, 0.16)) * waves)
    x, y, wide = *rng.uniform(0, 1, 2), rng.uniform(0.05, 0.3)
    glare = torch.exp(-(((axis[None] - x) / wide) ** 2) - ((axis[:, None] - y) / wide) ** 2)
    return exposure(result + glare * float(rng.uniform(0.1, 0.9)), rng, 0.5)


def _view(rng: Random) -> np.ndarray:
    """Return the map of a camera that stands askew."""
    matrix = affine(rng, rng.uniform(-15, 15), (1.1, 1.7), 0.2)
    matrix[2, :2] = rng.uniform(-0.3, 0.3, 2)
    return matrix


def on_desktop(image: Tensor, rng: Random) -> Tensor:
    """Return a screenshot in which the image is one small window among others."""
    drawn = Image.new("L", (SIZE, SIZE), random_grey(rng))
    pen = ImageDraw.Draw(drawn)
    for _ in range(int(rng.integers(3, 25))):
        x, y = rng.integers(0, SIZE, 2)
        w, h = rng.integers(5, 110, 2)
        pen.rectangle([int(x), int(y), int(x + w), int(y + h)], fill=random_grey(rng))
        pen.text(
            (int(x), int(y)), "".join(rng.choice(list("abcdefgh 0123"), 12)), fill=random_grey(rng)
        )
    result = torch.from_numpy(np.array(drawn, np.float32) / 255)
    high, wide = rng.integers(60, 145, 2)
    top, left = rng.integers(0, SIZE - high), rng.integers(0, SIZE - wide)
    result[top : top + high, left : left + wide] = resized(good(image, rng), int(high), int(wide))
    return result


def collage(images: Sequence[Tensor], rng: Random) -> Tensor:
    """Return a figure of two, three, four or six panels, some of which may be no frontal ones."""
    rows, columns = ((1, 2), (2, 1), (1, 3), (2, 2), (2, 3))[rng.integers(0, 5)]
    result = torch.full((SIZE, SIZE), random_grey(rng) / 255)
    high, wide, gap = SIZE // rows, SIZE // columns, int(rng.integers(0, 6))
    for row in range(rows):
        for column in range(columns):
            panel = good(images[int(rng.integers(0, len(images)))], rng)
            target = result[row * high : row * high + high - gap]
            target[:, column * wide : column * wide + wide - gap] = resized(
                panel, high - gap, wide - gap
            )
    return result


def shuffled(image: Tensor, rng: Random) -> Tensor:
    """Return the image cut into squares that changed places."""
    parts = int(rng.integers(2, 5))
    side = SIZE // parts
    tiles = good(image, rng)[: side * parts, : side * parts].unfold(0, side, side)
    tiles = tiles.unfold(1, side, side).reshape(-1, side, side)
    order = np.roll(rng.permutation(len(tiles)), 1)
    rows = tiles[order.copy()].reshape(parts, parts, side, side).permute(0, 2, 1, 3)
    return resized(rows.reshape(side * parts, side * parts), SIZE, SIZE)


def pattern(image: Tensor, rng: Random) -> Tensor:
    """Return no picture of anything: pages, gradients, clouds, shapes, noise."""
    kind = rng.integers(0, 4)
    if kind == 0:
        drawn = Image.new("L", (SIZE, SIZE), random_grey(rng))
        pen, grey = ImageDraw.Draw(drawn), random_grey(rng)
        for y in range(int(rng.integers(0, 40)), SIZE, int(rng.integers(11, 24))):
            line = "".join(rng.choice(list("abcdefghij klmnop 0123"), int(rng.integers(3, 45))))
            pen.text((int(rng.integers(0, 30)), y), line, fill=grey)
        return torch.from_numpy(np.array(drawn, np.float32) / 255)
    if kind == 1:
        x, y = rng.uniform(-1, 1, 2)
        axis = torch.linspace(0, 1, SIZE)
        ramp: Tensor = x * axis[None] + y * axis[:, None]
        return (ramp - ramp.min()) / (ramp.max() - ramp.min() + 1e-6)
    if kind == 2:
        side = int(rng.integers(3, 128))
        noise = torch.from_numpy(rng.random((side, side), np.float32))
        return resized(noise, SIZE, SIZE)
    drawn = Image.new("L", (SIZE, SIZE), random_grey(rng))
    pen = ImageDraw.Draw(drawn)
    for _ in range(int(rng.integers(1, 12))):
        x, y = rng.integers(-40, SIZE, 2)
        w, h = rng.integers(10, 200, 2)
        shape = pen.ellipse if rng.random() < 0.6 else pen.rectangle
        shape([int(x), int(y), int(x + w), int(y + h)], fill=random_grey(rng))
    return blurred(torch.from_numpy(np.array(drawn, np.float32) / 255), rng.uniform(0.3, 6))


DAMAGE: dict[str, tuple[str, Callable[[Tensor, Random], Tensor]]] = {
    "inverted": ("inverted", inverted),
    "turned": ("turned", turned),
    "clipped": ("other", clipped),
    "smeared": ("other", smeared),
    "photograph of a screen": ("other", photographed),
    "screenshot": ("other", on_desktop),
    "shuffled": ("other", shuffled),
    "pattern": ("other", pattern),
}
"""Kind of damage: the class that it is taught as, and how it is done."""
CUTS: dict[str, Callable[[Tensor, Tensor, Random], Tensor]] = {"half": halves, "cut": cut}
"""Kind of damage that is taught as incomplete; the lungs tell how much is left."""
