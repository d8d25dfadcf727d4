"""Reliability diagrams and ROC curves as PNG files. Needs matplotlib: the extra ``evaluate``."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from thoracle.evaluate.metrics import (
    Calibration,
    Estimate,
    calibration,
    checked,
    rates,
)
from thoracle.evaluate.thresholds import roc

Curves = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""By name, labels ``(n,)`` of 0 and 1 with scores ``(n,)``; both classes have images."""

Areas = Mapping[str, Estimate]
"""AUROC by the name of the curve."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which people with any colour vision tell apart."""
MARKERS = "osD^vPX"
LINES = ("-", "--", "-.", ":")
GREY = "#6B6B6B"
DPI = 150
BARS = np.linspace(0, 1, 21)


def reliability_diagram(
    curves: Curves, path: Path, *, title: str = "Reliability", balanced: bool = False
) -> None:
    """Write a reliability diagram: what was observed over what the model said.

    Points are bins of equal mass with Wilson intervals of 95 %; the steps below are the numbers of
    images. The same curves always give the same bytes.

    Parameters
    ----------
    curves
        Named labels and probabilities, 0 to 1; up to seven are easy to tell apart.
    path
        PNG file to write; one there is replaced.
    title
        Printed above.
    balanced
        Both classes weigh the same, as in :func:`thoracle.evaluate.metrics.calibration`.

    Raises
    ------
    ValueError
        A curve without images of both classes, or a probability outside 0 to 1.
    """
    figure = Figure(figsize=(6.4, 7.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _draw_reliability(upper, lower, curves, balanced)
    upper.set_title(title, loc="left", fontweight="bold")
    _save(figure, path)


def evaluation(curves: Curves, path: Path, *, threshold: float, areas: Areas) -> None:
    """Write ROC curves and reliability diagram beside each other.

    The legend says each AUROC with its 95 % bootstrap interval (``areas``), and how many images are
    behind it. What ``threshold`` does is marked on each curve. The same curves always give the same
    bytes.

    Raises
    ------
    ValueError
        A curve without images of both classes.
    """
    figure = Figure(figsize=(12.4, 7.2), layout="constrained")
    left, right = figure.subfigures(1, 2, wspace=0.04, squeeze=False)[0]
    axes = left.subplots()
    upper, lower = right.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _draw_roc(axes, curves, threshold, areas)
    _draw_reliability(upper, lower, curves, balanced=False)
    axes.set_title("ROC", loc="left", fontweight="bold")
    upper.set_title("Reliability", loc="left", fontweight="bold")
    _save(figure, path)


def _draw_roc(axes: Axes, curves: Curves, threshold: float, areas: Areas) -> None:
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=(0, (1, 2)), label="chance")
    for index, (name, (labels, scores)) in enumerate(curves.items()):
        colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
        cases, values = checked(labels, scores)
        area = areas[name]
        curve = roc(cases, values)
        label = (
            f"{_plain(name)}: AUROC {area.value:.3f} [{area.lower:.3f} to {area.upper:.3f}], "
            f"{int(cases.sum())} positive, {int((~cases).sum())} negative"
        )
        axes.plot(
            1 - curve.specificity, curve.sensitivity, line, color=colour, linewidth=2, label=label
        )
        found = rates(cases, values, threshold)
        assert found.sensitivity is not None
        assert found.specificity is not None
        axes.plot(
            1 - found.specificity.value,
            found.sensitivity.value,
            MARKERS[index % len(MARKERS)],
            color=colour,
            markersize=9,
            markeredgecolor="white",
            zorder=3,
        )
    axes.plot([], [], "o", color=GREY, label=f"at threshold {threshold:g}")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    axes.set_aspect("equal")
    _finish(axes)


def _draw_reliability(upper: Axes, lower: Axes, curves: Curves, balanced: bool) -> None:
    upper.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle=(0, (1, 2)), label="calibrated")
    values = []
    for index, (name, (labels, probabilities)) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        found = calibration(labels, probabilities, balanced=balanced)
        values.append(checked(labels, probabilities)[1])
        _draw_points(upper, found, name, colour, MARKERS[index % len(MARKERS)])
    if len(curves) == 1:
        _write_numbers(upper, found)
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(values))]
    for numbers, colour in zip(values, colours, strict=True):
        lower.hist(numbers, bins=list(BARS), histtype="step", color=colour, linewidth=1.5)
    lower.set(xlabel="probability that the model says", ylabel="images")
    upper.set_ylabel("share of cases" + (", both classes weighing the same" if balanced else ""))
    upper.tick_params(labelbottom=True)
    for side in ("top", "right"):
        lower.spines[side].set_visible(False)
    _finish(upper)


def _draw_points(axes: Axes, found: Calibration, name: str, colour: str, marker: str) -> None:
    """Draw the bins of a curve, with their intervals."""
    x = np.array([one.probability for one in found.bins])
    y = np.array([one.observed.value for one in found.bins])
    below = y - [one.observed.lower for one in found.bins]
    above = np.array([one.observed.upper for one in found.bins]) - y
    n = sum(one.n for one in found.bins)
    axes.errorbar(
        x,
        y,
        yerr=(below, above),
        fmt=marker + "-",
        color=colour,
        linewidth=1.5,
        elinewidth=1,
        capsize=3,
        markersize=6,
        markeredgecolor="white",
        label=f"{_plain(name)}: n = {n}, ECE {found.error:.3f}, Brier {found.brier:.3f}",
    )


def _write_numbers(axes: Axes, found: Calibration) -> None:
    """Write beside each bin how many images are in it."""
    for one in found.bins:
        axes.annotate(
            str(one.n),
            (one.probability, one.observed.value),
            xytext=(7, -11 if one.observed.value > 0.05 else 5),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )


def _plain(name: str) -> str:
    """Return a name of which matplotlib takes no character for a sign of its own."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _finish(axes: Axes) -> None:
    """Give axes from 0 to 1 a quiet grid, and their legend below."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure = axes.figure
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=9
    )


def _save(figure: Figure, path: Path) -> None:
    # Without its version, matplotlib writes the same bytes for the same picture.
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
