"""The report of a model: results.json, results.md and plots from its predictions.

``python -m scripts.report --predictions FOLDER --output FOLDER`` takes ``FOLD.csv`` for each fold
(see scripts/predictions.py) and, where the rule differs from the bundle's, ``FOLD.json`` like
models/decision.json. What ``python -m scripts.audit`` wrote to the output folder is taken in.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts import plots, tables
from scripts.folds import Rule, results
from scripts.predictions import WITHIN, Prediction, read, tested, write_json
from scripts.shortcuts import between_sources
from scripts.subgroups import NOT_ANNOTATED, by_subgroup, manifest

Folds = dict[str, list[Prediction]]


def read_folds(folder: str | Path) -> Folds:
    """Return the predictions that count of each fold, ``within`` first."""
    paths = sorted(Path(folder).glob("*.csv"), key=lambda path: (path.stem != WITHIN, path.stem))
    if not paths:
        raise FileNotFoundError(f"{folder}: found no CSV files, required is one for each fold")
    folds = {}
    for path in paths:
        predictions = tested(read(path))
        if not predictions or {one.fold for one in predictions} != {path.stem}:
            raise ValueError(f"{path}: found no image to test, or another fold than {path.stem}")
        folds[path.stem] = predictions
    return folds


def report(
    predictions_dir: str | Path,
    output_dir: str | Path,
    decision_file: str | Path,
    dataset_dir: str | Path | None = None,
    training_log: str | Path | None = None,
) -> dict[str, Any]:
    """Write ``results.json``, ``results.md`` and plots, and return the results.

    Parameters
    ----------
    predictions_dir
        Folder with ``FOLD.csv`` and, where the fold has its own rule, ``FOLD.json``.
    output_dir
        Folder to write to. ``thumbnails/FOLD.csv``, ``shortcuts.json`` and ``faithfulness.json``
        are taken from it where they exist.
    decision_file
        models/decision.json of the bundle.
    dataset_dir
        Folder of the images, for its manifests; without it, there are no subgroups.
    training_log
        CSV file with the columns ``epoch``, ``loss``, ``val_auroc`` and perhaps ``val_loss``.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    folds = read_folds(predictions_dir)
    rows = manifest(str(dataset_dir)) if dataset_dir else None
    content: dict[str, Any] = {"folds": {}, "unseen": None}
    for name, images in folds.items():
        rule = _rule(Path(predictions_dir) / f"{name}.json", Path(decision_file))
        fold = results(images, rule)
        _add_thumbnails(fold, output / "thumbnails" / f"{name}.csv")
        fold["between sources"] = between_sources(images)
        fold["subgroups"] = by_subgroup(images, rows, rule.threshold) if rows else []
        content["folds"][name] = fold
    content["unseen"] = over_pairs(content["folds"])
    for part in ("shortcuts", "faithfulness"):
        path = output / f"{part}.json"
        if path.exists():
            content[part] = json.loads(path.read_text(encoding="utf-8"))
    write_json(content, output / "results.json")
    (output / "results.md").write_text(markdown(content), encoding="utf-8")
    plots.write(folds, content, output, training_log)
    return content


def _rule(own: Path, shared: Path) -> Rule:
    """Return the rule of a fold."""
    path = own if own.exists() else shared
    return Rule.read(json.loads(path.read_text(encoding="utf-8")))


def _add_thumbnails(fold: dict[str, Any], path: Path) -> None:
    """Add to each pair, and to the fold, the AUROC of the thumbnail model."""
    if not path.exists():
        return
    other = results(tested(read(path)), fold["rule"])
    for row, found in zip(fold["pairs"], other["pairs"], strict=True):
        row["thumbnail auroc"] = found["auroc"]
    fold["thumbnails"] = {name: other[name] for name in ("all", "mean of pairs", "worst pair")}


def over_pairs(folds: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return mean and worst AUROC over the pairs of all folds that leave sources out."""
    rows = [
        {"fold": name, **row}
        for name, fold in folds.items()
        for row in fold["pairs"]
        if name != WITHIN and row["auroc"]
    ]
    if not rows:
        return None
    areas = [row["auroc"].value for row in rows]
    worst = min(rows, key=lambda row: row["auroc"].value)
    return {"pairs": len(rows), "mean": sum(areas) / len(areas), "worst": worst}


def markdown(content: Mapping[str, Any]) -> str:
    """Return the results as tables; intervals are of 95 %."""
    parts = ["## Results by fold", tables.overview(content["folds"])]
    if content["unseen"]:
        parts.append(tables.unseen(content["unseen"]))
    for name, fold in content["folds"].items():
        title = "test part of all sources" if name == WITHIN else f"without {name}"
        parts += [f"## Fold {name}: {title}", tables.pairs(fold), tables.kinds(fold)]
        if fold["between sources"]:
            parts += ["Sources told apart within one finding:", tables.sources(fold)]
        if fold["subgroups"]:
            missing = ", ".join(NOT_ANNOTATED)
            parts += [f"Subgroups (not annotated: {missing}):", tables.subgroups(fold)]
    if "shortcuts" in content:
        parts += ["## Parts of the image black", tables.blackened(content["shortcuts"])]
    if "faithfulness" in content:
        parts += ["## Faithfulness of saliency maps", tables.faithfulness(content["faithfulness"])]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="folder of FOLD.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--decision", default="models/decision.json", help="the bundle's rule")
    parser.add_argument("--dataset_dir", help="folder of the images, for subgroups")
    parser.add_argument("--training_log", help="CSV: epoch, loss, val_auroc")
    chosen = parser.parse_args()
    report(
        chosen.predictions,
        chosen.output,
        chosen.decision,
        chosen.dataset_dir,
        chosen.training_log,
    )


if __name__ == "__main__":
    main()
