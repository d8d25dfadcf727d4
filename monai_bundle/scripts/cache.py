"""Radiographs as small tensors, decoded once: decoding takes longer than a step of training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import stretch
from thoracle.image.pixels import read_image

SOURCE = 512
"""Rows and columns that the service reduces a radiograph to."""
LARGE = 256
"""Rows and columns that are kept; both training and service reduce them further."""
LUNGS = 128


@dataclass(frozen=True, slots=True)
class Cached:
    """Prepared images, in the order that was asked for."""

    large: Tensor
    """``(images, 1, 256, 256)`` uint8, from black to white."""
    lungs: Tensor
    """``(images, 1, 128, 128)`` uint8, probability of lung."""


def as_input(images: Tensor, side: int | None = None) -> Tensor:
    """Return cached images as the network takes them, -1 to 1, reduced to ``side`` where given."""
    found = images.float() / 127.5 - 1
    return found if side is None else functional.interpolate(found, (side, side), mode="area")


def cached(
    paths: Sequence[str],
    dataset_dir: str,
    cache_file: str,
    lungs_network: Callable[[Tensor], Tensor],
) -> Cached:
    """Return prepared images; what the file does not have is prepared and added to it.

    Parameters
    ----------
    paths
        Of the images, below ``dataset_dir``.
    dataset_dir
        Folder of the data.
    cache_file
        An ``.npz`` file, made where it is missing. Remove it when the preparation changes.
    lungs_network
        Gives logits of lung ``(1, 1, 128, 128)``.
    """
    file = Path(cache_file)
    known: dict[str, Any] = dict(np.load(file)) if file.is_file() else {}
    places = {str(path): place for place, path in enumerate(known.get("paths", ()))}
    missing = [path for path in paths if path not in places]
    if missing:
        made = [_prepared(Path(dataset_dir, path), lungs_network) for path in missing]
        large, lungs = (np.stack([image[number] for image in made]) for number in (0, 1))
        added = {"paths": np.array(missing), "large": large, "lungs": lungs}
        known = {k: np.concatenate([known[k], v]) if known else v for k, v in added.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, allow_pickle=False, **known)
        places = {str(path): place for place, path in enumerate(known["paths"])}
    rows = [places[path] for path in paths]
    return Cached(*(torch.from_numpy(known[name][rows]) for name in ("large", "lungs")))


def _prepared(
    path: Path, lungs_network: Callable[[Tensor], Tensor]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return one image as :class:`Cached` keeps it."""
    image = _area(torch.from_numpy(read_image(path).array), SOURCE)
    with torch.inference_mode():
        lungs = lungs_network(stretch(_area(image, LUNGS))[None])[0].sigmoid()
    return _bytes((stretch(_area(image, LARGE)) + 1) / 2), _bytes(lungs)


def _area(image: Tensor, side: int) -> Tensor:
    return functional.interpolate(image[None], (side, side), mode="area")[0]


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = (image * 255).round().clamp(0, 255).byte().numpy()
    return found
