"""Results of subgroups, from what the manifests say of each image.

Tubes, lines and other devices are not annotated in any of the collections, so nothing is said of
them; nor of sex, which only some give.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.data import read_rows
from scripts.folds import area
from scripts.predictions import Prediction

from thoracle.evaluate.metrics import rates

MANIFESTS = ("manifest.csv", "more/manifest.csv")
NOT_ANNOTATED = ("tubes, lines and other devices", "sex", "severity")
NARROW = 1000
"""Columns of the published image below which it counts as narrow."""


def manifest(dataset_dir: str) -> dict[str, dict[str, str]]:
    """Return the rows of both manifests by path."""
    rows = {}
    for name in MANIFESTS:
        rows.update({row["path"]: row for row in read_rows(Path(dataset_dir) / name)})
    return rows


def subgroups_of(row: Mapping[str, str]) -> dict[str, str]:
    """Return the subgroup of an image by each criterion, from its row of a manifest."""
    view = row["view"] if row["view"] in ("AP", "PA") else "unknown"
    age = row["age_group"] if row["age_group"] in ("adult", "child") else "unknown"
    width = "narrow" if int(row["orig_width"]) < NARROW else "wide"
    return {"view": view, "age": age, f"width ({NARROW} columns)": width}


def by_subgroup(
    predictions: Iterable[Prediction], rows: Mapping[str, Mapping[str, str]], threshold: float
) -> list[dict[str, Any]]:
    """Return sensitivity, specificity and AUROC of each subgroup.

    Parameters
    ----------
    predictions
        Of the images that count.
    rows
        Of the manifests, by path.
    threshold
        Probability from which an image is called positive.
    """
    groups: dict[tuple[str, str], list[Prediction]] = {}
    for one in predictions:
        for criterion, name in subgroups_of(rows[one.path]).items():
            groups.setdefault((criterion, name), []).append(one)
    return [
        {"criterion": criterion, "subgroup": name, **_results(groups[criterion, name], threshold)}
        for criterion, name in sorted(groups)
    ]


def _results(group: list[Prediction], threshold: float) -> dict[str, Any]:
    labels = [one.label for one in group]
    found = rates(labels, [one.probability for one in group], threshold)
    return {
        "positive": sum(labels),
        "negative": len(labels) - sum(labels),
        "sources": sorted({one.kind for one in group}),
        "sensitivity": found.sensitivity,
        "specificity": found.specificity,
        "auroc": area(group),
    }
