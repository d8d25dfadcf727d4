"""What only images can tell of a model: shortcuts, and whether its saliency map is faithful.

``python -m scripts.audit --output FOLDER`` writes ``shortcuts.json``, ``faithfulness.json`` and
``thumbnails/FOLD.csv`` for ``python -m scripts.report``.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from monai.transforms.compose import Compose
from scripts import faithfulness, shortcuts
from scripts.data import entries, read_rows
from scripts.predictions import WITHIN, write, write_json
from torch import Tensor

from thoracle.classify.lungs import FindLungsd
from thoracle.classify.network import TwoViews

Transform = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Model:
    """The network with the parts of its preprocessing."""

    network: TwoViews
    load: Transform
    """From a file to the whole picture."""
    find: Transform
    """Adds the lungs."""
    rest: Transform
    """From both to the views that the network takes, and the box of the last one."""
    temperature: float
    threshold: float


def load(
    bundle_root: str,
    config_file: str | None = None,
    weights: str | None = None,
    lungs_weights: str | None = None,
    decision_file: str | None = None,
) -> Model:
    """Return the model of a bundle, or one with other weights.

    Parameters
    ----------
    bundle_root
        Folder of the bundle.
    config_file
        By default configs/inference.json.
    weights, lungs_weights
        By default models/model.pt and models/lungs.pt.
    decision_file
        By default models/decision.json.
    """
    root = Path(bundle_root)
    parser = ConfigParser()
    parser.read_config(config_file or root / "configs" / "inference.json")
    parser["bundle_root"] = str(root)
    files = {
        "network_def": weights or root / "models" / "model.pt",
        "lungs_network": lungs_weights or root / "models" / "lungs.pt",
    }
    for name, file in files.items():
        state = torch.load(file, map_location="cpu", weights_only=True)
        part = parser.get_parsed_content(name)
        part.load_state_dict(state)
        part.eval().requires_grad_(False)
    decision_path = Path(decision_file or root / "models" / "decision.json")
    decision = json.loads(decision_path.read_text(encoding="utf-8"))
    network: TwoViews = parser.get_parsed_content("network_def")
    for view in (network.whole, network.lungs):
        # In each view, so that what follows need not know of it: it is in the mean of both.
        view._fc.bias[1] += decision["offset"]
    steps = parser.get_parsed_content("preprocessing").transforms
    find = next(index for index, step in enumerate(steps) if isinstance(step, FindLungsd))
    return Model(
        network=network,
        load=Compose(steps[:find]),
        find=steps[find],
        rest=Compose(steps[find + 1 :]),
        temperature=float(decision["temperature"]),
        threshold=float(decision["threshold"]),
    )


def picture(model: Model, path: str) -> Tensor:
    """Return the whole picture of a file, ``(1, rows, columns)``, 0 to 1."""
    whole: Tensor = model.load({"image": path})["image"].as_tensor()
    return whole


def black_parts(model: Model, images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return :func:`scripts.shortcuts.blackened` for images as scripts.data.entries gives them."""
    seen = [
        shortcuts.looks(picture(model, entry["image"]), model.network, model.find, model.rest)
        for entry in images
    ]
    return shortcuts.blackened([entry["label"] for entry in images], seen)


def called_positive(
    model: Model, images: list[dict[str, Any]], most: int
) -> list[faithfulness.Radiograph]:
    """Return ``most`` COVID-19 images that are called so, of all sources in turn."""
    turns = Counter[str]()
    keyed = []
    for entry in (one for one in images if one["label"]):
        turns[entry["source"]] += 1
        keyed.append((turns[entry["source"]], entry["source"], entry["image"]))
    found: list[faithfulness.Radiograph] = []
    for _, _, path in sorted(keyed):
        if len(found) == most:
            break
        shown = faithfulness.radiograph(model.find({"image": picture(model, path)}), model.rest)
        scores = torch.tensor(shortcuts.differences(model.network, shown.views))
        if (scores.mean() / model.temperature).sigmoid() >= model.threshold:
            found.append(shown)
    return found


def faithful(
    model: Model, radiographs: list[faithfulness.Radiograph], maps: list[str]
) -> dict[str, Any]:
    """Return :func:`scripts.faithfulness.summary` of each map."""
    chosen = {name: faithfulness.MAPS[name] for name in maps}
    found = faithfulness.curves(model.network, radiographs, chosen, model.temperature)
    return {name: faithfulness.summary(curves) for name, curves in found.items()}


def thumbnails(
    model: Model, bundle_root: str, dataset_dir: str, folds: list[str], output: Path
) -> None:
    """Write the predictions of the thumbnail model for each fold."""
    rows = read_rows(Path(bundle_root) / "docs" / "split.csv")
    paths = (str(Path(dataset_dir) / row["path"]) for row in rows)
    small = torch.stack([shortcuts.thumbnail(picture(model, path)) for path in paths])
    for fold in folds:
        found = shortcuts.thumbnail_predictions(rows, small, fold)
        write(output / "thumbnails" / f"{fold}.csv", found)


def main() -> None:
    """Write the files for the report."""
    parser = argparse.ArgumentParser(prog="python -m scripts.audit", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--dataset_dir", required=True, help="folder of the images")
    parser.add_argument("--bundle_root", default=".", help="folder of the bundle")
    parser.add_argument("--config_file", help="other than configs/inference.json")
    parser.add_argument("--weights", help="other than models/model.pt")
    parser.add_argument("--lungs_weights", help="other than models/lungs.pt")
    parser.add_argument("--decision", help="other than models/decision.json")
    parser.add_argument("--part", default="test", help="part of docs/split.csv")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image of the part")
    parser.add_argument("--most", type=int, default=60, help="images of the faithfulness test")
    parser.add_argument("--maps", nargs="*", default=list(faithfulness.MAPS))
    parser.add_argument("--folds", nargs="*", default=[WITHIN], help="of the thumbnail model")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    files = (chosen.config_file, chosen.weights, chosen.lungs_weights, chosen.decision)
    model = load(chosen.bundle_root, *files)
    split = str(Path(chosen.bundle_root) / "docs" / "split.csv")
    images = entries(split, chosen.dataset_dir, chosen.part)[:: chosen.every]
    chosen.output.mkdir(parents=True, exist_ok=True)
    write_json(black_parts(model, images), chosen.output / "shortcuts.json")
    radiographs = called_positive(model, images, chosen.most)
    write_json(faithful(model, radiographs, chosen.maps), chosen.output / "faithfulness.json")
    if chosen.folds:
        thumbnails(model, chosen.bundle_root, chosen.dataset_dir, chosen.folds, chosen.output)


if __name__ == "__main__":
    main()
