"""The lungs as MONAI transforms: found, cut out, and all else hidden.

What lies around the lungs (letters, arms, borders of a figure, the size of a child in the frame)
tells where an image comes from, and in public collections that tells its class. A network that
never sees it cannot learn it.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms.transform import MapTransform, RandomizableTransform
from torch import Tensor
from torch.nn import functional

LUNG = 0.5
"""Probability from which a pixel counts as lung."""
SMALLEST_SHARE = 0.02
"""Share of the image below which lungs count as not found; then the whole image is kept."""
TAIL = 0.01
"""Share of the lungs, on each side, that the box may leave out: specks must not widen it."""
MARGIN = 0.06
"""Margin around the lungs, of their height and width."""


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return ``(channels, *size)``; antialiased, so that fine noise does not become texture."""
    # Where nothing is reduced, antialiasing changes nothing and takes many times as long.
    reduces = image.shape[1] > size[0] or image.shape[2] > size[1]
    return functional.interpolate(image[None], size, mode="bilinear", antialias=reduces)[0]


def stretch(image: Tensor, lower: float = 0.005, upper: float = 0.995) -> Tensor:
    """Return an image ``(1, rows, columns)`` with two of its quantiles at -1 and 1, clipped."""
    # torch.quantile sorts, which takes six times as long.
    low, high = (float(value) for value in np.quantile(image.numpy(), (lower, upper)))
    return ((image - low) / max(high - low, 1e-6) * 2 - 1).clamp(-1, 1)


def box(lungs: Tensor) -> tuple[float, float, float, float]:
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


class CropToLungsd(MapTransform):
    """Cut image and lungs to the box of the lungs, and stretch both to one size.

    The proportions of the lungs go: they tell the age, and with it the source.

    Parameters
    ----------
    keys
        The image, ``(1, rows, columns)``; it gets -1 to 1 from its 0.5 and 99.5 percentiles.
    spatial_size
        Rows and columns of the result.
    lungs_key
        The lungs; any size in, the same size as the image out.
    """

    def __init__(self, keys: str, spatial_size: tuple[int, int], lungs_key: str = "lungs") -> None:
        super().__init__(keys)
        self._size = (spatial_size[0], spatial_size[1])
        self._lungs_key = lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with both entries cut; ``box`` is added, shares of the image."""
        entries = dict(data)
        key = self.keys[0]
        image = torch.as_tensor(entries[key]).as_subclass(Tensor)
        lungs = entries[self._lungs_key]
        entries["box"] = edges = box(lungs)
        whole = _resize(lungs, (image.shape[1], image.shape[2]))
        entries[key] = stretch(_resize(_cut(image, edges), self._size))
        entries[self._lungs_key] = _resize(_cut(whole, edges), self._size)
        return entries


def _cut(image: Tensor, edges: tuple[float, float, float, float]) -> Tensor:
    rows, columns = image.shape[1:]
    top, bottom = round(edges[0] * rows), round(edges[1] * rows)
    left, right = round(edges[2] * columns), round(edges[3] * columns)
    return image[:, top:bottom, left:right]


def hide_outside(image: Tensor, lungs: Tensor, dilation: int) -> Tensor:
    """Return an image that is 0 outside the lungs, with a soft edge.

    Parameters
    ----------
    image
        ``(1, rows, columns)``, -1 to 1.
    lungs
        Of the same shape, 0 to 1.
    dilation
        Pixels by which the lungs are widened, 0 or more.
    """
    size = 2 * dilation + 1
    # Along the columns, then along the rows: the same as squares, in a fifth of the time.
    wide = functional.max_pool1d(lungs, size, 1, dilation)
    wide = functional.max_pool1d(wide.mT.contiguous(), size, 1, dilation)
    soft = functional.avg_pool1d(wide, 9, 1, 4, count_include_pad=False)
    return image * functional.avg_pool1d(soft.mT.contiguous(), 9, 1, 4, count_include_pad=False)


class HideOutsideLungsd(MapTransform):
    """:func:`hide_outside` for the entries of a dictionary.

    Parameters
    ----------
    keys
        The image.
    dilation
        Pixels by which the lungs are widened.
    lungs_key
        The lungs.
    """

    def __init__(self, keys: str, dilation: int, lungs_key: str = "lungs") -> None:
        super().__init__(keys)
        self._dilation = dilation
        self._lungs_key = lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the image hidden outside the lungs."""
        entries = dict(data)
        key = self.keys[0]
        entries[key] = hide_outside(entries[key], entries[self._lungs_key], self._dilation)
        return entries


class RandHideOutsideLungsd(RandomizableTransform, MapTransform):
    """:class:`HideOutsideLungsd` that widens the lungs at random: outlines are never exact.

    Parameters
    ----------
    keys
        The image.
    most
        Greatest number of pixels by which the lungs are widened.
    lungs_key
        The lungs.
    """

    def __init__(self, keys: str, most: int, lungs_key: str = "lungs") -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self._most = most
        self._lungs_key = lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the image hidden outside the lungs."""
        self.randomize(None)
        dilation = int(self.R.randint(0, self._most + 1))
        entries = dict(data)
        key = self.keys[0]
        entries[key] = hide_outside(entries[key], entries[self._lungs_key], dilation)
        return entries
