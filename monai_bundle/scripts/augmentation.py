"""Random changes of a whole batch at once: image by image they would take longer than a step.

Position, size, aspect, exposure, shading, sharpness, resolution, noise and lettering differ
between hospitals, and none of them tells a disease.
"""

from collections.abc import Mapping
from typing import Any

import torch
from scripts.cache import as_input
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import LUNG

TARGET = 4
"""Cells of the boxes' mask, after the move, for each place of the map, in each direction."""


class Augment:
    """Changes batches of cached images; the same seed gives the same changes.

    Parameters
    ----------
    side
        Rows and columns of the result.
    seed
        Of the random numbers.
    rotation, shear, zoom, shift
        Greatest turn in radians, shear, change of size, and shift as a share of half the image.
    blackened
        How often the lungs, and how often all but the lungs, are blackened, 0 to 1. Then nothing
        can be known, and the target says so: what surrounds the lungs must not decide.
    """

    def __init__(
        self,
        side: int,
        seed: int,
        rotation: float = 0.15,
        shear: float = 0.08,
        zoom: float = 0.18,
        shift: float = 0.16,
        blackened: float = 0.05,
    ) -> None:
        self._side = side
        self._random = torch.Generator().manual_seed(seed)
        self._rotation, self._shear = rotation, shear
        self._zoom, self._shift = zoom, shift
        self._blackened = blackened

    def __call__(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return images ``(n, 1, side, side)``, -1 to 1, and targets.

        Parameters
        ----------
        batch
            ``image`` and ``lungs`` as cached, ``boxes`` ``(n, 1, 64, 64)`` uint8, 255 inside;
            ``target`` and ``mapped`` ``(n,)`` float32.

        Returns
        -------
        tuple
            The targets are as given, with ``map`` ``(n, 1, side / 16, side / 16)``, the share of
            each place that is inside a box.
        """
        targets = {name: batch[name] for name in ("target", "mapped")}
        grid = self._grid(len(batch["image"]), self._side)
        image = functional.grid_sample(
            as_input(batch["image"]), grid, padding_mode="border", align_corners=False
        )
        lungs = self._moved(batch["lungs"], grid)
        cells = self._side // 16 * TARGET
        coarse = functional.interpolate(
            grid.permute(0, 3, 1, 2), (cells, cells), mode="bilinear", align_corners=False
        ).permute(0, 2, 3, 1)
        targets["map"] = functional.avg_pool2d(self._moved(batch["boxes"], coarse), TARGET)
        image = self._exposure(image)
        image = self._sharpness(image)
        image = self._lettered(image)
        return self._hidden(image.clamp(-1, 1), lungs, targets)

    def _uniform(self, low: float, high: float, *size: int) -> Tensor:
        return torch.rand(*size, generator=self._random) * (high - low) + low

    def _often(self, share: float, n: int) -> Tensor:
        """Return for each image whether something is done to it, ``(n, 1, 1, 1)``."""
        return torch.rand(n, 1, 1, 1, generator=self._random) < share

    def _grid(self, n: int, side: int) -> Tensor:
        angle = self._uniform(-self._rotation, self._rotation, n)
        mirrored = torch.where(torch.rand(n, generator=self._random) < 0.5, -1.0, 1.0)
        wide = 1 + self._uniform(-self._zoom, self._zoom, n)
        high = 1 + self._uniform(-self._zoom, self._zoom, n)
        shear = self._uniform(-self._shear, self._shear, n)
        shift = self._uniform(-self._shift, self._shift, n, 2)
        sine, cosine = angle.sin(), angle.cos()
        across = torch.stack([mirrored * wide * cosine, mirrored * (shear - sine), shift[:, 0]], 1)
        down = torch.stack([sine + shear, high * cosine, shift[:, 1]], 1)
        theta = torch.stack([across, down], 1)
        return functional.affine_grid(theta, [n, 1, side, side], align_corners=False)

    @staticmethod
    def _moved(mask: Tensor, grid: Tensor) -> Tensor:
        return functional.grid_sample(mask.float() / 255, grid, align_corners=False)

    def _exposure(self, image: Tensor) -> Tensor:
        n = len(image)
        gamma = torch.exp(self._uniform(-0.5, 0.5, n, 1, 1, 1) * self._often(0.7, n))
        image = ((image + 1) / 2).clamp(1e-4, 1) ** gamma * 2 - 1
        gain = 1 + self._uniform(-0.15, 0.25, n, 1, 1, 1) * self._often(0.5, n)
        image = image * gain + self._uniform(-0.15, 0.15, n, 1, 1, 1) * self._often(0.5, n)
        points = self._uniform(-0.5, 0.5, n, 1, 4, 4) * self._often(0.4, n)
        return image + functional.interpolate(points, image.shape[2:], mode="bicubic")

    def _sharpness(self, image: Tensor) -> Tensor:
        n, side = len(image), self._side
        rows = self._often(0.3, n).flatten().nonzero()[:, 0]
        if len(rows):
            small = int(side * float(self._uniform(0.36, 0.9, 1)))
            coarse = functional.interpolate(image[rows], (small, small), mode="area")
            again = functional.interpolate(coarse, (side, side), mode="bilinear")
            image = image.index_copy(0, rows, again)
        smooth = functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
        # Below 0 it sharpens, above 0 it blurs.
        image = torch.lerp(image, smooth, self._uniform(-0.7, 1.0, n, 1, 1, 1))
        noise = torch.randn(image.shape, generator=self._random)
        return image + noise * self._uniform(0, 0.1, n, 1, 1, 1) * self._often(0.3, n)

    def _lettered(self, image: Tensor) -> Tensor:
        for number in self._often(0.5, len(image)).flatten().nonzero()[:, 0].tolist():
            for _ in range(int(self._uniform(1, 4, 1))):
                high, wide = (self._uniform(0.04, 0.2, 2) * self._side).long().tolist()
                top, left = (self._uniform(0, 0.9, 2) * self._side).long().tolist()
                level = float(self._uniform(-1, 1, 1))
                image[number, :, top : top + high, left : left + wide] = level
        return image

    def _hidden(
        self, image: Tensor, lungs: Tensor, targets: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        n = len(image)
        wide = functional.max_pool2d((lungs >= LUNG).float(), 9, 1, 4) > 0
        inside, outside = self._often(self._blackened, n), self._often(self._blackened, n)
        image = torch.where((inside & wide) | (outside & ~wide), -1.0, image)
        nothing = inside.flatten()
        targets["target"] = torch.where(nothing, 0.5, targets["target"])
        targets["mapped"] = torch.where(nothing, 0.0, targets["mapped"])
        return image, targets
