"""Plots of a report, as PNG files; the same numbers always give the same bytes."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scripts.folds import by_kind
from scripts.predictions import WITHIN, Prediction

from thoracle.evaluate.plots import COLOURS, DPI, GREY, reliability_diagram

WIDTH = 7.4
BINS = np.linspace(0, 1, 21)
BLUE, RED = COLOURS[0], COLOURS[1]
Folds = Mapping[str, list[Prediction]]


def write(
    folds: Folds, content: Mapping[str, Any], output: Path, training_log: str | Path | None
) -> None:
    """Write every plot for which there are numbers.

    Parameters
    ----------
    folds
        Predictions that count, by fold.
    content
        Results, as in results.json.
    output
        Folder to write to.
    training_log
        CSV file with the columns ``epoch``, ``loss``, ``val_auroc`` and perhaps ``val_loss``.
    """
    reliability(folds, output)
    aurocs(content["folds"], output / "aurocs.png")
    for name, predictions in folds.items():
        rule = content["folds"][name]["rule"]
        histograms(name, predictions, (rule.lower, rule.upper), output / f"scores_{name}.png")
    if "faithfulness" in content:
        faithfulness(content["faithfulness"], output / "faithfulness.png")
    if training_log:
        training(training_log, output / "training.png")


def reliability(folds: Folds, output: Path) -> None:
    """Write a reliability diagram within the sources, and one of sources that are left out."""
    curves = {
        name: ([one.label for one in images], [one.probability for one in images])
        for name, images in folds.items()
        if len({one.label for one in images}) == 2
    }
    parts = {
        "within": {name: curve for name, curve in curves.items() if name == WITHIN},
        "unseen": {f"without {n}": curve for n, curve in curves.items() if n != WITHIN},
    }
    titles = {"within": "Reliability, sources of training", "unseen": "Reliability, other sources"}
    for part, chosen in parts.items():
        if chosen:
            path = output / f"reliability_{part}.png"
            reliability_diagram(chosen, path, title=titles[part], balanced=True)


def aurocs(folds: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write the AUROC of each pair of each fold, with its interval, and the thumbnail model's."""
    rows = [(name, row) for name, fold in folds.items() for row in fold["pairs"] if row["auroc"]]
    figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * (len(rows) + len(folds))), layout="constrained")
    axes = figure.subplots()
    place, ticks, names = 0.0, [], []
    for index, (fold, row) in enumerate(rows):
        if index == 0 or fold != rows[index - 1][0]:
            title = "sources of training (test part)" if fold == WITHIN else f"without {fold}"
            axes.text(
                0.0,
                place,
                title,
                transform=axes.get_yaxis_transform(),
                fontweight="bold",
                va="center",
                fontsize=9,
                bbox={"color": "white", "pad": 1},
            )
            place += 1
        _interval(axes, place, row["auroc"], BLUE, "o", 0)
        if row.get("thumbnail auroc"):
            _interval(axes, place, row["thumbnail auroc"], RED, "D", 0.28)
        ticks.append(place)
        names.append(
            f"{row['positive']} / {row['negative']} ({row['n positive']} + {row['n negative']})"
        )
        place += 1
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
    axes.set_yticks(ticks, names, fontsize=9)
    axes.set(ylim=(place - 0.4, -0.7), xlabel="AUROC with 95 % interval")
    axes.plot([], [], "o", color=BLUE, label="model")
    if any(row.get("thumbnail auroc") for _, row in rows):
        axes.plot([], [], "D", color=RED, label="16 x 16 thumbnails alone")
    _finish(axes)
    _save(figure, path)


def _interval(
    axes: Axes, place: float, estimate: Any, colour: str, marker: str, down: float
) -> None:
    axes.plot((estimate.lower, estimate.upper), (place + down,) * 2, color=colour, linewidth=2)
    axes.plot(
        estimate.value, place + down, marker, color=colour, markersize=6, markeredgecolor="white"
    )


def histograms(
    fold: str, predictions: list[Prediction], band: tuple[float, float], path: Path
) -> None:
    """Write how the probabilities of each source and finding are spread."""
    kinds = by_kind(predictions)
    figure = Figure(figsize=(WIDTH, 0.7 + 1.0 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, images) in zip(grid, kinds.items(), strict=True):
        values = [one.probability for one in images]
        colour = RED if images[0].label else BLUE
        shares = np.full(len(values), 1 / len(values))
        axes.axvspan(*band, color="#EFEFEF", zorder=0)
        axes.hist(
            values, list(BINS), weights=shares, color=colour, edgecolor="white", linewidth=0.5
        )
        axes.text(
            0.5,
            0.95,
            f"{name}, n = {len(values)}",
            transform=axes.transAxes,
            ha="center",
            va="top",
            fontsize=9,
        )
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    grid[0].set_title(
        "Sources of training (test part)" if fold == WITHIN else f"Without {fold}",
        loc="left",
        fontweight="bold",
        fontsize=10,
    )
    # Room for the names above the highest bar.
    grid[0].set(xlim=(0, 1), ylim=(0, 1.3 * grid[0].get_ylim()[1]))
    grid[-1].set_xlabel("probability of COVID-19 (grey: indeterminate)")
    figure.supylabel("share of images", fontsize=10)
    _save(figure, path)


def faithfulness(result: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write the deletion and the insertion curves of each map."""
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, part in ((left, "deletion"), (right, "insertion")):
        for index, (name, row) in enumerate(result.items()):
            curve = row["curves"][part]
            x = np.linspace(0, 1, len(curve))
            axes.plot(
                x,
                curve,
                ("-", "--", "-.")[index % 3],
                color=COLOURS[index],
                linewidth=2,
                label=name,
            )
        random = next(iter(result.values()))["curves"][f"random_{part}"]
        axes.plot(x, random, ":", color=GREY, linewidth=2, label="random order")
        axes.set(title=part, xlabel="share of the lung blocks", xlim=(0, 1), ylim=(0, 1))
        axes.grid(color="#E3E3E3", linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    left.set_ylabel("mean probability of COVID-19")
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    _save(figure, path)


def training(log: str | Path, path: Path) -> None:
    """Write losses and AUROC over epochs."""
    with Path(log).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    epochs = [float(row["epoch"]) for row in rows]
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, title, colour, line, axes in (
        ("loss", "training", BLUE, "o-", left),
        ("val_loss", "validation", RED, "s--", left),
        ("val_auroc", "validation", RED, "s--", right),
    ):
        if not all(row.get(name) for row in rows):
            continue
        values = [float(row[name]) for row in rows]
        axes.plot(epochs, values, line, color=colour, markeredgecolor="white", label=title)
    left.set(xlabel="epoch", ylabel="loss")
    right.set(xlabel="epoch", ylabel="AUROC, sources of training")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#E3E3E3", linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def _finish(axes: Axes) -> None:
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower right",
        ncols=2,
        frameon=False,
        fontsize=9,
    )


def _save(figure: Figure, path: Path) -> None:
    # Without its version, matplotlib writes the same bytes for the same picture.
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
