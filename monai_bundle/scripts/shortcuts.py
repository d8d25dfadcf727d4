"""What a network could use in place of disease: thumbnails, and what surrounds the lungs.

``python -m scripts.shortcuts --dataset_dir FOLDER --cache_file FILE --output FOLDER`` writes
``shortcuts.md``: the AUROC of thumbnails of 16 x 16 pixels on the pairs of the card, and what is
left of the network, and of the gate, when a part of the picture is black.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from scripts.cache import as_input, cached
from scripts.data import Row, entries, paths_of
from scripts.linear_probe import regression_scores
from scripts.report import table
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import LUNG, FindLungsd
from thoracle.classify.network import OpacityNetwork
from thoracle.classify.quality import Gate
from thoracle.evaluate.metrics import auroc_interval

THUMBNAIL = 16
BLACKENED = 120
"""Test images that are blackened: with COVID-19, and healthy, together."""
WIDER = 9
"""Cells of 128 x 128 by which the lungs are widened before they are blackened, and one more."""


def of_thumbnails(images: Tensor) -> Tensor:
    """Return cached images as ``(n, 256)``, each cell the mean of its part."""
    return functional.adaptive_avg_pool2d(as_input(images), THUMBNAIL).flatten(1)


def pairs(rows: list[Row]) -> dict[str, Callable[[Row], bool]]:
    """Return the pairs of images that thumbnails are judged on."""
    return {
        "SIIM, typical against negative": lambda r: r["category"] in ("typical", "negative"),
        "SIIM, typical against atypical": lambda r: r["category"] in ("typical", "atypical"),
        **{
            f"{source} against NIH's healthy": lambda r, s=source: (
                (r["source"], r["finding"]) in ((s, "covid"), ("nih", "normal"))
            )
            for source in ("ieee8023", "covid_cxnet")
        },
    }


def auroc_of(rows: list[Row], scores: Tensor, chosen: Callable[[Row], bool]) -> Any:
    """Return how well scores tell COVID-19 among the rows that are chosen."""
    kept = [place for place, row in enumerate(rows) if chosen(row)]
    labels = [int(rows[place]["finding"] == "covid") for place in kept]
    return auroc_interval(labels, scores[kept].tolist(), [rows[place]["group"] for place in kept])


def blackened(images: Tensor, lungs: Tensor, inside: bool) -> Tensor:
    """Return cached images, lungs or all but lungs black; lungs ``(n, 1, 128, 128)`` uint8."""
    wide = functional.max_pool2d((lungs.float() / 255 >= LUNG).float(), WIDER, 1, WIDER // 2)
    mask = functional.interpolate(wide, images.shape[2:], mode="nearest") > 0
    return torch.where(mask == inside, 0, images)


def refused(images: Tensor, find: FindLungsd, gate: Gate) -> float:
    """Return the share of cached images that the gate refuses, their lungs looked for anew."""
    count = 0
    for image in images.split(1):
        large = functional.interpolate(image.float() / 255, (512, 512), mode="bilinear")[0]
        found = gate.probabilities(large, find({"image": large})["lungs"])
        count += found["frontal"] < gate.limits.least_frontal
    return count / len(images)


def black_table(
    network: OpacityNetwork, rows: list[Row], images: Tensor, lungs: Tensor, gate: Gate, find: Any
) -> str:
    """Return what is left of the answer when a part is black."""
    side = 192
    lines: dict[str, Tensor] = {
        "as it is": images,
        "lungs black": blackened(images, lungs, True),
        "all but lungs black": blackened(images, lungs, False),
    }
    columns: dict[str, Any] = {"AUROC": {}, "refused by the gate": {}}
    for name, shown in lines.items():
        with torch.inference_mode():
            logits = torch.cat([network(as_input(batch, side)) for batch in shown.split(32)])
        scores = (logits[:, 1] - logits[:, 0]).clone()
        columns["AUROC"][name] = auroc_of(rows, scores, lambda row: True)
        columns["refused by the gate"][name] = refused(shown, find, gate)
    return table(columns)


def main() -> None:
    """Write shortcuts.md."""
    parser = argparse.ArgumentParser(prog="python -m scripts.shortcuts", description=__doc__)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cache_file", required=True)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    config = ConfigParser()
    config.read_config("configs/inference.json")
    config["bundle_root"] = "."
    for name, file in (("lungs_network", "lungs.pt"), ("network_def", "model.pt")):
        part = config.get_parsed_content(name)
        part.load_state_dict(torch.load(Path("models", file), weights_only=True))
        part.eval().requires_grad_(False)
    lungs_network = config.get_parsed_content("lungs_network")

    def images_of(rows: list[Row]) -> Any:
        return cached(paths_of(rows), chosen.dataset_dir, chosen.cache_file, lungs_network)

    taught = [r for r in entries("docs/split.csv", ["training"]) if r["finding"] != "unsure"]
    rows = entries("docs/split.csv", ["test"], children=False)
    thumbnails = (of_thumbnails(images_of(some).large) for some in (taught, rows))
    scores = regression_scores(taught, *thumbnails)
    lines = {name: auroc_of(rows, scores, one) for name, one in pairs(rows).items()}
    some = [r for r in rows if r["finding"] in ("covid", "normal")]
    some = random.Random(1).sample(some, BLACKENED)  # noqa: S311  # chooses images, no secret
    kept = images_of(some)
    find = FindLungsd("image", lungs_network, (128, 128))
    network = config.get_parsed_content("network_def")
    black = black_table(network, some, kept.large, kept.lungs, Gate.load(Path()), find)
    text = f"# Shortcuts\n\nThumbnails of {THUMBNAIL} x {THUMBNAIL} pixels\n\n"
    text += f"{table({'AUROC': lines})}\n\n"
    text += f"Parts of the picture black, {BLACKENED} images of the test part\n\n{black}\n"
    (chosen.output / "shortcuts.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
