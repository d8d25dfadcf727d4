"""Predictions as a table: what a network said of each image, and what the image is."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

NUMBERS = ("logit", "view_score", "peak", "hit")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network said of one image."""

    path: str
    """As in docs/split.csv."""
    source: str
    finding: str
    """``covid``, ``unsure``, ``pneumonia`` or ``normal``."""
    category: str
    """As in docs/split.csv."""
    age: str
    """``adult`` or ``child``."""
    view: str
    """``AP``, ``PA`` or nothing; most of SIIM's and COVID-CXNet's are predicted."""
    group: str
    """Images of one group are of one patient, or look alike."""
    part: str
    """Part of the split: ``training``, ``validation`` or ``test``."""
    logit: float
    """Logit of COVID-19 minus the other's, neither calibrated nor with the view subtracted."""
    view_score: float
    """Logit of AP over PA as the network's own features tell it, in the unit of ``logit``."""
    peak: float
    """Greatest value of the map of opacities, 0 to 1."""
    hit: float
    """1 when the place of the peak is inside a box, 0 when not, -1 without boxes."""

    @property
    def label(self) -> int:
        """1 for COVID-19, else 0."""
        return int(self.finding == "covid")


SAME = ("path", "source", "finding", "category", "age", "view", "group")
"""Columns that docs/split.csv has under the same name."""
COLUMNS = tuple(field.name for field in fields(Prediction))


def of_scores(rows: Iterable[Mapping[str, str]], scores: Iterable[float]) -> list[Prediction]:
    """Return predictions for scores of images, rows of the split, when there is no map."""
    return [
        Prediction(
            **{name: row[name] for name in SAME},
            part=row["split"],
            logit=score,
            view_score=0.0,
            peak=0.0,
            hit=-1.0,
        )
        for row, score in zip(rows, scores, strict=True)
    ]


def write(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions as CSV; the folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for prediction in predictions:
            row = asdict(prediction)
            writer.writerow(row | {name: f"{row[name]:.5f}" for name in NUMBERS})


def read(path: str | Path) -> list[Prediction]:
    """Return the predictions of a file.

    Raises
    ------
    ValueError
        A column is missing, or a value is not a number.
    """
    with Path(path).open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        missing = set(COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: found no column {', '.join(sorted(missing))}")
        return [_prediction(row) for row in reader]


def _prediction(row: dict[str, str]) -> Prediction:
    values: dict[str, Any] = {name: row[name] for name in COLUMNS}
    values |= {name: float(row[name]) for name in NUMBERS}
    return Prediction(**values)
