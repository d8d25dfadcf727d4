"""Alarms that are raised and end: a row each, and one audit event for each change."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from thoracle.monitoring import conditions, occurrences
from thoracle.monitoring.comparison import Comparison, Level
from thoracle.monitoring.watch import compare
from thoracle.outbox.senders import AlarmNotice
from thoracle.pipeline import senders
from thoracle.settings import Settings
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


Notify = Callable[[Connection, trail.Event, Comparison], None]
"""Is told of each alarm that is raised or ends, in the transaction that records it."""


def nobody(_connection: Connection, _event: trail.Event, _alarm: Comparison) -> None:
    """Send nothing."""


def outbox_of(settings: Settings) -> Notify:
    """Return what puts each alarm into the outbox, for those who are told of alarms."""

    def notify(connection: Connection, event: trail.Event, one: Comparison) -> None:
        raised = event is trail.Event.ALARM_RAISED
        said = AlarmNotice(
            subject=one.subject,
            level="alarm" if raised else "ended",
            sentence=f"{one.outside or one.sentence} {one.advice}".strip(),
            since=now(),
            study_instance_uid=one.study_instance_uid,
            in_full=f"{one.sentence} {one.advice}".strip(),
        )
        senders.add_alarm(connection, settings, said)

    return notify


class AlarmMonitor:
    """Checks for alarms: those of the service each time, those of figures from time to time.

    Parameters
    ----------
    database, settings
        What is compared, and what counts as an alarm.
    notify
        See ``Told``.
    """

    def __init__(self, database: Engine, settings: Settings, notify: Notify = nobody) -> None:
        self._database = database
        self._settings = settings
        self._notify = notify
        self._due = time.monotonic()
        self._compared: tuple[Comparison, ...] | None = None
        self._failed = False

    def check(self, others: Sequence[Comparison] = ()) -> None:
        """Keep the alarms that stand now, ``others`` among them."""
        moment = datetime.now(UTC)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY_SECONDS
            self._compare(moment)
        with self._database.connect() as connection:
            found = [*conditions.check(connection, self._settings, moment), *others]
        if self._failed:
            sentence = "The figures could not be compared with the reference."
            advice = "What to do: look for the cause in the log of the gateway."
            found.append(conditions.alarm("housekeeping watch", "Watch", sentence, advice))
        record(self._database, found, self._compared, self._notify)

    def _compare(self, moment: datetime) -> None:
        try:
            with self._database.connect() as connection:
                self._compared = compare(connection, self._settings.watch, moment).comparisons
            self._failed = False
        except Exception:
            logger.exception("could not compare with the reference")
            self._failed = True


def record(
    database: Engine,
    service: Sequence[Comparison],
    compared: Sequence[Comparison] | None,
    notify: Notify = nobody,
) -> None:
    """Keep levels and sentences, and record what changed.

    An alarm of the service ends when it is not found any more. That of a figure stands until the
    figure is calm again: neither one that hovers about the limit nor one that cannot be compared
    for a while ends it.

    Parameters
    ----------
    service
        The alarms of the service that stand now.
    compared
        All figures; ``None`` when they are not known.
    """
    with database.begin() as connection:
        before = {row.subject: row for row in alarm_rows(connection)}
        found = [*service, *(compared or ())]
        gone = set(before) - {one.subject for one in found}
        if compared is None:
            gone = {subject for subject in gone if conditions.of_service(subject)}
        for row in (before[subject] for subject in sorted(gone)):
            if row.level == Level.ALARM:
                _record(connection, _ended(row.subject, row.sentence), notify)
        delete_rows(connection, sorted(gone))
        for one in found:
            _update(connection, one, before.get(one.subject), notify)
        _tell_after_silence(connection, {one.subject: one for one in found}, notify)


def _ended(subject: str, sentence: str, outside: str = "") -> Comparison:
    return Comparison(subject, subject, Level.CALM, sentence, outside=outside)


def _tell_after_silence(
    connection: Connection, found: dict[str, Comparison], notify: Notify
) -> None:
    """Notify of what still stands, or has ended, when a silence is over."""
    for row in occurrences.end_silences(connection):
        if row.ended_at is not None:
            one = _ended(row.subject, row.sentence, row.outside)
            notify(connection, trail.Event.ALARM_ENDED, one)
            continue
        stored = Comparison(
            row.subject, row.subject, Level.ALARM, row.sentence, row.advice, outside=row.outside
        )
        one = found.get(row.subject, stored)
        notify(connection, trail.Event.ALARM_RAISED, one if one.level is Level.ALARM else stored)


def _update(
    connection: Connection, one: Comparison, before: Row[Any] | None, notify: Notify
) -> None:
    was = Level.TOO_FEW if before is None else Level(before.level)
    level = _standing(was, one.level)
    if level is not one.level and was is Level.ALARM:
        return  # what raised it stays to be read
    said = (level, one.sentence, one.device)
    if before is None or (before.level, before.sentence, before.device) != said:
        set_row(connection, one.subject, level, one.sentence, one.device)
        if level is was is Level.ALARM:
            occurrences.describe(connection, one)
    if (level is Level.ALARM) is not (was is Level.ALARM):
        _record(connection, one, notify)


def _standing(was: Level, now: Level) -> Level:
    return Level.ALARM if was is Level.ALARM and now is not Level.CALM else now


def _record(connection: Connection, one: Comparison, notify: Notify) -> None:
    """Record that an alarm is raised or has ended, and notify of it."""
    raised = one.level is Level.ALARM
    event = _EVENTS[raised]
    detail = {"subject": one.subject, "sentence": one.sentence, "device": one.device}
    outcome = trail.MINOR_FAILURE if raised else trail.SUCCESS
    silenced = occurrences.is_silenced(connection, one.subject)
    if silenced:
        detail["silenced"] = "yes"
    trail.record(connection, event, {"event_outcome": outcome, "detail": detail})
    told = one
    if raised:
        occurrences.begin(connection, one, notified=not silenced)
    else:
        outside = occurrences.end(connection, one.subject, notified=not silenced)
        outside = outside if conditions.of_service(one.subject) else ""  # figures name no study
        told = replace(one, outside=outside, advice="")
    if not silenced:
        notify(connection, event, told)
    write = logger.warning if raised else logger.info
    write("%s: %s %s", event.verb, one.sentence, one.device or "")
