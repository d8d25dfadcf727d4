"""Whether a map tells where opacities are in this image, or only where they mostly are.

``python -m scripts.constant_map SEED ... --dataset_dir FOLDER --cache_file FILE --output FOLDER``
writes ``constant_map.md``. The constant map is the mean of all boxes of the training part, the same
for every image; its greatest place within the lungs is compared with that of each network's map.
"""

import argparse
from pathlib import Path

import torch
from scripts.cache import cached
from scripts.data import CELLS, entries, mask, opacity_boxes, paths_of
from scripts.measures import ratio
from scripts.predict import hits
from scripts.predictions import read
from scripts.report import Value, table
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import LUNG


def constant_maps(mean: Tensor, lungs: Tensor) -> Tensor:
    """Return the mean of the boxes within the lungs of each image, ``(n, 64, 64)``.

    Parameters
    ----------
    mean
        ``(64, 64)``, share of the training images with a box there.
    lungs
        ``(n, 1, 128, 128)`` uint8, probability of lung as cached.
    """
    inside = functional.adaptive_avg_pool2d(lungs.float() / 255, CELLS)[:, 0] >= LUNG
    return torch.where(inside, mean, -1.0)


def compared(
    networks: dict[str, list[float]], constant: list[float], patients: list[str]
) -> dict[str, dict[str, Value]]:
    """Return columns of the table: hits of the constant map, of each network, and the gain."""
    ones = [1.0] * len(constant)
    hit: dict[str, Value] = {"constant map": ratio(constant, ones, patients)}
    more: dict[str, Value] = {}
    for name, found in networks.items():
        gain = [one - other for one, other in zip(found, constant, strict=True)]
        hit[name], more[name] = ratio(found, ones, patients), ratio(gain, ones, patients)
    return {"hits": hit, "more than the constant map": more}


def lacking(image: Tensor) -> Tensor:
    """Stand in for the network of the lungs where the cache file must have every image.

    Raises
    ------
    ValueError
        Always: it is called for an image that is not there.
    """
    raise ValueError("found an image that is not in the cache file; training adds all of them")


def main() -> None:
    """Write constant_map.md."""
    parser = argparse.ArgumentParser(prog="python -m scripts.constant_map", description=__doc__)
    parser.add_argument("seeds", type=Path, nargs="+", help="the first is the one that ships")
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cache_file", required=True, help="made by training or evaluation")
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    taught = opacity_boxes(chosen.dataset_dir, entries("docs/split.csv", ["training"]))
    mean = torch.stack([mask(boxes).float()[0] / 255 for boxes in taught if boxes]).mean(0)
    rows = entries("docs/split.csv", ["test"])
    every = opacity_boxes(chosen.dataset_dir, rows)
    rows = [row for row, boxes in zip(rows, every, strict=True) if boxes]
    marked = [boxes for boxes in every if boxes]
    lungs = cached(paths_of(rows), chosen.dataset_dir, chosen.cache_file, lacking).lungs
    constant = hits(constant_maps(mean, lungs), marked)
    said = {
        folder.name: {one.path: one.hit for one in read(folder / "predictions.csv")}
        for folder in chosen.seeds
    }
    parts = [
        "# Maps against a constant map",
        "Share of images whose greatest place is inside a box. The constant map is the mean of "
        "the boxes of the training part, within the lungs of each image. Intervals of 95 %, "
        "patients resampled; the gain is of the same images.",
    ]
    for title, categories in (
        ("All with boxes", {"typical", "indeterminate", "atypical"}),
        ("Typical", {"typical"}),
    ):
        kept = [place for place, row in enumerate(rows) if row["category"] in categories]
        networks = {
            name: [hit[rows[place]["path"]] for place in kept] for name, hit in said.items()
        }
        patients = [rows[place]["group"] for place in kept]
        columns = compared(networks, [constant[place] for place in kept], patients)
        parts += [f"## {title}, {len(kept)} images of the test part", table(columns)]
    (chosen.output / "constant_map.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
