"""Statements about requests for proof that an archive keeps what it has taken."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, exists, insert, select, update

from thoracle.outbox import rows as stored
from thoracle.outbox.rows import DICOM
from thoracle.store.tables import commitment, now, outbox, result


def begin(
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
    mine = (
        (outbox.c.kind == DICOM)
        & (outbox.c.peer == destination)
        & exists().where(
            result.c.sop_instance_uid == outbox.c.sop_instance_uid,
            result.c.study_instance_uid == study_instance_uid,
        )
    )
    untried = select(outbox.c.id).where(mine, outbox.c.state == "waiting", outbox.c.attempts == 0)
    if connection.execute(untried.limit(1)).first() is not None:
        return False
    changed = connection.execute(
        update(outbox)
        .where(mine, outbox.c.state == "sent", outbox.c.transaction_uid.is_(None))
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


def row_of(connection: Connection, transaction_uid: str) -> Row[Any] | None:
    """Return the row of a request for proof, if it is one of ours."""
    return connection.execute(
        select(commitment).where(commitment.c.transaction_uid == transaction_uid)
    ).first()


def planned(connection: Connection) -> Sequence[Row[Any]]:
    """Return the requests for proof that the archive has not been asked about yet."""
    return connection.execute(select(commitment).where(commitment.c.state == "planned")).all()


def set_row(connection: Connection, transaction_uid: str, values: Mapping[str, Any]) -> None:
    """Set columns of a request for proof."""
    connection.execute(
        update(commitment)
        .where(commitment.c.transaction_uid == transaction_uid)
        .values(**values, changed_at=now())
    )


def unproven(connection: Connection, transaction_uid: str) -> Sequence[Row[Any]]:
    """Return the rows of the outbox that a request for proof still waits for."""
    return connection.execute(
        stored.question()
        .where(outbox.c.transaction_uid == transaction_uid, outbox.c.state == "sent")
        .order_by(outbox.c.item)
    ).all()


def delivered_as(
    connection: Connection, destination: str, sop_instance_uids: Sequence[str]
) -> Sequence[Row[Any]]:
    """Return the rows of the objects that a destination has under these UIDs."""
    return connection.execute(
        stored.question()
        .where(
            outbox.c.kind == DICOM,
            outbox.c.peer == destination,
            outbox.c.delivered_sop_instance_uid.in_(sop_instance_uids),
            outbox.c.state.in_(stored.ARRIVED),
        )
        .order_by(outbox.c.item)
    ).all()
