"""The comparisons of today, from the database."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from thoracle.monitoring import drift, rates, statistics
from thoracle.monitoring.comparison import Comparison, Level, worst
from thoracle.monitoring.drift import Sample
from thoracle.settings import Watch
from thoracle.store.tables import timestamp

AGREEMENT_DAYS = 28
"""Verdicts are fewer than studies, so they are counted over a longer time."""


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


def compare(connection: Connection, settings: Watch, now: datetime) -> DriftComparison:
    """Return all comparisons, each with its level."""
    reference, window = spans(settings, statistics.first_day(connection), now)
    days = settings.window_days
    was, is_now = (
        Sample.of(statistics.images(connection, one.since, one.until))
        for one in (reference, window)
    )
    had, has = (
        rates.counted(statistics.devices(connection, one.since, one.until))
        for one in (reference, window)
    )
    recent = timestamp(now - timedelta(days=AGREEMENT_DAYS))
    verdicts = statistics.opinions(connection, recent, window.until)
    comparisons = (
        rates.volume(had, reference.days, has, days, settings),
        drift.scores(was, is_now, days, settings),
        *rates.outcomes(had, has, days, settings),
        rates.agreement(verdicts, AGREEMENT_DAYS, settings),
        *drift.inputs(was, is_now, days, settings),
    )
    return DriftComparison(reference, window, comparisons)
