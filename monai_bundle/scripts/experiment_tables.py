"""What the experiments say: ``python -m scripts.experiment_tables FOLDER --output docs``.

FOLDER is that of ``scripts.experiments``; ``experiments.md`` is written. Changes of the recipe are
judged by the validation part, because they were to choose it. ``--full`` adds folders of training
as it is, one for each seed. ``--earlier`` names an experiments.md that was made before: of a recipe
that had more seeds then, the first table keeps that column, and a section of it stays whose runs
are no longer there. Two runs of a seed differ a little when they had other numbers of threads.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.experiments import ARMS, LARGER, LONGER, SEEDS, SIDE, STEPS
from scripts.predictions import Prediction, read
from scripts.report import MAPS, RANKED, Value, left_out, measured, number, side_by_side

TITLES = {
    "base": "the recipe, shortened",
    "no_view_balance": "without balance by view",
    "no_map": "without the map",
    "patterns": "with patterns as a second output",
    "longer": f"shortened, but {LONGER * STEPS} steps",
    "larger": f"shortened, but {LARGER} x {LARGER} pixels",
    "full": "the recipe at full length and size",
}
"""Changes of the recipe, as the table names them."""
CHANGES = "Changes of the recipe, on the validation part"
LESS = "SIIM negatives called positive, AP less PA"
RATES = ("SIIM negatives called positive, AP", "SIIM negatives called positive, PA")

Runs = Mapping[str, Sequence[Sequence[Prediction]]]


def found_in(folder: Path) -> dict[str, list[list[Prediction]]]:
    """Return the predictions of each experiment that has any, a list for each seed."""
    found = {}
    for name in ARMS:
        files = [folder / name / f"seed{seed}" / "predictions.csv" for seed in SEEDS]
        if seeds := [read(file) for file in files if file.exists()]:
            found[name] = seeds
    return found


def validated(found: Sequence[Prediction]) -> dict[str, Value]:
    """Return the rows of one run on the validation part."""
    rows = measured([p for p in found if p.part == "validation"], 0.0, "validation")
    ap, pa = (number(rows[name]) for name in RATES)
    return rows | {LESS: None if ap is None or pa is None else ap - pa}


def changes(runs: Runs) -> str:
    """Return the table of the changes of the recipe."""
    columns = {
        title: [validated(found) for found in runs[name]]
        for name, title in TITLES.items()
        if name in runs
    }
    for title, seeds in columns.items():
        if title == TITLES["no_map"]:
            # Nobody taught it.
            for rows in seeds:
                rows.update(dict.fromkeys(MAPS))
    return side_by_side(columns, [*RANKED[: -len(MAPS)], LESS, *MAPS])


def without(runs: Runs, source: str) -> str:
    """Return what networks that did not see a source say of it, beside those that did."""
    blind = runs[f"without_{source}"]
    columns = {
        "left out, all of its images": blind,
        "left out, validation and test part": [_unseen(found) for found in blind],
        "in training, the same images": [_unseen(found) for found in runs["base"]],
    }
    judged = {
        name: [left_out(found, [source], 0.0) for found in seeds] for name, seeds in columns.items()
    }
    names = dict.fromkeys(name for seeds in judged.values() for rows in seeds for name in rows)
    return side_by_side(judged, list(names))


def _unseen(found: Sequence[Prediction]) -> list[Prediction]:
    return [one for one in found if one.part != "training"]


def alone(runs: Runs) -> str:
    """Return what networks taught on Kaggle's set alone say of the test part."""
    columns = {
        title: [measured(found, 0.0) for found in runs[name]]
        for name, title in (("kaggle_alone", "Kaggle set alone"), ("base", "all images"))
    }
    return side_by_side(columns, RANKED[: -len(MAPS)])


@dataclass(frozen=True, slots=True)
class _Column:
    seeds: int
    cells: Mapping[str, str]
    """By the name of the row."""


def _columns(text: str) -> dict[str, _Column]:
    """Return the columns of the first table in Markdown, by the name of the recipe."""
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), text.splitlines())
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line.startswith("|"), lines)
    ]
    found = {}
    for place, head in enumerate(table[0][1:], start=1):
        title, _, seeds = head.removesuffix(")").rpartition(" (")
        found[title] = _Column(int(seeds), {row[0]: row[place] for row in table[2:]})
    return found


def with_earlier(table: str, earlier: str) -> str:
    """Return a table with those columns of an earlier page that have more seeds."""
    new, old = _columns(table), _columns(earlier)
    columns = {
        title: max((one[title] for one in (new, old) if title in one), key=lambda one: one.seeds)
        for title in TITLES.values()
        if title in new or title in old
    }
    names = next(iter(new.values())).cells
    lines = [["", *(f"{title} ({one.seeds})" for title, one in columns.items())]]
    lines.append(["---"] * (len(columns) + 1))
    lines += [[name, *(one.cells.get(name, "") for one in columns.values())] for name in names]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sections(text: str) -> dict[str, str]:
    """Return what stands below each heading of the second level, by heading, both as written."""
    found = {}
    for part in text.split("\n## ")[1:]:
        heading, _, content = part.partition("\n")
        found[f"## {heading}"] = content.strip()
    return found


def page(runs: Runs, earlier: str = "") -> str:
    """Return experiments.md for the experiments that there are."""
    changed = changes(runs)
    made = {f"## {CHANGES}": with_earlier(changed, earlier) if earlier else changed}
    for name in runs:
        if name.startswith("without_"):
            source = name.removeprefix("without_")
            made[f"## {source} left out of training, SIIM kept"] = without(runs, source)
    if "kaggle_alone" in runs:
        made["## Fine-tuned on Kaggle's set alone, on the test part"] = alone(runs)
    introduction = (
        f"Shortened to {SIDE} x {SIDE} pixels and {STEPS} steps of 32, so that many can be run: "
        "they say what a change does, not how good the network is that ships (192 x 192 pixels, "
        "600 steps; [results.md](results.md)). Mean and range of the seeds; how many there were is "
        "in brackets, and one seed decides nothing. Made by `scripts.experiments` and "
        "`scripts.experiment_tables`."
    )
    parts = ["# Experiments", introduction]
    # The sections of the earlier page keep their places.
    for heading, content in (sections(earlier) | made).items():
        parts += [heading, content]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write experiments.md."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.experiment_tables", description=__doc__
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", type=Path, nargs="*", default=[])
    parser.add_argument("--earlier", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    runs = found_in(chosen.folder)
    if chosen.full:
        runs["full"] = [read(folder / "predictions.csv") for folder in chosen.full]
    text = page(runs, chosen.earlier.read_text(encoding="utf-8") if chosen.earlier else "")
    (chosen.output / "experiments.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
