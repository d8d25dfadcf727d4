"""deliver -> prove: an object is sent until it is taken, and what was taken is proven to be kept.

Waiting is a delayed row, not a sleeping thread: an outage of days costs rows alone.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Connection

from thoracle.deliver import archives, proofs
from thoracle.deliver import attempts as audited
from thoracle.deliver import rows as deliveries
from thoracle.deliver.commitment_answers import Answer
from thoracle.deliver.line import parts
from thoracle.deliver.proofs import UNAVAILABLE, Resend
from thoracle.store import engine

PRIORITY = 100
"""Of the requests for proof: they may wait."""

# ---- deliver ---------------------------------------------------------------------------------


def enqueue_deliver(
    destination: str, sop_instance_uid: str, attempt: int, priority: int, delay: float | None
) -> None:
    """Have an object sent to a destination, after so many seconds."""
    with (
        SetWorkflowID(f"deliver:{destination}:{sop_instance_uid}:{attempt}"),
        SetEnqueueOptions(priority=priority, queue_partition_key=destination, delay_seconds=delay),
    ):
        DBOS.enqueue_workflow(
            engine.DELIVER, deliver, destination, sop_instance_uid, attempt, priority
        )


@DBOS.workflow(name="deliver", max_recovery_attempts=None)
def deliver(destination: str, sop_instance_uid: str, attempt: int, priority: int) -> None:
    """Make one attempt; a failed one that time may heal is followed by another, later.

    The last object of a study that is tried starts the request for the proof of all of them.
    """
    answer = archives.send(destination, sop_instance_uid)
    if answer is None:
        return
    after = engine.transaction(_attempted, destination, sop_instance_uid, attempt, answer)
    if after["delay"] is not None:
        enqueue_deliver(destination, sop_instance_uid, attempt + 1, priority, after["delay"])
    if after["transaction_uid"] is not None:
        _enqueue_ask(destination, after["transaction_uid"], 1, None)


def _attempted(
    connection: Connection,
    destination: str,
    sop_instance_uid: str,
    attempt: int,
    answer: dict[str, Any],
) -> dict[str, Any]:
    return audited.attempted(
        connection,
        destination,
        sop_instance_uid,
        attempt,
        answer,
        parts().settings.deliver,
        str(DBOS.workflow_id),
    )


# ---- prove -----------------------------------------------------------------------------------


def committed(calling_ae_title: str, answer: Answer) -> bool:
    """Take an archive's report on a commitment; return whether it is one that we asked for.

    When this returns, the report is durable: it may be acknowledged to the archive.
    """
    with parts().database.begin() as connection:
        if deliveries.request_row(connection, answer.transaction_uid) is None:
            proofs.unasked(connection, answer.transaction_uid, calling_ae_title)
            return False
    values = asdict(answer)
    said = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
    # An archive that repeats its report is heard once; one that reports anew is heard again.
    with SetWorkflowID(f"commit:{answer.transaction_uid}:{said}"):
        DBOS.enqueue_workflow(engine.INTAKE, commit, calling_ae_title, values)
    return True


@DBOS.workflow(name="commit", max_recovery_attempts=None)
def commit(calling_ae_title: str, values: dict[str, Any]) -> None:
    """Count as delivered what an archive has committed to keep, and send the rest again."""
    transaction_uid = values["transaction_uid"]
    destination = _destination_of(transaction_uid)
    resends = engine.transaction(_answered, calling_ae_title, values)
    _resend(destination, resends)


def _answered(
    connection: Connection, calling_ae_title: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    resends = proofs.answered(
        connection,
        values["transaction_uid"],
        values["committed"],
        dict(values["failed"]),
        calling_ae_title,
        parts().settings.deliver,
        str(DBOS.workflow_id),
    )
    return [asdict(one) for one in resends]


def _enqueue_ask(destination: str, transaction_uid: str, attempt: int, delay: float | None) -> None:
    _enqueue(ask, "ask", destination, transaction_uid, attempt, delay)


def _enqueue_find(
    destination: str, transaction_uid: str, attempt: int, delay: float | None
) -> None:
    _enqueue(find, "find", destination, transaction_uid, attempt, delay)


def _enqueue(
    workflow: Any,
    name: str,
    destination: str,
    transaction_uid: str,
    attempt: int,
    delay: float | None,
) -> None:
    with (
        SetWorkflowID(f"{name}:{transaction_uid}:{attempt}"),
        SetEnqueueOptions(priority=PRIORITY, queue_partition_key=destination, delay_seconds=delay),
    ):
        DBOS.enqueue_workflow(engine.PROVE, workflow, destination, transaction_uid, attempt)


@DBOS.workflow(name="ask", max_recovery_attempts=None)
def ask(destination: str, transaction_uid: str, attempt: int) -> None:
    """Ask an archive for its commitment; where it offers none, look for the objects there."""
    asked = _ask(destination, transaction_uid)
    delay = engine.transaction(_asked, transaction_uid, attempt, asked)
    if delay is None:
        _enqueue_find(destination, transaction_uid, 1, None)
    elif asked["outcome"] == UNAVAILABLE:
        _enqueue_ask(destination, transaction_uid, attempt + 1, delay)
    else:
        _enqueue(expire, "expire", destination, transaction_uid, 1, delay)


@DBOS.step(name="ask")
def _ask(destination: str, transaction_uid: str) -> dict[str, Any]:
    return archives.ask(destination, transaction_uid, committed)


def _asked(
    connection: Connection, transaction_uid: str, attempt: int, asked: dict[str, Any]
) -> float | None:
    return proofs.asked(
        connection,
        transaction_uid,
        attempt,
        asked["outcome"],
        asked["detail"],
        parts().settings.deliver,
        str(DBOS.workflow_id),
    )


@DBOS.workflow(name="expire", max_recovery_attempts=None)
def expire(destination: str, transaction_uid: str, _attempt: int) -> None:
    """Ask again, or look for the objects, when the time for an archive's report is over."""
    after = engine.transaction(_expired, transaction_uid)
    if after["ask"] is not None:
        _enqueue_ask(destination, after["ask"], 1, None)
    if after["query"] is not None:
        _enqueue_find(destination, after["query"], 1, None)


def _expired(connection: Connection, transaction_uid: str) -> dict[str, str | None]:
    settings = parts().settings.deliver
    return proofs.expired(connection, transaction_uid, settings, str(DBOS.workflow_id))


@DBOS.workflow(name="find", max_recovery_attempts=None)
def find(destination: str, transaction_uid: str, attempt: int) -> None:
    """Look for the objects of a request in the archive, and send again what it does not have."""
    answer = archives.find(destination, transaction_uid)
    after = engine.transaction(_queried, transaction_uid, attempt, answer)
    _resend(destination, after["resend"])
    if after["delay"] is not None:
        _enqueue_find(destination, transaction_uid, attempt + 1, after["delay"])


def _queried(
    connection: Connection, transaction_uid: str, attempt: int, answer: dict[str, Any]
) -> dict[str, Any]:
    after = proofs.queried(
        connection,
        transaction_uid,
        attempt,
        answer,
        parts().settings.deliver,
        str(DBOS.workflow_id),
    )
    return {**after, "resend": [asdict(one) for one in after["resend"]]}


@DBOS.step(name="destination of")
def _destination_of(transaction_uid: str) -> str:
    with parts().database.connect() as connection:
        row = deliveries.request_row(connection, transaction_uid)
    assert row is not None  # `committed` has seen it, and rows are never deleted
    return str(row.destination)


def _resend(destination: str, resends: Iterable[dict[str, Any]]) -> None:
    for one in (Resend(**values) for values in resends):
        enqueue_deliver(destination, one.sop_instance_uid, one.attempt, PRIORITY, one.delay)
