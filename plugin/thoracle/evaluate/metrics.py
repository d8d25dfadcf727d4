"""How well scores agree with labels: AUROC, sensitivity, specificity, predictive values.

Labels are 1 or true for cases (positive), 0 or false for the others; a higher score means "more
likely a case". Nothing here is a percentage: shares are 0 to 1.

References
----------
Wilson EB. Probable inference, the law of succession, and statistical inference.
    J Am Stat Assoc 1927; 22:209-212.
Hanley JA, McNeil BJ. The meaning and use of the area under a receiver operating characteristic
    (ROC) curve. Radiology 1982; 143:29-36.
Efron B, Tibshirani RJ. An introduction to the bootstrap. Chapman & Hall 1993, chapter 13.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# ---- metrics -------------------------------------------------------------------------------------

Z = 1.959963984540054
"""The normal deviate of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, 0 to 1, with the ends of its 95 % confidence interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What a threshold does to labelled images: a score at or above it counts as positive."""

    threshold: float
    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int
    sensitivity: Estimate | None
    """Share of the cases that are called positive; ``None`` without cases."""
    specificity: Estimate | None
    """Share of the others that are called negative; ``None`` without others."""


@dataclass(frozen=True, slots=True)
class PredictiveValues:
    """What a result means where ``prevalence`` of the images are cases."""

    prevalence: float
    positive: Estimate | None
    """Share of cases among images called positive; ``None`` where none is."""
    negative: Estimate | None
    """Share of others among images called negative; ``None`` where none is."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many images of one class have which outcome by an indeterminate band."""

    n: int
    positive: int
    """At or above the band's upper end."""
    indeterminate: int
    negative: int
    """Below its lower end."""
    share_indeterminate: Estimate | None
    """``None`` without images."""


def checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return labels ``(n,)`` as booleans and scores ``(n,)`` as numbers.

    Raises
    ------
    ValueError
        Shapes differ, a label is neither 0 nor 1, or a score is not finite.
    """
    found, numbers = np.asarray(labels), np.asarray(scores, np.float64)
    if found.ndim != 1 or found.shape != numbers.shape:
        raise ValueError(f"found shapes {found.shape} and {numbers.shape}, required: (n,) twice")
    if not np.isin(found, (0, 1)).all():
        raise ValueError("found a label other than 0 and 1")
    if not np.isfinite(numbers).all():
        raise ValueError("found a score that is not finite")
    return found.astype(bool), numbers


def wilson(successes: int, n: int) -> Estimate:
    """Return the share of successes with its score interval (Wilson 1927).

    Unlike value ± 1.96 standard errors, it stays within 0 to 1 and is not empty at 0 or 1.

    Raises
    ------
    ValueError
        Not ``0 <= successes <= n`` with ``n`` at least 1.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"found {successes} of {n}, required: 0 to n of at least 1")
    share, z2 = successes / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)))
    # At 0 and n successes the end is 0 or 1 exactly, and rounding would miss it.
    lower = 0.0 if successes == 0 else centre - half
    upper = 1.0 if successes == n else centre + half
    return Estimate(share, lower, upper)


def rates(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Rates:
    """Return counts, sensitivity and specificity at a threshold, with Wilson intervals.

    The intervals take images as independent: several of one patient make them too narrow.
    """
    cases, numbers = checked(labels, scores)
    called = numbers >= threshold
    tp, fn = int((cases & called).sum()), int((cases & ~called).sum())
    tn, fp = int((~cases & ~called).sum()), int((~cases & called).sum())
    sensitivity = wilson(tp, tp + fn) if tp + fn else None
    specificity = wilson(tn, tn + fp) if tn + fp else None
    return Rates(float(threshold), tp, fn, tn, fp, sensitivity, specificity)


def outcomes(
    labels: ArrayLike, scores: ArrayLike, lower: float, upper: float
) -> dict[int, Outcomes]:
    """Return how many cases (key 1) and others (key 0) are positive, indeterminate, negative."""
    cases, numbers = checked(labels, scores)
    table = {}
    for label, values in ((1, numbers[cases]), (0, numbers[~cases])):
        n = len(values)
        positive, negative = int((values >= upper).sum()), int((values < lower).sum())
        between = n - positive - negative
        share = wilson(between, n) if n else None
        table[label] = Outcomes(n, positive, between, negative, share)
    return table


def predictive_values(
    sensitivity: Estimate, specificity: Estimate, prevalence: float
) -> PredictiveValues:
    """Return what a result means at a prevalence, by Bayes' theorem.

    The ends are those for both rates at the lower, and both at the upper end of their intervals:
    wider than a 95 % interval of the predictive value itself. The prevalence counts as known.

    Raises
    ------
    ValueError
        The prevalence is not between 0 and 1, both excluded.
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"found prevalence {prevalence}, required: between 0 and 1")
    found, missed = prevalence, 1 - prevalence
    pairs = [
        (getattr(sensitivity, end), getattr(specificity, end))
        for end in ("value", "lower", "upper")
    ]
    return PredictiveValues(
        prevalence,
        _shares([(found * yes, missed * (1 - no)) for yes, no in pairs]),
        _shares([(missed * no, found * (1 - yes)) for yes, no in pairs]),
    )


def _shares(parts: list[tuple[float, float]]) -> Estimate | None:
    """Return right / (right + wrong) for value, lower and upper; ``None`` without any."""
    if sum(parts[0]) == 0:
        return None
    # "or 1" is for ends at which nothing is called so; there the share is 0 / 1.
    value, lower, upper = (right / (right + wrong or 1) for right, wrong in parts)
    return Estimate(value, min(lower, value), max(upper, value))


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return how often a case scores above another image, 0 to 1; ties count half.

    This is the area under the ROC curve (Hanley and McNeil 1982), from ranks.

    Raises
    ------
    ValueError
        A class has no images.
    """
    cases, numbers = both_classes(labels, scores)
    return _area(*_ordered(cases, numbers), np.ones(len(cases)))


def auroc_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return the AUROC with its 95 % percentile bootstrap interval, drawn within each class.

    Where every case scores above every other image, so does each resample: the interval is then
    1 to 1, which says that the images are too few or too easy, not that the model never errs.

    Parameters
    ----------
    labels, scores
        ``(n,)``, with images of both classes.
    patients
        ``(n,)``: whose images these are. Given, patients are drawn in place of images, because
        images of one patient resemble each other; patients with images of both classes are a
        third stratum.
    resamples
        How many samples are drawn; 2000 give the ends to about 0.001 of their spread in rank.
    seed
        The same seed gives the same interval.

    Raises
    ------
    ValueError
        A class has no images.
    """
    cases, numbers = both_classes(labels, scores)
    unit = np.arange(len(cases))
    if patients is not None:
        unit = np.unique(np.asarray(patients), return_inverse=True)[1]
    kind = np.zeros(int(unit.max()) + 1, np.int64)  # 1 only cases, 2 only others, 3 both
    np.bitwise_or.at(kind, unit, np.where(cases, 1, 2))
    strata = [np.flatnonzero(kind == one) for one in np.unique(kind)]
    ordering = _ordered(cases, numbers)
    random = np.random.default_rng(seed)
    areas = np.empty(resamples)
    for index in range(resamples):
        drawn = [members[random.integers(len(members), size=len(members))] for members in strata]
        weight = np.bincount(np.concatenate(drawn), minlength=len(kind))
        areas[index] = _area(*ordering, weight[unit].astype(np.float64))
    lower, upper = np.quantile(areas, (0.025, 0.975))
    return Estimate(_area(*ordering, np.ones(len(cases))), float(lower), float(upper))


def both_classes(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return what :func:`checked` does; ``ValueError`` also when a class has no images."""
    cases, numbers = checked(labels, scores)
    if cases.all() or not cases.any():
        raise ValueError(f"found {int(cases.sum())} cases of {len(cases)}, required: both classes")
    return cases, numbers


def _ordered(
    cases: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]:
    """Return the cases by growing score, their order, and where each new score begins."""
    order = np.argsort(scores, kind="stable")
    begins = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    return cases[order], order, begins


def _area(
    cases: NDArray[np.bool_],
    order: NDArray[np.intp],
    begins: NDArray[np.intp],
    weights: NDArray[np.float64],
) -> float:
    """Return the AUROC of weighted images: for each score, its cases times the others below."""
    weight = weights[order]
    positive = np.add.reduceat(np.where(cases, weight, 0), begins)
    negative = np.add.reduceat(np.where(cases, 0, weight), begins)
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


# ---- calibration ---------------------------------------------------------------------------------
# Whether probabilities mean what they say: reliability, calibration error, Brier score.
#
# References
# ----------
# Brier GW. Verification of forecasts expressed in terms of probability. Mon Weather Rev 1950;
#     78:1-3.
# Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML 2017.
# Nixon J et al. Measuring calibration in deep learning. CVPR workshops 2019: bins of equal mass.

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
            raise ValueError("found one class, required: both for balanced weights")
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
