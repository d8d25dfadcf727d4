"""The proof of deliveries: rows and events written together, each in one transaction."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, exists, insert, select, update

from thoracle.outbox import attempts
from thoracle.outbox import rows as stored
from thoracle.outbox.rows import DICOM, Batch
from thoracle.settings import Deliver
from thoracle.store import trail
from thoracle.store.tables import commitment, now, outbox, result, timestamp
from thoracle.study.analyses import of_study

# ---- rows ----------------------------------------------------------------------------------------
# Statements about requests for proof that an archive keeps what it has taken.


def begin_request(
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


# ---- rows and events -----------------------------------------------------------------------------

NOT_OFFERED, UNAVAILABLE, ASKED = "not offered", "unavailable", "asked"
"""What can come of a request for proof, beside an answer."""


def begin(
    connection: Connection,
    study_instance_uid: str,
    destination: str,
    number: int,
    workflow_id: str,
) -> str | None:
    """Return the transaction of a new request for proof, if there is something to ask about."""
    transaction_uid = f"2.25.{uuid.uuid4().int}"
    if not begin_request(connection, transaction_uid, study_instance_uid, destination, number):
        return None
    request = row_of(connection, transaction_uid)
    detail = {"request": number, "objects": len(unproven(connection, transaction_uid))}
    event = trail.Event.PROOF_REQUESTED
    _record_request(connection, request, event, trail.SUCCESS, detail, workflow_id)
    return transaction_uid


def asked(
    connection: Connection,
    transaction_uid: str,
    attempt: int,
    outcome: str,
    detail: str | None,
    settings: Deliver,
    workflow_id: str,
) -> float | None:
    """Record what came of asking an archive for its commitment.

    Returns seconds until the archive is to be looked at again: for its answer when it was asked,
    else for the next attempt. ``None`` when it offers no commitment, or could not be asked for
    too long, and so has to be queried; and when the answer has come already.
    """
    request = row_of(connection, transaction_uid)
    assert request is not None
    delay: float | None = None
    if outcome == ASKED:
        delay = settings.commitment_seconds
        outcome = request.state if request.state == "answered" else outcome
    elif outcome == UNAVAILABLE and not attempts.is_old(request.created_at, settings):
        delay = attempts.delay_after(attempt, settings)
    due = delay and timestamp(datetime.now(UTC) + timedelta(seconds=delay))
    set_row(connection, transaction_uid, {"state": outcome, "due_at": due})
    if outcome in (NOT_OFFERED, UNAVAILABLE):
        event = trail.Event.PROOF_ANSWERED
        said = {"outcome": outcome, "detail": detail, "attempt": attempt}
        _record_request(connection, request, event, trail.MINOR_FAILURE, said, workflow_id)
    return delay


def answered(
    connection: Connection,
    transaction_uid: str,
    committed: Sequence[str],
    failed: Mapping[str, int],
    calling_ae_title: str,
    settings: Deliver,
    workflow_id: str,
) -> list[Batch]:
    """Record an archive's answer to a request for its commitment; return what it does not keep.

    What was asked about and is not named counts as not kept. A late answer proves, too.
    """
    request = row_of(connection, transaction_uid)
    assert request is not None
    set_row(connection, transaction_uid, {"state": "answered", "due_at": None})
    _record_request(
        connection,
        request,
        trail.Event.PROOF_ANSWERED,
        trail.MINOR_FAILURE if failed else trail.SUCCESS,
        {
            "committed": len(committed),
            "failed": {uid: f"0x{why:04X}" for uid, why in failed.items()},
        },
        workflow_id,
        calling_ae_title,
    )
    for row in delivered_as(connection, request.destination, committed):
        _proven(connection, row, "commitment", workflow_id)
    missing = []
    for row in unproven(connection, transaction_uid):
        why = failed.get(row.delivered_sop_instance_uid)
        said = "not named" if why is None else f"failure reason 0x{why:04X}"
        missing.append((row, f"not committed: {said}"))
    return _again(connection, missing, settings, workflow_id)


def unasked(connection: Connection, transaction_uid: str, calling_ae_title: str) -> None:
    """Record a report on a commitment that was never asked for."""
    trail.record(
        connection,
        trail.Event.PROOF_ANSWERED,
        {
            "event_outcome": trail.SERIOUS_FAILURE,
            "calling_ae_title": calling_ae_title,
            "detail": {"transaction_uid": transaction_uid, "detail": "not one of our requests"},
        },
    )


def expired(
    connection: Connection, transaction_uid: str, settings: Deliver, workflow_id: str
) -> dict[str, str | None]:
    """End a request for commitment whose time is over.

    Returns a dictionary: ``ask`` is the transaction of the next request, ``query`` the transaction
    whose objects have to be queried because the archive was asked often enough; one of them at
    most is not ``None``.
    """
    request = row_of(connection, transaction_uid)
    assert request is not None
    rows = unproven(connection, transaction_uid)
    if not rows:
        return {"ask": None, "query": None}
    set_row(connection, transaction_uid, {"state": "expired", "due_at": None})
    if request.request >= settings.commitment_requests:
        return {"ask": None, "query": transaction_uid}
    stored.set_rows(connection, [row.id for row in rows], transaction_uid=None)
    again = begin(
        connection,
        request.study_instance_uid,
        request.destination,
        request.request + 1,
        workflow_id,
    )
    return {"ask": again, "query": None}


def queried(
    connection: Connection,
    transaction_uid: str,
    attempt: int,
    answer: Mapping[str, Any],
    settings: Deliver,
    workflow_id: str,
) -> dict[str, Any]:
    """Record what a query for the objects of a request for proof came to.

    Parameters
    ----------
    answer
        ``found``: SOP Instance UIDs, or ``None`` when the archive offers no query; then its answer
        to the sending is the proof. ``unavailable``: why it could not be asked, or ``None``.
        ``means`` and ``asked``: how it was asked, and for what, by series; ``None`` and empty when
        it was not. ``refused``: why it did not answer, if it said so.

    Returns
    -------
    dict
        ``delay``: seconds until the next query, or ``None``. ``again``: batches of what it does not
        have.
    """
    request = row_of(connection, transaction_uid)
    assert request is not None
    _record_query(connection, request, attempt, answer, workflow_id)
    if answer["unavailable"] is not None and not attempts.is_old(request.created_at, settings):
        return {"delay": attempts.delay_after(attempt, settings), "again": []}
    found: Collection[str] | None = answer["found"]
    missing = []
    for row in unproven(connection, transaction_uid):
        if found is None:
            _proven(connection, row, "status", workflow_id)
        elif row.delivered_sop_instance_uid in found:
            _proven(connection, row, "query", workflow_id)
        else:
            missing.append((row, "a query does not find it"))
    return {"delay": None, "again": _again(connection, missing, settings, workflow_id)}


def _record_query(
    connection: Connection,
    request: Row[Any],
    attempt: int,
    answer: Mapping[str, Any],
    workflow_id: str,
) -> None:
    """Add the event of a query, unless the archive offers none; then there was none."""
    found, why = answer["found"], answer["unavailable"] or answer.get("refused")
    means = answer.get("means")  # a step that an earlier version ended has none
    if means is None or (found is None and why is None):
        return
    said: dict[str, Any] = {"means": means, "asked": answer["asked"], "attempt": attempt}
    said |= {"found": len(found)} if found is not None else {"detail": why}
    outcome = trail.MINOR_FAILURE if found is None else trail.SUCCESS
    event = trail.Event.ARCHIVE_QUERIED
    _record_request(connection, request, event, outcome, said, workflow_id)


def _proven(connection: Connection, row: Row[Any], proof: str, workflow_id: str) -> None:
    values = {"state": "delivered", "proof": proof, "transaction_uid": None, "detail": None}
    stored.set_rows(connection, [row.id], **values)
    if (row.state, row.proof) != ("delivered", proof):  # told twice, it is recorded once
        recorded = {**row._mapping, **values}
        attempts.record(connection, row, recorded, row.attempts, workflow_id)


def _again(
    connection: Connection,
    missing: Sequence[tuple[Row[Any], str]],
    settings: Deliver,
    workflow_id: str,
) -> list[Batch]:
    """Have objects sent again that the archive does not keep, unless they are too old for that."""
    for row, detail in missing:
        stored.set_rows(connection, [row.id], state="waiting", transaction_uid=None, detail=detail)
    return attempts.postponed(connection, [row for row, _ in missing], settings, workflow_id)


def _record_request(
    connection: Connection,
    request: Row[Any] | None,
    event: trail.Event,
    event_outcome: int,
    detail: dict[str, Any],
    workflow_id: str,
    calling_ae_title: str | None = None,
) -> None:
    """Add the event of a request for proof that exists."""
    assert request is not None
    trail.record(
        connection,
        event,
        {
            **of_study(connection, request.study_instance_uid),
            "event_outcome": event_outcome,
            "destination": request.destination,
            "calling_ae_title": calling_ae_title,
            "correlation_id": workflow_id,
            "detail": {"transaction_uid": request.transaction_uid, **detail},
        },
    )
