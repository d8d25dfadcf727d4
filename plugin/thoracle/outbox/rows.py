"""Statements about what is sent, for every kind of peer alike."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    column,
    func,
    insert,
    literal,
    select,
    table,
    update,
)

from thoracle.records import Kind
from thoracle.store import workflows
from thoracle.store.tables import now, outbox, result, study
from thoracle.study.instances import KEPT
from thoracle.study.published import is_of_published
from thoracle.study.results import AnalysisKey

DICOM = "dicom"
"""The kind of which an item is a DICOM object; of every other it is a message."""
DEAD = ("refused", "failed")
"""States that nothing but a person takes up again."""
ARRIVED = ("sent", "delivered")
UNDER_WAY = ("held", "waiting", "sent")
NOT_ARRIVED = ("waiting", "held", *DEAD)
"""States of what a withdrawal takes back, so that no retry sends it later."""
ROUTINE, STAT = 100, 1
"""Priorities."""
NO_STUDY = "none"
"""In place of a Study Instance UID: what is about no study, as alarms."""
MOST = 100
"""Items of one batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that go to one peer in one call, and when."""

    kind: str
    peer: str
    name: str
    priority: int
    delay: float | None = None
    """Seconds until then."""


def question() -> Select[Any]:
    """Return the question for rows, with what is known of the result that each is, or is about."""
    return select(
        outbox,
        result.c.study_instance_uid,
        result.c.generation,
        result.c.series_instance_uid,
        result.c.sop_class_uid,
        result.c.kind.label("object"),
        result.c.path.label("object_path"),
        result.c.sha256.label("object_sha256"),
        result.c.file_state.label("object_state"),
    ).outerjoin(result)


def add(
    connection: Connection,
    kind: str,
    peer: str,
    item: str,
    *,
    sop_instance_uid: str | None = None,
    state: str = "waiting",
    priority: int = ROUTINE,
    path: str | None = None,
    content: Any = None,
) -> int | None:
    """Record that a peer is to get an item; return ``None`` when it was to get it already.

    Else the number of the row.
    """
    same = (outbox.c.kind == kind) & (outbox.c.peer == peer) & (outbox.c.item == item)
    if connection.execute(select(outbox.c.id).where(same)).first() is not None:
        return None
    moment = now()
    added = connection.execute(
        insert(outbox).values(
            kind=kind,
            peer=peer,
            item=item,
            sop_instance_uid=sop_instance_uid,
            state=state,
            priority=priority,
            attempts=0,
            path=path,
            content=content,
            created_at=moment,
            changed_at=moment,
        )
    )
    assert added.inserted_primary_key is not None
    return int(added.inserted_primary_key[0])


def add_object(
    connection: Connection,
    sop_instance_uid: str,
    peers: Iterable[str],
    state: str = "waiting",
    priority: int = ROUTINE,
) -> None:
    """Record that archives are to get an object whose row exists."""
    for peer in peers:
        add(
            connection,
            DICOM,
            peer,
            sop_instance_uid,
            sop_instance_uid=sop_instance_uid,
            state=state,
            priority=priority,
        )


def row_of(connection: Connection, kind: str, peer: str, item: str) -> Row[Any]:
    """Return a row that exists."""
    return connection.execute(
        question().where(outbox.c.kind == kind, outbox.c.peer == peer, outbox.c.item == item)
    ).one()


def numbered(connection: Connection, numbers: Sequence[int]) -> Sequence[Row[Any]]:
    """Return rows by their numbers, in that order of numbers."""
    return connection.execute(
        question().where(outbox.c.id.in_(numbers)).order_by(outbox.c.id)
    ).all()


def set_rows(connection: Connection, numbers: Iterable[int], **values: Any) -> None:
    """Set columns of rows."""
    connection.execute(
        update(outbox).where(outbox.c.id.in_(list(numbers))).values(**values, changed_at=now())
    )


def of_studies(
    connection: Connection,
    study_instance_uids: Sequence[str],
    kind: str | None = None,
    *,
    with_kept_back: bool = True,
) -> Sequence[Row[Any]]:
    """Return the rows about studies, of one kind or all, oldest first.

    Without ``with_kept_back`` those of results alone that may be told: how many there are of the
    others, and of what kind, says what the result is.
    """
    statement = (
        question()
        .where(result.c.study_instance_uid.in_(study_instance_uids))
        .order_by(result.c.created_at, outbox.c.item, outbox.c.peer)
    )
    if kind is not None:
        statement = statement.where(outbox.c.kind == kind)
    if not with_kept_back:  # an image that is passed on is of the result that passed it on first
        statement = statement.where(is_of_published(result), outbox.c.state != "held")
    return connection.execute(statement).all()


def of_result(connection: Connection, key: AnalysisKey) -> Sequence[Row[Any]]:
    """Return the rows of the objects that an analysis made."""
    return connection.execute(
        question().where(
            outbox.c.kind == DICOM,
            result.c.study_instance_uid == key.study_instance_uid,
            result.c.generation == key.generation,
            result.c.bundle_digest == key.bundle_digest,
            result.c.kind.not_in((Kind.ORIGINAL, Kind.REJECTION)),
        )
    ).all()


def of_batch(connection: Connection, name: str, *, in_order: bool = False) -> Sequence[Row[Any]]:
    """Return what waits in a batch, in the order in which it was put there.

    ``in_order``: and before it what waits for the same peer for longer.
    """
    waiting = question().where(outbox.c.state == "waiting").order_by(outbox.c.id)
    rows = connection.execute(waiting.where(outbox.c.batch == name)).all()
    if not rows or not in_order:
        return rows
    last = rows[-1]
    same = (outbox.c.kind == last.kind) & (outbox.c.peer == last.peer)
    return connection.execute(waiting.where(same, outbox.c.id <= last.id).limit(MOST)).all()


def notified_peers(connection: Connection, study_instance_uid: str) -> set[str]:
    """Return the peers that were told of a study by a message, or may have been."""
    return {
        row.peer
        for row in of_studies(connection, [study_instance_uid])
        if row.kind != DICOM and (row.state in ARRIVED or row.attempts > 0)
    }


def by_kind(connection: Connection) -> dict[str, int]:
    """Return how many rows of a kind are in a state, by both: ``hl7 delivered``."""
    columns = (outbox.c.kind, outbox.c.state)
    rows = connection.execute(select(*columns, func.count()).group_by(*columns).order_by(*columns))
    return {f"{kind} {state}": int(number) for kind, state, number in rows}


def by_study(
    connection: Connection, study_instance_uids: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return for each study how many objects of its newest result are in which state."""
    statement = (
        select(result.c.study_instance_uid, outbox.c.state, func.count())
        .join(result, result.c.sop_instance_uid == outbox.c.sop_instance_uid)
        .join(
            study,
            (study.c.study_instance_uid == result.c.study_instance_uid)
            & (study.c.generation == result.c.generation),
        )
        .where(result.c.study_instance_uid.in_(study_instance_uids), outbox.c.kind == DICOM)
        .group_by(result.c.study_instance_uid, outbox.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    for uid, state, number in connection.execute(statement):
        found.setdefault(uid, {})[state] = number
    return found


def is_kept(row: Any) -> bool:
    """Return whether there is still something to send."""
    if row.kind == DICOM:
        return bool(row.object_state == KEPT)
    return bool(row.file_state == KEPT and (row.path or row.content is not None))


def is_dead(row: Any) -> bool:
    """Return whether nothing but a person sends a row again, and can."""
    return row.state in DEAD and is_kept(row)


# ---- batches ---------------------------------------------------------------------------------


def batched(connection: Connection, rows: Iterable[Any], delay: float | None = None) -> list[Batch]:
    """Put rows that wait into batches, one for each peer; return what is to be enqueued."""

    def by(row: Any) -> tuple[str, str, int]:
        return row.kind, row.peer, row.priority

    made = []
    for (kind, peer, priority), group in groupby(sorted(rows, key=by), key=by):
        numbers = sorted(row.id for row in group)
        for first in range(0, len(numbers), MOST):
            name = uuid.uuid4().hex
            set_rows(connection, numbers[first : first + MOST], batch=name)
            made.append(Batch(kind, peer, name, priority, delay))
    return made


def begin(connection: Connection, study_instance_uid: str) -> list[Batch]:
    """Put what waits of a study and is in no batch yet into batches."""
    rows = of_studies(connection, [study_instance_uid])
    return batched(connection, [row for row in rows if row.state == "waiting" and not row.batch])


def release(connection: Connection, study_instance_uid: str) -> list[Batch]:
    """Let what is held of a study wait to be sent."""
    rows = [row for row in of_studies(connection, [study_instance_uid]) if row.state == "held"]
    set_rows(connection, [row.id for row in rows], state="waiting")
    return batched(connection, rows)


def dead(connection: Connection, study_instance_uid: str) -> list[Row[Any]]:
    """Return what only a person sends again of a study, or of what is about none."""
    if study_instance_uid == NO_STUDY:
        loose = outbox.c.sop_instance_uid.is_(None) & outbox.c.state.in_(DEAD)
        rows = connection.execute(question().where(loose).order_by(outbox.c.id)).all()
    else:
        rows = of_studies(connection, [study_instance_uid])
    return [row for row in rows if is_dead(row)]


def retry(connection: Connection, study_instance_uid: str) -> tuple[list[Batch], dict[str, int]]:
    """Let what is dead of a study wait to be sent at once; return how many of each kind, too."""
    rows = dead(connection, study_instance_uid)
    numbers = [row.id for row in rows]
    set_rows(
        connection,
        numbers,
        state="waiting",
        priority=STAT,
        transaction_uid=None,
        next_attempt_at=None,
    )
    kinds: dict[str, int] = {}
    for row in rows:
        kinds[row.kind] = kinds.get(row.kind, 0) + 1
    return batched(connection, numbered(connection, numbers)), kinds


def withdraw(connection: Connection, study_instance_uid: str) -> None:
    """Take back what has not arrived of a study; images that are passed on are nobody's result."""
    rows = of_studies(connection, [study_instance_uid])
    taken = [row.id for row in rows if row.state in NOT_ARRIVED and row.object != Kind.ORIGINAL]
    set_rows(connection, taken, state="withdrawn", next_attempt_at=None)


# ---- recovery --------------------------------------------------------------------------------


def begin_unbatched(connection: Connection) -> list[Batch]:
    """Put what waits and is in no batch into batches: rows of an earlier version, and alarms."""
    waiting = (outbox.c.state == "waiting") & outbox.c.batch.is_(None)
    rows = sorted(connection.execute(question().where(waiting)), key=_together)
    return [
        batch
        for (_, moment), group in groupby(rows, key=_together)
        for batch in batched(connection, group, seconds_until(moment or None))
    ]


def _together(row: Any) -> tuple[str, str]:
    return row.study_instance_uid or "", row.next_attempt_at or ""


def without_workflow(connection: Connection) -> list[tuple[Batch, str | None]]:
    """Return batches in which something waits and that no workflow is going to send.

    Each with the status in which its workflow ended; ``None`` when it was never enqueued, e.g. for
    a crash.
    """
    found = workflows.table(connection, workflows.STATUS)
    if found is None:
        return []
    schema, _, name = found.rpartition(".")
    status = table(name, column("workflow_uuid"), column("status"), schema=schema or None)
    columns = (outbox.c.kind, outbox.c.peer, outbox.c.batch)
    rows = connection.execute(
        select(
            *columns,
            func.min(outbox.c.priority).label("priority"),
            func.min(outbox.c.next_attempt_at).label("due"),
            status.c.status,
        )
        .outerjoin(
            status,
            status.c.workflow_uuid == literal("send:") + outbox.c.peer + ":" + outbox.c.batch,
        )
        .where(
            outbox.c.state == "waiting",
            outbox.c.batch.is_not(None),
            func.coalesce(status.c.status, "").not_in(("ENQUEUED", "DELAYED", "PENDING")),
        )
        .group_by(*columns, status.c.status)
    )
    return [
        (Batch(row.kind, row.peer, row.batch, row.priority, seconds_until(row.due)), row.status)
        for row in rows
    ]


def seconds_until(moment: str | None) -> float | None:
    """Return how long it is until a moment; ``None`` when it has passed."""
    if moment is None:
        return None
    seconds = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
    return seconds if seconds > 0 else None
