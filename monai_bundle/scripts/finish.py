"""From a trained network to what is shipped: the view subtracted, weights, and the rule.

All choices rest on the training and validation parts; the test part is only judged.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from scripts.cache import cached
from scripts.calibration import decision
from scripts.data import Row, entries, opacity_boxes, paths_of, read_rows
from scripts.fine_tuning import export
from scripts.predict import judged, predictions
from scripts.predictions import Prediction, write
from scripts.view_score import ViewLayer, fitted, slope, subtract
from torch import Tensor

from thoracle.classify.network import OpacityNetwork

OF_A_KIND = 60
"""Training images of one source, finding and view that the view's layer is fitted on, at most."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where images and their rows are."""

    split_file: str
    dataset_dir: str
    cache_file: str
    lungs_network: Callable[[Tensor], Tensor]
    side: int
    """Rows and columns of what the network takes."""
    without: Collection[str] = ()
    """Sources that were left out of training; all their images are judged."""
    view_share: float = 0.0
    """Share of the view's score that is subtracted, 0 to 1."""

    def judged_rows(self) -> list[Row]:
        """Return the rows of validation and test part, and all of the sources left out."""
        seen = entries(self.split_file, ["validation", "test"], self.without)
        return seen + [row for row in read_rows(self.split_file) if row["source"] in self.without]

    def images(self, rows: list[Row]) -> Tensor:
        """Return the images of rows as they are cached."""
        paths = paths_of(rows)
        return cached(paths, self.dataset_dir, self.cache_file, self.lungs_network).large


def finish(network: OpacityNetwork, inputs: Inputs, output_dir: str) -> None:
    """Write predictions.csv, model.pt and decision.json.

    Parameters
    ----------
    network
        As training leaves it; the view is subtracted in place.
    inputs
        What to judge, and how much of the view to subtract.
    output_dir
        Folder of the files.
    """
    folder = Path(output_dir)
    network.eval().requires_grad_(False)
    found, layer = judge(network, inputs)
    write(folder / "predictions.csv", found)
    subtract(network, layer.scaled(inputs.view_share))
    export(network, str(folder / "model.pt"))
    rule = decision(found, inputs.view_share, inputs.without)
    (folder / "decision.json").write_text(json.dumps(rule, indent=4) + "\n", encoding="utf-8")


def _some(rows: list[Row]) -> list[Row]:
    """Return rows with a view, at most :data:`OF_A_KIND` of each source, finding and view."""
    kept: list[Row] = []
    counts: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        kind = (row["source"], row["finding"], row["view"])
        counts[kind] += 1
        if row["view"] and counts[kind] <= OF_A_KIND:
            kept.append(row)
    return kept


def evaluate(network: OpacityNetwork, inputs: Inputs, output_dir: str) -> None:
    """Write predictions.csv of a finished network; its answers have the view subtracted already."""
    network.eval().requires_grad_(False)
    found, _ = judge(network, inputs)
    write(Path(output_dir) / "predictions.csv", found)


def judge(network: OpacityNetwork, inputs: Inputs) -> tuple[list[Prediction], ViewLayer]:
    """Return what a network says of all images that it was not taught, and the view's layer.

    The layer is learned from training images; its unit, that of the answer, from validation ones.
    """
    taught = _some(entries(inputs.split_file, ["training"], inputs.without))
    evidence, _, _ = judged(network, inputs.images(taught), inputs.side)
    with torch.enable_grad():
        layer = fitted(evidence, taught)
    rows = inputs.judged_rows()
    said = judged(network, inputs.images(rows), inputs.side)
    evidence, logits, _ = said
    known = [
        place for place, row in enumerate(rows) if row["view"] and row["split"] == "validation"
    ]
    scores = layer.scores(evidence[known])
    layer = layer.scaled(slope(logits[known], scores, [rows[place] for place in known]))
    return predictions(rows, opacity_boxes(inputs.dataset_dir, rows), said, layer), layer
