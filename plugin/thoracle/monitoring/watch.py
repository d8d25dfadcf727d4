"""The comparisons of today, from the database."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from thoracle.monitoring import statistics
from thoracle.monitoring.comparison import (
    WHAT_TO_DO,
    WHAT_TO_DO_AGREEMENT,
    WHAT_TO_DO_FAILED,
    WHAT_TO_DO_RATE,
    WHAT_TO_DO_REJECTED,
    WHAT_TO_DO_VOLUME,
    WHY_INPUT,
    WHY_SCORES,
    Comparison,
    Index,
    Level,
    difference,
    population_stability,
    shown,
    wilson,
    worst,
)
from thoracle.settings import Watch
from thoracle.settings.web import AGREEMENT_DAYS
from thoracle.store.tables import timestamp

# ---- drift ---------------------------------------------------------------------------------------
# Whether scores and images are distributed as they were: by population stability index.

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
    """``(n,)`` texts; empty for an unnamed device."""
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
            f"{name} of the last {days} days are not compared: {numbers}, required: "
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


# ---- rates ---------------------------------------------------------------------------------------
# Whether outcomes, volume and agreement are what they were: shares with their intervals.

ANALYSED = ("positive", "indeterminate", "negative")
CONCLUDED = (*ANALYSED, "rejected", "failed")
LEAST_VERDICTS = 10
"""Fewer verdicts say nothing: the interval of 8 of 10 goes from 49 to 94 per cent."""
HALF, QUARTER, DOUBLE = 0.5, 0.25, 2.0

Counts = dict[str, Counter[str]]
"""Studies by device and state."""


def counted(rows: Sequence[Any]) -> Counts:
    """Return the counts in rows of :func:`thoracle.monitoring.statistics.devices`."""
    found: Counts = {}
    for row in rows:
        found.setdefault(row.device or "", Counter())[row.ai_state] += row.number
    return found


def total(counts: Counts, states: Sequence[str]) -> int:
    """Return how many studies have one of these states."""
    return sum(one[state] for one in counts.values() for state in states)


def outcomes(was: Counts, now: Counts, days: int, settings: Watch) -> list[Comparison]:
    """Return how the shares of positive, indeterminate, rejected and failed studies compare."""
    return [
        _rate("positive", ANALYSED, WHAT_TO_DO_RATE, was, now, days, settings),
        _rate("indeterminate", ANALYSED, WHAT_TO_DO_RATE, was, now, days, settings),
        _rate("rejected", CONCLUDED, WHAT_TO_DO_REJECTED, was, now, days, settings),
        _rate("failed", CONCLUDED, WHAT_TO_DO_FAILED, was, now, days, settings),
    ]


def _rate(
    state: str,
    among: Sequence[str],
    advice: str,
    was: Counts,
    now: Counts,
    days: int,
    settings: Watch,
) -> Comparison:
    name = f"Share of {state} studies"
    before, after = ((total(one, [state]), total(one, among)) for one in (was, now))
    if min(before[1], after[1]) < settings.minimum_studies:
        sentence = (
            f"{name} in the last {days} days is not compared: {after[1]:,} studies against "
            f"{before[1]:,}, required: {settings.minimum_studies:,} each."
        )
        return Comparison(state, name, Level.TOO_FEW, sentence)
    change, low, high = difference(before, after)
    rate = after[0] / after[1]
    numbers = (
        f"{rate:.1%} ({after[0]:,} of {after[1]:,}), in the reference {before[0] / before[1]:.1%} "
        f"({before[0]:,} of {before[1]:,}); alarm from a change of {settings.alarm_shift:.0%}"
    )
    if low <= 0 <= high:
        sentence = f"{name} is as in the reference: {numbers}."
        return Comparison(state, name, Level.CALM, sentence, value=rate)
    level = Level.ALARM if abs(change) >= settings.alarm_shift else Level.LOOK
    least, most = sorted((abs(low), abs(high)))
    sentence = (
        f"{name} has {'risen' if change > 0 else 'fallen'} by {100 * abs(change):.1f} percentage "
        f"points (with 99.9 % confidence by {100 * least:.1f} to {100 * most:.1f}): {numbers}."
    )
    device = _excess(state, among, now, before[0] / before[1], change)
    return Comparison(state, name, level, sentence, advice, device, rate)


def _excess(
    state: str, among: Sequence[str], now: Counts, expected: float, change: float
) -> str | None:
    """Return the device that adds most studies to a change of a share."""
    sign = 1 if change > 0 else -1
    excess = {
        device: sign * (one[state] - expected * sum(one[name] for name in among))
        for device, one in now.items()
    }
    device = max(excess, key=lambda name: excess[name])
    if excess[device] <= 0:
        return None
    all_studies = sum(now[device][name] for name in among)
    return (
        f"Most of it comes from {shown(device)}: {now[device][state]:,} of its {all_studies:,} "
        "studies."
    )


def volume(was: Counts, was_days: float, now: Counts, days: int, settings: Watch) -> Comparison:
    """Return how many studies came, against what the reference lets expect."""
    states = {state for counts in (was, now) for one in counts.values() for state in one}
    found, before = total(now, list(states)), total(was, list(states))
    expected = before / was_days * days if was_days > 0 else 0.0
    name = "Studies received"
    said = (
        f"{found:,} studies came in the last {days} days; as many days of the reference had "
        f"{expected:,.0f}"
    )
    if expected < settings.minimum_studies:
        least = f"{said}: too few to compare, required: {settings.minimum_studies:,}."
        return Comparison("volume", name, Level.TOO_FEW, least, value=found)
    ratio = found / expected
    if HALF <= ratio <= DOUBLE:
        return Comparison("volume", name, Level.CALM, f"{said}.", value=found)
    level = Level.ALARM if ratio < QUARTER else Level.LOOK
    device = None
    if ratio < HALF:
        missing = {
            device: one.total() / was_days * days - now.get(device, Counter()).total()
            for device, one in was.items()
        }
        most = max(missing, key=lambda name: missing[name])
        device = f"Most is missing from {shown(most)}: about {missing[most]:,.0f} studies."
    return Comparison("volume", name, level, f"{said}.", WHAT_TO_DO_VOLUME, device, found)


def agreement(rows: Sequence[Any], days: int, settings: Watch) -> Comparison:
    """Return how many of the verdicts of the last days agree with the result.

    Parameters
    ----------
    rows
        As of :func:`thoracle.monitoring.statistics.opinions`.
    """
    name = "Agreement of readers"
    agree = sum(row.number for row in rows if row.opinion == "agree")
    number = agree + sum(row.number for row in rows if row.opinion == "disagree")
    if number < LEAST_VERDICTS:
        sentence = (
            f"{number} verdicts in the last {days} days agree or disagree, required: "
            f"{LEAST_VERDICTS}."
        )
        return Comparison("agreement", name, Level.TOO_FEW, sentence)
    low, high = wilson(agree, number)
    rate = agree / number
    sentence = (
        f"{agree:,} of {number:,} verdicts of the last {days} days agree, {rate:.0%} (with "
        f"95 % confidence {low:.0%} to {high:.0%}); alarm below {settings.alarm_agreement:.0%}."
    )
    if rate >= settings.alarm_agreement:
        return Comparison("agreement", name, Level.CALM, sentence, value=rate)
    level = Level.ALARM if high < settings.alarm_agreement else Level.LOOK
    against: Counter[str] = Counter()
    for row in rows:
        if row.opinion == "disagree":
            against[row.device or ""] += row.number
    device, most = against.most_common(1)[0]
    said = f"Most disagreement is about {shown(device)}: {most:,} verdicts."
    return Comparison("agreement", name, level, sentence, WHAT_TO_DO_AGREEMENT, said, rate)


# ---- watch ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, as it is stored: the first moment, and the first one after it."""

    since: str
    until: str

    @property
    def days(self) -> float:
        """How long it is; 0 when it ends before it begins."""
        length = datetime.fromisoformat(self.until) - datetime.fromisoformat(self.since)
        return max(0.0, length / timedelta(days=1))


@dataclass(frozen=True, slots=True)
class DriftComparison:
    """What the watch found."""

    reference: Span
    window: Span
    comparisons: tuple[Comparison, ...]

    @property
    def level(self) -> Level:
        """The most urgent of its levels."""
        return worst(self.comparisons)


def spans(settings: Watch, first_day: str | None, now: datetime) -> tuple[Span, Span]:
    """Return reference and window; the reference ends where the window begins, at the latest.

    Parameters
    ----------
    first_day
        First day with studies, e.g. ``2026-11-01``, for settings that name none.
    now
        Aware.
    """
    since = now - timedelta(days=settings.window_days)
    day = settings.reference_from or first_day or f"{now:%Y-%m-%d}"
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC)
    end = max(begin, min(begin + timedelta(days=settings.reference_days), since))
    return (
        Span(timestamp(begin), timestamp(end)),
        Span(timestamp(since), timestamp(now)),
    )


def compare(
    connection: Connection, settings: Watch, now: datetime, *, with_kept_back: bool = True
) -> DriftComparison:
    """Return all comparisons, each with its level.

    Without ``with_kept_back``, of results alone that every reader may know of.
    """
    reference, window = spans(settings, statistics.first_day(connection), now)
    days = settings.window_days
    was, is_now = (
        Sample.of(
            statistics.images(connection, one.since, one.until, with_kept_back=with_kept_back)
        )
        for one in (reference, window)
    )
    had, has = (
        counted(statistics.devices(connection, one.since, one.until, with_kept_back=with_kept_back))
        for one in (reference, window)
    )
    recent = timestamp(now - timedelta(days=AGREEMENT_DAYS))
    verdicts = statistics.opinions(connection, recent, window.until, with_kept_back=with_kept_back)
    comparisons = (
        volume(had, reference.days, has, days, settings),
        scores(was, is_now, days, settings),
        *outcomes(had, has, days, settings),
        agreement(verdicts, AGREEMENT_DAYS, settings),
        *inputs(was, is_now, days, settings),
    )
    return DriftComparison(reference, window, comparisons)
