"""The figures of the dashboard that are no comparison: volume, times, agreement."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thoracle.monitoring.comparison import shown, wilson

STATES = ("positive", "indeterminate", "negative", "rejected", "failed")
"""States of a study that has been concluded, as they are shown; the rest is ``open``."""
OPEN = "open"


@dataclass(frozen=True, slots=True)
class Volume:
    """The studies of one day or month."""

    period: str
    numbers: dict[str, int]
    """By each of ``STATES``, and ``open``: queued, running, or withdrawn."""

    @property
    def total(self) -> int:
        """All studies."""
        return sum(self.numbers.values())

    def share(self, state: str) -> float:
        """Return the share of a state among concluded studies, 0 to 1; 0 when there are none."""
        concluded = self.total - self.numbers[OPEN]
        return self.numbers[state] / concluded if concluded else 0.0


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something took, in seconds; ``None`` where nothing was measured."""

    number: int
    p50: float | None = None
    p95: float | None = None
    longest: float | None = None

    @classmethod
    def of(cls, seconds: NDArray[np.float64]) -> "Durations":
        """Return the percentiles of durations; those that are NaN have not ended."""
        ended = seconds[np.isfinite(seconds)]
        if not ended.size:
            return cls(0)
        p50, p95 = np.percentile(ended, (50, 95))
        return cls(len(ended), float(p50), float(p95), float(ended.max()))


@dataclass(frozen=True, slots=True)
class TurnAround:
    """Durations from the first image of a study to each milestone."""

    result: Durations
    """Until the report was made."""
    proven: Durations
    """Until the last destination of the report was proven to keep it."""
    verdict: Durations
    """Until a reader gave a verdict or marked it as reviewed."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Verdicts of a group, with Wilson's interval of 95 per cent."""

    group: str
    agree: int
    disagree: int
    not_applicable: int

    @property
    def number(self) -> int:
        """Verdicts that agree or disagree."""
        return self.agree + self.disagree

    @property
    def rate(self) -> float | None:
        """Share that agrees, 0 to 1."""
        return self.agree / self.number if self.number else None

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share lies with 95 % confidence."""
        return wilson(self.agree, self.number)


def volumes(rows: Sequence[Any], periods: Sequence[str]) -> list[Volume]:
    """Return the studies of each period, those without any, too.

    Parameters
    ----------
    rows
        As of :func:`thoracle.monitoring.statistics.outcomes`.
    periods
        Days or months in the order wanted.
    """
    found = {period: Counter[str]() for period in periods}
    for row in rows:
        if row.period in found:
            found[row.period][row.ai_state if row.ai_state in STATES else OPEN] += row.number
    return [
        Volume(period, {state: numbers[state] for state in (*STATES, OPEN)})
        for period, numbers in found.items()
    ]


def turn_around(rows: Sequence[Any]) -> TurnAround:
    """Return the durations in rows of :func:`thoracle.monitoring.statistics.times`."""
    received = _moments([row.received_at for row in rows])
    result, proven, verdict = (
        Durations.of(_moments([row[column] for row in rows]) - received) for column in (1, 2, 3)
    )
    return TurnAround(result, proven, verdict)


def turn_around_by(rows: Sequence[Any], length: int) -> dict[str, TurnAround]:
    """Return the durations of each day or month: of what was received in it."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.received_at[:length], []).append(row)
    return {period: turn_around(group) for period, group in groups.items()}


def _moments(texts: Sequence[str | None]) -> NDArray[np.float64]:
    """Return times in seconds since 1970; NaN for ``None``."""
    # numpy reads them twenty times as fast as datetime does, but knows of no zones.
    plain = np.array([(text or "NaT").removesuffix("Z") for text in texts], "datetime64[us]")
    seconds = plain.astype(np.int64) / 1e6
    return np.where(np.isnat(plain), np.nan, seconds)


def agreements(rows: Sequence[Any], group: Callable[[Any], str | None]) -> list[Agreement]:
    """Return the verdicts by group, in the order of their names.

    Parameters
    ----------
    rows
        As of :func:`thoracle.monitoring.statistics.opinions`.
    group
        Says of a row what group it is in.
    """
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(shown(group(row)), Counter())[row.opinion] += row.number
    return [
        Agreement(name, one["agree"], one["disagree"], one["not applicable"])
        for name, one in sorted(found.items())
    ]
