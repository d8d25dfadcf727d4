"""Results of one fold, by source: a total over sources would only tell how different they are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.predictions import Prediction

from thoracle.evaluate.calibration import calibration
from thoracle.evaluate.metrics import Estimate, auroc_interval, outcomes, rates

LEAST = 5
"""Images of either class below which no AUROC is given."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Threshold and indeterminate band, of probabilities."""

    threshold: float
    lower: float
    upper: float

    @classmethod
    def read(cls, decision: Mapping[str, Any]) -> "Rule":
        """Return the rule of a decision.json."""
        band = decision["indeterminate"]
        return cls(decision["threshold"], band["lower"], band["upper"])


def by_kind(predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """Return predictions by source and finding, COVID-19 first."""
    kinds: dict[str, list[Prediction]] = {}
    for one in sorted(predictions, key=lambda one: (-one.label, one.kind)):
        kinds.setdefault(one.kind, []).append(one)
    return kinds


def area(images: list[Prediction]) -> Estimate | None:
    """Return the AUROC, groups resampled; ``None`` with fewer than five images of a class."""
    labels = [one.label for one in images]
    if min(sum(labels), len(labels) - sum(labels)) < LEAST:
        return None
    return auroc_interval(labels, [one.logit for one in images], [one.group for one in images])


def pairs(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Return the AUROC of each source's COVID-19 images against each source's other images."""
    kinds = by_kind(predictions)
    rows = []
    for name, positive in kinds.items():
        for other, negative in kinds.items():
            if not positive[0].label or negative[0].label:
                continue
            row = {
                "positive": name,
                "negative": other,
                "n positive": len(positive),
                "n negative": len(negative),
                "same source": positive[0].source == negative[0].source,
                "auroc": area([*positive, *negative]),
            }
            rows.append(row)
    return rows


def kinds_at(predictions: Iterable[Prediction], rule: Rule) -> dict[str, dict[str, Any]]:
    """Return for each source and finding how many are called right, and how many not at all."""
    table = {}
    for name, images in by_kind(predictions).items():
        labels, values = [one.label for one in images], [one.probability for one in images]
        found = rates(labels, values, rule.threshold)
        counts = outcomes(labels, values, rule.lower, rule.upper)[labels[0]]
        table[name] = {
            "n": len(images),
            "sensitivity": found.sensitivity,
            "specificity": found.specificity,
            "positive": counts.positive,
            "indeterminate": counts.share_indeterminate,
            "negative": counts.negative,
        }
    return table


def results(predictions: list[Prediction], rule: Rule) -> dict[str, Any]:
    """Return all results of the images that count of one fold.

    Parameters
    ----------
    predictions
        Of the images that the fold's model was not made with.
    rule
        Of the fold's model.
    """
    labels = [one.label for one in predictions]
    values = [one.probability for one in predictions]
    table = pairs(predictions)
    reported = [row for row in table if row["auroc"]]
    areas = [row["auroc"].value for row in reported]
    found = rates(labels, values, rule.threshold)
    return {
        "n": len(labels),
        "positive": sum(labels),
        "rule": rule,
        "pairs": table,
        "mean of pairs": sum(areas) / len(areas) if areas else None,
        "worst pair": min(reported, key=lambda row: row["auroc"].value) if areas else None,
        "all": area(predictions),
        "against other pneumonia": area([one for one in predictions if one.finding != "normal"]),
        "sensitivity": found.sensitivity,
        "specificity": found.specificity,
        "indeterminate": outcomes(labels, values, rule.lower, rule.upper),
        "calibration error": calibration(labels, values).error,
        "calibration error, balanced": (
            calibration(labels, values, balanced=True).error
            if 0 < sum(labels) < len(labels)
            else None
        ),
        "kinds": kinds_at(predictions, rule),
    }
