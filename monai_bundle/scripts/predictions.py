"""Predictions as a table: what a model said of each image, and what the image is.

A file holds one fold. The fold ``within`` is trained on every source, and its test part counts; a
fold named by sources, as ``covid_cxnet+kermany``, is trained without them, and all their images
count.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

WITHIN = "within"
FINDINGS = {"covid": "COVID-19", "pneumonia": "other pneumonia", "normal": "normal"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said of one image."""

    path: str
    """As in docs/split.csv."""
    source: str
    finding: str
    """``covid``, ``pneumonia`` or ``normal``."""
    group: str
    """Images of one group are of one patient, or look alike."""
    fold: str
    part: str
    """Part of the split: ``training``, ``validation`` or ``test``."""
    logit: float
    """Logit of COVID-19 minus the other's with the offset of decision.json, not yet divided."""
    probability: float
    """After calibration, 0 to 1."""

    @property
    def label(self) -> int:
        """1 for COVID-19, else 0."""
        return int(self.finding == "covid")

    @property
    def kind(self) -> str:
        """Source and finding, to be read."""
        return f"{self.source} {FINDINGS[self.finding]}"


COLUMNS = tuple(field.name for field in fields(Prediction))


def from_logits(
    rows: Iterable[Mapping[str, str]], logits: Iterable[float], fold: str, temperature: float
) -> list[Prediction]:
    """Return predictions for rows of docs/split.csv, in their order.

    Parameters
    ----------
    rows
        With the columns of docs/split.csv.
    logits
        For each row, the logit of COVID-19 minus the other's, with the offset.
    fold
        ``within``, or the sources left out, joined by ``+``.
    temperature
        What the logits are divided by.
    """
    return [
        Prediction(
            path=row["path"],
            source=row["source"],
            finding=row["finding"],
            group=row["group"],
            fold=fold,
            part=row["split"],
            logit=float(logit),
            probability=_sigmoid(float(logit) / temperature),
        )
        for row, logit in zip(rows, logits, strict=True)
    ]


def _sigmoid(value: float) -> float:
    # exp() of a large number fails, of a large negative one it does not.
    return 1 / (1 + math.exp(-value)) if value > 0 else math.exp(value) / (1 + math.exp(value))


def write(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions as CSV; the folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for prediction in predictions:
            row = asdict(prediction)
            writer.writerow(row | {key: f"{row[key]:.6f}" for key in ("logit", "probability")})


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
        return [
            Prediction(
                **{name: row[name] for name in COLUMNS[:-2]},
                logit=float(row["logit"]),
                probability=float(row["probability"]),
            )
            for row in reader
        ]


def tested(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Return the predictions that count: of images that the fold's model was not made with."""
    return [
        one
        for one in predictions
        if (one.part == "test" if one.fold == WITHIN else one.source in one.fold.split("+"))
    ]


def write_json(content: Any, path: str | Path) -> None:
    """Write results as JSON: estimates as objects, numbers with four decimals."""
    text = json.dumps(_plain(content), indent=2)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _plain(content: Any) -> Any:
    if is_dataclass(content) and not isinstance(content, type):
        content = asdict(content)
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return round(content, 4) if isinstance(content, float) else content
