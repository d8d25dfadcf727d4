"""Statements about what the watch says."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from thoracle.store.tables import alarm, now


def rows(connection: Connection, level: str | None = None) -> Sequence[Row[Any]]:
    """Return what is said, in the order of the subjects; of one level, if one is given."""
    statement = select(alarm).order_by(alarm.c.subject)
    if level is not None:
        statement = statement.where(alarm.c.level == level)
    return connection.execute(statement).all()


def put_row(
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


def forget_row(connection: Connection, subjects: Sequence[str]) -> None:
    """Remove what is said of subjects that are watched no longer."""
    connection.execute(delete(alarm).where(alarm.c.subject.in_(subjects)))
