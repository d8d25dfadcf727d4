"""Each time that an alarm stood, who acknowledged it, and until when an alarm is silenced.

An acknowledgement is of one occurrence: an alarm that is raised again is open again. A silence is
of the subject, so that one that comes and goes stays silent; it always ends, by a time.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from thoracle.accounts.accounts import Actor
from thoracle.errors import ThoracleError
from thoracle.monitoring.comparison import Comparison
from thoracle.store import trail
from thoracle.store.tables import (
    LARGEST_ID,
    alarm_occurrence,
    alarm_silence,
    now,
    timestamp,
)

KEPT_DAYS = 90
"""So long an occurrence that ended is listed; the audit keeps it longer."""
LONGEST_SILENCE_DAYS = 30
LONGEST_COMMENT = 500
"""Characters."""

_occurrence, _silence = alarm_occurrence.c, alarm_silence.c


class AlarmError(ThoracleError):
    """An alarm cannot be acknowledged or silenced as asked."""


# ---- what stood ----------------------------------------------------------------------------------


def _rows(connection: Connection, *conditions: Any, newest: int | None = None) -> list[Row[Any]]:
    silenced = and_(_silence.subject == _occurrence.subject, _silence.until > now())
    statement = (
        select(
            alarm_occurrence,
            _silence.silenced_by,
            _silence.silenced_at,
            _silence.until.label("silenced_until"),
            _silence.comment.label("silence_comment"),
        )
        .join(alarm_silence, silenced, isouter=True)
        .where(*conditions)
    )
    if newest is not None:
        order = (_occurrence.ended_at.desc(), _occurrence.id.desc())
        return list(connection.execute(statement.order_by(*order).limit(newest)))
    return list(connection.execute(statement.order_by(_occurrence.subject)))


def standing(connection: Connection) -> list[Row[Any]]:
    """Return the alarms that stand, by subject, with their acknowledgement and silence.

    The columns are those of ``alarm_occurrence``, and ``silenced_by``, ``silenced_at``,
    ``silenced_until`` and ``silence_comment``, which are ``None`` while nobody silences it.
    """
    return _rows(connection, _occurrence.ended_at.is_(None))


def ended(connection: Connection, newest: int) -> list[Row[Any]]:
    """Return those that ended, the newest first; columns as of :func:`standing`."""
    return _rows(connection, _occurrence.ended_at.is_not(None), newest=newest)


def silences(connection: Connection) -> list[Row[Any]]:
    """Return the silences that hold now, by subject, whether their alarm stands or not."""
    statement = select(alarm_silence).where(_silence.until > now()).order_by(_silence.subject)
    return list(connection.execute(statement))


def is_silenced(connection: Connection, subject: str) -> bool:
    """Return whether nobody is to be notified of an alarm now."""
    statement = select(_silence.subject).where(_silence.subject == subject, _silence.until > now())
    return connection.execute(statement).first() is not None


# ---- what the monitor keeps ----------------------------------------------------------------------


def begin(connection: Connection, one: Comparison, *, notified: bool) -> None:
    """Add an occurrence of an alarm that is raised."""
    values = {"subject": one.subject, "since": now(), "notified": "alarm" if notified else None}
    connection.execute(insert(alarm_occurrence).values(**values, **_described(one)))


def describe(connection: Connection, one: Comparison) -> None:
    """Set what is said of an alarm that stands."""
    mine = (_occurrence.subject == one.subject, _occurrence.ended_at.is_(None))
    connection.execute(update(alarm_occurrence).where(*mine).values(**_described(one)))


def _described(one: Comparison) -> dict[str, Any]:
    return {
        "sentence": one.sentence,
        "advice": one.advice,
        "outside": one.outside or one.sentence,
        "device": one.device,
    }


def end(connection: Connection, subject: str, *, notified: bool) -> str:
    """End the occurrence that stands; return its sentence without identifiers of studies."""
    mine = (_occurrence.subject == subject, _occurrence.ended_at.is_(None))
    outside = connection.execute(select(_occurrence.outside).where(*mine)).scalar() or ""
    values = {"ended_at": now(), **({"notified": "ended"} if notified else {})}
    connection.execute(update(alarm_occurrence).where(*mine).values(**values))
    old = timestamp(datetime.now(UTC) - timedelta(days=KEPT_DAYS))
    connection.execute(delete(alarm_occurrence).where(_occurrence.ended_at < old))
    return outside


def end_silences(connection: Connection) -> Iterator[Row[Any]]:
    """End the silences that are over; yield the occurrences that are to be told of now.

    That is an alarm that still stands, and one that ended although its beginning was told.
    """
    over = select(_silence.subject).where(_silence.until <= now())
    subjects = list(connection.execute(over).scalars())
    for subject in subjects:
        untold = and_(_occurrence.ended_at.is_not(None), _occurrence.notified == "alarm")
        found = connection.execute(
            select(alarm_occurrence)
            .where(_occurrence.subject == subject, or_(_occurrence.ended_at.is_(None), untold))
            .order_by(_occurrence.id)
        ).all()
        for row in found:
            told = "alarm" if row.ended_at is None else "ended"
            mine = _occurrence.id == row.id
            connection.execute(update(alarm_occurrence).where(mine).values(notified=told))
            yield row
        connection.execute(delete(alarm_silence).where(_silence.subject == subject))


# ---- what a person does --------------------------------------------------------------------------


def acknowledge(connection: Connection, by: Actor, number: int, comment: str) -> str:
    """Acknowledge one occurrence, open or ended; return its subject.

    Raises
    ------
    AlarmError
        There is none of this number, somebody has acknowledged it, or the comment is too long.
    """
    comment = _comment(comment)
    statement = select(alarm_occurrence).where(_occurrence.id == number)
    row = connection.execute(statement).first() if 0 < number <= LARGEST_ID else None
    if row is None:
        raise AlarmError(f"found no alarm {number}, required: the number of one that is listed")
    open_one = update(alarm_occurrence).where(
        _occurrence.id == number, _occurrence.acknowledged_at.is_(None)
    )
    values = {"acknowledged_by": by.user_id, "acknowledged_at": now(), "comment": comment}
    if connection.execute(open_one.values(**values)).rowcount == 0:
        raise AlarmError(
            f"{row.subject}: found an acknowledgement by {row.acknowledged_by or 'somebody'}, "
            "required: an alarm without one"
        )
    detail = {"subject": row.subject, "since": row.since, "comment": comment}
    _record(connection, trail.Event.ALARM_ACKNOWLEDGED, by, detail)
    return str(row.subject)


def silence(connection: Connection, by: Actor, subject: str, until: datetime, comment: str) -> None:
    """Notify nobody of an alarm until a time; a silence that holds is replaced.

    Parameters
    ----------
    until
        Aware.

    Raises
    ------
    AlarmError
        No such alarm is listed, or the time is past or too far away.
    """
    comment = _comment(comment)
    moment = datetime.now(UTC)
    latest = moment + timedelta(days=LONGEST_SILENCE_DAYS)
    if not moment < until <= latest:
        raise AlarmError(
            f"found a silence until {timestamp(until)[:16]} UTC, required: a time between now "
            f"and {timestamp(latest)[:16]} UTC ({LONGEST_SILENCE_DAYS} days)"
        )
    known = select(_occurrence.id).where(_occurrence.subject == _stored(subject))
    if connection.execute(known).first() is None:
        raise AlarmError(
            f"found no alarm {subject[:64]!r}, required: the subject of one that is listed"
        )
    connection.execute(delete(alarm_silence).where(_silence.subject == subject))
    values = {"silenced_by": by.user_id or "", "silenced_at": now(), "until": timestamp(until)}
    connection.execute(
        insert(alarm_silence).values(subject=subject, comment=comment, **values),
    )
    detail = {"subject": subject, "until": values["until"], "comment": comment}
    _record(connection, trail.Event.ALARM_SILENCED, by, detail)


def unsilence(connection: Connection, by: Actor, subject: str) -> None:
    """End a silence now; the monitor notifies of what still stands.

    Raises
    ------
    AlarmError
        Nobody silences it.
    """
    mine = _silence.subject == _stored(subject)
    holds = update(alarm_silence).where(mine, _silence.until > now())
    if connection.execute(holds.values(until=now())).rowcount == 0:
        raise AlarmError(f"found no silence of {subject[:64]!r}, required: an active one")
    _record(connection, trail.Event.ALARM_UNSILENCED, by, {"subject": subject})


def until_of(hours: float | None, text: str) -> datetime:
    """Return the end of a silence: so many hours from now, or a time of UTC that somebody typed.

    Raises
    ------
    AlarmError
        Neither or both are given, or the text is no time.
    """
    if (hours is None) == (not text):
        raise AlarmError("found none or both of hours and a time, required: one of them")
    if hours is not None:
        most = LONGEST_SILENCE_DAYS * 24
        if not 0 < hours <= most:
            raise AlarmError(f"found {hours:g} hours, required: 0 to {most}")
        return datetime.now(UTC) + timedelta(hours=hours)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise AlarmError(
            f"found {text[:32]!r}, required: a time of UTC, e.g. 2026-11-30T18:00"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _comment(text: str) -> str:
    text = _stored(text).strip()
    if len(text) > LONGEST_COMMENT:
        raise AlarmError(
            f"found a comment of {len(text)} characters, required: {LONGEST_COMMENT} at most"
        )
    return text


def _stored(text: str) -> str:
    """Return a text as PostgreSQL can store it: it has no zero byte."""
    return text.replace("\0", " ")


def _record(connection: Connection, event: trail.Event, by: Actor, detail: dict[str, Any]) -> None:
    columns: trail.Columns = {
        "user_id": by.user_id,
        "network_address": by.network_address,
        "detail": detail,
    }
    trail.record(connection, event, columns)


def as_json(rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Return occurrences as plain values, ``level`` among them: ``alarm`` or ``ended``."""
    return [
        {"level": "alarm" if row.ended_at is None else "ended", **row._asdict()} for row in rows
    ]
