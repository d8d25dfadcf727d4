"""The lungs as a MONAI transform: where they are, and the box around them.

The input gate asks for their map, and results show no opacity outside their box.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform
from torch import Tensor
from torch.nn import functional

Shares = tuple[float, float, float, float]
"""Top, bottom, left and right of a part of a radiograph, as shares of its rows and columns."""

LUNG = 0.5
"""Probability from which a pixel counts as lung."""
SMALLEST_SHARE = 0.02
"""Share of the image below which lungs count as not found; then the whole image is kept."""
TAIL = 0.01
"""Share of the lungs, on each side, that the box may leave out: specks must not widen it."""
MARGIN = 0.06
"""Margin around the lungs, of their height and width."""


def stretch(image: Tensor, lower: float = 0.005, upper: float = 0.995) -> Tensor:
    """Return an image ``(1, rows, columns)`` with two of its quantiles at -1 and 1, clipped."""
    # torch.quantile sorts, which takes six times as long.
    low, high = (float(value) for value in np.quantile(image.numpy(), (lower, upper)))
    return ((image - low) / max(high - low, 1e-6) * 2 - 1).clamp(-1, 1)


def box(lungs: Tensor) -> Shares:
    """Return top, bottom, left and right of the lungs with a margin, as shares of the image.

    Parameters
    ----------
    lungs
        ``(1, rows, columns)``, probability of lung, 0 to 1.

    Returns
    -------
    tuple
        0 to 1 each; the whole image when no lungs are found.
    """
    inside = torch.where(lungs >= LUNG, lungs, 0.0)[0]
    if float(inside.mean()) < SMALLEST_SHARE:
        return 0.0, 1.0, 0.0, 1.0
    top, bottom = _extent(inside.sum(1))
    left, right = _extent(inside.sum(0))
    return top, bottom, left, right


def _extent(profile: Tensor) -> tuple[float, float]:
    """Return where a profile begins and ends but for its tails, with the margin, 0 to 1."""
    share = profile.cumsum(0) / profile.sum()
    first = int(torch.searchsorted(share, TAIL))
    last = int(torch.searchsorted(share, 1 - TAIL)) + 1
    margin = MARGIN * (last - first)
    length = len(profile)
    return max(0.0, (first - margin) / length), min(1.0, (last + margin) / length)


class FindLungsd(MapTransform):
    """Add the probability of lung of every pixel of an image.

    Parameters
    ----------
    keys
        The image, ``(1, rows, columns)``, 0 to 1.
    network
        Gives logits ``(1, 1, *spatial_size)`` of images ``(1, 1, *spatial_size)``, -1 to 1.
    spatial_size
        Rows and columns of what the network takes.
    lungs_key
        Entry that is added: ``(1, *spatial_size)`` float32, 0 to 1.
    """

    def __init__(
        self,
        keys: str,
        network: Callable[[Tensor], Tensor],
        spatial_size: tuple[int, int],
        lungs_key: str = "lungs",
    ) -> None:
        super().__init__(keys)
        self._network = network
        self._size = (spatial_size[0], spatial_size[1])
        self._lungs_key = lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the entry ``lungs_key``."""
        entries = dict(data)
        image = torch.as_tensor(entries[self.keys[0]]).as_subclass(Tensor)
        small = functional.interpolate(image[None], self._size, mode="area")[0]
        with torch.no_grad():
            logits = self._network(stretch(small)[None])
        entries[self._lungs_key] = logits[0].sigmoid()
        return entries


class Stretchd(MapTransform):
    """:func:`stretch` for the entries of a dictionary, each ``(1, rows, columns)``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with its entries stretched to -1 to 1."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            entries[key] = stretch(torch.as_tensor(entries[key]).as_subclass(Tensor))
        return entries
