"""What the data alone give: one regression, taught on more and more of them.

``python -m scripts.contrast --dataset_dir FOLDER --cache_file FILE --output FOLDER`` writes
``contrast.md``. The features are those of a network of photographs, the same for every column;
only the images that the regression is taught on differ. So a column says what can be learned from
Kaggle's "Chest X-Ray for COVID-19 Detection" alone, and a low figure is no fault of training.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.cache import cached
from scripts.constant_map import lacking
from scripts.data import Row, entries, paths_of
from scripts.linear_probe import regression_scores
from scripts.report import Value, table
from scripts.shortcuts import auroc_of, pairs
from scripts.views import published_features
from torch import Tensor

TAUGHT: dict[str, Callable[[Row], bool]] = {
    "Kaggle set alone": lambda row: row["path"].startswith("kaggle/Dataset/"),
    "all but SIIM": lambda row: row["source"] != "siim",
    "all": lambda row: True,
}


def main() -> None:
    """Write contrast.md."""
    parser = argparse.ArgumentParser(prog="python -m scripts.contrast", description=__doc__)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cache_file", required=True, help="made by training or evaluation")
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()

    def features_of(rows: Sequence[Row]) -> Tensor:
        images = cached(paths_of(rows), chosen.dataset_dir, chosen.cache_file, lacking)
        return published_features(images.large).clone()

    rows = [r for r in entries("docs/split.csv", ["training"]) if r["finding"] != "unsure"]
    test = entries("docs/split.csv", ["test"], children=False)
    features, judged = features_of(rows), features_of(test)
    columns: dict[str, dict[str, Value]] = {}
    for name, one in TAUGHT.items():
        places = [place for place, row in enumerate(rows) if one(row)]
        taught = [rows[place] for place in places]
        scores = regression_scores(taught, features[places], judged)
        columns[f"{name}, {len(taught)} images"] = {
            line: auroc_of(test, scores, kept) for line, kept in pairs(test).items()
        }
    text = (
        "# What the data alone give\n\nAUROC of one regression on the features of a network of "
        "photographs, adults of the test part, by the images that it is taught on; intervals of "
        f"95 %, patients resampled.\n\n{table(columns)}\n"
    )
    (chosen.output / "contrast.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
