"""Deliveries: rows and events written together, each in one transaction.

An object is *sent* when the archive has answered that it took it, and *delivered* when something
proves that the archive keeps it: the archive's commitment, else a query that finds it, else that
answer alone. What is found not to be kept is sent again.
"""

import random
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from thoracle.deliver import rows as deliveries
from thoracle.settings import Deliver
from thoracle.store import trail
from thoracle.store.tables import timestamp
from thoracle.study import reading_list
from thoracle.study.analyses import of_study


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
        values, delay = postponed(row, attempt, values, settings)
    deliveries.set_delivery(
        connection, sop_instance_uid, destination, {**values, "attempts": attempt}
    )
    record(connection, row, {**values, "detail": answer["detail"]}, attempt, workflow_id)
    transaction_uid = request_proof(connection, row.study_instance_uid, destination, 1, workflow_id)
    return {"delay": delay, "transaction_uid": transaction_uid}


def withdrawn(connection: Connection, row: Row[Any]) -> None:
    """Take back a delivery that has not been sent."""
    values = {"state": "withdrawn", "next_attempt_at": None}
    deliveries.set_delivery(connection, row.sop_instance_uid, row.destination, values)


def request_proof(
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
    record_request(connection, request, event, trail.SUCCESS, detail, workflow_id)
    return transaction_uid


def postponed(
    row: Row[Any], attempt: int, values: dict[str, Any], settings: Deliver
) -> tuple[dict[str, Any], float | None]:
    """Return columns and delay of a delivery that is tried again, or given up."""
    delay = delay_after(attempt, settings)
    if is_old(row.created_at, settings, delay):
        return {**values, "state": "failed", "next_attempt_at": None}, None
    due = timestamp(datetime.now(UTC) + timedelta(seconds=delay))
    return {**values, "next_attempt_at": due}, delay


def is_old(created_at: str, settings: Deliver, in_seconds: float = 0) -> bool:
    """Return whether something will then be older than ``give_up_days``."""
    end = datetime.fromisoformat(created_at) + timedelta(days=settings.give_up_days)
    return datetime.now(UTC) + timedelta(seconds=in_seconds) > end


def delay_after(attempt: int, settings: Deliver) -> float:
    """Return the seconds from a failed attempt to the next."""
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


def record(
    connection: Connection,
    row: Row[Any],
    values: Mapping[str, Any],
    attempt: int,
    workflow_id: str,
) -> None:
    """Add the event of what became of a delivery."""
    reading_list.touch(connection, row.study_instance_uid)
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


def record_request(
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
