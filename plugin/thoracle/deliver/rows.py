"""Statements about where results went, and what proves that they are kept there."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, exists, insert, select, update

from thoracle.store.tables import commitment, delivery, now, result

_RESULT = (
    result.c.study_instance_uid,
    result.c.generation,
    result.c.series_instance_uid,
    result.c.sop_class_uid,
    result.c.kind,
    result.c.file_state,
)


def delivery_row(connection: Connection, sop_instance_uid: str, destination: str) -> Row[Any]:
    """Return the row of a delivery that exists, with what is known of its object."""
    return connection.execute(
        select(delivery, *_RESULT)
        .join(result)
        .where(
            delivery.c.sop_instance_uid == sop_instance_uid,
            delivery.c.destination == destination,
        )
    ).one()


def set_delivery(
    connection: Connection, sop_instance_uid: str, destination: str, values: Mapping[str, Any]
) -> None:
    """Set columns of a delivery."""
    connection.execute(
        update(delivery)
        .where(
            delivery.c.sop_instance_uid == sop_instance_uid,
            delivery.c.destination == destination,
        )
        .values(**values, changed_at=now())
    )


def of_study(
    connection: Connection, study_instance_uid: str, destination: str | None = None
) -> Sequence[Row[Any]]:
    """Return the deliveries of a study's objects, oldest first."""
    statement = (
        select(delivery, *_RESULT)
        .join(result)
        .where(result.c.study_instance_uid == study_instance_uid)
        .order_by(result.c.created_at, delivery.c.sop_instance_uid)
    )
    if destination is not None:
        statement = statement.where(delivery.c.destination == destination)
    return connection.execute(statement).all()


def of_studies(connection: Connection, study_instance_uids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return the deliveries of several studies' objects, oldest first."""
    return connection.execute(
        select(delivery, *_RESULT)
        .join(result)
        .where(result.c.study_instance_uid.in_(study_instance_uids))
        .order_by(result.c.created_at, delivery.c.sop_instance_uid, delivery.c.destination)
    ).all()


def request_proof(
    connection: Connection,
    transaction_uid: str,
    study_instance_uid: str,
    destination: str,
    request: int,
) -> bool:
    """Begin a request for proof of all that was sent and is in no other request.

    Returns whether there is anything to ask about. It waits, too, while an object of the study
    has not been tried yet: a PACS is asked once for a study, not for each object.
    """
    mine = (delivery.c.destination == destination) & exists().where(
        result.c.sop_instance_uid == delivery.c.sop_instance_uid,
        result.c.study_instance_uid == study_instance_uid,
    )
    untried = select(delivery.c.sop_instance_uid).where(
        mine, delivery.c.state == "waiting", delivery.c.attempts == 0
    )
    if connection.execute(untried.limit(1)).first() is not None:
        return False
    changed = connection.execute(
        update(delivery)
        .where(mine, delivery.c.state == "sent", delivery.c.transaction_uid.is_(None))
        .values(transaction_uid=transaction_uid)
    )
    if changed.rowcount == 0:
        return False
    moment = now()
    connection.execute(
        insert(commitment).values(
            transaction_uid=transaction_uid,
            destination=destination,
            study_instance_uid=study_instance_uid,
            request=request,
            state="planned",
            created_at=moment,
            changed_at=moment,
        )
    )
    return True


def request_row(connection: Connection, transaction_uid: str) -> Row[Any] | None:
    """Return the row of a request for proof, if it is one of ours."""
    return connection.execute(
        select(commitment).where(commitment.c.transaction_uid == transaction_uid)
    ).first()


def set_request(connection: Connection, transaction_uid: str, values: Mapping[str, Any]) -> None:
    """Set columns of a request for proof."""
    connection.execute(
        update(commitment)
        .where(commitment.c.transaction_uid == transaction_uid)
        .values(**values, changed_at=now())
    )


def unproven(connection: Connection, transaction_uid: str) -> Sequence[Row[Any]]:
    """Return the deliveries that a request for proof still waits for."""
    return connection.execute(
        select(delivery, *_RESULT)
        .join(result)
        .where(delivery.c.transaction_uid == transaction_uid, delivery.c.state == "sent")
        .order_by(delivery.c.sop_instance_uid)
    ).all()


def delivered_as(
    connection: Connection, destination: str, sop_instance_uids: Sequence[str]
) -> Sequence[Row[Any]]:
    """Return the deliveries of the objects that a destination has under these UIDs."""
    return connection.execute(
        select(delivery, *_RESULT)
        .join(result)
        .where(
            delivery.c.destination == destination,
            delivery.c.delivered_sop_instance_uid.in_(sop_instance_uids),
            delivery.c.state.in_(("sent", "delivered")),
        )
        .order_by(delivery.c.sop_instance_uid)
    ).all()


def release(connection: Connection, study_instance_uid: str) -> list[tuple[str, str]]:
    """Let a study's deliveries that are held wait to be sent; return destination and object."""
    rows = [row for row in of_study(connection, study_instance_uid) if row.state == "held"]
    for row in rows:
        set_delivery(connection, row.sop_instance_uid, row.destination, {"state": "waiting"})
    return [(row.destination, row.sop_instance_uid) for row in rows]


DEAD = ("refused", "failed")
"""States of a delivery that nothing but a person takes up again."""


def retry(connection: Connection, study_instance_uid: str) -> list[tuple[str, str, int]]:
    """Let a study's dead deliveries wait to be sent; return destination, object and attempt."""
    rows = [
        row
        for row in of_study(connection, study_instance_uid)
        if row.state in DEAD and row.file_state == "kept"
    ]
    for row in rows:
        values = {"state": "waiting", "transaction_uid": None}
        set_delivery(connection, row.sop_instance_uid, row.destination, values)
    return [(row.destination, row.sop_instance_uid, row.attempts + 1) for row in rows]
