"""Changed recipes with three seeds each: ``python -m scripts.experiments FOLDER``.

Runs what FOLDER lacks, one after the other, by ``configs/train.json`` with few steps and small
images, so that all of them take about two hours; ``scripts.experiment_tables`` compares them. Each
leaves ``predictions.csv`` and ``curves.csv`` in ``FOLDER/NAME/seedN``.
"""

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle.scripts import run
from scripts.augmentation import Augment
from scripts.cache import Cached, cached
from scripts.constant_map import lacking
from scripts.data import Row, opacity_boxes, read_rows
from scripts.fine_tuning import Answer, FineTunedNetwork, TaughtLoss
from scripts.finish import Inputs
from scripts.predict import judged, predictions
from scripts.predictions import write
from scripts.view_score import ViewLayer
from torch import Tensor, nn

from thoracle.classify.network import HEAD_CHANNELS, MAP_CHANNELS, OpacityNetwork

SEEDS = (1, 2, 3)
SIDE = 128
STEPS = 120
STAGES = 4
"""Lines of ``curves.csv``."""
LONGER = 3
"""Times as many steps, in the experiment that has more of them."""
LARGER = 192
"""Rows and columns, in the experiment that has more of them: those of the recipe at full size."""
KAGGLE = "kaggle/Dataset/"
"""Where the images of Kaggle's "Chest X-Ray for COVID-19 Detection" are."""
PATTERNS = ("typical", "indeterminate", "atypical", "negative")

Overrides = dict[str, Any]
SHORT: Overrides = {
    "side": SIDE,
    "epochs": STAGES,
    "steps_per_epoch": STEPS // STAGES,
    "warm_up": STEPS // 10,
    # Nothing is chosen by the validation part, so nothing is measured in between.
    "train#handlers#2#interval": STAGES + 1,
    "imports#3": "$from scripts.experiments import kept as cached",
    "imports#9": "$from scripts.experiments import save as finish",
}
ARMS: dict[str, Overrides] = {
    "base": {},
    "no_view_balance": {"by_view": False},
    "no_map": {
        "map_weight": 0.0,
        "network_def#_target_": "scripts.experiments.WithoutMap",
    },
    "patterns": {
        "network_def#_target_": "scripts.experiments.PatternNetwork",
        "loss#_target_": "scripts.experiments.PatternLoss",
        "train#augment#_target_": "scripts.experiments.PatternAugment",
        "imports#6": "$from scripts.experiments import patterned as items",
    },
    "longer": {
        "steps_per_epoch": LONGER * STEPS // STAGES,
        "warm_up": LONGER * STEPS // 10,
    },
    "larger": {"side": LARGER},
    "without_ieee8023": {"without": ["ieee8023"]},
    "without_covid_cxnet": {"without": ["covid_cxnet"]},
    "without_nih": {"without": ["nih"]},
    "kaggle_alone": {
        "imports#5": "$from scripts.experiments import of_kaggle as entries",
    },
}
"""Names of the experiments, and what each changes in the short recipe."""


class WithoutMap(FineTunedNetwork):
    """The answer is linear in the mean features alone."""

    def evidence(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the evidence with nothing of the map in it, and a map that nobody taught."""
        found, opacity = super().evidence(image)
        known = torch.arange(found.shape[1]) < HEAD_CHANNELS
        return found * known, opacity


class PatternNetwork(FineTunedNetwork):
    """Has a second output in training, one logit for each of :data:`PATTERNS`."""

    new = FineTunedNetwork.new | {"_pattern"}

    def __init__(self, num_classes: int = 2, dropout: float = 0.3, frozen_blocks: int = 3) -> None:
        super().__init__(num_classes, dropout, frozen_blocks)
        self._pattern = nn.Linear(HEAD_CHANNELS + MAP_CHANNELS + 2, len(PATTERNS))

    def forward(self, image: Tensor) -> Answer | Tensor:  # type: ignore[override]  # as its base
        """Return logits, map and ``pattern`` ``(batch, 4)`` in training, else the logits."""
        evidence, opacity = self.evidence(image)
        evidence = self._dropout(evidence)
        logits: Tensor = self._fc(evidence)
        found = {"logits": logits, "opacity": opacity, "pattern": self._pattern(evidence)}
        return found if self.training else logits


class PatternLoss(TaughtLoss):
    """Adds the cross-entropy of the pattern, as far as it is known."""

    def forward(self, found: Answer, targets: Mapping[str, Tensor]) -> Tensor:
        """Return the loss, a scalar."""
        shares = found["pattern"].softmax(1)
        possible = (shares * targets["possible"]).sum(1)
        return super().forward(found, targets) - possible.clamp(min=1e-6).log().mean()


class PatternAugment(Augment):
    """Adds to the targets which patterns are possible; a blackened image may have any."""

    def __call__(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return images and targets, with ``possible`` ``(n, 4)``, 0 or 1."""
        image, targets = super().__call__(batch)
        hidden = (targets["target"] != batch["target"]) | (targets["mapped"] != batch["mapped"])
        targets["possible"] = torch.where(hidden[:, None], 1.0, batch["possible"])
        return image, targets


def possible(row: Row) -> Tensor:
    """Return which of :data:`PATTERNS` an image may have, ``(4,)``, 0 or 1.

    SIIM's categories are known. Healthy images elsewhere are negative, other pneumonias are
    anything but typical, and of COVID-19 elsewhere nobody says it.
    """
    if row["source"] == "siim":
        names: Sequence[str] = [row["category"]]
    else:
        names = {"normal": PATTERNS[3:], "pneumonia": PATTERNS[1:]}.get(row["finding"], PATTERNS)
    return torch.tensor([float(name in names) for name in PATTERNS])


def patterned(rows: Sequence[Row], *known: Any) -> list[dict[str, Any]]:
    """Return :func:`scripts.data.items` with ``possible``."""
    from scripts.data import items

    return [
        item | {"possible": possible(row)}
        for item, row in zip(items(rows, *known), rows, strict=True)
    ]


def of_kaggle(split_file: str, parts: Sequence[str], *known: Any, **more: Any) -> list[Row]:
    """Return :func:`scripts.data.entries`, of the training part those of Kaggle's set alone."""
    from scripts.data import entries

    rows = entries(split_file, parts, *known, **more)
    return [row for row in rows if "training" not in parts or row["path"].startswith(KAGGLE)]


@functools.cache
def _all(split: str, dataset_dir: str, cache_file: str) -> tuple[dict[str, int], Cached]:
    paths = [row["path"] for row in read_rows(split)]
    images = cached(paths, dataset_dir, cache_file, lacking)
    return {path: place for place, path in enumerate(paths)}, images


def kept(paths: Sequence[str], dataset_dir: str, cache_file: str, _: object) -> Cached:
    """Return :func:`scripts.cache.cached`; the file is read once for all runs."""
    places, images = _all("docs/split.csv", dataset_dir, cache_file)
    rows = [places[path] for path in paths]
    return Cached(images.large[rows], images.lungs[rows])


def save(network: OpacityNetwork, inputs: Inputs, output_dir: str) -> None:
    """Write ``predictions.csv``; nothing is exported, and the view is not measured."""
    network.eval().requires_grad_(False)
    rows = inputs.judged_rows()
    images = kept([row["path"] for row in rows], inputs.dataset_dir, inputs.cache_file, None)
    said = judged(network, images.large, inputs.side)
    boxes = opacity_boxes(inputs.dataset_dir, rows)
    layer = ViewLayer(torch.zeros(HEAD_CHANNELS), 0.0)
    write(Path(output_dir) / "predictions.csv", predictions(rows, boxes, said, layer))


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(prog="python -m scripts.experiments", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cache_file", required=True, help="made by training or evaluation")
    parser.add_argument("--only", nargs="*", choices=list(ARMS), default=list(ARMS))
    chosen = parser.parse_args()
    # One seed of all first: a queue that is ended has something of each.
    for seed in SEEDS:
        for name in chosen.only:
            folder = chosen.output / name / f"seed{seed}"
            if (folder / "predictions.csv").exists():
                continue
            run(
                config_file="configs/train.json",
                seed=seed,
                dataset_dir=chosen.dataset_dir,
                cache_file=chosen.cache_file,
                output_dir=str(folder),
                **SHORT | ARMS[name],
            )


if __name__ == "__main__":
    main()
