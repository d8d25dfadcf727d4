"""What MONAI has no transform for: blackened lungs, uneven exposure."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import LUNG


class RandBlackenLungsd(RandomizableTransform, MapTransform):
    """Blacken the lungs in the view of the whole at random.

    Then nothing can be known, and the target says so: what surrounds the lungs must not decide.

    Parameters
    ----------
    keys
        The view of the whole, ``(1, rows, columns)``, -1 to 1.
    prob
        How often, 0 to 1.
    lungs_key, label_key
        Entries with the lungs in that view, 0 to 1 (it is removed), and the class.
    """

    def __init__(
        self, keys: str, prob: float, lungs_key: str = "whole_lungs", label_key: str = "label"
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self._lungs = lungs_key
        self._label = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with ``target`` ``(2 classes, 2 views)``, whole and lungs."""
        self.randomize(None)
        entries = dict(data)
        lungs: Tensor = entries.pop(self._lungs)
        target = functional.one_hot(torch.tensor(entries[self._label]), 2).float()
        targets = torch.stack([target, target], 1)
        if self._do_transform:
            wide = functional.max_pool2d((lungs >= LUNG).float()[None], 9, 1, 4)[0]
            entries[self.keys[0]] = torch.where(wide > 0, -1.0, entries[self.keys[0]])
            targets[:, 0] = 0.5
        entries["target"] = targets
        return entries


class RandShadingd(RandomizableTransform, MapTransform):
    """Add a smooth shade, as grids, beds and thick arms throw it.

    Parameters
    ----------
    keys
        Images, ``(1, rows, columns)``, -1 to 1.
    prob
        How often, 0 to 1.
    strength
        Greatest change at any of the 4 x 4 points between which the shade runs.
    """

    def __init__(self, keys: KeysCollection, prob: float, strength: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self._strength = strength

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with a shaded image, -1 to 1."""
        self.randomize(None)
        entries = dict(data)
        for key in self.key_iterator(entries) if self._do_transform else ():
            points = self.R.uniform(-self._strength, self._strength, (1, 1, 4, 4))
            image: Tensor = entries[key]
            shade = functional.interpolate(
                torch.tensor(points, dtype=torch.float32), image.shape[1:], mode="bicubic"
            )
            entries[key] = (image + shade[0]).clamp(-1, 1)
        return entries
