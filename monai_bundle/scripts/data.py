"""The split: which image is used for what. docs/split.csv is its one source.

Copies of an image appear once; images of one patient, and near duplicates, share a group, and a
group is in one part of the split only.
"""

import csv
import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from scripts.cache import Cached
from torch import Tensor

TARGETS = {"covid": 1.0, "unsure": 0.5, "pneumonia": 0.0, "normal": 0.0}
"""What the network is taught for each finding: 1 for COVID-19."""
SHARES = {"covid": 0.45, "unsure": 0.1, "other": 0.45}
"""How often images of each class are drawn."""
CELLS = 64
"""Rows and columns of the mask of the boxes."""

Row = dict[str, str]
Boxes = list[tuple[float, ...]]
"""Left, top, right and bottom of each box, as shares of the image's sides, 0 to 1."""


def entries(
    split_file: str, parts: Collection[str], without: Collection[str] = (), children: bool = True
) -> list[Row]:
    """Return the rows of parts of the split.

    Parameters
    ----------
    split_file
        docs/split.csv of the bundle.
    parts
        Of ``training``, ``validation`` and ``test``.
    without
        Sources to leave out, with every group that has an image of one.
    children
        Whether images of patients under 18 are taken.
    """
    rows = read_rows(split_file)
    groups = {row["group"] for row in rows if row["source"] in without}
    return [
        row
        for row in rows
        if row["split"] in parts
        and row["group"] not in groups
        and (children or row["age"] != "child")
    ]


def read_rows(path: str | Path) -> list[Row]:
    """Return the rows of a CSV file: the split, or a manifest of the images."""
    with Path(path).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def paths_of(rows: Sequence[Row]) -> list[str]:
    """Return the paths of rows, in their order."""
    return [row["path"] for row in rows]


def opacity_boxes(dataset_dir: str, rows: Sequence[Row]) -> list[Boxes | None]:
    """Return the boxes around opacities of each row.

    SIIM's images are squashed to squares, and its manifest gives boxes in pixels of the original;
    as shares of the sides they hold for both.

    Parameters
    ----------
    dataset_dir
        Folder of the data.
    rows
        Of the split.

    Returns
    -------
    list
        No boxes for an image without opacities; ``None`` where nobody has marked them.
    """
    manifest = read_rows(Path(dataset_dir, "siim", "manifest.csv"))
    marked = {f"siim/{row['path']}": _shares(row) for row in manifest}
    return [marked.get(row["path"]) or ([] if row["finding"] == "normal" else None) for row in rows]


def _shares(row: Row) -> Boxes:
    text = row["opacity_boxes_in_original_px"]
    width, height = int(row["orig_width"]), int(row["orig_height"])
    found = []
    for box in json.loads(text.replace("'", '"')) if text else ():
        left, top = box["x"] / width, box["y"] / height
        edges = left, top, left + box["width"] / width, top + box["height"] / height
        found.append(tuple(min(max(edge, 0.0), 1.0) for edge in edges))
    return found


def items(
    rows: Sequence[Row], images: Cached, boxes: Sequence[Boxes | None]
) -> list[dict[str, Any]]:
    """Return one dictionary for each row, as :class:`scripts.augmentation.Augment` takes them."""
    return [
        {
            "image": images.large[place],
            "lungs": images.lungs[place],
            "boxes": mask(marked or []),
            "target": torch.tensor(TARGETS[row["finding"]]),
            "mapped": torch.tensor(float(marked is not None)),
            "label": torch.tensor([int(row["finding"] == "covid")]),
        }
        for place, (row, marked) in enumerate(zip(rows, boxes, strict=True))
    ]


def mask(boxes: Boxes) -> Tensor:
    """Return ``(1, 64, 64)`` uint8, 255 inside boxes; edges are rounded."""
    inside = torch.zeros(1, CELLS, CELLS, dtype=torch.uint8)
    for edges in boxes:
        left, top, right, bottom = (round(edge * CELLS) for edge in edges)
        inside[:, top : max(bottom, top + 1), left : max(right, left + 1)] = 255
    return inside


def balanced_weights(rows: Sequence[Row], by_view: bool = True) -> Tensor:
    """Return how often to draw each image, ``(rows,)`` float64.

    Classes are drawn by :data:`SHARES`. Within a class, sources and findings are drawn by the
    square root of their number of images: few images must not be repeated too often. Within
    these, AP and PA are drawn equally often, for the same reason at most four times as often as
    their number says.
    """
    kinds = [(_class(row), row["source"], row["finding"]) for row in rows]
    counts = Counter(kinds)
    roots: Counter[str] = Counter()
    for (name, *_), count in counts.items():
        roots[name] += count**0.5
    views = Counter((kind, row["view"]) for kind, row in zip(kinds, rows, strict=True))
    of_kind = Counter(kind for kind, _ in views)
    weights = []
    for kind, row in zip(kinds, rows, strict=True):
        weight = SHARES[kind[0]] * counts[kind] ** -0.5 / roots[kind[0]]
        if by_view:
            even = counts[kind] / (of_kind[kind] * views[kind, row["view"]])
            weight *= min(even, 4.0)
        weights.append(weight)
    return torch.tensor(weights, dtype=torch.float64)


def _class(row: Row) -> str:
    return row["finding"] if row["finding"] in ("covid", "unsure") else "other"
