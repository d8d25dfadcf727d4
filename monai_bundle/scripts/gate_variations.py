"""What any hospital, archive or journal may do to a good radiograph, which the gate must let pass.

Every function takes an image ``(rows, columns)`` float32, 0 to 1; random numbers come from the
generator alone.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

Random = np.random.Generator
SIZE = 256


def halved(image: Tensor) -> Tensor:
    """Return an image ``(512, 512)`` as ``(256, 256)``."""
    return functional.avg_pool2d(image[None], 2)[0]


def window(image: Tensor, box: Sequence[float]) -> Tensor:
    """Return the part of an image in a box (top, bottom, left, right; shares of the image)."""
    rows, columns = image.shape
    top, bottom = int(box[0] * rows), max(int(box[1] * rows), int(box[0] * rows) + 8)
    left, right = int(box[2] * columns), max(int(box[3] * columns), int(box[2] * columns) + 8)
    return resized(image[top:bottom, left:right], SIZE, SIZE)


def resized(image: Tensor, rows: int, columns: int) -> Tensor:
    """Return an image in another size, antialiased."""
    size = (rows, columns)
    return functional.interpolate(image[None, None], size, mode="bilinear", antialias=True)[0, 0]


def warped(image: Tensor, matrix: np.ndarray, fill: float) -> Tensor:
    """Return an image seen through a projective map of the square -1 to 1, 3 x 3."""
    axis = torch.linspace(-1, 1, image.shape[0])
    grid = torch.stack([axis[None].expand(len(axis), -1), axis[:, None].expand(-1, len(axis))], -1)
    points = torch.cat([grid, torch.ones_like(grid[..., :1])], -1) @ torch.tensor(matrix.T).float()
    grid = points[..., :2] / points[..., 2:].clamp(min=1e-3)
    moved = functional.grid_sample((image - fill)[None, None], grid[None], align_corners=False)
    return moved[0, 0] + fill


def affine(rng: Random, degrees: float, zoom: tuple[float, float], shift: float) -> np.ndarray:
    """Return a map that turns, scales each axis, shears a little and shifts."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    scale = np.diag([*rng.uniform(*zoom, 2), 1.0])
    shear = np.array([[1, rng.uniform(-0.08, 0.08), 0], [0, 1, 0], [0, 0, 1]])
    matrix: np.ndarray = np.vstack([turn, [0, 0, 1]]) @ scale @ shear
    matrix[:2, 2] = rng.uniform(-shift, shift, 2)
    return matrix


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Return the image after lossy compression."""
    content = io.BytesIO()
    Image.fromarray((image.clamp(0, 1) * 255).byte().numpy()).save(content, "JPEG", quality=quality)
    with Image.open(content) as read:
        return torch.from_numpy(np.asarray(read, np.float32) / 255)


def exposure(image: Tensor, rng: Random, strength: float = 1.0) -> Tensor:
    """Return the image in another tone curve, window, sharpness, grain and compression."""
    image = image.clamp(0, 1) ** float(np.exp(rng.uniform(-0.7, 0.7) * strength))
    low, high = rng.uniform(-0.1, 0.12), rng.uniform(0.85, 1.25)
    image = ((image - low) / (high - low)).clamp(0, 1)
    if rng.random() < 0.3:
        image = blurred(image, rng.uniform(0.4, 1.6))
    if rng.random() < 0.2:
        image = image + rng.uniform(0.3, 1.2) * (image - blurred(image, 3.0))
    if rng.random() < 0.3:
        noise = rng.standard_normal(image.shape, np.float32)
        image = image + torch.from_numpy(noise) * float(rng.uniform(0.005, 0.05))
    if rng.random() < 0.4:
        image = jpeg(image, int(rng.integers(8, 70)))
    if rng.random() < 0.25:
        side = int(rng.integers(110, 220))
        image = resized(resized(image, side, side), *image.shape)
    return image.clamp(0, 1)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Return the image after a Gaussian of this many pixels."""
    radius = int(3 * sigma) + 1
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    line /= line.sum()
    padded = functional.pad(image[None, None], [radius] * 4, mode="reflect")
    lines = functional.conv2d(padded, line[None, None, None])
    return functional.conv2d(lines, line[None, None, :, None])[0, 0]


def lettered(image: Tensor, rng: Random) -> Tensor:
    """Return the image with the marks, letters, frames and tubes that figures and patients have."""
    drawn = Image.fromarray((image.clamp(0, 1) * 255).byte().numpy())
    pen = ImageDraw.Draw(drawn)
    for _ in range(int(rng.integers(1, 5))):
        x, y, grey = int(rng.integers(0, SIZE)), int(rng.integers(0, SIZE)), random_grey(rng)
        kind = rng.integers(0, 4)
        if kind == 0:
            pen.text((x, y), "".join(rng.choice(list("ABCLRDay 0123456789"), 4)), fill=grey)
        elif kind == 1:
            ends = [x, y, x + int(rng.integers(-30, 30)), y + int(rng.integers(-30, 30))]
            pen.line(ends, fill=grey, width=int(rng.integers(1, 5)))
        elif kind == 2:
            points = [(x + int(rng.normal(0, 40)), int(t)) for t in np.linspace(0, SIZE, 6)]
            pen.line(points, fill=int(rng.integers(180, 256)), width=int(rng.integers(1, 4)))
        else:
            w, h = rng.integers(8, 60, 2)
            pen.rectangle([x, y, x + int(w), y + int(h)], outline=grey)
    return torch.from_numpy(np.array(drawn, np.float32) / 255)


def random_grey(rng: Random) -> int:
    """Return black, white or any grey, 0 to 255."""
    return int(rng.choice([0, 255, int(rng.integers(0, 256))]))


def framed(image: Tensor, rng: Random, most: float = 0.13) -> Tensor:
    """Return the image with borders of one grey on some sides."""
    edges = (rng.uniform(0, most, 4) * (rng.random(4) < 0.5) * SIZE).astype(int)
    result = torch.full_like(image, random_grey(rng) / 255)
    rows, columns = SIZE - edges[0] - edges[1], SIZE - edges[2] - edges[3]
    target = (slice(edges[0], SIZE - edges[1]), slice(edges[2], SIZE - edges[3]))
    result[target] = resized(image, int(rows), int(columns))
    return result


def consolidated(image: Tensor, rng: Random) -> Tensor:
    """Return the image with bright clouds: pneumonia, effusion, a white lung."""
    axis = torch.linspace(0, 1, SIZE)
    for _ in range(int(rng.integers(1, 5))):
        x, y, wide, high = *rng.uniform(0.1, 0.9, 2), *rng.uniform(0.06, 0.25, 2)
        cloud = torch.exp(-(((axis[None] - x) / wide) ** 2) - ((axis[:, None] - y) / high) ** 2)
        weight = cloud * float(rng.uniform(0.3, 0.9))
        image = image * (1 - weight) + weight * float(rng.uniform(0.65, 0.95))
    return image


def good(image: Tensor, rng: Random) -> Tensor:
    """Return a frontal radiograph as another hospital, device or journal may show it."""
    top, left = rng.uniform(0, 0.08, 2) * (rng.random(2) < 0.4)
    bottom, right = 1 - rng.uniform(0, 0.08, 2) * (rng.random(2) < 0.4)
    small = window(image, (top, bottom, left, right))
    if rng.random() < 0.5:
        small = small.flip(1)
    if rng.random() < 0.6:
        matrix = affine(rng, rng.uniform(-12, 12), (0.95, 1.3), 0.06)
        small = warped(small, matrix, rng.choice([0.0, 0.0, 1.0]))
    for change, share in ((consolidated, 0.25), (lettered, 0.35), (framed, 0.3)):
        if rng.random() < share:
            small = change(small, rng)
    return exposure(small, rng)
