"""The split: which image is used for what. docs/split.csv is its one source.

Copies of an image appear once; images of one patient, and near duplicates, share a group, and a
group is in one part of the split only.
"""

import csv
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch


def entries(
    split_file: str, dataset_dir: str, part: str, without: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return one dictionary for each image of a part of the split.

    Parameters
    ----------
    split_file
        docs/split.csv of the bundle.
    dataset_dir
        Folder that its paths are relative to.
    part
        ``training``, ``validation`` or ``test``.
    without
        Sources to leave out, with every group that has an image of one.

    Returns
    -------
    list
        ``image`` is a path, ``label`` 1 for COVID-19 and else 0; ``row`` is the row of the file.
    """
    rows = read_rows(split_file)
    groups = {row["group"] for row in rows if row["source"] in without}
    chosen = [row for row in rows if row["split"] == part and row["group"] not in groups]
    return [_entry(row, dataset_dir) for row in chosen]


def judged(
    split_file: str, dataset_dir: str, without: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return the images to judge a network by that was trained ``without`` some sources.

    Parameters
    ----------
    split_file, dataset_dir, without
        As for :func:`entries`.

    Returns
    -------
    list
        As from :func:`entries`: the validation and test parts, and all images of the sources.
    """
    seen = [
        entry
        for part in ("validation", "test")
        for entry in entries(split_file, dataset_dir, part, without)
    ]
    rows = [row for row in read_rows(split_file) if row["source"] in without]
    return seen + [_entry(row, dataset_dir) for row in rows]


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file: the split, or a manifest of the images."""
    with Path(path).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _entry(row: dict[str, str], dataset_dir: str) -> dict[str, Any]:
    return {
        "image": str(Path(dataset_dir) / row["path"]),
        "label": int(row["finding"] == "covid"),
        "source": row["source"],
        "finding": row["finding"],
        "row": row,
    }


def balanced_weights(images: list[dict[str, Any]]) -> torch.Tensor:
    """Return how often to draw each image, ``(images,)`` float64.

    Both classes are drawn equally often. Within a class, sources and findings are drawn by the
    square root of their number of images: few images must not be repeated too often.
    """
    kinds = [(image["label"], image["source"], image["finding"]) for image in images]
    counts = Counter(kinds)
    roots: Counter[int] = Counter()
    for (label, *_), count in counts.items():
        roots[label] += count**0.5
    weights = [counts[kind] ** -0.5 / roots[kind[0]] for kind in kinds]
    return torch.tensor(weights, dtype=torch.float64)
