"""What a comparison of the last days with the reference came to, in sentences for everybody."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

# ---- statistics ----------------------------------------------------------------------------------
# How different two samples are, and whether chance alone may have made them so.

Z95, Z999 = 1.959964, 3.290527
"""Quantiles of the normal distribution: two-sided intervals of 95 and 99.9 per cent."""
CHI_SQUARE_999 = (10.828, 13.816, 16.266, 18.467, 20.515, 22.458, 24.322, 26.124, 27.877)
"""99.9 per cent points of chi-square with 1 to 9 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Index:
    """The population stability index of two samples."""

    value: float
    """0 for equal distributions; 0.1 is a slight shift, 0.25 a strong one."""
    chance: float
    """What two samples of these sizes from one population exceed once in a thousand times."""
    bins: tuple[tuple[float, float, float], ...]
    """Of each bin: upper end (infinite for the last), share of the reference, of the window."""


def population_stability(reference: NDArray[Any], window: NDArray[Any]) -> Index:
    """Return the population stability index over the deciles of the reference.

    A value that stands at two deciles or more gets a bin of its own, so that a sample of many equal
    values (a share that is mostly 0) is compared, too. Half a count is added to each bin, so that
    an empty one makes the index large and not infinite.

    Parameters
    ----------
    reference, window
        ``(n,)``, finite, neither empty.
    """
    reference, window = reference.astype(np.float64), window.astype(np.float64)
    deciles = np.quantile(reference, np.arange(1, 10) / 10, method="higher")
    edges, times = np.unique(deciles, return_counts=True)
    ends = np.unique(np.concatenate([edges, np.nextafter(edges[times > 1], -np.inf)]))
    counted = [
        np.bincount(np.searchsorted(ends, one, side="left"), minlength=len(ends) + 1)
        for one in (reference, window)
    ]
    used = (counted[0] + counted[1]) > 0
    shares = [(one[used] + 0.5) / (one.sum() + 0.5 * used.sum()) for one in counted]
    value = float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))
    freedom = max(1, min(int(used.sum()) - 1, len(CHI_SQUARE_999)))
    chance = CHI_SQUARE_999[freedom - 1] * (1 / len(reference) + 1 / len(window))
    uppers = np.append(ends, np.inf)[used]
    real = [one[used] / one.sum() for one in counted]
    bins = tuple(
        (float(end), float(was), float(now)) for end, was, now in zip(uppers, *real, strict=True)
    )
    return Index(value, chance, bins)


def wilson(found: int, number: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's interval of a share, ``found`` of ``number``; the whole range for none."""
    if number == 0:
        return 0.0, 1.0
    share, square = found / number, z * z
    middle = (share + square / (2 * number)) / (1 + square / number)
    half = sqrt(share * (1 - share) / number + square / (4 * number**2)) * z / (1 + square / number)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(
    was: tuple[int, int], now: tuple[int, int], z: float = Z999
) -> tuple[float, float, float]:
    """Return how much larger a share is now than it was, and Newcombe's interval of that.

    Parameters
    ----------
    was, now
        How many of how many; of one at least.
    """
    shares = (was[0] / was[1], now[0] / now[1])
    (low_was, high_was), (low_now, high_now) = wilson(*was, z), wilson(*now, z)
    change = shares[1] - shares[0]
    down = sqrt((shares[1] - low_now) ** 2 + (high_was - shares[0]) ** 2)
    up = sqrt((high_now - shares[1]) ** 2 + (shares[0] - low_was) ** 2)
    return change, change - down, change + up


# ---- comparison ----------------------------------------------------------------------------------


class Level(StrEnum):
    """How much a comparison asks for."""

    CALM = "calm"
    """As it was, as far as the numbers can tell."""
    LOOK = "look"
    """Different, and more than chance: worth a look at the next occasion."""
    ALARM = "alarm"
    """So different that somebody has to find out why."""
    TOO_FEW = "too few"
    """Not compared."""


ORDER = (Level.ALARM, Level.LOOK, Level.TOO_FEW, Level.CALM)
"""From the most to the least urgent."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of the last days beside the reference's."""

    subject: str
    """Short and lasting: ``scores``, ``rejected``, ``input sharpness``; the key of the alarm."""
    name: str
    """As a heading."""
    level: Level
    sentence: str
    """What was found."""
    advice: str = ""
    """Likely causes and what to do; empty when calm."""
    device: str | None = None
    """What device most of it comes from, as a phrase."""
    value: float | None = None
    """The index, or the share."""
    study_instance_uid: str | None = None
    """The study that an alarm names first."""
    outside: str = ""
    """The sentence for those who may know of no study; empty: ``sentence`` names none."""
    bins: tuple[tuple[float, float, float], ...] = ()
    """As of :class:`~thoracle.monitoring.comparison.Index`."""


def worst(comparisons: Sequence[Comparison]) -> Level:
    """Return the most urgent level."""
    found = {one.level for one in comparisons}
    return next((level for level in ORDER if level in found), Level.TOO_FEW)


def shown(device: str | None) -> str:
    """Return the name of a device, which its sender chose, in one harmless line."""
    if not device:
        return "an unnamed device"
    return "".join(sign if sign.isprintable() else "?" for sign in device)


WHY_SCORES = (
    "Most likely causes: a new or newly adjusted device, changed image processing, other patients "
    "(another ward, age or season)."
)
WHY_INPUT = (
    "Most likely causes: a new or newly adjusted device, changed image processing, another kind of "
    "image sent here."
)
WHAT_TO_DO = (
    "What to do: look at ten of the newest images and their results, and ask the radiographers "
    "what has changed. As long as the answers look wrong, have a rule hold or shadow the results "
    "of the device. If the change is meant and the answers are right, let a new reference begin: "
    "set watch.reference_from."
)
WHAT_TO_DO_RATE = (
    "What to do: read some of these studies on the worklist, and compare the verdicts on them. "
    "If the change is intended, start a new reference: set watch.reference_from."
)
WHAT_TO_DO_REJECTED = (
    "Most likely causes: laterals or other body parts sent here, a device that inverts or crops, "
    "an update of a device. What to do: see the reasons of rejection on this page, and filter the "
    "worklist for rejected studies; a rule or the sender's routing can keep unwanted images away."
)
WHAT_TO_DO_FAILED = (
    "What to do: `thoracle status` and the log name the fault; once it is fixed, "
    "`thoracle reanalyse` reads the studies again."
)
WHAT_TO_DO_VOLUME = (
    "Most likely causes: the sender's routing was changed, a device is off, the network or a "
    "certificate. What to do: send a test image, and look for refused associations in the audit."
)
WHAT_TO_DO_AGREEMENT = (
    "What to do: read the comments of those who disagree, by device and by outcome below. "
    "`thoracle evaluate --verdicts` says what threshold would fit this site."
)
