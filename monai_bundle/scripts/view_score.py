"""What the answer owes to the view, AP or PA, and how a share of it is subtracted.

Patients who are too ill to stand are taken AP, and more often have COVID-19. A network uses that.
Its features tell the view by a linear layer; a share of that layer's score, in the unit of the
answer, is subtracted from the answer. Both are linear, so the network stays as it is but for the
weights of its last layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scripts.data import Row
from scripts.linear_probe import regress
from torch import Tensor

from thoracle.classify.network import HEAD_CHANNELS, OpacityNetwork

PENALTY = 0.05


@dataclass(frozen=True, slots=True)
class ViewLayer:
    """The score of AP over PA: ``weight`` times the mean features, plus ``bias``."""

    weight: Tensor
    """``(1280,)``."""
    bias: float

    def scores(self, evidence: Tensor) -> Tensor:
        """Return the scores ``(images,)`` for :meth:`OpacityNetwork.evidence`."""
        return evidence[:, :HEAD_CHANNELS] @ self.weight + self.bias

    def scaled(self, factor: float) -> "ViewLayer":
        """Return the layer that gives ``factor`` times the score."""
        return ViewLayer(self.weight * factor, self.bias * factor)


def fitted(evidence: Tensor, rows: Sequence[Row]) -> ViewLayer:
    """Return the layer that tells views from a network's features.

    Parameters
    ----------
    evidence
        ``(rows, 1346)``, of training images.
    rows
        Of the split. Within each source and finding, AP and PA weigh the same: else the layer
        would tell the finding.
    """
    kinds = [(row["source"], row["finding"], row["view"]) for row in rows]
    counts = {kind: kinds.count(kind) for kind in set(kinds)}
    known = [
        min(counts.get((source, finding, view), 0) for view in ("AP", "PA")) > 0 and named != ""
        for source, finding, named in kinds
    ]
    chosen = torch.tensor(known)
    weights = torch.tensor([counts[kind] ** -0.5 for kind in kinds])[chosen]
    x = evidence[chosen, :HEAD_CHANNELS]
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    labels = torch.tensor([int(kind[2] == "AP") for kind in kinds])[chosen]
    layer = regress((x - mean) / deviation, labels, weights / weights.sum(), PENALTY)
    weight = (layer.weight[1] - layer.weight[0]).detach() / deviation
    bias = float((layer.bias[1] - layer.bias[0]).detach())
    return ViewLayer(weight, bias - float(weight @ mean))


def slope(logits: Tensor, scores: Tensor, rows: Sequence[Row]) -> float:
    """Return by how much the answer rises with the score among images of one kind.

    Parameters
    ----------
    logits, scores
        ``(rows,)``, of validation images.
    rows
        Of the split; a kind is a source and a finding. Each kind weighs by its number of images.
    """
    kinds = [(row["source"], row["finding"]) for row in rows]
    x, y = scores.clone(), logits.clone()
    for kind in set(kinds):
        members = torch.tensor([one == kind for one in kinds])
        x[members] -= x[members].mean()
        y[members] -= y[members].mean()
    return float((x * y).sum() / (x * x).sum())


def subtract(network: OpacityNetwork, layer: ViewLayer) -> None:
    """Subtract a layer's score from the logit of COVID-19, in the weights of the last layer."""
    with torch.no_grad():
        network._fc.weight[1, :HEAD_CHANNELS] -= layer.weight
        network._fc.bias[1] -= layer.bias
