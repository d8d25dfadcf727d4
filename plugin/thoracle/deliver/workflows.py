"""prove: what an archive has taken is asked for until something proves that it is kept."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Connection

from thoracle.deliver import commitment, proofs, query, stowrs
from thoracle.deliver import proofs as requests
from thoracle.deliver.commitment import CommitmentAnswer, Reference, Requested
from thoracle.deliver.peers import peer_of, web_peer_of
from thoracle.deliver.proofs import ASKED, NOT_OFFERED, UNAVAILABLE
from thoracle.errors import ArchiveRefused, ArchiveSilent, ArchiveUnavailable, DeliveryError
from thoracle.outbox import workflow as outbox
from thoracle.settings import Destination
from thoracle.store import engine
from thoracle.study.line import parts

# ---- steps ---------------------------------------------------------------------------------------
# The steps that ask an archive for proof. Each returns what came of it as plain values.

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.5
"""Time in which an archive may answer on the association that asked for its commitment."""


def ask_archive(
    destination: str, transaction_uid: str, on_answer: Callable[[str, CommitmentAnswer], bool]
) -> dict[str, Any]:
    """Ask an archive to commit to what a request is about; return ``outcome`` and ``detail``.

    ``on_answer`` is told of an answer on the same association, as by the listener of one on
    another; being a function, it keeps this from being a step itself.
    """
    line = parts()
    at = line.destinations.get(destination)
    if at is None or at.url is not None or at.proof != "commitment":
        return {"outcome": NOT_OFFERED, "detail": None}
    with line.database.connect() as connection:
        rows = requests.unproven(connection, transaction_uid)
    references = [
        Reference(row.delivered_sop_class_uid, row.delivered_sop_instance_uid) for row in rows
    ]
    ae_title = at.ae_title or ""

    try:
        requested = commitment.request(
            peer_of(at, line.settings),
            transaction_uid,
            references,
            lambda answer: on_answer(ae_title, answer),
            PATIENCE_SECONDS,
        )
    except (ArchiveSilent, ArchiveRefused) as error:
        return {"outcome": NOT_OFFERED, "detail": str(error)}
    except (ArchiveUnavailable, OSError) as error:
        return {"outcome": UNAVAILABLE, "detail": str(error)}
    offered = requested is Requested.ASKED
    return {"outcome": ASKED if offered else NOT_OFFERED, "detail": None}


@DBOS.step(name="find")
def find_in_archive(destination: str, transaction_uid: str) -> dict[str, Any]:
    """Look in an archive for what a request is about.

    Returns ``found`` and ``unavailable``, and for the trail ``means`` and ``asked``: C-FIND or
    QIDO-RS, and the objects by their series; ``None`` and empty when there was nobody to ask.
    """
    line = parts()
    at = line.destinations.get(destination)
    if at is None:
        return {"found": None, "unavailable": None, "means": None, "asked": {}}
    with line.database.connect() as connection:
        rows = requests.unproven(connection, transaction_uid)
    # One series at a time: its UID is a key of the query (PS3.4 Section C.4.1).
    asked: dict[str, list[str]] = {}
    for row in rows:
        asked.setdefault(row.series_instance_uid, []).append(row.delivered_sop_instance_uid)
    answer = _found_there(at, rows[0].study_instance_uid, asked) if rows else {"found": []}
    means = "QIDO-RS" if at.url is not None else "C-FIND"
    return {"unavailable": None, **answer, "means": means if rows else None, "asked": asked}


def _found_there(at: Destination, study: str, asked: dict[str, list[str]]) -> dict[str, Any]:
    """Return ``found``, ``None`` when the archive offers no query, or ``unavailable``."""
    settings = parts().settings
    found: set[str] = set()
    try:
        for series, wanted in sorted(asked.items()):
            if at.url is not None:
                here = stowrs.found(web_peer_of(at, settings), study, series, wanted)
            else:
                here = query.found(peer_of(at, settings), study, series, wanted)
            if here is None:
                return {"found": None}
            found |= here
    except (ArchiveSilent, ArchiveRefused) as error:
        return {"found": None, "refused": str(error)}
    except (DeliveryError, OSError) as error:
        return {"found": None, "unavailable": str(error)}
    return {"found": sorted(found)}


# ---- workflows -----------------------------------------------------------------------------------

PRIORITY = 100
"""Of the requests for proof: they may wait."""


def committed(calling_ae_title: str, answer: CommitmentAnswer) -> bool:
    """Take an archive's report on a commitment; return whether it is one that we asked for.

    When this returns, the report is durable: it may be acknowledged to the archive.
    """
    with parts().database.begin() as connection:
        if requests.row_of(connection, answer.transaction_uid) is None:
            proofs.unasked(connection, answer.transaction_uid, calling_ae_title)
            return False
    values = asdict(answer)
    said = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
    engine.poll_often()
    # An archive that repeats its report is heard once; one that reports anew is heard again.
    with SetWorkflowID(f"commit:{answer.transaction_uid}:{said}"):
        DBOS.enqueue_workflow(engine.INTAKE, commit, calling_ae_title, values)
    return True


@DBOS.workflow(name="commit", max_recovery_attempts=None)
def commit(calling_ae_title: str, values: dict[str, Any]) -> None:
    """Count as delivered what an archive has committed to keep, and send the rest again."""
    # Its result is not used; it is here for those that a version with this step has begun.
    _destination_of(values["transaction_uid"])
    outbox.enqueue(engine.transaction(_answered, calling_ae_title, values))


def _answered(
    connection: Connection, calling_ae_title: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    again = proofs.answered(
        connection,
        values["transaction_uid"],
        values["committed"],
        dict(values["failed"]),
        calling_ae_title,
        parts().settings.deliver,
        str(DBOS.workflow_id),
    )
    return [asdict(one) for one in again]


class ArchiveProver:
    """Archives are asked once for what they took of a study, when all of it was tried."""

    def begin(
        self, connection: Connection, peer: str, studies: Sequence[str], workflow_id: str
    ) -> list[str]:
        """Return the transactions of new requests for proof."""
        begun = (proofs.begin(connection, study, peer, 1, workflow_id) for study in studies)
        return [one for one in begun if one is not None]

    def enqueue(self, peer: str, asked: Sequence[str]) -> None:
        """Have an archive asked about them."""
        for transaction_uid in asked:
            _enqueue_ask(peer, transaction_uid, 1, None)


def recover() -> None:
    """Have archives asked about what nobody has asked them yet, e.g. for a crash."""
    with parts().database.connect() as connection:
        rows = requests.planned(connection)
    for row in rows:
        _enqueue_ask(row.destination, row.transaction_uid, 1, None)


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
    return ask_archive(destination, transaction_uid, committed)


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
    answer = find_in_archive(destination, transaction_uid)
    after = engine.transaction(_queried, transaction_uid, attempt, answer)
    outbox.enqueue(after.get("again", ()))
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
    return {**after, "again": [asdict(one) for one in after["again"]]}


@DBOS.step(name="destination of")
def _destination_of(transaction_uid: str) -> str:
    with parts().database.connect() as connection:
        row = requests.row_of(connection, transaction_uid)
    assert row is not None  # `committed` has seen it, and rows are never deleted
    return str(row.destination)
