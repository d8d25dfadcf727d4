"""What is measured of a network: the rows of the card's table, from its predictions."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scripts.calibration import SHIPPED_LIMIT, band, counted, scaling, weights
from scripts.predictions import Prediction
from torch import Tensor

from thoracle.evaluate.metrics import Estimate, auroc_interval, calibration, wilson

LEAST = 5
"""Images of either class below which no AUROC is given."""
RESAMPLES = 2000
SIMULATIONS = 200
Chosen = Callable[[Prediction], bool]


def ratio(values: Sequence[float], of: Sequence[float], patients: Sequence[str]) -> Estimate:
    """Return one sum over another with its 95 % percentile interval, patients resampled.

    Parameters
    ----------
    values, of
        ``(images,)`` each. Where ``of`` is 0 in all that is drawn, the share is 0.
    patients
        ``(images,)``: whose images these are.
    """
    unit = np.unique(np.asarray(patients), return_inverse=True)[1]
    sums, all_of = np.bincount(unit, values), np.bincount(unit, of)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    # The first number is that of all patients as they are.
    top = np.append(sums.sum(), sums[drawn].sum(1))
    below = np.append(all_of.sum(), all_of[drawn].sum(1))
    shares = np.divide(top, below, out=np.zeros_like(top), where=below > 0)
    lower, upper = (float(end) for end in np.quantile(shares[1:], (0.025, 0.975)))
    return Estimate(float(shares[0]), lower, upper)


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

    def shares(self) -> tuple[Estimate, Estimate]:
        """Return the share without an answer, and of wrong ones among the answers.

        Both classes weigh the same; patients are resampled.
        """
        labels = torch.tensor([one.label for one in self.found])
        share = torch.where(labels == 1, 0.5 / (labels == 1).sum(), 0.5 / (labels == 0).sum())
        positive, negative = self.probabilities >= self.upper, self.probabilities < self.lower
        wrong = share * ((positive & (labels == 0)) | (negative & (labels == 1)))
        decided = share * (positive | negative)
        patients = [one.group for one in self.found]
        left = ratio((share - decided).tolist(), share.tolist(), patients)
        return left, ratio(wrong.tolist(), decided.tolist(), patients)

    def called_positive(self) -> float:
        """Return the share of images that the threshold 0.5 calls positive."""
        return float((self.probabilities >= 0.5).double().mean())

    def calibration_error(self) -> float:
        """Return the expected calibration error, both classes weighing the same."""
        labels = [one.label for one in self.found]
        return calibration(labels, self.probabilities.tolist(), balanced=True).error

    def chance_error(self) -> Estimate:
        """Return the calibration error that as many images have where probabilities are true.

        Images are drawn, both classes weighing the same, and labels by their probabilities: the
        mean, and what 95 % of draws lie between.
        """
        random = np.random.default_rng(0)
        labels = np.array([one.label for one in self.found])
        share = 0.5 / np.bincount(labels, minlength=2)[labels]
        errors = []
        for _ in range(SIMULATIONS):
            drawn = random.choice(self.probabilities.double().numpy(), len(labels), p=share)
            cases = random.random(len(labels)) < drawn
            errors.append(calibration(cases, drawn, balanced=True).error)
        lower, upper = (float(end) for end in np.quantile(errors, (0.025, 0.975)))
        return Estimate(float(np.mean(errors)), lower, upper)


def scored(
    found: Sequence[Prediction],
    view_share: float,
    limit: float = SHIPPED_LIMIT,
    without: Collection[str] = (),
) -> Scored:
    """Return predictions with answers, calibrated on the validation part among them.

    Sources that training left out, ``without``, calibrate nothing.
    """
    used = counted(found, without)
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
