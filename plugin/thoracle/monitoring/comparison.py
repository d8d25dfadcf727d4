"""What a comparison of the last days with the reference came to, in sentences for everybody."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


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
    bins: tuple[tuple[float, float, float], ...] = ()
    """As of :class:`~thoracle.monitoring.index.Index`."""


def worst(comparisons: Sequence[Comparison]) -> Level:
    """Return the most urgent level."""
    found = {one.level for one in comparisons}
    return next((level for level in ORDER if level in found), Level.TOO_FEW)


def shown(device: str | None) -> str:
    """Return the name of a device, which its sender chose, in one harmless line."""
    if not device:
        return "a device without a name"
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
    "If the change is meant, let a new reference begin: set watch.reference_from."
)
WHAT_TO_DO_REJECTED = (
    "Most likely causes: laterals or other body parts sent here, a device that inverts or crops, "
    "an update of a device. What to do: see the reasons of rejection on this page, and filter the "
    "worklist for rejected studies; a rule or the sender's routing can keep unwanted images away."
)
WHAT_TO_DO_FAILED = (
    "What to do: `thoracle status` and the log name the fault; once it is mended, "
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
