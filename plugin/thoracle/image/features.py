"""What an image is like, in a few numbers: by them the watch sees that inputs have changed.

They say nothing about the patient and do not influence the result: they are computed beside it, of
the same pixels, and kept with the reading.
"""

import numpy as np
from numpy.typing import NDArray

from thoracle.records import Image

SAMPLES = 400
"""Rows and columns of the grid that is looked at, at most: a quarter of a per cent is precise
enough, and all pixels would take twenty times as long."""
END = 0.01
"""Distance from 0 and from 1, of the display range, within which a pixel counts as at the end."""
DECIMALS = 5


def features(image: Image) -> dict[str, float]:
    """Return descriptors of a radiograph, each rounded to ``DECIMALS``.

    Parameters
    ----------
    image
        As the model gets it.

    Returns
    -------
    dict
        ``mean`` and ``contrast`` (standard deviation) of the display values; ``dark``, ``median``
        and ``bright``, their percentiles 5, 50 and 95; ``black`` and ``white``, the shares of
        pixels at the ends of the display range; all 0 to 1. ``aspect``: columns by rows.
        ``megapixels``. ``sharpness``: the standard deviation of the discrete Laplacian, in
        thousandths of the display range; 0 for an image of fewer than three rows or columns.
    """
    array = image.array[0]
    rows, columns = array.shape
    every = (max(1, -(-rows // SAMPLES)), max(1, -(-columns // SAMPLES)))
    sample = array[:: every[0], :: every[1]]
    dark, median, bright = np.percentile(sample, (5, 50, 95))
    found = {
        "mean": float(sample.mean(dtype=np.float64)),
        "contrast": float(sample.std(dtype=np.float64)),
        "dark": float(dark),
        "median": float(median),
        "bright": float(bright),
        "black": float(np.mean(sample <= END)),
        "white": float(np.mean(sample >= 1 - END)),
        "aspect": columns / rows,
        "megapixels": rows * columns / 1e6,
        "sharpness": 1e3 * _roughness(array, every),
    }
    return {name: round(value, DECIMALS) for name, value in found.items()}


def _roughness(array: NDArray[np.float32], every: tuple[int, int]) -> float:
    """Return the standard deviation of the Laplacian at the pixels of a grid, ``every`` apart."""
    rows, columns = array.shape
    if min(rows, columns) < 3:
        return 0.0

    def at(down: int, right: int) -> NDArray[np.float32]:
        return array[
            1 + down : rows - 1 + down : every[0], 1 + right : columns - 1 + right : every[1]
        ]

    laplacian = at(-1, 0) + at(1, 0) + at(0, -1) + at(0, 1) - 4 * at(0, 0)
    return float(laplacian.std(dtype=np.float64))
