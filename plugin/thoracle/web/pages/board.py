"""The clinical figures of the dashboard: no patient is in them."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from thoracle.monitoring import alarm_rows as alarms
from thoracle.monitoring import figures, statistics
from thoracle.monitoring.comparison import Level, shown
from thoracle.monitoring.figures import OPEN, STATES, TurnAround, Volume
from thoracle.monitoring.looking import Watching
from thoracle.monitoring.statistics import DAY, MONTH
from thoracle.settings import Watch
from thoracle.store.tables import timestamp
from thoracle.web.pages import charts
from thoracle.web.pages.charts import Chart
from thoracle.web.pages.worklist import reason

SPANS = {7: DAY, 30: DAY, 90: DAY, 365: MONTH}
"""Days that can be shown, and by what they are divided."""
URGENT = (Level.ALARM, Level.LOOK)
"""Levels that are shown one by one."""
MONTHS = 12
DEVICES = 20
"""Devices that are shown one by one, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Board:
    """What the page shows."""

    days: int
    made: datetime
    watching: Watching
    since: dict[str, str]
    """Since when an alarm stands, by its subject."""
    standing: tuple[Any, ...]
    """Rows of alarms that stand although the figure is below the limit again, or not compared."""
    total: Volume
    times: TurnAround
    verdicts: figures.Agreement
    volume: Chart
    turn_around: Chart
    compared: dict[str, Chart]
    """Distributions, of the scores and of what is urgent, by subject."""
    agreement: tuple[Chart, ...]
    reasons: tuple[tuple[str, int], ...]
    devices: tuple[tuple[str, dict[str, int]], ...]


def board(
    connection: Connection, settings: Watch, watching: Watching, days: int, now: datetime
) -> Board:
    """Return the figures of the last ``days``, one of ``SPANS``; days and months are of UTC."""
    length = SPANS[days]
    unit = "day" if length == DAY else "month"
    periods = _periods(now, days, length)
    since, until = periods[0], timestamp(now)
    volumes = figures.volumes(statistics.outcomes(connection, since, until, length), periods)
    times = statistics.times(connection, since, until)
    opinions = statistics.opinions(connection, _months(now, MONTHS)[0], until)
    raised = alarms.rows(connection, Level.ALARM.value)
    levels = {one.subject: one.level for one in watching.comparisons}
    return Board(
        days=days,
        made=now,
        watching=watching,
        since={row.subject: row.since for row in raised},
        standing=tuple(row for row in raised if levels.get(row.subject) is not Level.ALARM),
        total=_sum(volumes),
        times=figures.turn_around(times),
        verdicts=_all(opinions),
        volume=charts.volume(volumes, unit),
        turn_around=charts.turn_around(figures.turn_around_by(times, length), periods, unit),
        compared={
            one.subject: charts.distribution(one.bins, one.name)
            for one in watching.comparisons
            if one.bins and (one.subject == "scores" or one.level in URGENT)
        },
        agreement=_agreement(opinions, settings.alarm_agreement),
        reasons=tuple(
            (reason(row.reason_code), row.number)
            for row in statistics.reasons(connection, since, until)
        ),
        devices=_devices(statistics.devices(connection, since, until)),
    )


def _periods(now: datetime, days: int, length: int) -> list[str]:
    if length == MONTH:
        return _months(now, MONTHS)
    return [f"{now - timedelta(days=ago):%Y-%m-%d}" for ago in range(days - 1, -1, -1)]


def _months(now: datetime, number: int) -> list[str]:
    last = now.year * 12 + now.month - 1
    return [f"{one // 12:04}-{one % 12 + 1:02}" for one in range(last - number + 1, last + 1)]


def _sum(volumes: list[Volume]) -> Volume:
    numbers = {state: sum(one.numbers[state] for one in volumes) for state in (*STATES, OPEN)}
    return Volume("all", numbers)


def _all(opinions: Any) -> figures.Agreement:
    groups = figures.agreements(opinions, lambda _row: "all")
    return groups[0] if groups else figures.Agreement("all", 0, 0, 0)


def _agreement(opinions: Any, limit: float) -> tuple[Chart, ...]:
    by = {
        "month": lambda row: row.month,
        "device": lambda row: row.device,
        "outcome": lambda row: row.outcome,
    }
    return tuple(
        charts.agreement(_most(figures.agreements(opinions, group), name), name, limit)
        for name, group in by.items()
    )


def _most(groups: list[figures.Agreement], by: str) -> list[figures.Agreement]:
    """Return all groups, or of many devices those with most verdicts."""
    if by != "device" or len(groups) <= DEVICES:
        return groups
    return sorted(groups, key=lambda one: -one.number)[:DEVICES]


def _devices(rows: Any) -> tuple[tuple[str, dict[str, int]], ...]:
    found: dict[str, Counter[str]] = {}
    for row in rows:
        state = row.ai_state if row.ai_state in STATES else OPEN
        found.setdefault(shown(row.device), Counter())[state] += row.number
    most = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))[:DEVICES]
    return tuple((name, {state: one[state] for state in (*STATES, OPEN)}) for name, one in most)
