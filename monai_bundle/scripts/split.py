"""``docs/split.csv``, made from the manifests of the images.

``python -m scripts.split --dataset_dir FOLDER --output docs/split.csv`` keeps the part that an
image was given before, so that versions can be compared on images that none of them was taught.
New images go by patient: a group has one part alone. Nothing of an image is written but its path,
digest, and what its manifest says.
"""

import argparse
import csv
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from scripts.data import read_rows

COLUMNS = (
    "path",
    "sha256",
    "source",
    "finding",
    "category",
    "age",
    "view",
    "view_by",
    "group",
    "split",
)
SHARES = (("test", 0.15), ("validation", 0.25))
"""Of the patients: up to the first share test, up to the second validation, the rest training."""
COPIES = (("siim/typical/00c1515729a8.jpg", "siim/typical/9e844dea386a.jpg"),)
"""Images of two patient numbers whose pixels are the same: the second is left out."""
ADULT = 18
"""Years of age from which a patient counts as adult."""
CATEGORIES = {"negative": "normal", "typical": "covid", "indeterminate": "unsure"}
"""Finding for each category of SIIM; atypical is ``pneumonia``: not COVID-19, not healthy."""


def part_of(group: str) -> str:
    """Return the part of a new group, always the same."""
    # Salted: SIIM's patients themselves were drawn by a digest of their number.
    number = int(hashlib.sha256(f"part of {group}".encode()).hexdigest()[:8], 16) / 2**32
    return next((part for part, share in SHARES if number < share), "training")


def siim(dataset_dir: Path) -> Iterable[dict[str, str]]:
    """Yield the rows of SIIM."""
    left_out = {second for _, second in COPIES}
    for row in read_rows(dataset_dir / "siim" / "manifest.csv"):
        path = f"siim/{row['path']}"
        if path in left_out:
            continue
        yield {
            "path": path,
            "sha256": _sha256(dataset_dir / path),
            "source": "siim",
            "finding": CATEGORIES.get(row["label"], "pneumonia"),
            "category": row["label"],
            "age": "adult",
            "group": row["patient_id"],
            "split": part_of(row["patient_id"]),
        }


def kermany_pneumonia(dataset_dir: Path) -> Iterable[dict[str, str]]:
    """Yield the rows of Kermany's children with pneumonia."""
    for row in read_rows(dataset_dir / "kermany_pneumonia" / "manifest.csv"):
        yield {
            "path": row["path"],
            "sha256": row["sha256"],
            "source": "kermany",
            "finding": "pneumonia",
            "category": row["finding"],
            "age": "child",
            "group": row["patient_id"],
            "split": part_of(row["patient_id"]),
        }


def kaggle(dataset_dir: Path, former: Iterable[Mapping[str, str]]) -> Iterable[dict[str, str]]:
    """Yield the rows of the images that have a part already, with age and view as far as known."""
    folder = dataset_dir / "kaggle"
    known = {
        row["path"]: row
        for name in ("manifest.csv", "more/manifest.csv")
        for row in read_rows(folder / name)
    }
    nih = {row["path"]: row for row in read_rows(folder / "nih_enrich.csv")}
    for row in former:
        path = row["path"].removeprefix("kaggle/")
        if not row["path"].startswith(("kaggle/", "Dataset/", "extra/", "more/")):
            continue
        detail = nih.get(path)
        view = detail["view"] if detail else known[path]["view"]
        # Kermany's are all AP and of children: they would teach age as a view.
        stated = view in ("AP", "PA") and row["source"] != "kermany"
        yield {
            "path": f"kaggle/{path}",
            "sha256": row["sha256"],
            "source": row["source"],
            "finding": row["finding"],
            "category": detail["finding_labels"] if detail else "",
            "age": _age(row["source"], detail, known[path]),
            "view": view if stated else "",
            "view_by": "manifest" if stated else "",
            "group": row["group"],
            "split": row["split"],
        }


def _age(source: str, detail: Mapping[str, str] | None, row: Mapping[str, str]) -> str:
    if detail:
        return "adult" if int(detail["age"]) >= ADULT else "child"
    return "child" if source == "kermany" or row["age_group"].startswith("child") else "adult"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write the rows in the order of their paths."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["path"]))


def main() -> None:
    """Write the split; views that no manifest gives are added by ``scripts.views``."""
    parser = argparse.ArgumentParser(prog="python -m scripts.split", description=__doc__)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/split.csv"))
    chosen = parser.parse_args()
    folder = chosen.dataset_dir
    former = read_rows(chosen.output)
    write(chosen.output, [*kaggle(folder, former), *siim(folder), *kermany_pneumonia(folder)])


if __name__ == "__main__":
    main()
