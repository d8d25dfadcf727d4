"""Picture files built in code, and folders of them in which the leaks are known."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


def patient(number: int, side: int = 96, cells: int = 8) -> NDArray[np.uint8]:
    """Return ``(side, side)`` grey values; each number looks different, at each side the same.

    ``cells`` is how many blurred spots there are in each direction.
    """
    coarse = np.random.default_rng(number).integers(0, 256, (cells, cells), np.uint8)
    smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


def save(array: NDArray[np.uint8] | NDArray[np.uint16], path: Path, **options: object) -> Path:
    """Return the path, where the values now are as PNG or JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]  # they differ by format
    return path


def clean(root: Path) -> Path:
    """Return a folder with a Dataset of four patients, each in one part only."""
    dataset = root / "Dataset"
    for number, name in enumerate(("Train/Covid/a", "Train/Normal/b", "Val/Covid/c")):
        save(patient(number), dataset / f"{name}.png")
    save(patient(3), dataset / "Val/Normal/d.jpeg", quality=90)
    return root


def leaky(root: Path) -> Path:
    """Return :func:`clean`, with an exact copy, near copies, a patient in two parts and a wreck."""
    dataset = clean(root) / "Dataset"
    (dataset / "Train/Covid/copy.png").write_bytes((dataset / "Val/Covid/c.png").read_bytes())
    save(patient(2), dataset / "Train/Covid/packed.png", compress_level=1)  # same pixels only
    save(patient(3, 64), dataset / "Train/Normal/smaller.jpeg", quality=60)
    save(patient(4), dataset / "Train/Covid/16654_1_1.png")
    save(patient(5), dataset / "Val/Covid/16654_2_1.png")
    (dataset / "Train/Covid/cut.png").write_bytes((dataset / "Val/Covid/c.png").read_bytes()[:200])
    (dataset / "Train/Normal/page.jpg").write_bytes(b"<html>404</html>")
    return root


def public_images() -> Path:
    """Return the folder with the public images (``Dataset`` in it); without it, skip the test."""
    stated = os.environ.get("THORACLE_DATA")
    home = Path(stated) if stated else Path(__file__).parents[2] / "shared" / "data"
    for folder in (home, home / "kaggle", home.parent / "kaggle"):
        if (folder / "Dataset" / "Train").is_dir():
            return folder
    pytest.skip(f"found no Dataset/Train in {home}: set THORACLE_DATA to the folder around it")
