"""What is measured of a network: the rows of the card's table, from its predictions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from scripts.calibration import SHIPPED_LIMIT, band, counted, scaling, weights
from scripts.predictions import Prediction
from torch import Tensor

from thoracle.evaluate.metrics import Estimate, auroc_interval, calibration, wilson

LEAST = 5
"""Images of either class below which no AUROC is given."""
Chosen = Callable[[Prediction], bool]


@dataclass(frozen=True, slots=True)
class Scored:
    """Predictions with the answer that is shipped."""

    found: Sequence[Prediction]
    probabilities: Tensor
    """``(n,)``, calibrated."""
    lower: float
    upper: float

    def part(self, chosen: Chosen) -> "Scored":
        """Return the predictions that are chosen."""
        places = [i for i, one in enumerate(self.found) if chosen(one)]
        kept = [self.found[i] for i in places]
        return Scored(kept, self.probabilities[places], self.lower, self.upper)

    def auroc(self) -> Estimate | None:
        """Return how well COVID-19 is told from the rest, patients resampled."""
        labels = [one.label for one in self.found]
        if min(sum(labels), len(labels) - sum(labels)) < LEAST:
            return None
        return auroc_interval(labels, self.probabilities.tolist(), [p.group for p in self.found])

    def view_auroc(self) -> Estimate | None:
        """Return how well AP is told from PA by the answer; 0.5 is right among equals."""
        known = self.part(lambda p: p.view in ("AP", "PA"))
        labels = [int(one.view == "AP") for one in known.found]
        if min(sum(labels), len(labels) - sum(labels)) < LEAST:
            return None
        return auroc_interval(labels, known.probabilities.tolist(), [p.group for p in known.found])

    def shares(self) -> tuple[float, float]:
        """Return the share without an answer, and of wrong ones among the answers.

        Both classes weigh the same.
        """
        labels = torch.tensor([one.label for one in self.found])
        share = torch.where(labels == 1, 0.5 / (labels == 1).sum(), 0.5 / (labels == 0).sum())
        positive, negative = self.probabilities >= self.upper, self.probabilities < self.lower
        wrong = float(share[(positive & (labels == 0)) | (negative & (labels == 1))].sum())
        left = float(share[~positive & ~negative].sum())
        return left, wrong / max(1 - left, 1e-9)

    def called_positive(self) -> float:
        """Return the share of images that the threshold 0.5 calls positive."""
        return float((self.probabilities >= 0.5).double().mean())

    def calibration_error(self) -> float:
        """Return the expected calibration error, both classes weighing the same."""
        labels = [one.label for one in self.found]
        return calibration(labels, self.probabilities.tolist(), balanced=True).error


def scored(found: Sequence[Prediction], view_share: float, limit: float = SHIPPED_LIMIT) -> Scored:
    """Return predictions with answers, calibrated on the validation part among them."""
    used = counted(found)
    share = weights(used)
    logits = torch.tensor([p.logit - view_share * p.view_score for p in used])
    labels = torch.tensor([p.label for p in used])
    offset, temperature = scaling(logits, labels, share)
    lower, upper = band(((logits + offset) / temperature).sigmoid(), labels, share, limit)
    every = torch.tensor([p.logit - view_share * p.view_score for p in found])
    return Scored(found, ((every + offset) / temperature).sigmoid(), lower, upper)


def averaged(seeds: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """Return the mean of the logits of several networks for the same images; no map."""
    return [
        replace(
            same[0],
            logit=sum(p.logit for p in same) / len(same),
            view_score=sum(p.view_score for p in same) / len(same),
        )
        for same in zip(*seeds, strict=True)
    ]


def pointing(found: Sequence[Prediction]) -> Estimate | None:
    """Return the share of maps whose greatest value is inside a box, with its interval."""
    known = [one.hit for one in found if one.hit >= 0]
    return wilson(int(sum(known)), len(known)) if known else None
