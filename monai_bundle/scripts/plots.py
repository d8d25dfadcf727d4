"""Plots of the card, as PNG files; the same numbers always give the same bytes."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scripts.measures import Scored

from thoracle.evaluate.plots import COLOURS, DPI, GREY, reliability_diagram

WIDTH = 7.4
BINS = np.linspace(0, 1, 21)
BLUE, RED = COLOURS[0], COLOURS[1]


def reliability(parts: dict[str, Scored], path: Path) -> None:
    """Write how probabilities compare with what was observed, both classes weighing the same."""
    curves = {
        name: ([one.label for one in part.found], part.probabilities.tolist())
        for name, part in parts.items()
    }
    reliability_diagram(curves, path, title="Reliability, test part", balanced=True)


def histograms(parts: dict[str, Scored], path: Path) -> None:
    """Write how the probabilities of each kind of image are spread, the band in grey."""
    figure = Figure(figsize=(WIDTH, 0.7 + 0.9 * len(parts)), layout="constrained")
    grid = figure.subplots(len(parts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, part) in zip(grid, parts.items(), strict=True):
        values = part.probabilities.tolist()
        colour = RED if part.found[0].label else BLUE
        axes.axvspan(part.lower, part.upper, color="#EFEFEF", zorder=0)
        axes.hist(
            values, list(BINS), weights=np.full(len(values), 1 / len(values)), color=colour,
            edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        axes.text(
            0.5, 0.95, f"{name}, n = {len(values)}", transform=axes.transAxes, ha="center",
            va="top", fontsize=9,
        )  # fmt: skip
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    grid[0].set(xlim=(0, 1), ylim=(0, 1.3 * grid[0].get_ylim()[1]))
    grid[-1].set_xlabel("probability of COVID-19 (grey: indeterminate)")
    figure.supylabel("share of images", fontsize=10)
    _save(figure, path)


def training(logs: Sequence[Path], path: Path) -> None:
    """Write loss and AUROC of several runs over their epochs."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, log in enumerate(logs):
        with log.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        for axes, name in ((left, "loss"), (right, "val_auroc")):
            shown = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(*zip(*shown, strict=True), "o-", color=colour, label=log.parent.name)
    left.set(xlabel="epoch", ylabel="loss in training")
    right.set(xlabel="epoch", ylabel="AUROC, validation part")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#E3E3E3", linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    left.legend(frameon=False, fontsize=9, labelcolor=GREY)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # Without its version, matplotlib writes the same bytes for the same picture.
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
