"""Results by source: a total over sources would only tell how different the sources are."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def auroc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Return how often a positive image scores above a negative one, 0 to 1; ties count half."""
    difference = positive[:, np.newaxis] - negative[np.newaxis]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def by_source(entries: Sequence[dict[str, Any]], predictions: str, output: str) -> None:
    """Write how well the predictions agree with the labels, as JSON, and print it.

    Parameters
    ----------
    entries
        Images as :func:`scripts.data.entries` gives them.
    predictions
        CSV file of ``image path, p(not COVID-19), p(COVID-19)`` that the saver wrote.
    output
        File to write.
    """
    with Path(predictions).open(newline="", encoding="utf-8") as lines:
        scores = {row[0]: float(row[2]) for row in csv.reader(lines)}
    groups: dict[tuple[int, str, str], list[float]] = {}
    for entry in entries:
        kind = (entry["label"], entry["source"], entry["finding"])
        groups.setdefault(kind, []).append(scores[entry["image"]])
    result = {"at 0.5": _rates(groups), "AUROC": _aurocs(groups)}
    text = json.dumps(result, indent=4)
    Path(output).write_text(text + "\n", encoding="utf-8")
    print(text)  # noqa: T201 (the answer of a command)


def _rates(groups: dict[tuple[int, str, str], list[float]]) -> dict[str, dict[str, float]]:
    """Return for each source and finding how many images, and which share, are called right."""
    rates = {}
    for (label, source, finding), values in sorted(groups.items()):
        scores = np.array(values)
        right = scores >= 0.5 if label else scores < 0.5
        name = "sensitivity" if label else "specificity"
        rates[f"{source} {finding}"] = {
            "n": len(scores),
            name: round(float(right.mean()), 3),
            "indeterminate (0.2 to 0.8)": int(((scores >= 0.2) & (scores < 0.8)).sum()),
        }
    return rates


def _aurocs(groups: dict[tuple[int, str, str], list[float]]) -> dict[str, dict[str, float]]:
    """Return the AUROC of each source of COVID-19 images against each kind of other images."""
    positive = {kind: np.array(values) for kind, values in groups.items() if kind[0]}
    negative = {kind: np.array(values) for kind, values in groups.items() if not kind[0]}
    pairs = {
        f"{yes[1]} covid, {no[1]} {no[2]}": (positive[yes], negative[no])
        for yes in sorted(positive)
        for no in sorted(negative)
    }
    pairs["all"] = (
        np.concatenate(list(positive.values())),
        np.concatenate(list(negative.values())),
    )
    return {
        name: {"n": len(yes) + len(no), "auroc": round(auroc(yes, no), 3)}
        for name, (yes, no) in pairs.items()
    }
