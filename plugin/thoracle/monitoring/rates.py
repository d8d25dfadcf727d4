"""Whether outcomes, volume and agreement are what they were: shares with their intervals."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from thoracle.monitoring.comparison import (
    WHAT_TO_DO_AGREEMENT,
    WHAT_TO_DO_FAILED,
    WHAT_TO_DO_RATE,
    WHAT_TO_DO_REJECTED,
    WHAT_TO_DO_VOLUME,
    Comparison,
    Level,
    difference,
    shown,
    wilson,
)
from thoracle.settings import Watch

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
            f"{before[1]:,}, required are {settings.minimum_studies:,} each."
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
        least = f"{said}: too few to compare, required are {settings.minimum_studies:,}."
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
            f"{number} verdicts in the last {days} days agree or disagree, required are "
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
