"""Charts as numbers: where each bar, line and label stands. The templates draw them as SVG.

Coordinates are those of a ``viewBox``; the origin is the top left corner. Each chart has its table,
so that whoever does not see it reads the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor, log10

from thoracle.monitoring.figures import OPEN, STATES, Agreement, TurnAround, Volume

WIDTH, HEIGHT = 480.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 6.0, 8.0, 24.0
TIMES = (
    "reports",
    "median",
    "95th percentile",
    "longest",
    "proven, median",
    "proven, 95th",
    "verdict, median",
)
"""What is told of turn-around, as the heads of its table."""
LABELS = 6
"""Labels below a chart, at most."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; ``kind`` is its class, ``text`` what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A point, and how far its interval goes down and up."""

    x: float
    y: float
    low: float
    high: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a line; alone, it is all that is seen of it."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A label beside an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All that is drawn, and the table that says the same."""

    title: str
    summary: str
    """The text alternative: what the chart shows, in a sentence."""
    legend: tuple[tuple[str, str], ...]
    """Class and meaning."""
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The table."""
    x: tuple[Tick, ...] = ()
    y: tuple[Tick, ...] = ()
    bars: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()
    points: tuple[Point, ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
    """Class, and the points of a polyline."""
    limit: float | None = None
    """Height of the line at which an alarm begins."""
    width: float = field(default=WIDTH)
    height: float = field(default=HEIGHT)
    left: float = field(default=LEFT)
    floor: float = field(default=HEIGHT - BOTTOM)


def scale(largest: float) -> tuple[float, tuple[Tick, ...]]:
    """Return the upper end of an axis from 0, and its labels at round numbers."""
    if largest <= 0:
        return 1.0, _ticks([0.0, 1.0], 1.0)
    step = 10.0 ** floor(log10(largest))
    step = next(one for one in (step / 5, step / 2, step, step * 2) if largest / one <= 5)
    ends = [step * number for number in range(int(-(-largest // step)) + 1)]
    return ends[-1], _ticks(ends, ends[-1])


def _ticks(values: Sequence[float], top: float) -> tuple[Tick, ...]:
    return tuple(Tick(_height(value, top), f"{value:g}") for value in values)


def _height(value: float, top: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top), 1)


def _columns(number: int) -> tuple[float, list[float]]:
    """Return the width of a column, and the left end of each."""
    width = (WIDTH - LEFT - RIGHT) / max(1, number)
    return width, [round(LEFT + width * index, 1) for index in range(number)]


def _labels(texts: Sequence[str]) -> tuple[Tick, ...]:
    width, starts = _columns(len(texts))
    every = -(-len(texts) // LABELS) or 1
    return tuple(
        Tick(round(start + width / 2, 1), text)
        for index, (start, text) in enumerate(zip(starts, texts, strict=True))
        if index % every == 0
    )


def volume(volumes: Sequence[Volume], unit: str) -> Chart:
    """Return the studies of each day or month, stacked by outcome."""
    states = (*STATES, OPEN)
    top, y = scale(max((one.total for one in volumes), default=0))
    width, starts = _columns(len(volumes))
    bars = []
    for one, start in zip(volumes, starts, strict=True):
        below = 0
        for state in states:
            number = one.numbers[state]
            if number:
                upper, lower = _height(below + number, top), _height(below, top)
                text = f"{one.period}: {number:,} {state} of {one.total:,}"
                left, wide = round(start + width * 0.1, 1), round(width * 0.8, 1)
                bars.append(Bar(left, upper, wide, round(lower - upper, 1), state, text))
            below += number
    total = sum(one.total for one in volumes)
    return Chart(
        title=f"Studies by {unit}",
        summary=f"{total:,} studies, by {unit} of receipt and by outcome; the numbers are below.",
        legend=tuple((state, state) for state in states),
        head=(unit.capitalize(), *states, "all"),
        rows=tuple(
            (one.period, *(f"{one.numbers[state]:,}" for state in states), f"{one.total:,}")
            for one in volumes
        ),
        x=_labels([one.period[2:] if unit == "month" else one.period[5:] for one in volumes]),
        y=y,
        bars=tuple(bars),
    )


def turn_around(found: dict[str, TurnAround], periods: Sequence[str], unit: str) -> Chart:
    """Return the time from the first image to the report: its median and its 95th percentile."""
    largest = max((found[one].result.p95 or 0.0 for one in periods if one in found), default=0.0)
    top, y = scale(largest)
    width, starts = _columns(len(periods))
    names = {"p95": "95th percentile", "p50": "median"}
    points = []
    for kind, name in names.items():
        for period, start in zip(periods, starts, strict=True):
            seconds = getattr(found[period].result, kind) if period in found else None
            if seconds is not None:
                place = round(start + width / 2, 1), _height(seconds, top)
                points.append(Point(*place, kind, f"{period}: {name} {duration(seconds)}"))
    return Chart(
        title="Seconds from the first image to the report",
        summary=f"Median and 95th percentile by {unit} of receipt; the numbers are below.",
        legend=(("p50", "median"), ("p95", "95th percentile")),
        head=(unit.capitalize(), *TIMES),
        rows=tuple(_times(period, found[period]) for period in periods if period in found),
        x=_labels([period[2:] if unit == "month" else period[5:] for period in periods]),
        y=y,
        points=tuple(points),
        lines=tuple(
            (kind, " ".join(f"{one.x},{one.y}" for one in points if one.kind == kind))
            for kind in names
        ),
    )


def _times(period: str, one: TurnAround) -> tuple[str, ...]:
    times = (
        one.result.p50, one.result.p95, one.result.longest, one.proven.p50, one.proven.p95,
        one.verdict.p50,
    )  # fmt: skip
    return (period, f"{one.result.number:,}", *(duration(seconds) for seconds in times))


def duration(seconds: float | None) -> str:
    """Return a length of time for people: ``42 s``, ``3.5 min``, ``7.2 h``, ``2.1 d``."""
    if seconds is None:
        return "none"
    for length, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def agreement(groups: Sequence[Agreement], by: str, limit: float) -> Chart:
    """Return the share of verdicts that agree, with intervals, by group."""
    width, starts = _columns(len(groups))
    marks = []
    for one, start in zip(groups, starts, strict=True):
        if one.rate is not None:
            low, high = one.interval
            text = f"{one.group}: {one.rate:.0%} of {one.number:,} agree ({low:.0%} to {high:.0%})"
            rate, low, high = (_height(value, 1.0) for value in (one.rate, low, high))
            kind = "below" if one.rate < limit else "well"
            marks.append(Mark(round(start + width / 2, 1), rate, low, high, kind, text))
    return Chart(
        title=f"Agreement by {by}",
        summary=f"Share of verdicts that agree with the result, by {by}, with 95 % intervals.",
        legend=(
            ("well", "share that agrees, and its interval"),
            ("below", f"below the alarm limit, {limit:.0%}"),
        ),
        head=(by.capitalize(), "agree", "disagree", "not applicable", "share", "95 % interval"),
        rows=tuple(_shares(one) for one in groups),
        x=_labels([_short(one.group) for one in groups]),
        y=tuple(Tick(_height(value / 4, 1.0), f"{value / 4:.0%}") for value in range(5)),
        marks=tuple(marks),
        limit=_height(limit, 1.0),
    )


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _shares(one: Agreement) -> tuple[str, ...]:
    low, high = one.interval
    known = one.rate is not None
    return (
        one.group,
        f"{one.agree:,}",
        f"{one.disagree:,}",
        f"{one.not_applicable:,}",
        f"{one.rate:.0%}" if known else "none",
        f"{low:.0%} to {high:.0%}" if known else "none",
    )


def distribution(bins: Sequence[tuple[float, float, float]], name: str) -> Chart:
    """Return two distributions side by side, over the bins that the reference gave."""
    top, y = scale(max((max(was, now) for _, was, now in bins), default=0.0) * 100)
    width, starts = _columns(len(bins))
    names = [f"to {end:.3g}" for end, _, _ in bins]
    if names:
        names[-1] = "above"
    bars = []
    for (_, was, now), label, start in zip(bins, names, starts, strict=True):
        pair = (("was", "reference", was), ("now", "last days", now))
        for offset, (kind, whose, share) in enumerate(pair):
            upper = _height(share * 100, top)
            x = round(start + width * (0.12 + 0.38 * offset), 1)
            text = f"{label}: {share:.1%} of the {whose}"
            bars.append(
                Bar(x, upper, round(width * 0.38, 1), round(HEIGHT - BOTTOM - upper, 1), kind, text)
            )
    return Chart(
        title=f"{name}: per cent of images by value",
        summary=f"{name} of the reference and of the last days, over the tenths of the reference.",
        legend=(("was", "reference"), ("now", "last days")),
        head=("Value", "reference", "last days"),
        rows=tuple(
            (label, f"{was:.1%}", f"{now:.1%}")
            for label, (_, was, now) in zip(names, bins, strict=True)
        ),
        x=_labels(names),
        y=y,
        bars=tuple(bars),
    )
