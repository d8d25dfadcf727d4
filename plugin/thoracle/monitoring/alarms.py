"""Alarms that are raised and end: a row each, and one audit event for each change."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from thoracle.monitoring.comparison import Comparison, Level
from thoracle.monitoring.watch import compare
from thoracle.settings import Watch
from thoracle.store import trail
from thoracle.store.tables import alarm, now

# ---- rows ----------------------------------------------------------------------------------------
# Statements about what the watch says.


def alarm_rows(connection: Connection, level: str | None = None) -> Sequence[Row[Any]]:
    """Return what is said, in the order of the subjects; of one level, if one is given."""
    statement = select(alarm).order_by(alarm.c.subject)
    if level is not None:
        statement = statement.where(alarm.c.level == level)
    return connection.execute(statement).all()


def set_row(
    connection: Connection, subject: str, level: str, sentence: str, device: str | None
) -> None:
    """Set what is said of a subject; ``since`` stays while the level does."""
    moment = now()
    values = {"level": level, "sentence": sentence, "device": device, "changed_at": moment}
    mine = alarm.c.subject == subject
    before = connection.execute(select(alarm.c.level).where(mine)).scalar()
    if before is None:
        connection.execute(insert(alarm).values(subject=subject, since=moment, **values))
    elif before == level:
        connection.execute(update(alarm).where(mine).values(**values))
    else:
        connection.execute(update(alarm).where(mine).values(since=moment, **values))


def delete_rows(connection: Connection, subjects: Sequence[str]) -> None:
    """Remove what is said of subjects that are watched no longer."""
    connection.execute(delete(alarm).where(alarm.c.subject.in_(subjects)))


logger = logging.getLogger(__name__)

# ---- monitor -------------------------------------------------------------------------------------

_EVENTS = {True: trail.Event.ALARM_RAISED, False: trail.Event.ALARM_ENDED}


EVERY_SECONDS = 600.0
"""The newest days change slowly, and months of work take a second to compare."""


class AlarmMonitor:
    """Compares from time to time; a fault of its own is logged and ends nothing.

    Parameters
    ----------
    database, settings
        What is compared, and what counts as an alarm.
    """

    def __init__(self, database: Engine, settings: Watch) -> None:
        self._database = database
        self._settings = settings
        self._due = time.monotonic()

    def check(self) -> None:
        """Compare, unless that was done less than ``EVERY_SECONDS`` ago."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY_SECONDS
        try:
            check(self._database, self._settings, datetime.now(UTC))
        except Exception:
            logger.exception("could not compare with the reference")


def check(database: Engine, settings: Watch, now: datetime) -> None:
    """Compare, and keep what came of it; an alarm that is raised or ends is logged and audited."""
    with database.connect() as connection:
        found = compare(connection, settings, now)
    record(database, found.comparisons)


def record(database: Engine, comparisons: Sequence[Comparison]) -> None:
    """Keep levels and sentences, and record what changed.

    An alarm stands until its figure is calm again: neither a figure that hovers about the limit nor
    one that cannot be compared for a while ends it.
    """
    with database.begin() as connection:
        before = {row.subject: Level(row.level) for row in alarm_rows(connection)}
        delete_rows(connection, sorted(set(before) - {one.subject for one in comparisons}))
        for one in comparisons:
            was = before.get(one.subject, Level.TOO_FEW)
            level = _standing(was, one.level)
            if level is not one.level and was is Level.ALARM:
                continue  # what raised it stays to be read
            set_row(connection, one.subject, level, one.sentence, one.device)
            if (level is Level.ALARM) is not (was is Level.ALARM):
                event = _EVENTS[level is Level.ALARM]
                detail = {"subject": one.subject, "sentence": one.sentence, "device": one.device}
                outcome = trail.MINOR_FAILURE if level is Level.ALARM else trail.SUCCESS
                trail.record(connection, event, {"event_outcome": outcome, "detail": detail})
                _log(one, level)


def _standing(was: Level, now: Level) -> Level:
    return Level.ALARM if was is Level.ALARM and now is not Level.CALM else now


def _log(one: Comparison, level: Level) -> None:
    write = logger.warning if level is Level.ALARM else logger.info
    write("%s: %s %s", _EVENTS[level is Level.ALARM].verb, one.sentence, one.device or "")
