"""The split: which image is used for what. docs/split.csv is its one source.

Copies of an image appear once; images of one patient, and near duplicates, share a group, and a
group is in one part of the split only.
"""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import torch


def entries(split_file: str, dataset_dir: str, part: str) -> list[dict[str, Any]]:
    """Return one dictionary for each image of a part of the split.

    Parameters
    ----------
    split_file
        docs/split.csv of the bundle.
    dataset_dir
        Folder that its paths are relative to.
    part
        ``training``, ``validation`` or ``test``.

    Returns
    -------
    list
        ``image`` is a path, ``label`` 1 for COVID-19 and else 0, ``source`` and ``finding`` as in
        the file.
    """
    with Path(split_file).open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == part]
    return [
        {
            "image": str(Path(dataset_dir) / row["path"]),
            "label": int(row["finding"] == "covid"),
            "source": row["source"],
            "finding": row["finding"],
        }
        for row in rows
    ]


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
