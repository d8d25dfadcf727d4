"""Thresholds by stated rules, from labelled images, or the reason why there is none.

A threshold chosen on images does best on just these: what it does on others must be measured on
others, from other patients.

References
----------
Youden WJ. Index for rating diagnostic tests. Cancer 1950; 3:32-35.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thoracle.evaluate.metrics import Rates, both_classes, checked, rates

LEAST_OF_A_CLASS = 20
"""Even with 20, the interval of a rate of 0.9 is from 0.70 to 0.97."""


@dataclass(frozen=True, slots=True)
class Roc:
    """What each threshold that makes a difference does, from all negative to all positive."""

    thresholds: NDArray[np.float64]
    """``(k,)``, falling; the first is above every score."""
    sensitivity: NDArray[np.float64]
    """``(k,)``, from 0 to 1."""
    specificity: NDArray[np.float64]
    """``(k,)``, from 1 to 0."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A threshold, or why none is proposed: one of the two is given."""

    rule: str
    rates: Rates | None
    refused: str | None


def roc(labels: ArrayLike, scores: ArrayLike) -> Roc:
    """Return the receiver operating characteristic of images of both classes.

    Each threshold lies half way between two neighbouring scores, so that images near it on
    either side count as they do here.

    Raises
    ------
    ValueError
        A class has no images.
    """
    cases, values = both_classes(labels, scores)
    distinct, inverse = np.unique(values, return_inverse=True)
    called = np.cumsum(np.bincount(inverse, cases)[::-1])
    wrong = np.cumsum(np.bincount(inverse, ~cases)[::-1])
    between = (distinct[1:] + distinct[:-1]) / 2
    above = np.nextafter(distinct[-1], np.inf)
    thresholds = np.concatenate(([above], between[::-1], [distinct[0]]))
    sensitivity = np.concatenate(([0.0], called / cases.sum()))
    specificity = np.concatenate(([1.0], 1 - wrong / (~cases).sum()))
    return Roc(thresholds, sensitivity, specificity)


def propose(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    sensitivity: float = 0.9,
    specificity: float = 0.9,
) -> tuple[Proposal, Proposal, Proposal]:
    """Return a threshold by each of three rules, each with its rates on the images given.

    The rules are: greatest Youden index (sensitivity + specificity - 1; of equals, the greater
    sensitivity); greatest specificity with at least the sensitivity given; greatest sensitivity
    with at least the specificity given. None is proposed when a class has fewer than
    ``LEAST_OF_A_CLASS`` images, or when only calling all images alike keeps to the rule.

    Parameters
    ----------
    labels, scores
        ``(n,)``.
    sensitivity, specificity
        The targets, above 0 and at most 1. They hold for these images; the lower end of the
        interval says what they leave open for others.

    Raises
    ------
    ValueError
        A target is out of range.
    """
    for target in (sensitivity, specificity):
        if not 0 < target <= 1:
            raise ValueError(f"found target {target}, required: above 0 and at most 1")
    cases, values = checked(labels, scores)
    rules = (
        "greatest Youden index",
        f"greatest specificity with sensitivity at least {sensitivity:g}",
        f"greatest sensitivity with specificity at least {specificity:g}",
    )
    few = min(int(cases.sum()), int((~cases).sum()))
    if few < LEAST_OF_A_CLASS:
        refused = (
            f"found {int(cases.sum())} positive and {int((~cases).sum())} negative images, "
            f"required: {LEAST_OF_A_CLASS} of each"
        )
        none = [Proposal(rule, None, refused) for rule in rules]
        return none[0], none[1], none[2]
    curve = roc(cases, values)
    places = _places(curve, sensitivity, specificity)
    made = [
        _proposal(rule, curve, place, cases, values)
        for rule, place in zip(rules, places, strict=True)
    ]
    return made[0], made[1], made[2]


def _places(curve: Roc, sensitivity: float, specificity: float) -> tuple[int, int, int]:
    """Return where on the curve each rule leads."""
    youden = np.round(curve.sensitivity + curve.specificity, 12)
    # A hair is allowed for, because 0.9 and 18 / 20 may differ in the last bit.
    return (
        int(np.flatnonzero(youden == youden.max())[-1]),
        int(np.flatnonzero(curve.sensitivity >= sensitivity - 1e-12)[0]),
        int(np.flatnonzero(curve.specificity >= specificity - 1e-12)[-1]),
    )


def _proposal(
    rule: str, curve: Roc, place: int, cases: NDArray[np.bool_], values: NDArray[np.float64]
) -> Proposal:
    if curve.sensitivity[place] == 0 or curve.specificity[place] == 0:
        return Proposal(rule, None, "only a threshold that calls all images alike keeps to it")
    return Proposal(rule, rates(cases, values, float(curve.thresholds[place])), None)
