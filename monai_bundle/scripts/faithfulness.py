"""Whether a saliency map shows what the network used: deletion and insertion.

Blocks of the lungs are blurred away in the order of the map, or brought back in it, in all views
of the radiograph. The sooner the probability falls, or rises, compared with random orders of the
same blocks, the more the map tells.

References
----------
V. Petsiuk, A. Das, K. Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models
(2018). arXiv:1806.07421
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scripts.shortcuts import differences
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import LUNG
from thoracle.classify.network import EfficientNetLite0, TwoViews
from thoracle.classify.saliency import Box, contributions, of_views, on_original

GRID = 16
"""Blocks of a radiograph in each direction."""
STEPS = 10
RANDOM_ORDERS = 3
BLUR = 31
"""Half width of the window whose mean replaces a pixel, twice; pixels of 512."""
WHOLE: Box = (0.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Radiograph:
    """The views of a radiograph, with and without what is in its lungs."""

    views: Tensor
    """``(2, rows, columns)``, as the network takes them: the whole, and the lungs."""
    without: Tensor
    """The same with every block of the lungs blurred."""
    boxes: tuple[Box, Box]
    """What of the radiograph each view shows."""
    lungs: Tensor
    """``(1, rows, columns)`` of the whole radiograph, 0 to 1."""


View = tuple[EfficientNetLite0, Tensor, Tensor, Box]
Map = Callable[[TwoViews, Radiograph], Tensor]
"""Gives a map of the whole radiograph, of a size that the grid divides."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Mean probability while blocks are taken away, or brought back; each ``(images, 11)``."""

    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    random_deletion: NDArray[np.float64]
    random_insertion: NDArray[np.float64]


def radiograph(
    item: Mapping[str, Any], rest: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Radiograph:
    """Return the views of a radiograph.

    Parameters
    ----------
    item
        ``image``, the whole picture, and the ``lungs`` found in it.
    rest
        Preprocessing from there: makes the views, and adds the ``box`` of the lungs.
    """
    picture, lungs = item["image"], item["lungs"]
    blurred = picture
    for _ in range(2):
        blurred = functional.avg_pool2d(
            blurred[None], 2 * BLUR + 1, 1, BLUR, count_include_pad=False
        )[0]
    blocks = torch.zeros(1, 1, GRID, GRID)
    blocks[0, 0][tuple(lung_blocks(lungs).T)] = 1
    inside = functional.interpolate(blocks, picture.shape[1:])[0] > 0
    done = rest(dict(item))
    empty = rest({"image": torch.where(inside, blurred, picture), "lungs": lungs})
    return Radiograph(done["image"], empty["image"], (WHOLE, done["box"]), lungs)


def lung_blocks(lungs: Tensor) -> Tensor:
    """Return row and column of the blocks that are lung for the greater part, ``(blocks, 2)``."""
    share = functional.adaptive_avg_pool2d((lungs >= LUNG).float(), GRID)[0]
    return (share >= 0.5).nonzero()


def on_view(whole: Tensor, box: Box, size: Sequence[int]) -> Tensor:
    """Return the part in a box of ``(1, rows, columns)``, stretched to the size of a view."""
    rows, columns = whole.shape[1:]
    top, bottom = round(box[0] * rows), round(box[1] * rows)
    left, right = round(box[2] * columns), round(box[3] * columns)
    part = whole[None, :, top:bottom, left:right]
    return functional.interpolate(part, tuple(size), mode="bilinear", antialias=True)[0]


def replaced(shown: Radiograph, blocks: Tensor) -> Tensor:
    """Return the views of a radiograph with some blocks blurred."""
    mask = torch.zeros(1, 1, GRID, GRID)
    mask[0, 0][tuple(blocks.T)] = 1
    whole = functional.interpolate(mask, (512, 512))[0]
    size = shown.views.shape[1:]
    weight = torch.cat([on_view(whole, box, size) for box in shown.boxes])
    return weight * shown.without + (1 - weight) * shown.views


def _parts(network: TwoViews, shown: Radiograph) -> Iterator[View]:
    """Yield network, image, lungs and box of each view."""
    size = shown.views.shape[1:]
    networks = (network.whole, network.lungs)
    for part, view, box in zip(networks, shown.views, shown.boxes, strict=True):
        yield part, view[None], on_view(shown.lungs, box, size), box


def one_pass(network: TwoViews, shown: Radiograph) -> Tensor:
    """Return the map of a single pass of each view, stretched as it usually is, to compare."""
    maps = []
    for part, image, lungs, box in _parts(network, shown):
        coarse = contributions(part, image[None])[None]
        fine = functional.interpolate(coarse, image.shape[1:], mode="bilinear")[0, 0] * lungs[0]
        area = (box[1] - box[0]) * (box[3] - box[2])
        maps.append(on_original(fine, box, 512, 512) / area)
    return torch.stack(maps).mean(0)


def sixteen_passes(network: TwoViews, shown: Radiograph) -> Tensor:
    """Return :func:`thoracle.classify.saliency.of_views`."""
    return of_views(_parts(network, shown), 512, 512)


def occlusion(network: TwoViews, shown: Radiograph) -> Tensor:
    """Return by how much the difference of the logits falls when a block is blurred away."""
    total = torch.zeros(GRID, GRID)
    whole = np.mean(differences(network, shown.views))
    for block in lung_blocks(shown.lungs):
        left = np.mean(differences(network, replaced(shown, block[None])))
        total[tuple(block)] = float(whole - left)
    return total


MAPS: Mapping[str, Map] = {
    "class activation, 1 pass": one_pass,
    "class activation, 16 passes": sixteen_passes,
    "occlusion": occlusion,
}


def _deletion(
    network: TwoViews, shown: Radiograph, blocks: Tensor, temperature: float
) -> list[float]:
    """Return the probability after each tenth of the blocks is gone, in their order."""
    probabilities = []
    for step in range(STEPS + 1):
        gone = blocks[: round(len(blocks) * step / STEPS)]
        score = np.mean(differences(network, replaced(shown, gone))) / temperature
        probabilities.append(float(1 / (1 + np.exp(-score))))
    return probabilities


def _both(
    network: TwoViews, shown: Radiograph, orders: list[Tensor], temperature: float
) -> list[list[float]]:
    """Return the mean deletion curve and the mean insertion curve of some orders."""
    # Bringing back in an order is taking away in the reverse order, seen from its end.
    found = [
        (
            _deletion(network, shown, order, temperature),
            _deletion(network, shown, order.flip(0), temperature)[::-1],
        )
        for order in orders
    ]
    mean: list[list[float]] = np.mean(found, axis=0).tolist()
    return mean


def curves(
    network: TwoViews,
    radiographs: Iterable[Radiograph],
    maps: Mapping[str, Map],
    temperature: float = 1.0,
) -> dict[str, Curves]:
    """Return deletion and insertion curves of radiographs for each map.

    Parameters
    ----------
    network
        In evaluation mode.
    radiographs
        Positive ones that are called positive.
    maps
        By name.
    temperature
        What logits are divided by.
    """
    rows: dict[str, list[list[list[float]]]] = {name: [] for name in maps}
    for number, shown in enumerate(radiographs):
        blocks = lung_blocks(shown.lungs)
        random = torch.Generator().manual_seed(number)
        others = [torch.randperm(len(blocks), generator=random) for _ in range(RANDOM_ORDERS)]
        by_chance = _both(network, shown, [blocks[order] for order in others], temperature)
        for name, saliency_map in maps.items():
            order = _ordered(blocks, saliency_map(network, shown))
            rows[name].append([*_both(network, shown, [order], temperature), *by_chance])
    return {name: Curves(*np.array(found).transpose(1, 0, 2)) for name, found in rows.items()}


def _ordered(blocks: Tensor, values: Tensor) -> Tensor:
    """Return the blocks by falling mean of a map."""
    mean = functional.adaptive_avg_pool2d(values[None], GRID)[0]
    order = mean[blocks[:, 0], blocks[:, 1]].argsort(descending=True, stable=True)
    return blocks[order]


def summary(result: Curves) -> dict[str, Any]:
    """Return mean curves and the areas under them, and what the map gains over random orders."""
    gains = {
        "deletion": _area(result.random_deletion) - _area(result.deletion),
        "insertion": _area(result.insertion) - _area(result.random_insertion),
    }
    named = {field.name: getattr(result, field.name) for field in fields(Curves)}
    return {
        "n": len(result.deletion),
        **{name: float(_area(curve).mean()) for name, curve in named.items()},
        **{f"{name} gain": _mean_interval(gain) for name, gain in gains.items()},
        "curves": {name: curve.mean(0).tolist() for name, curve in named.items()},
    }


def _area(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under each curve by trapezes, 0 to 1."""
    areas: NDArray[np.float64] = (values[:, 1:] + values[:, :-1]).mean(1) / 2
    return areas


def _mean_interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean with its 95 % percentile bootstrap interval over images."""
    random = np.random.default_rng(0)
    means = values[random.integers(len(values), size=(2000, len(values)))].mean(1)
    lower, upper = np.quantile(means, (0.025, 0.975))
    return {"value": float(values.mean()), "lower": float(lower), "upper": float(upper)}
