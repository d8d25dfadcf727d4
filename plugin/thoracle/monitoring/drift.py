"""Whether scores and images are distributed as they were: by population stability index."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thoracle.monitoring.comparison import (
    WHAT_TO_DO,
    WHY_INPUT,
    WHY_SCORES,
    Comparison,
    Index,
    Level,
    population_stability,
    shown,
)
from thoracle.settings import Watch

LOOK = 0.4
"""Share of ``watch.alarm_index`` from which on a difference is worth a look: 0.1 of 0.25."""
DEVICES = 12
"""So many devices, the most frequent ones, are tried as the cause."""
LEAST_REST = 10
"""Images of other devices below which they cannot speak against the one."""
FEATURES = {
    "mean": "brightness",
    "contrast": "contrast",
    "dark": "darkest parts",
    "median": "middle grey",
    "bright": "brightest parts",
    "black": "share of black pixels",
    "white": "share of white pixels",
    "aspect": "width by height",
    "megapixels": "size in megapixels",
    "sharpness": "sharpness and noise",
    "lungs": "share of the image that is lung",
}
"""Of features.py and classify/: those that are watched, with names for people."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The images of a span of time, a column each."""

    devices: NDArray[Any]
    """``(n,)`` texts; empty for a device without a name."""
    bundles: NDArray[Any]
    """``(n,)`` digests."""
    values: dict[str, NDArray[np.float64]]
    """``(n,)`` each: ``probability``, and features; NaN where an image has none."""

    @classmethod
    def of(cls, rows: Any) -> "Sample":
        """Return the sample in rows of :func:`thoracle.monitoring.statistics.images`."""
        rows = list(rows)
        values = {"probability": np.array([row.probability for row in rows], np.float64)}
        for name in FEATURES:
            found = [(row.features or {}).get(name, np.nan) for row in rows]
            values[name] = np.array(found, np.float64)
        return cls(
            np.array([row.device or "" for row in rows], object),
            np.array([row.bundle_digest for row in rows], object),
            values,
        )

    def of_bundle(self, digest: str) -> "Sample":
        """Return what this bundle read."""
        mask = self.bundles == digest
        return Sample(
            self.devices[mask],
            self.bundles[mask],
            {name: value[mask] for name, value in self.values.items()},
        )

    def column(self, name: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return the values that there are, and their devices."""
        there = np.isfinite(self.values[name])
        return self.values[name][there], self.devices[there]


def scores(reference: Sample, window: Sample, days: int, settings: Watch) -> Comparison:
    """Return how the probabilities compare; those of the newest bundle alone are comparable."""
    exchanged = ""
    if len(window.bundles) and len(reference.bundles):
        newest = window.bundles[-1]
        if set(reference.bundles) | set(window.bundles) != {newest}:
            reference, window = reference.of_bundle(newest), window.of_bundle(newest)
            exchanged = (
                " The bundle was exchanged, and only what the newest one read is counted; let a "
                "reference begin after that day: set watch.reference_from."
            )
    return _compared(
        "scores", "Scores", "probability", reference, window, days, settings, WHY_SCORES, exchanged
    )


def inputs(reference: Sample, window: Sample, days: int, settings: Watch) -> list[Comparison]:
    """Return how the images compare, by each feature."""
    return [
        _compared(
            f"input {name}", f"Images: {said}", name, reference, window, days, settings, WHY_INPUT
        )
        for name, said in FEATURES.items()
    ]


def _compared(
    subject: str,
    name: str,
    column: str,
    reference: Sample,
    window: Sample,
    days: int,
    settings: Watch,
    why: str,
    remark: str = "",
) -> Comparison:
    was, was_devices = reference.column(column)
    now, now_devices = window.column(column)
    numbers = f"{len(now):,} images against {len(was):,}"
    if min(len(was), len(now)) < settings.minimum_studies:
        sentence = (
            f"{name} of the last {days} days are not compared: {numbers}, required are "
            f"{settings.minimum_studies:,} each.{remark}"
        )
        return Comparison(subject, name, Level.TOO_FEW, sentence)
    index = population_stability(was, now)
    level = level_of(index, settings)
    found = f"index {index.value:.2f}, alarm from {settings.alarm_index:g}: {numbers}"
    if level is Level.CALM:
        sentence = f"{name} of the last {days} days are like the reference ({found}).{remark}"
        return Comparison(subject, name, level, sentence, value=index.value, bins=index.bins)
    strongly = " strongly" if level is Level.ALARM else ""
    sentence = (
        f"{name} of the last {days} days differ{strongly} from the reference ({found}). "
        f"The median is {np.median(now):.3g}, it was {np.median(was):.3g}.{remark}"
    )
    device = contributor(was, now, now_devices, set(was_devices), index)
    return Comparison(
        subject, name, level, sentence, f"{why} {WHAT_TO_DO}", device, index.value, bins=index.bins
    )


def level_of(index: Index, settings: Watch) -> Level:
    """Return the level of a difference; one that chance may have made is none."""
    if index.value <= index.chance:
        return Level.CALM
    if index.value >= settings.alarm_index:
        return Level.ALARM
    return Level.LOOK if index.value >= LOOK * settings.alarm_index else Level.CALM


def contributor(
    was: NDArray[np.float64],
    now: NDArray[np.float64],
    devices: NDArray[Any],
    known: set[Any],
    index: Index,
) -> str | None:
    """Return which device most of a difference comes from: without it the index falls most."""
    counts = Counter(devices.tolist()).most_common(DEVICES)
    if len(counts) == 1:
        return f"All images are from {_called(counts[0][0], known)}."
    best, least = None, index.value
    for device, _ in counts:
        rest = now[devices != device]
        if len(rest) >= LEAST_REST:
            without = population_stability(was, rest).value
            if without < least:
                best, least = device, without
    if best is None:
        return "No single device stands out."
    share = np.mean(devices == best)
    return (
        f"Most of it comes from {_called(best, known)} ({share:.0%} of the images): without it "
        f"the index is {least:.2f}."
    )


def _called(device: str, known: set[Any]) -> str:
    new = "" if device in known else ", which is new"
    return f"{shown(device)}{new}"
