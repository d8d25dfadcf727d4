"""How well the class is predicted without looking at the picture: by the file, or its origin.

The rule is fitted where the model would be trained and counted elsewhere, as the model would be.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thoracle.dataset.groups import Measured
from thoracle.dataset.layout import Part

POSITIVE = "covid"
UNLABELLED = ("", "unknown", "todo")
ORIGIN = ("source_repo", "age_group", "view")
"""Columns of the manifest that should not tell the class either."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """The best rule on one property of the file."""

    name: str
    """Of the property or column; ``nothing`` for the guess that all are of the commoner class."""
    rule: str
    """E.g. ``channels > 1.5``: then the image is taken for COVID-19."""
    accuracy: dict[str, float]
    """Share of images, 0 to 1, that the rule puts into their class, for each part."""


def shortcuts(images: Sequence[Measured]) -> list[Shortcut]:
    """Return the best rule for each property, the most telling first.

    COVID-19 is one class and every other label the other; images without a label do not count.
    Rules are fitted on Train, or on all images when Train lacks a class. Without two classes
    there is nothing to predict, and the list is empty.
    """
    images = [image for image in images if image.entry.label not in UNLABELLED]
    truth = np.array([image.entry.label == POSITIVE for image in images], np.bool_)
    parts = np.array([image.entry.part.value for image in images])
    fitted = parts == Part.TRAIN.value
    if len(set(truth[fitted])) < 2:
        fitted = np.ones_like(truth)
    if len(set(truth[fitted])) < 2:
        return []
    commoner = bool(truth[fitted].mean() >= 0.5)
    guess = "always" if commoner else "never"
    found = [Shortcut("nothing", guess, _accuracy(truth == commoner, parts))]
    for name, values in _properties(images).items():
        best_rule = _threshold if values.dtype.kind in "if" else _categories
        if len(set(values[fitted])) > 1:
            text, said = best_rule(name, values, truth, fitted)
            found.append(Shortcut(name, text, _accuracy(said == truth, parts)))
    shown = Part.VAL.value if Part.VAL.value in parts else str(parts[0])
    return sorted(found, key=lambda one: -one.accuracy[shown])


def _properties(images: Sequence[Measured]) -> dict[str, NDArray[Any]]:
    """Return the values of each property, and of each column that a manifest has."""
    found = {
        name: np.array([image.fingerprint.properties[name] for image in images])
        for name in images[0].fingerprint.properties
    }
    for column in ORIGIN:
        found[column] = np.array([image.entry.row.get(column, "") for image in images])
    return found


def _accuracy(right: NDArray[np.bool_], parts: NDArray[np.str_]) -> dict[str, float]:
    return {str(part): round(float(right[parts == part].mean()), 4) for part in np.unique(parts)}


def _threshold(
    name: str, values: NDArray[np.float64], truth: NDArray[np.bool_], fitted: NDArray[np.bool_]
) -> tuple[str, NDArray[np.bool_]]:
    """Return the best rule "more than" or "less than", and what it says of each image."""
    steps, index = np.unique(values[fitted], return_inverse=True)
    positive = np.bincount(index, truth[fitted], len(steps))
    signed = 2 * positive - np.bincount(index, minlength=len(steps))
    # Right answers of "more than step" beyond those of "always not", for each step but the last.
    gain = signed.sum() - np.cumsum(signed)[:-1]
    more, most = int(np.argmax(gain)), int(np.argmin(gain))
    above = gain[more] >= signed.sum() - gain[most]
    step = more if above else most
    limit = float(steps[step] + steps[step + 1]) / 2
    said = values > limit
    return f"{name} {'>' if above else '<'} {limit:g}", said if above else ~said


def _categories(
    name: str, values: NDArray[np.str_], truth: NDArray[np.bool_], fitted: NDArray[np.bool_]
) -> tuple[str, NDArray[np.bool_]]:
    """Return the values that mostly mean COVID-19, and what they say of each image."""
    score: Counter[str] = Counter()
    for value, positive in zip(values[fitted], truth[fitted], strict=True):
        score[str(value)] += 1 if positive else -1
    telling = sorted(value for value, votes in score.items() if votes > 0)
    return f"{name} is {' or '.join(telling) or 'nothing'}", np.isin(values, telling)
