"""Whether probabilities mean what they say: reliability, calibration error, Brier score.

References
----------
Brier GW. Verification of forecasts expressed in terms of probability. Mon Weather Rev 1950;
    78:1-3.
Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML 2017.
Nixon J et al. Measuring calibration in deep learning. CVPR workshops 2019: bins of equal mass.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thoracle.evaluate.metrics import Estimate, checked, wilson

MOST_BINS = 10
LEAST_IN_A_BIN = 20
"""Fewer images make a share too uncertain to compare with a probability."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Images whose probabilities are next to each other."""

    n: int
    cases: int
    probability: float
    """Mean of what the model said, 0 to 1."""
    observed: Estimate
    """Share of cases among them, with its Wilson interval."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How probabilities compare with what was observed."""

    balanced: bool
    """Whether both classes weigh the same, or as in the sample."""
    bins: tuple[Bin, ...]
    """By growing probability; together all images."""
    error: float
    """Expected calibration error (ECE), 0 to 1: mean distance of probability and share of cases.

    It is above 0 by chance even where the model is calibrated, the more so the fewer images.
    """
    brier: float
    """Mean squared distance of probability and label, 0 to 1; always saying 0.5 gives 0.25."""


def calibration(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    bins: int | None = None,
    balanced: bool = False,
) -> Calibration:
    """Return reliability bins, expected calibration error and Brier score.

    Parameters
    ----------
    labels, probabilities
        ``(n,)``; probabilities 0 to 1.
    bins
        How many bins of equal mass, that is with the same number of images but for ties: equal
        probabilities are never parted. ``None`` makes ten, and fewer where less than twenty
        images would fall into each.
    balanced
        Both classes weigh the same, as if half of the images were cases. The shipped model's
        probabilities are calibrated for that; in a sample with few cases they are too high.

    Raises
    ------
    ValueError
        No images, a probability outside 0 to 1, or ``balanced`` and a class without images.
    """
    cases, values = checked(labels, probabilities)
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise ValueError("found no images or a probability outside 0 to 1")
    weights = np.full(len(cases), 1 / len(cases))
    if balanced:
        if cases.all() or not cases.any():
            raise ValueError("found one class, required are both for balanced weights")
        weights = np.where(cases, 0.5 / cases.sum(), 0.5 / (~cases).sum())
    if bins is None:
        bins = min(MOST_BINS, max(1, len(values) // LEAST_IN_A_BIN))
    places = _equal_mass(values, bins)
    chosen = [places == place for place in np.unique(places)]
    made = tuple(_bin(cases[members], values[members], weights[members]) for members in chosen)
    mass = [float(weights[members].sum()) for members in chosen]
    error = sum(
        share * abs(one.probability - one.observed.value)
        for share, one in zip(mass, made, strict=True)
    )
    brier = float((weights * (values - cases) ** 2).sum())
    return Calibration(balanced, made, error, brier)


def _equal_mass(values: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return the bin of each value, from its rank; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return (middle[inverse] / len(values) * bins).astype(np.int64)


def _bin(
    cases: NDArray[np.bool_], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> Bin:
    n, positive = len(cases), int(cases.sum())
    plain = wilson(positive, n)
    observed = plain
    if 0 < positive < n:
        # All cases weigh the same, and all others: a growing function takes the plain share to
        # the weighted one, and so the ends of its interval.
        odds = weights[cases][0] / weights[~cases][0]
        observed = Estimate(*(_reweighed(x, odds) for x in (plain.value, plain.lower, plain.upper)))
    return Bin(n, positive, float(np.average(values, weights=weights)), observed)


def _reweighed(share: float, odds: float) -> float:
    return float(share * odds / (share * odds + 1 - share))
