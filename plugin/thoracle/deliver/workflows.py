"""prove: what an archive has taken is asked for until something proves that it is kept."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Connection

from thoracle.deliver import archives, proofs
from thoracle.deliver import rows as requests
from thoracle.deliver.commitment_answers import Answer
from thoracle.deliver.proofs import UNAVAILABLE
from thoracle.outbox import workflow as outbox
from thoracle.store import engine
from thoracle.study.line import parts

PRIORITY = 100
"""Of the requests for proof: they may wait."""


def committed(calling_ae_title: str, answer: Answer) -> bool:
    """Take an archive's report on a commitment; return whether it is one that we asked for.

    When this returns, the report is durable: it may be acknowledged to the archive.
    """
    with parts().database.begin() as connection:
        if requests.row_of(connection, answer.transaction_uid) is None:
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
