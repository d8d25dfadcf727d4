"""Figures of agreement, compared with published values, hand counts and their definitions."""

import numpy as np
import pytest
from numpy.typing import NDArray

from thoracle.evaluate.metrics import (
    Estimate,
    Rates,
    auroc,
    auroc_interval,
    calibration,
    outcomes,
    predictive_values,
    rates,
    wilson,
)
from thoracle.evaluate.thresholds import propose, roc

LABELS = [1, 1, 1, 0, 0, 0, 0]
SCORES = [0.9, 0.6, 0.4, 0.6, 0.3, 0.2, 0.1]


def drawn(
    n: int, seed: int, shift: float = 1.0, decimals: int = 2
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return labels and scores of which many are tied; cases score higher by ``shift``."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, n)
    labels[:2] = 0, 1
    return labels, np.round(random.normal(labels * shift), decimals)


def pair(found: Rates | None) -> tuple[float, float]:
    """Return sensitivity and specificity."""
    assert found is not None
    assert found.sensitivity is not None
    assert found.specificity is not None
    return found.sensitivity.value, found.specificity.value


@pytest.mark.parametrize(
    ("successes", "n", "lower", "upper"),
    [  # Newcombe, Statistics in Medicine 1998; 17:857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(
    successes: int, n: int, lower: float, upper: float
) -> None:
    found = wilson(successes, n)
    assert (found.lower, found.upper) == pytest.approx((lower, upper), abs=5e-5)


def test_wilson_is_the_same_seen_from_the_other_side() -> None:
    for successes in range(31):
        one, other = wilson(successes, 30), wilson(30 - successes, 30)
        assert (one.lower, one.upper) == pytest.approx((1 - other.upper, 1 - other.lower))
        assert 0 <= one.lower <= one.value <= one.upper <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_a_share_of_nothing_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="required: 0 to n"):
        wilson(successes, n)


def test_auroc_of_a_case_counted_by_hand() -> None:
    # 0.9 beats four, 0.6 beats three and ties one, 0.4 beats three.
    assert auroc(LABELS, SCORES) == pytest.approx((4 + 3.5 + 3) / 12)


@pytest.mark.parametrize("seed", range(20))
def test_auroc_is_how_often_a_case_scores_higher(seed: int) -> None:
    labels, scores = drawn(5 + 7 * seed, seed, decimals=seed % 3)
    difference = scores[labels == 1][:, np.newaxis] - scores[labels == 0]
    assert auroc(labels, scores) == pytest.approx(
        float(np.mean((difference > 0) + 0.5 * (difference == 0)))
    )
    assert auroc(1 - labels, scores) == pytest.approx(1 - auroc(labels, scores))
    assert auroc(labels, np.exp(scores)) == pytest.approx(auroc(labels, scores))


@pytest.mark.parametrize("seed", range(5))
def test_the_area_under_the_roc_curve_is_the_auroc(seed: int) -> None:
    labels, scores = drawn(60, seed, decimals=1)
    curve = roc(labels, scores)
    area = np.trapezoid(curve.sensitivity, 1 - curve.specificity)
    assert area == pytest.approx(auroc(labels, scores))
    for threshold, sensitivity in zip(curve.thresholds, curve.sensitivity, strict=True):
        found = rates(labels, scores, threshold).sensitivity
        assert found is not None
        assert found.value == pytest.approx(sensitivity)


def test_the_bootstrap_interval_is_near_the_formula_of_hanley_and_mcneil() -> None:
    labels, scores = drawn(600, 1, decimals=6)
    found = auroc_interval(labels, scores)
    area, cases = found.value, int(labels.sum())
    others = len(labels) - cases
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (cases - 1) * (q1 - area**2) + (others - 1) * (q2 - area**2)
    half = 1.96 * np.sqrt(variance / (cases * others))
    assert (found.lower, found.upper) == pytest.approx((area - half, area + half), abs=0.01)


def test_the_same_seed_gives_the_same_interval() -> None:
    labels, scores = drawn(80, 3)
    assert auroc_interval(labels, scores, seed=7) == auroc_interval(labels, scores, seed=7)
    assert auroc_interval(labels, scores, seed=7) != auroc_interval(labels, scores, seed=8)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """The AUROC of two normal distributions one standard deviation apart is 0.7602."""
    covered = [
        found.lower <= 0.7602 <= found.upper
        for seed in range(200)
        for found in [auroc_interval(*drawn(120, seed, decimals=6), resamples=300)]
    ]
    assert 0.89 <= np.mean(covered) <= 0.99


def test_copies_of_images_make_the_interval_no_narrower_when_patients_are_drawn() -> None:
    labels, scores = drawn(80, 5)
    patients = np.arange(80)
    plain = auroc_interval(labels, scores)
    copies = auroc_interval(np.tile(labels, 9), np.tile(scores, 9), np.tile(patients, 9))
    wrong = auroc_interval(np.tile(labels, 9), np.tile(scores, 9))
    assert copies.upper - copies.lower == pytest.approx(plain.upper - plain.lower, rel=0.15)
    assert wrong.upper - wrong.lower < 0.5 * (plain.upper - plain.lower)


def test_a_patient_may_have_images_of_both_classes() -> None:
    labels, scores = drawn(90, 6)
    found = auroc_interval(labels, scores, np.arange(90) // 3, resamples=200)
    assert found.lower < found.value < found.upper


@pytest.mark.parametrize(
    ("labels", "scores", "said"),
    [
        ([1, 1], [0.1, 0.2], "required: both classes"),
        ([1, 2], [0.1, 0.2], "other than 0 and 1"),
        ([1, 0], [0.1, np.nan], "not finite"),
        ([1, 0, 1], [0.1, 0.2], "shapes"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels: object, scores: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        auroc(labels, scores)  # type: ignore[arg-type]  # wrong on purpose


def test_counts_and_rates_at_a_threshold() -> None:
    found = rates(LABELS, SCORES, 0.6)
    assert (found.true_positive, found.false_negative) == (2, 1)
    assert (found.true_negative, found.false_positive) == (3, 1)
    assert found.sensitivity == wilson(2, 3)
    assert found.specificity == wilson(3, 4)
    assert rates([1], [0.5], 0.5).specificity is None


def test_outcomes_by_an_indeterminate_band() -> None:
    found = outcomes(LABELS, SCORES, 0.3, 0.6)
    assert (found[1].positive, found[1].indeterminate, found[1].negative) == (2, 1, 0)
    assert (found[0].positive, found[0].indeterminate, found[0].negative) == (1, 1, 2)
    assert found[0].share_indeterminate == wilson(1, 4)


def test_predictive_values_follow_bayes() -> None:
    rate = Estimate(0.9, 0.8, 0.95)
    found = predictive_values(rate, rate, 0.01)
    assert found.positive is not None
    assert found.negative is not None
    assert found.positive.value == pytest.approx(0.009 / (0.009 + 0.099))
    assert found.positive.lower == pytest.approx(0.008 / (0.008 + 0.198))
    assert found.negative.value == pytest.approx(0.891 / (0.891 + 0.001))
    never = predictive_values(wilson(0, 9), wilson(9, 9), 0.1)
    assert never.positive is None
    with pytest.raises(ValueError, match="found prevalence 1"):
        predictive_values(rate, rate, 1)


def test_calibration_of_a_case_counted_by_hand() -> None:
    found = calibration([0, 1, 1, 1], [0.2, 0.4, 0.6, 0.9], bins=2)
    low, high = found.bins
    assert (low.n, low.cases, high.n, high.cases) == (2, 1, 2, 2)
    assert (low.probability, high.probability) == pytest.approx((0.3, 0.75))
    assert found.error == pytest.approx(0.5 * 0.2 + 0.5 * 0.25)
    assert found.brier == pytest.approx((0.04 + 0.36 + 0.16 + 0.01) / 4)


def test_balanced_calibration_is_that_of_a_sample_with_as_many_of_each_class() -> None:
    labels, scores = [1, 1, 0, 0, 0, 0, 0, 0], [0.8, 0.3, 0.7, 0.2, 0.2, 0.7, 0.1, 0.3]
    more = calibration(labels + 2 * [1, 1], scores + 2 * [0.8, 0.3], bins=1)
    found = calibration(labels, scores, bins=1, balanced=True)
    assert found.error == pytest.approx(more.error)
    assert found.brier == pytest.approx(more.brier)
    assert found.bins[0].observed.value == pytest.approx(0.5)


def test_probabilities_that_mean_what_they_say_have_little_error() -> None:
    random = np.random.default_rng(2)
    probabilities = random.uniform(size=20000)
    labels = random.uniform(size=20000) < probabilities
    assert calibration(labels, probabilities).error < 0.02
    assert calibration(labels, probabilities).brier == pytest.approx(1 / 6, abs=0.01)
    assert calibration(labels, np.clip(probabilities + 0.2, 0, 1)).error > 0.15


def test_bins_hold_equal_numbers_and_never_part_equal_probabilities() -> None:
    labels, scores = drawn(1000, 4, decimals=9)
    inside = 1 / (1 + np.exp(-scores))
    assert [one.n for one in calibration(labels, inside).bins] == [100] * 10
    rounded = calibration(labels, np.round(inside, 1), bins=10)
    assert sum(one.n for one in rounded.bins) == 1000
    assert len({one.probability for one in rounded.bins}) == len(rounded.bins)
    assert len(calibration(labels[:50], inside[:50]).bins) == 2


def test_thresholds_keep_to_their_rules_and_none_does_better() -> None:
    for seed in range(10):
        labels, scores = drawn(120, seed, shift=1.5)
        youden, sensitive, specific = propose(labels, scores, sensitivity=0.85, specificity=0.8)
        pairs = [pair(rates(labels, scores, t)) for t in (*np.unique(scores), 99)]
        best = [pair(one.rates) for one in (youden, sensitive, specific)]
        assert sum(best[0]) == pytest.approx(max(sum(pair) for pair in pairs))
        assert best[1][0] >= 0.85
        assert best[1][1] == max(no for yes, no in pairs if yes >= 0.85)
        assert best[2][1] >= 0.8
        assert best[2][0] == max(yes for yes, no in pairs if no >= 0.8)


def test_a_threshold_lies_between_the_scores_it_parts() -> None:
    labels, scores = [0] * 20 + [1] * 20, [0.1] * 20 + [0.9] * 20
    for one in propose(labels, scores):
        assert one.rates is not None
        assert one.rates.threshold == pytest.approx(0.5)


def test_too_few_images_make_no_threshold() -> None:
    for one in propose([0] * 19 + [1] * 50, np.linspace(0, 1, 69)):
        assert one.rates is None
        assert one.refused == "found 50 positive and 19 negative images, required: 20 of each"


def test_a_rule_that_only_one_answer_for_all_keeps_makes_no_threshold() -> None:
    constant = propose([0] * 20 + [1] * 20, [0.5] * 40)
    assert {one.refused for one in constant} == {
        "only a threshold that calls all images alike keeps to it"
    }
