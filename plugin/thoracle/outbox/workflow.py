"""send: one durable attempt to send a batch to its peer, then another of what was not taken.

Waiting is a delayed row of the engine, not a sleeping thread: an outage of days costs rows alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Connection

from thoracle.errors import ObjectsAway, ThoracleError
from thoracle.outbox import attempts, senders
from thoracle.outbox import rows as stored
from thoracle.outbox.rows import ARRIVED, DICOM, Batch
from thoracle.outbox.senders import OutboxItem, SendAnswer, Sender
from thoracle.records import Kind
from thoracle.store import engine
from thoracle.store.database import begin_writing
from thoracle.store.object_files import Digest
from thoracle.study.line import parts


def enqueue(batches: Iterable[Any]) -> None:
    """Have batches sent, each after its delay; the same batch again changes nothing.

    Each is a :class:`Batch`, or a dictionary of its values. What a workflow of an earlier version
    has written down is neither, and left out: :func:`recover` finds its rows.
    """
    for one in batches:
        if isinstance(one, Batch):
            batch = one
        elif isinstance(one, dict) and "name" in one:
            batch = Batch(**one)
        else:
            continue
        if not batch.delay:
            engine.poll_often()
        queue = engine.IN_ORDER if senders.of_kind(batch.kind).in_order else engine.DELIVER
        with (
            SetWorkflowID(f"send:{batch.peer}:{batch.name}"),
            SetEnqueueOptions(
                priority=batch.priority,
                queue_partition_key=batch.peer,
                delay_seconds=batch.delay,
            ),
        ):
            DBOS.enqueue_workflow(queue, send, batch.kind, batch.peer, batch.name)


@DBOS.workflow(name="send", max_recovery_attempts=None)
def send(kind: str, peer: str, batch: str) -> None:
    """Make one attempt; what time may heal is followed by another, later."""
    answers = _send(kind, peer, batch)
    if not answers:  # all was taken back
        return
    after = engine.transaction(_answered, kind, peer, answers)
    enqueue(after["again"])
    prover = senders.of_kind(kind).prover
    if after["prove"] and prover is not None:
        prover.enqueue(peer, after["prove"])


@DBOS.step(name="send batch")
def _send(kind: str, peer: str, batch: str) -> list[dict[str, Any]]:
    """Return for each item that waits ``number``, ``together`` and columns of its row."""
    line = parts()
    sender = senders.of_kind(kind)
    with line.database.connect() as connection:
        rows = stored.of_batch(connection, batch, in_order=sender.in_order)
    found = next((one for one in sender.peers(line.settings) if one.name == peer), None)
    if found is None:
        return [_failed(row.id, f"{peer} is no longer in the settings") for row in rows]
    gone = "by the rules of [retention] it is no longer kept"
    answers = [_failed(row.id, gone) for row in rows if not stored.is_kept(row)]
    kept = [row for row in rows if stored.is_kept(row)]
    items = []
    for row in kept:
        try:
            items.append(_item(row))
        except ObjectsAway as error:
            away = senders.failure(error, found.name)
            answers.append(_columns(row.id, away, together=True))
        except ThoracleError as error:  # the others go
            answers.append(_failed(row.id, str(error)))
    return answers + (_answers(sender, found, items) if items else [])


def _item(row: Any) -> OutboxItem:
    below = row.object_path if row.kind == DICOM else row.path
    return OutboxItem(
        number=row.id,
        key=row.item,
        path=parts().path(below, lambda: _known(row)) if below else None,
        object=Kind(row.object) if row.kind == DICOM else None,
        content=row.content,
    )


def _known(row: Any) -> Digest | None:
    """Return the digest of a result's file; that of an original is of its data set alone."""
    ours = row.kind == DICOM and row.object != Kind.ORIGINAL
    return Digest(row.object_sha256) if ours else None


def _answers(sender: Sender[Any], peer: Any, items: Sequence[OutboxItem]) -> list[dict[str, Any]]:
    """Return what a peer answered to each item; none raises."""
    answers: list[dict[str, Any]] = []
    left = list(items)
    rest = SendAnswer("failed", "the sender gave no answer")
    # A process that stood still for too long sends nothing: another may have sent more since.
    engine.require_lease()
    try:
        for answer in sender.send(peer, items):
            answers.append(_columns(left.pop(0).number, answer))
    except Exception as error:  # noqa: BLE001 - `failure` says what each means
        rest = senders.failure(error, peer.name)
    if left and rest.state == "failed":  # a fault of ours at this item: the others may do better
        answers.append(_columns(left.pop(0).number, rest))
        rest = SendAnswer("waiting", rest.detail)
    return answers + [_columns(one.number, rest, together=True) for one in left]


def _columns(number: int, answer: SendAnswer, *, together: bool = False) -> dict[str, Any]:
    columns = asdict(answer)
    if answer.state not in ARRIVED:  # what is known of an earlier attempt stays
        columns = {name: value for name, value in columns.items() if value is not None}
    return {"number": number, "together": together, "detail": None, **columns}


def _failed(number: int, detail: str) -> dict[str, Any]:
    return {"number": number, "together": False, "state": "failed", "detail": detail}


def _answered(
    connection: Connection, kind: str, peer: str, answers: list[dict[str, Any]]
) -> dict[str, list[Any]]:
    workflow_id = str(DBOS.workflow_id)
    together = [one["number"] for one in answers if one["together"]]
    columns = {
        one["number"]: {
            name: value for name, value in one.items() if name not in ("number", "together")
        }
        for one in answers
    }
    again, studies = attempts.answered(
        connection, columns, together, parts().settings.deliver, workflow_id
    )
    prover = senders.of_kind(kind).prover
    prove = [] if prover is None else prover.begin(connection, peer, studies, workflow_id)
    return {"again": [asdict(one) for one in again], "prove": prove}


# ---- recovery --------------------------------------------------------------------------------


def recover() -> None:
    """Have sent what waits and no workflow is going to send.

    That is what an earlier version left, an alarm that was written outside of a workflow, and what
    a crash kept from being enqueued. A batch whose workflow ended with an error has failed an
    attempt: it goes on with the ladder of delays.
    """
    line = parts()
    with line.database.begin() as connection:
        begin_writing(connection)
        batches = stored.begin_unbatched(connection)
        for batch, status in stored.without_workflow(connection):
            if status is None:
                batches.append(batch)
                continue
            rows = stored.of_batch(connection, batch.name)
            said = {"state": "waiting", "detail": f"the sending ended: {status}, see log"}
            numbers = [row.id for row in rows]
            name = f"send:{batch.peer}:{batch.name}"
            answers = dict.fromkeys(numbers, said)
            again, _ = attempts.answered(connection, answers, numbers, line.settings.deliver, name)
            batches += again
    enqueue(batches)
