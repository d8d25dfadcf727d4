"""Synthetic radiographs for the demo: RG1 of pydicom-data (MIT), changed, and marked so.

No radiograph that may be shipped is read as positive or as negative by the model. These are: one
with opacities painted into the lungs, one with what is in the lungs smoothed away. That they are
synthetic is burned in, and stands in StudyDescription and DerivationDescription.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.data import get_testdata_file
from torch.nn import functional

from radiographs import FULL_12_BIT, radiograph
from thoracle.image import pixels

Grey = NDArray[np.floating[Any]]
"""``(rows, columns)``, 0 to 1, bright is dense."""

LABEL = "SYNTHETIC - NOT A PATIENT"


@cache
def chest() -> Grey:
    """Return RG1 at half its size."""
    path = get_testdata_file("RG1_UNCR.dcm", download=False)
    assert isinstance(path, str), "found no pydicom-data, required: the dependency group test"
    image = torch.from_numpy(pixels.read_image(Path(path)).array)[None]
    half: Grey = functional.avg_pool2d(image, 2)[0, 0].numpy()
    return half


def with_opacities(seed: int = 0, number: int = 16, strength: float = 0.5) -> Dataset:
    """Return it with so many opacities, in the outer lower lungs where COVID-19 often shows."""
    grey, rng = chest(), np.random.default_rng(seed)
    shape = np.zeros_like(grey)
    for _ in range(number):
        x = 0.5 + rng.choice([-1, 1]) * rng.uniform(0.22, 0.36)
        y, radius = rng.uniform(0.45, 0.72), rng.uniform(0.03, 0.07)
        shape = np.maximum(shape, _ellipse(x, y, radius, 1.2 * radius, 0.6))
    texture = _blurred(rng.normal(size=grey.shape).astype(np.float32), 6)
    shape = np.clip(shape * (1 + 0.25 * texture / texture.std()), 0, 1)
    return _saved(grey + (1 - grey) * strength * shape, "opacities were painted into it")


def with_clear_lungs() -> Dataset:
    """Return it without the nodules that it has: fine structure is kept, all else is smoothed."""
    grey = chest()
    lungs = np.maximum(
        _ellipse(0.26, 0.45, 0.17, 0.36, 0.15), _ellipse(0.71, 0.45, 0.17, 0.36, 0.15)
    )
    smooth = _blurred(grey * lungs, 50) / np.maximum(_blurred(lungs, 50), 1e-3)
    fine = grey - _blurred(grey, 6)
    return _saved(grey * (1 - lungs) + (smooth + 0.4 * fine) * lungs, "its lungs were smoothed")


def _saved(grey: Grey, how: str) -> Dataset:
    stored = (4095 * _labelled(np.clip(grey, 0, 1))).round().astype(np.uint16)
    said: dict[str, Any] = {
        "StudyDescription": f"SYNTHETIC: {how}",
        "SeriesDescription": LABEL,
        "DerivationDescription": f"Synthetic: RG1 of pydicom-data, {how}",
        "ImageType": ["DERIVED", "PRIMARY"],
        "BurnedInAnnotation": "YES",
    }
    return radiograph(stored, **FULL_12_BIT, **said)


def _labelled(grey: Grey) -> Grey:
    """Return it with the label at its lower edge, outside the lungs."""
    rows, columns = grey.shape
    label = Image.new("L", (columns, rows))
    font = ImageFont.load_default(size=columns // 32)
    ImageDraw.Draw(label).text((columns // 2, rows - 20), LABEL, 255, font, anchor="ms")
    drawn = np.asarray(label, np.float32) / 255
    return grey * (1 - drawn)  # dark on the bright abdomen


def _ellipse(x: float, y: float, width: float, height: float, softness: float) -> Grey:
    """Return 1 inside an ellipse and 0 outside; all in shares of the image."""
    rows, columns = chest().shape
    down, across = np.mgrid[0:rows, 0:columns].astype(np.float32)
    distance = ((across / columns - x) / width) ** 2 + ((down / rows - y) / height) ** 2
    edge: Grey = 1 / (1 + np.exp((np.minimum(distance, 10) - 1) / softness))
    return edge.astype(np.float32)


def _blurred(grey: Grey, sigma: float) -> Grey:
    """Return it blurred by a Gaussian, its edges repeated."""
    radius = int(3 * sigma)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    image = torch.from_numpy(np.ascontiguousarray(grey))[None, None]
    image = functional.pad(image, (radius, radius, radius, radius), "replicate")
    image = functional.conv2d(image, kernel[None, None, None])
    blurred: Grey = functional.conv2d(image, kernel[None, None, :, None])[0, 0].numpy()
    return blurred
