"""deliver -> prove: an object is sent until it is taken, and what was taken is proven to be kept.

Waiting is a delayed row, not a sleeping thread: an outage of days costs rows alone.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from pydicom import dcmread
from sqlalchemy import Connection

from thoracle import engine
from thoracle.audit import deliveries as audited
from thoracle.audit.deliveries import ASKED, NOT_OFFERED, UNAVAILABLE, Resend
from thoracle.commitments import Answer
from thoracle.deliver import commitment, query, storescu, stowrs
from thoracle.deliver.commitment import Reference, Requested
from thoracle.deliver.storescu import Receipt
from thoracle.errors import ArchiveRefused, ArchiveUnavailable, DeliveryError
from thoracle.pipeline.line import keep, parts, peer_of, web_peer_of
from thoracle.records import Kind
from thoracle.report import sr
from thoracle.settings import Destination
from thoracle.store import deliveries, results

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.5
"""Time in which an archive may answer on the association that asked for its commitment."""
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
    answer = _send(destination, sop_instance_uid)
    if answer is None:
        return
    after = engine.transaction(_attempted, destination, sop_instance_uid, attempt, answer)
    if after["delay"] is not None:
        enqueue_deliver(destination, sop_instance_uid, attempt + 1, priority, after["delay"])
    if after["transaction_uid"] is not None:
        _enqueue_ask(destination, after["transaction_uid"], 1, None)


@DBOS.step(name="send")
def _send(destination: str, sop_instance_uid: str) -> dict[str, Any] | None:
    """Return columns of the delivery, or ``None`` when it was taken back."""
    line = parts()
    if destination not in line.destinations:
        return {"state": "failed", "detail": f"{destination} is no longer in the settings"}
    with line.database.connect() as connection:
        row = results.result_row(connection, sop_instance_uid)
        if deliveries.delivery_row(connection, sop_instance_uid, destination).state != "waiting":
            return None
    try:
        receipt = _receipt(line.destinations[destination], row.path)
    except (ArchiveUnavailable, OSError) as error:
        return {"state": "waiting", "detail": str(error)}
    except ArchiveRefused as error:
        return {"state": "refused", "detail": str(error)}
    except Exception as error:
        # A fault of ours: without an end here the delivery would wait for ever, unseen.
        logger.exception("object not sent to %s", destination)
        return {"state": "failed", "detail": f"{type(error).__name__}, see log"}
    proven = line.destinations[destination].proof == "status"
    return {
        "state": "delivered" if proven else "sent",
        "proof": "status" if proven else None,
        "detail": None,
        "status": receipt.status,
        "delivered_sop_class_uid": receipt.sop_class_uid,
        "delivered_sop_instance_uid": receipt.sop_instance_uid,
    }


def _receipt(destination: Destination, below: str) -> Receipt:
    line = parts()
    stored = line.path(below)
    if destination.url is not None:
        return stowrs.store(web_peer_of(destination, line.settings), stored)

    def comprehensive() -> Any:
        return line.path(keep(Kind.SR, sr.as_comprehensive_sr(dcmread(stored))).path)

    return storescu.deliver(peer_of(destination, line.settings), stored, comprehensive)


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
            audited.unasked(connection, answer.transaction_uid, calling_ae_title)
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
    resends = audited.answered(
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
    line = parts()
    at = line.destinations.get(destination)
    if at is None or at.url is not None or at.proof != "commitment":
        return {"outcome": NOT_OFFERED, "detail": None}
    with line.database.connect() as connection:
        rows = deliveries.unproven(connection, transaction_uid)
    references = [
        Reference(row.delivered_sop_class_uid, row.delivered_sop_instance_uid) for row in rows
    ]
    ae_title = at.ae_title or ""

    def on_answer(answer: Answer) -> bool:
        return committed(ae_title, answer)

    try:
        requested = commitment.request(
            peer_of(at, line.settings), transaction_uid, references, on_answer, PATIENCE_SECONDS
        )
    except (ArchiveUnavailable, OSError) as error:
        return {"outcome": UNAVAILABLE, "detail": str(error)}
    except ArchiveRefused as error:
        return {"outcome": NOT_OFFERED, "detail": str(error)}
    offered = requested is Requested.ASKED
    return {"outcome": ASKED if offered else NOT_OFFERED, "detail": None}


def _asked(
    connection: Connection, transaction_uid: str, attempt: int, asked: dict[str, Any]
) -> float | None:
    return audited.asked(
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
    return audited.expired(connection, transaction_uid, settings, str(DBOS.workflow_id))


@DBOS.workflow(name="find", max_recovery_attempts=None)
def find(destination: str, transaction_uid: str, attempt: int) -> None:
    """Look for the objects of a request in the archive, and send again what it does not have."""
    answer = _find(destination, transaction_uid)
    after = engine.transaction(_queried, transaction_uid, attempt, answer)
    _resend(destination, after["resend"])
    if after["delay"] is not None:
        _enqueue_find(destination, transaction_uid, attempt + 1, after["delay"])


@DBOS.step(name="find")
def _find(destination: str, transaction_uid: str) -> dict[str, Any]:
    line = parts()
    at = line.destinations.get(destination)
    if at is None:
        return {"found": None, "unavailable": None}
    with line.database.connect() as connection:
        rows = deliveries.unproven(connection, transaction_uid)
    found: set[str] = set()
    try:
        # One series at a time: its UID is a key of the query (PS3.4 Section C.4.1).
        for series in sorted({row.series_instance_uid for row in rows}):
            mine = [row for row in rows if row.series_instance_uid == series]
            wanted = [row.delivered_sop_instance_uid for row in mine]
            study = mine[0].study_instance_uid
            if at.url is not None:
                here = stowrs.found(web_peer_of(at, line.settings), study, series, wanted)
            else:
                here = query.found(peer_of(at, line.settings), study, series, wanted)
            if here is None:
                return {"found": None, "unavailable": None}
            found |= here
    except ArchiveRefused:
        return {"found": None, "unavailable": None}
    except (DeliveryError, OSError) as error:
        return {"found": None, "unavailable": str(error)}
    return {"found": sorted(found), "unavailable": None}


def _queried(
    connection: Connection, transaction_uid: str, attempt: int, answer: dict[str, Any]
) -> dict[str, Any]:
    after = audited.queried(
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
