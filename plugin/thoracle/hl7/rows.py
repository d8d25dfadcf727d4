"""Statements about who is told of a result by message."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from thoracle.store.tables import notification, now, result


def add(
    connection: Connection, sop_instance_uid: str, receiver: str, path: str, state: str
) -> None:
    """Record that a receiver is to be told of a report by the message in a file."""
    moment = now()
    connection.execute(
        insert(notification).values(
            sop_instance_uid=sop_instance_uid,
            receiver=receiver,
            state=state,
            attempts=0,
            path=path,
            created_at=moment,
            changed_at=moment,
        )
    )


def row_of(connection: Connection, sop_instance_uid: str, receiver: str) -> Row[Any]:
    """Return the row of a notification that exists, with the study of its report."""
    return connection.execute(
        select(notification, result.c.study_instance_uid)
        .join(result)
        .where(
            notification.c.sop_instance_uid == sop_instance_uid,
            notification.c.receiver == receiver,
        )
    ).one()


def set_row(
    connection: Connection, sop_instance_uid: str, receiver: str, values: Mapping[str, Any]
) -> None:
    """Set columns of a notification."""
    connection.execute(
        update(notification)
        .where(
            notification.c.sop_instance_uid == sop_instance_uid,
            notification.c.receiver == receiver,
        )
        .values(**values, changed_at=now())
    )


def of_study(connection: Connection, *study_instance_uids: str) -> Sequence[Row[Any]]:
    """Return the notifications about one study or several, oldest first."""
    return connection.execute(
        select(notification, result.c.study_instance_uid, result.c.generation)
        .join(result)
        .where(result.c.study_instance_uid.in_(study_instance_uids))
        .order_by(notification.c.created_at, notification.c.receiver)
    ).all()


def told(connection: Connection, study_instance_uid: str) -> set[str]:
    """Return the receivers that were told of a study, or may have been."""
    rows = of_study(connection, study_instance_uid)
    return {row.receiver for row in rows if row.state == "told" or row.attempts > 0}


def release(connection: Connection, study_instance_uid: str) -> list[tuple[str, str]]:
    """Let a study's notifications that are held wait to be sent; return receiver and report."""
    rows = [row for row in of_study(connection, study_instance_uid) if row.state == "held"]
    for row in rows:
        set_row(connection, row.sop_instance_uid, row.receiver, {"state": "waiting"})
    return [(row.receiver, row.sop_instance_uid) for row in rows]


def retry(connection: Connection, study_instance_uid: str) -> list[tuple[str, str, int]]:
    """Let a study's dead notifications wait to be sent; return receiver, report and attempt."""
    rows = [
        row
        for row in of_study(connection, study_instance_uid)
        if row.state in ("refused", "failed") and row.path and row.file_state == "kept"
    ]
    for row in rows:
        set_row(connection, row.sop_instance_uid, row.receiver, {"state": "waiting"})
    return [(row.receiver, row.sop_instance_uid, row.attempts + 1) for row in rows]
