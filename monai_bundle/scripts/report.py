"""The tables of the card: ``python -m scripts.report SEED ... --output FOLDER``.

Each folder holds the ``predictions.csv`` and ``curves.csv`` of one run of training, with another
seed. ``--left_out SOURCE+SOURCE=FOLDER,FOLDER`` adds runs that did not see some sources, and
``--tried NAME=FOLDER,FOLDER`` runs of a changed recipe; their folders are seeds, too.
"""

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from scripts import plots
from scripts.calibration import LIMITS, SHIPPED_LIMIT
from scripts.measures import Scored, averaged, pointing, scored
from scripts.predictions import Prediction, read

from thoracle.evaluate.metrics import Estimate

Value = Estimate | float | None
HEALTHY, OTHER = "normal", "pneumonia"
TITLES = {"covid": "COVID-19", OTHER: "other pneumonia", HEALTHY: "healthy"}
MAPS = ("greatest place of the map inside a box, all", "the same, typical")

RANKED = (
    "SIIM, typical against negative",
    "the same within AP",
    "the same within PA",
    "SIIM, typical against atypical",
    "ieee8023 against NIH's healthy",
    "ieee8023 against NIH's other pneumonia",
    "covid_cxnet against NIH's healthy",
    "covid_cxnet against NIH's other pneumonia",
    "AP against PA among healthy NIH adults (0.5 is right)",
    *MAPS,
)
"""Rows that need no calibration."""


def judged_adults(answers: Scored, part: str = "test") -> Scored:
    """Return adults of the test part, or another; ``unsure`` is neither right nor wrong."""
    return answers.part(lambda p: p.part == part and p.age == "adult" and p.finding != "unsure")


def siim(answers: Scored, *categories: str) -> Scored:
    """Return SIIM's images of some categories."""
    return answers.part(lambda p: p.source == "siim" and p.category in categories)


def pair(answers: Scored, positive: str, negative: str, finding: str) -> Scored:
    """Return COVID-19 of one source and a finding of another."""
    return answers.part(
        lambda p: (
            (p.source == positive and bool(p.label))
            or (p.source == negative and p.finding == finding)
        )
    )


def _view(answers: Scored, view: str) -> Scored:
    return answers.part(lambda p: p.view == view)


def measured(
    found: Sequence[Prediction], view_share: float, part: str = "test"
) -> dict[str, Value]:
    """Return the rows of the table of one run, judged on the test part or another."""
    answers = scored(found, view_share)
    test = judged_adults(answers, part)
    both = siim(test, "typical", "negative")
    negatives = siim(test, "negative")
    others = test.part(lambda p: p.source != "siim")
    # Few were taken of either view: the validation part counts, too.
    healthy = answers.part(
        lambda p: p.source == "nih" and p.finding == HEALTHY and p.age == "adult"
    )
    figures = answers.part(lambda p: p.source == "ieee8023" and p.finding != HEALTHY)
    rows: dict[str, Value] = {
        "SIIM, typical against negative": both.auroc(),
        "the same within AP": _view(both, "AP").auroc(),
        "the same within PA": _view(both, "PA").auroc(),
        "SIIM, typical against atypical": siim(test, "typical", "atypical").auroc(),
    }
    for positive in ("ieee8023", "covid_cxnet"):
        for finding, name in ((HEALTHY, "healthy"), (OTHER, "other pneumonia")):
            rows[f"{positive} against NIH's {name}"] = pair(test, positive, "nih", finding).auroc()
    if len({p.label for p in figures.found}) == 2:
        rows["ieee8023 against its own other pneumonia"] = figures.auroc()
    rows |= {
        "AP against PA among healthy NIH adults (0.5 is right)": healthy.view_auroc(),
        "SIIM negatives called positive, AP": _view(negatives, "AP").called_positive(),
        "SIIM negatives called positive, PA": _view(negatives, "PA").called_positive(),
        f"band, lower end (at most {SHIPPED_LIMIT:.0%} wrong)": answers.lower,
        "band, upper end": answers.upper,
        "undecided, SIIM typical and negative": both.shares()[0],
        "wrong among decided, the same": both.shares()[1],
        "undecided, other sources": others.shares()[0],
        "wrong among decided, the same sources": others.shares()[1],
        "ECE, SIIM typical and negative": both.calibration_error(),
        "ECE, other sources": others.calibration_error(),
        "ECE of true probabilities by chance, SIIM": both.chance_error(),
        "the same, other sources": others.chance_error(),
        MAPS[0]: pointing(of_part(found, part)),
        MAPS[1]: pointing([p for p in of_part(found, part) if p.category == "typical"]),
    }
    return rows


def of_part(found: Iterable[Prediction], part: str) -> list[Prediction]:
    """Return the predictions of a part of the split."""
    return [one for one in found if one.part == part]


def said(value: Value) -> str:
    """Return a value as a table says it."""
    if value is None:
        return ""
    if isinstance(value, Estimate):
        return f"{value.value:.3f} ({value.lower:.3f} to {value.upper:.3f})"
    return f"{value:.3f}"


def number(value: Value) -> float | None:
    """Return a value without its interval."""
    return value.value if isinstance(value, Estimate) else value


def table(columns: dict[str, dict[str, Value]], summary: Sequence[str] = ()) -> str:
    """Return runs side by side in Markdown; ``summary`` names those of which mean and range go."""
    names = list(dict.fromkeys(name for rows in columns.values() for name in rows))
    head = ["", *(["mean (range)"] if summary else []), *columns]
    lines = [head, ["---"] * len(head)]
    for name in names:
        cells = [name]
        if summary:
            cells.append(mean_and_range([columns[one].get(name) for one in summary]))
        cells += [said(rows.get(name)) for rows in columns.values()]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_and_range(values: Sequence[Value]) -> str:
    """Return the mean of what several seeds have, and their range."""
    known = [one for one in map(number, values) if one is not None]
    if not known:
        return "too few"
    if len(known) == 1:
        return f"{known[0]:.3f}"
    return f"{sum(known) / len(known):.3f} ({min(known):.3f} to {max(known):.3f})"


def by_share(seeds: Sequence[Sequence[Prediction]]) -> str:
    """Return what subtracting more or less of the view does, means of the seeds."""
    names = (
        "SIIM, typical against negative",
        "the same within AP",
        "the same within PA",
        "covid_cxnet against NIH's healthy",
        "covid_cxnet against NIH's other pneumonia",
        "AP against PA among healthy NIH adults (0.5 is right)",
        "SIIM negatives called positive, AP",
        "SIIM negatives called positive, PA",
    )
    columns: dict[str, dict[str, Value]] = {}
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        rows = [measured(found, share) for found in seeds]
        means: dict[str, Value] = {}
        for name in names:
            values = [number(row[name]) for row in rows]
            means[name] = sum(v for v in values if v is not None) / len(values)
        columns[f"{share:g} of it"] = means
    return table(columns)


def bands(found: Sequence[Prediction], view_share: float) -> str:
    """Return what each limit of wrong answers costs on the test part."""
    columns: dict[str, dict[str, Value]] = {}
    for limit in LIMITS:
        answers = scored(found, view_share, limit)
        test = judged_adults(answers)
        both = siim(test, "typical", "negative").shares()
        others = test.part(lambda p: p.source != "siim").shares()
        columns[f"at most {limit:.0%} wrong"] = {
            "negative below": answers.lower,
            "positive from": answers.upper,
            "undecided, SIIM typical and negative": both[0],
            "wrong among decided, the same": both[1],
            "undecided, other sources": others[0],
            "wrong among decided, the same sources": others[1],
        }
    return table(columns)


def kinds(answers: Scored) -> dict[str, Scored]:
    """Return the test part by source and finding, COVID-19 first."""
    test = judged_adults(answers)
    names = sorted({(-p.label, p.source, p.finding) for p in test.found})

    def of(source: str, finding: str) -> Callable[[Prediction], bool]:
        return lambda p: (p.source, p.finding) == (source, finding)

    return {
        f"{source}, {TITLES[finding]}": test.part(of(source, finding))
        for _, source, finding in names
    }


def left_out(
    found: Sequence[Prediction], sources: Collection[str], view_share: float
) -> dict[str, Value]:
    """Return what a run that did not see some sources says of their adults, against all others.

    All images of the sources left out count, and of the others those of the test part.
    """
    answers = scored(found, view_share, without=sources)
    adults = answers.part(lambda p: p.age == "adult" and p.finding != "unsure")
    if "siim" in sources:
        both = siim(adults, "typical", "negative")
        rows: dict[str, Value] = {
            "SIIM, typical against negative": both.auroc(),
            "the same within AP": _view(both, "AP").auroc(),
            "the same within PA": _view(both, "PA").auroc(),
            "SIIM, typical against atypical": siim(adults, "typical", "atypical").auroc(),
        }
    else:
        kept = adults.part(lambda p: p.source in sources or p.part == "test")
        rows = {
            f"{positive} against {negative}, {TITLES[finding]}": pair(
                kept, positive, negative, finding
            ).auroc()
            for positive in sorted({p.source for p in kept.found if p.label})
            for negative, finding in sorted({(p.source, p.finding) for p in kept.found})
            if finding != "covid" and {positive, negative} & set(sources)
        }
        both = kept.part(lambda p: p.source != "siim" and p.finding in ("covid", HEALTHY))
    rows = {name: value for name, value in rows.items() if value is not None}
    rows["undecided, COVID-19 and healthy"], rows["wrong among decided, the same"] = both.shares()
    rows["ECE, the same"] = both.calibration_error()
    return rows


def tried(runs: Mapping[str, Sequence[Sequence[Prediction]]], view_share: float) -> str:
    """Return what changed recipes give on the test part, mean and range of their seeds.

    Only what needs no calibration: some did not see what others are calibrated on.
    """
    columns = {
        name: [measured(found, view_share) for found in seeds] for name, seeds in runs.items()
    }
    return side_by_side(columns, RANKED)


def side_by_side(columns: Mapping[str, Sequence[Mapping[str, Value]]], names: Sequence[str]) -> str:
    """Return some rows of several recipes in Markdown: mean and range of the seeds of each.

    Parameters
    ----------
    columns
        The rows of each seed, by the name of the recipe. Its number of seeds is said beside it.
    names
        Of the rows.
    """
    head = [f"{name} ({len(seeds)})" for name, seeds in columns.items()]
    lines = [["", *head], ["---"] * (len(columns) + 1)]
    for name in names:
        cells = [mean_and_range([rows.get(name) for rows in seeds]) for seeds in columns.values()]
        lines.append([name, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _runs(given: str) -> tuple[str, dict[str, list[Prediction]]]:
    """Return name and predictions of ``NAME=FOLDER,FOLDER``."""
    name, folders = given.split("=")
    return name, {
        folder.name: read(folder / "predictions.csv") for folder in map(Path, folders.split(","))
    }


def main() -> None:
    """Write results.md and the plots."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report", description=__doc__)
    parser.add_argument("seeds", type=Path, nargs="+", help="the first is the one that ships")
    parser.add_argument("--left_out", action="append", default=[], metavar="SOURCE=FOLDER")
    parser.add_argument("--tried", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--view_share", type=float, default=0.0)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    share = chosen.view_share
    found = [read(folder / "predictions.csv") for folder in chosen.seeds]
    columns = {
        folder.name: measured(one, share) for folder, one in zip(chosen.seeds, found, strict=True)
    }
    names = list(columns)
    columns["mean of the logits"] = measured(averaged(found), share) | dict.fromkeys(MAPS)
    parts = [
        "# Results",
        "Adults of the test part unless a row says otherwise; intervals of 95 %, patients "
        "resampled. AP and PA of SIIM and COVID-CXNet are predicted (scripts/views.py).",
        table(columns, names),
        "## How much of the view is subtracted (means of the seeds)",
        by_share(found),
        f"## What each limit costs ({names[0]})",
        bands(found[0], share),
    ]
    for given in chosen.left_out:
        sources, runs = _runs(given)
        rows = {name: left_out(one, sources.split("+"), share) for name, one in runs.items()}
        several = list(rows) if len(rows) > 1 else []
        parts += [f"## Training without {sources.replace('+', ' and ')}", table(rows, several)]
    if chosen.tried:
        named = [_runs(given) for given in chosen.tried]
        recipes = {name: list(runs.values()) for name, runs in named}
        parts += ["## Changed recipes, and how many seeds of each", tried(recipes, share)]
    answers = scored(found[0], share)
    (chosen.output / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    shown = kinds(answers)
    plots.histograms({name: part for name, part in shown.items() if len(part.found) >= 20},
                     chosen.output / "scores.png")  # fmt: skip
    test = judged_adults(answers)
    curves = {
        "SIIM, typical and negative": siim(test, "typical", "negative"),
        "other sources": test.part(lambda p: p.source != "siim"),
    }
    plots.reliability(curves, chosen.output / "reliability.png")
    plots.training(
        [folder / "curves.csv" for folder in chosen.seeds], chosen.output / "training.png"
    )


if __name__ == "__main__":
    main()
