"""What the data alone give: one regression, taught on more and more of them.

``python -m scripts.contrast --dataset_dir FOLDER --cache_file FILE --output FOLDER`` writes
``contrast.md``. The features are those of a network of photographs, the same for every column;
only the images that the regression is taught on differ. So a column says what can be learned from
Kaggle's "Chest X-Ray for COVID-19 Detection" alone, and a low figure is no fault of training. A
regression has no seeds.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.cache import cached
from scripts.constant_map import lacking
from scripts.data import Row, paths_of, read_rows
from scripts.experiment_tables import without
from scripts.linear_probe import regression_scores, scored_by
from scripts.report import Value, table
from scripts.shortcuts import auroc_of, pairs
from scripts.views import published_features
from torch import Tensor

TAUGHT: dict[str, Callable[[Row], bool]] = {
    "Kaggle set alone": lambda row: row["path"].startswith("kaggle/Dataset/"),
    "all but SIIM": lambda row: row["source"] != "siim",
    "all": lambda row: True,
}
LEFT_OUT = ("ieee8023", "covid_cxnet", "nih")


def main() -> None:
    """Write contrast.md."""
    parser = argparse.ArgumentParser(prog="python -m scripts.contrast", description=__doc__)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cache_file", required=True, help="made by training or evaluation")
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()

    rows = [
        row
        for row in read_rows("docs/split.csv")
        if row["finding"] != "unsure" and (row["split"] == "training" or row["age"] != "child")
    ]
    images = cached(paths_of(rows), chosen.dataset_dir, chosen.cache_file, lacking)
    features = published_features(images.large).clone()
    parts = ["# What the data alone give", data_table(rows, features)]
    everything = scored_by(rows, features, ())
    for source in LEFT_OUT:
        runs = {"base": [everything], f"without_{source}": [scored_by(rows, features, [source])]}
        parts += [f"## {source} left out, SIIM kept", without(runs, source)]
    (chosen.output / "contrast.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def data_table(rows: Sequence[Row], features: Tensor) -> str:
    """Return the AUROC on the test part by the images that the regression is taught on.

    Parameters
    ----------
    rows
        Of the split; of children only those of the training part.
    features
        ``(rows, n)``.
    """
    tested = [place for place, row in enumerate(rows) if row["split"] == "test"]
    test = [rows[place] for place in tested]
    columns: dict[str, dict[str, Value]] = {}
    for name, one in TAUGHT.items():
        places = [p for p, row in enumerate(rows) if row["split"] == "training" and one(row)]
        taught = [rows[place] for place in places]
        scores = regression_scores(taught, features[places], features[tested])
        columns[f"{name}, {len(taught)} images"] = {
            line: auroc_of(test, scores, kept) for line, kept in pairs(test).items()
        }
    return (
        "AUROC of one regression on the features of a network of photographs, adults of the test "
        "part, by the images that it is taught on; intervals of 95 %, patients resampled.\n\n"
        + table(columns)
    )


if __name__ == "__main__":
    main()
