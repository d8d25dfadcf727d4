"""Train and judge the network without some sources: the nearest to a hospital it has never seen.

Hardly a source has both classes, so one with COVID-19 and one without are left out together.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.predictions import WITHIN

FOLDS = (
    ("covid_cxnet", "kermany"),
    ("covid_cxnet", "nih"),
    ("ieee8023", "kermany"),
    ("ieee8023", "nih"),
)


def run(output_dir: Path, folds: list[tuple[str, ...]], options: list[str]) -> None:
    """Train a network for each fold; write ``within.csv``, ``<sources>.csv`` and ``.json``.

    Parameters
    ----------
    output_dir
        Folder for the tables, and for a folder of each fold with its model. A fold whose table
        is there is not trained again.
    folds
        Sources to leave out together.
    options
        Further options of ``monai.bundle run``, as ``--dataset_dir`` and a folder.
    """
    _predict(output_dir, WITHIN, Path("models"), *options)
    for sources in folds:
        name = "+".join(sources)
        if (output_dir / f"{name}.csv").is_file():
            continue
        folder = output_dir / name
        without = ["--without", str(list(sources))]
        _bundle("configs/train.json", "--output_dir", str(folder), *without, *options)
        _predict(output_dir, name, folder, *without, *options)
        shutil.copy(folder / "decision.json", output_dir / f"{name}.json")


def _predict(output_dir: Path, fold: str, models: Path, *options: str) -> None:
    files = ["--model_file", str(models / "model.pt")]
    files += ["--decision_file", str(models / "decision.json")]
    configs = "['configs/train.json','configs/evaluate.json']"
    _bundle(configs, "--fold", fold, "--output_dir", str(output_dir), *files, *options)


def _bundle(config: str, *options: str) -> None:
    """Run the bundle in a process of its own: MONAI keeps state between runs."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *options]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, epilog="Run in the bundle's folder.")
    parser.add_argument("--output_dir", type=Path, default=Path("../build/bundle/unseen"))
    parser.add_argument("--fold", action="append", metavar="SOURCE+SOURCE", help="all by default")
    known, rest = parser.parse_known_args()
    run(known.output_dir, [tuple(f.split("+")) for f in known.fold or map("+".join, FOLDS)], rest)
