"""Deliveries and their proof: rows and events written together, each in one transaction.

An object is *sent* when the archive has answered that it took it, and *delivered* when something
proves that the archive keeps it: the archive's commitment, else a query that finds it, else that
answer alone. What is found not to be kept is sent again.
"""

import random
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from thoracle.audit import trail
from thoracle.audit.commits import of_study
from thoracle.settings import Deliver
from thoracle.store import deliveries
from thoracle.store.tables import timestamp

NOT_OFFERED, UNAVAILABLE, ASKED = "not offered", "unavailable", "asked"
"""What can come of a request for proof, beside an answer."""


@dataclass(frozen=True, slots=True)
class Resend:
    """A delivery that is to be tried again."""

    sop_instance_uid: str
    attempt: int
    delay: float
    """Seconds."""


def attempted(
    connection: Connection,
    destination: str,
    sop_instance_uid: str,
    attempt: int,
    answer: Mapping[str, Any],
    settings: Deliver,
    workflow_id: str,
) -> dict[str, Any]:
    """Record what an attempt to deliver came to.

    Parameters
    ----------
    answer
        Columns of ``delivery``.

    Returns
    -------
    dict
        ``delay``: seconds until the next attempt, or ``None`` when there is none. It doubles with
        each attempt up to the longest one, and the ladder ends when the result is older than
        ``give_up_days``. ``transaction_uid``: of a request for proof that is to be made now.
    """
    row = deliveries.delivery_row(connection, sop_instance_uid, destination)
    if row.state != "waiting" and answer["state"] == "waiting":
        return {"delay": None, "transaction_uid": None}  # withdrawn meanwhile: not tried again
    values, delay = dict(answer), None
    if values["state"] == "waiting":
        values, delay = _postponed(row, attempt, values, settings)
    deliveries.set_delivery(
        connection, sop_instance_uid, destination, {**values, "attempts": attempt}
    )
    _record(connection, row, {**values, "detail": answer["detail"]}, attempt, workflow_id)
    transaction_uid = _request(connection, row.study_instance_uid, destination, 1, workflow_id)
    return {"delay": delay, "transaction_uid": transaction_uid}


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
    request = deliveries.request_row(connection, transaction_uid)
    assert request is not None
    delay: float | None = None
    if outcome == ASKED:
        delay = settings.commitment_seconds
        outcome = request.state if request.state == "answered" else outcome
    elif outcome == UNAVAILABLE and not _is_old(request.created_at, settings):
        delay = _delay(attempt, settings)
    due = delay and timestamp(datetime.now(UTC) + timedelta(seconds=delay))
    deliveries.set_request(connection, transaction_uid, {"state": outcome, "due_at": due})
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
) -> list[Resend]:
    """Record an archive's answer to a request for its commitment; return what it does not keep.

    What was asked about and is not named counts as not kept. A late answer proves, too.
    """
    request = deliveries.request_row(connection, transaction_uid)
    assert request is not None
    deliveries.set_request(connection, transaction_uid, {"state": "answered", "due_at": None})
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
    for row in deliveries.delivered_as(connection, request.destination, committed):
        _proven(connection, row, "commitment", workflow_id)
    resends = []
    for row in deliveries.unproven(connection, transaction_uid):
        why = failed.get(row.delivered_sop_instance_uid)
        said = "not named" if why is None else f"failure reason 0x{why:04X}"
        resends += _again(connection, row, f"not committed: {said}", settings, workflow_id)
    return resends


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
    request = deliveries.request_row(connection, transaction_uid)
    assert request is not None
    rows = deliveries.unproven(connection, transaction_uid)
    if not rows:
        return {"ask": None, "query": None}
    deliveries.set_request(connection, transaction_uid, {"state": "expired", "due_at": None})
    if request.request >= settings.commitment_requests:
        return {"ask": None, "query": transaction_uid}
    for row in rows:
        deliveries.set_delivery(
            connection, row.sop_instance_uid, row.destination, {"transaction_uid": None}
        )
    again = _request(
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

    Returns
    -------
    dict
        ``delay``: seconds until the next query, or ``None``. ``resend``: what it does not have.
    """
    request = deliveries.request_row(connection, transaction_uid)
    assert request is not None
    if answer["unavailable"] is not None and not _is_old(request.created_at, settings):
        return {"delay": _delay(attempt, settings), "resend": []}
    found: Collection[str] | None = answer["found"]
    resends: list[Resend] = []
    for row in deliveries.unproven(connection, transaction_uid):
        if found is None:
            _proven(connection, row, "status", workflow_id)
        elif row.delivered_sop_instance_uid in found:
            _proven(connection, row, "query", workflow_id)
        else:
            resends += _again(connection, row, "a query does not find it", settings, workflow_id)
    return {"delay": None, "resend": resends}


def withdrawn(connection: Connection, row: Row[Any]) -> None:
    """Take back a delivery that has not been sent."""
    values = {"state": "withdrawn", "next_attempt_at": None}
    deliveries.set_delivery(connection, row.sop_instance_uid, row.destination, values)


def _request(
    connection: Connection,
    study_instance_uid: str,
    destination: str,
    number: int,
    workflow_id: str,
) -> str | None:
    """Return the transaction of a new request for proof, if there is something to ask about."""
    transaction_uid = f"2.25.{uuid.uuid4().int}"
    begun = deliveries.request_proof(
        connection, transaction_uid, study_instance_uid, destination, number
    )
    if not begun:
        return None
    request = deliveries.request_row(connection, transaction_uid)
    detail = {"request": number, "objects": len(deliveries.unproven(connection, transaction_uid))}
    event = trail.Event.PROOF_REQUESTED
    _record_request(connection, request, event, trail.SUCCESS, detail, workflow_id)
    return transaction_uid


def _proven(connection: Connection, row: Row[Any], proof: str, workflow_id: str) -> None:
    values = {"state": "delivered", "proof": proof, "transaction_uid": None, "detail": None}
    deliveries.set_delivery(connection, row.sop_instance_uid, row.destination, values)
    if (row.state, row.proof) != ("delivered", proof):  # told twice, it is recorded once
        recorded = {**row._mapping, **values}
        _record(connection, row, recorded, row.attempts, workflow_id)


def _again(
    connection: Connection, row: Row[Any], detail: str, settings: Deliver, workflow_id: str
) -> list[Resend]:
    """Have an object sent again that the archive does not keep, unless it is too old for that."""
    values = {"state": "waiting", "transaction_uid": None, "detail": detail}
    values, delay = _postponed(row, row.attempts, values, settings)
    deliveries.set_delivery(connection, row.sop_instance_uid, row.destination, values)
    _record(connection, row, {**row._mapping, **values}, row.attempts, workflow_id)
    return [] if delay is None else [Resend(row.sop_instance_uid, row.attempts + 1, delay)]


def _postponed(
    row: Row[Any], attempt: int, values: dict[str, Any], settings: Deliver
) -> tuple[dict[str, Any], float | None]:
    """Return columns and delay of a delivery that is tried again, or given up."""
    delay = _delay(attempt, settings)
    if _is_old(row.created_at, settings, delay):
        return {**values, "state": "failed", "next_attempt_at": None}, None
    due = timestamp(datetime.now(UTC) + timedelta(seconds=delay))
    return {**values, "next_attempt_at": due}, delay


def _is_old(created_at: str, settings: Deliver, in_seconds: float = 0) -> bool:
    end = datetime.fromisoformat(created_at) + timedelta(days=settings.give_up_days)
    return datetime.now(UTC) + timedelta(seconds=in_seconds) > end


def _delay(attempt: int, settings: Deliver) -> float:
    doubled = settings.first_delay_seconds * 2.0 ** min(attempt - 1, 30)
    delay = min(doubled, settings.longest_delay_seconds)
    return delay * (1 + settings.jitter * random.uniform(-1, 1))  # noqa: S311 - no secret


_STATES = {
    "sent": (trail.Event.DELIVERY_SENT, trail.SUCCESS),
    "delivered": (trail.Event.DELIVERY_SUCCEEDED, trail.SUCCESS),
    "waiting": (trail.Event.DELIVERY_POSTPONED, trail.MINOR_FAILURE),
    "refused": (trail.Event.DELIVERY_FAILED, trail.SERIOUS_FAILURE),
    "failed": (trail.Event.DELIVERY_FAILED, trail.SERIOUS_FAILURE),
}


def _record(
    connection: Connection,
    row: Row[Any],
    values: Mapping[str, Any],
    attempt: int,
    workflow_id: str,
) -> None:
    """Add the event of what became of a delivery."""
    event, event_outcome = _STATES[values["state"]]
    uid = values.get("delivered_sop_instance_uid") or row.sop_instance_uid
    trail.record(
        connection,
        event,
        {
            **of_study(connection, row.study_instance_uid),
            "event_outcome": event_outcome,
            "result_sop_instance_uid": uid,
            "destination": row.destination,
            "proof": values.get("proof"),
            "status": values.get("status"),
            "correlation_id": workflow_id,
            "detail": {"attempt": attempt, "kind": row.kind, "detail": values["detail"]},
        },
    )


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
