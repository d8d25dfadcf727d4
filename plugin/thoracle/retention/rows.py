"""Statements about what is kept of studies, and what became of it: rows stay, files may go.

A file goes in two steps, so that no crash leaves a row that promises what is not there: its row is
set to ``going`` and committed, then the file is unlinked, then the row is set to ``gone``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from thoracle.records import Kind
from thoracle.retention.study_rows import count
from thoracle.store import chain, erased, views
from thoracle.store.tables import (
    analysis,
    audit_checkpoint,
    audit_event,
    audit_forward,
    instance,
    now,
    outbox,
    performance,
    result,
    study,
)
from thoracle.study.instances import GOING, GONE, KEPT

TABLES: tuple[Table, ...] = (instance, result, outbox)
"""Those whose rows have a file."""


class PurgeKind(StrEnum):
    """What goes of a study, each after a time of its own."""

    IMAGES = "images"
    """As received."""
    RESULTS = "results"
    """Objects that we made, and messages about them."""
    HEADERS = "headers"
    """What corrections need of images that have gone: rows (study/headers.py), without files."""
    READINGS = "readings"
    """What was said of each image, and its features: rows (removal.py)."""
    VERDICTS = "verdicts"
    STUDIES = "studies"
    """All rows of a study, after its files."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether the files of a study may go."""

    study_instance_uid: str
    unplanned: int
    """Images that no generation covers yet."""
    analyses: Sequence[tuple[str, str | None, str | None]]
    """State, what became of its sending, and when it ended; the newest generation first."""
    sent: Sequence[tuple[str, str, int, str]]
    """What was to be sent: kind and state, how many, and when the last of them came to it."""
    performed: int
    """Workitems of others on the study that have not ended."""
    received_at: str
    """Of the newest image."""

    @property
    def withdrawn(self) -> bool:
        """Whether no result stands any more that a correction might be about."""
        ended = [state for state, _, _ in self.analyses if state in ("done", "withdrawn")]
        return ended[:1] == ["withdrawn"]


def candidates(
    connection: Connection, what: PurgeKind, before: str, after: str, limit: int
) -> list[str]:
    """Return studies behind ``after`` with files that are kept, untouched since ``before``."""
    table = instance if what is PurgeKind.IMAGES else result
    mine = table.c.file_state == KEPT
    if what is PurgeKind.RESULTS:
        mine &= result.c.kind != Kind.ORIGINAL
    statement = (
        select(study.c.study_instance_uid)
        .where(
            study.c.study_instance_uid > after,
            study.c.study_instance_uid.in_(select(table.c.study_instance_uid).where(mine)),
            study.c.changed_at < before,
        )
        .order_by(study.c.study_instance_uid)
        .limit(limit)
    )
    return list(connection.execute(statement).scalars())


def lock(connection: Connection, study_instance_uid: str) -> None:
    """Hold the study's row until the transaction ends, as all that write about the study do."""
    same = study.c.study_instance_uid == study_instance_uid
    connection.execute(update(study).where(same).values(generation=study.c.generation))


def facts(connection: Connection, study_instance_uid: str) -> Facts:
    """Return what decides about a study."""
    of_study = result.c.study_instance_uid == study_instance_uid
    here = instance.c.study_instance_uid == study_instance_uid

    sent = connection.execute(
        select(outbox.c.kind, outbox.c.state, func.count(), func.max(outbox.c.changed_at))
        .join(result, result.c.sop_instance_uid == outbox.c.sop_instance_uid)
        .where(of_study)
        .group_by(outbox.c.kind, outbox.c.state)
        .order_by(outbox.c.kind, outbox.c.state)
    )
    analyses = connection.execute(
        select(analysis.c.state, analysis.c.sending, analysis.c.finished_at)
        .where(analysis.c.study_instance_uid == study_instance_uid)
        .order_by(analysis.c.generation.desc(), analysis.c.content_datetime.desc())
    )
    return Facts(
        study_instance_uid=study_instance_uid,
        unplanned=count(connection, instance, here & instance.c.generation.is_(None)),
        analyses=[(row[0], row[1], row[2]) for row in analyses],
        sent=[(row[0], row[1], row[2], row[3]) for row in sent],
        performed=count(
            connection,
            performance,
            (performance.c.study_instance_uid == study_instance_uid)
            & performance.c.state.in_(("claiming", "claimed", "awaited")),
        ),
        received_at=connection.execute(
            select(func.max(instance.c.received_at)).where(here)
        ).scalar()
        or "",
    )


def size(connection: Connection, what: PurgeKind, study_instance_uid: str) -> int:
    """Return how many files of a study are kept."""
    return sum(
        count(connection, table, condition)
        for table, condition in _files(what, study_instance_uid)
        # An image that is passed on has a row as a result, too.
        if not (what is PurgeKind.IMAGES and table is result)
    )


def mark_going(connection: Connection, what: PurgeKind, study_instance_uid: str) -> list[str]:
    """Set the files of a study to ``going``; return their paths, below the data folder."""
    paths: set[str] = set()
    for table, condition in _files(what, study_instance_uid):
        statement = update(table).where(condition).values(file_state=GOING, purged_at=now())
        found = connection.execute(statement.returning(table.c.path)).scalars()
        paths |= {path for path in found if path}
    return sorted(paths | set(other_forms(connection, paths)))


def _files(what: PurgeKind, study_instance_uid: str) -> list[tuple[Table, ColumnElement[bool]]]:
    """Return the tables with files of a study, and which of their rows."""
    kept = result.c.file_state == KEPT
    of_study = result.c.study_instance_uid == study_instance_uid
    original = result.c.kind == Kind.ORIGINAL
    if what is PurgeKind.IMAGES:
        here = instance.c.study_instance_uid == study_instance_uid
        return [
            (instance, here & (instance.c.file_state == KEPT)),
            (result, of_study & kept & original),
        ]
    told = exists().where(result.c.sop_instance_uid == outbox.c.sop_instance_uid, of_study)
    message = outbox.c.path.is_not(None) & (outbox.c.file_state == KEPT)
    return [
        (result, of_study & kept & ~original),
        (outbox, told & message),
    ]


def going(connection: Connection, limit: int) -> list[str]:
    """Return paths of files that are to be unlinked, at most so many of each table."""
    found: set[str] = set()
    for table in TABLES:
        statement = select(table.c.path).where(table.c.file_state == GOING).limit(limit)
        found |= set(connection.execute(statement).scalars())
    return sorted(found | set(other_forms(connection, found)))


def gone(connection: Connection, paths: Iterable[str]) -> None:
    """Record that files are no longer there; a row that has got another file is left alone."""
    wanted = list(paths)
    for table in TABLES:
        mine = (table.c.file_state == GOING) & table.c.path.in_(wanted)
        connection.execute(update(table).where(mine).values(file_state=GONE))


def other_forms(connection: Connection, paths: Iterable[str]) -> list[str]:
    """Return the files of the same reports as Comprehensive SR, made for archives without 3D."""
    uids = connection.execute(
        select(outbox.c.delivered_sop_instance_uid)
        .join(result, result.c.sop_instance_uid == outbox.c.sop_instance_uid)
        .where(
            result.c.path.in_(list(paths)),
            result.c.kind != Kind.ORIGINAL,
            outbox.c.delivered_sop_instance_uid != outbox.c.sop_instance_uid,
        )
    ).scalars()
    # Ours, so it may be a file name: study/line.py names them so.
    return [f"results/{uid[-2:]}/{uid}.dcm" for uid in uids if uid.replace(".", "").isdigit()]


# ---- the audit -------------------------------------------------------------------------------


def older(connection: Connection, before: str) -> int:
    """Return the id up to which all rows of the audit are from before a time; 0: none is."""
    first = connection.execute(
        select(audit_event.c.id)
        .where(audit_event.c.recorded_at >= before)
        .order_by(audit_event.c.id)
        .limit(1)
    ).scalar()
    if first is not None:
        return int(first) - 1
    return int(connection.execute(select(func.max(audit_event.c.id))).scalar() or 0)


def forwarded(connection: Connection, repositories: Sequence[str]) -> int | None:
    """Return up to which id each of these has got the audit; ``None`` when there are none."""
    if not repositories:
        return None
    found = connection.execute(
        select(audit_forward.c.last_id).where(audit_forward.c.repository.in_(repositories))
    ).scalars()
    reached = [int(one) for one in found]
    return min(reached) if len(reached) == len(repositories) else 0


def set_checkpoint(connection: Connection, up_to: int, reason: str) -> int:
    """Let the chain begin behind a row; return how many rows may be deleted by that."""
    before, _ = chain.checkpoint(connection)
    rows = up_to - before
    connection.execute(
        insert(audit_checkpoint).values(
            up_to=up_to,
            digest=chain.digest_at(connection, up_to),
            rows=rows,
            recorded_at=now(),
            reason=reason,
        )
    )
    return rows


def delete_events(connection: Connection, limit: int) -> int:
    """Delete the oldest rows that a checkpoint lets go, at most so many; return how many."""
    up_to, _ = chain.checkpoint(connection)
    oldest = (
        select(audit_event.c.id)
        .where(audit_event.c.id <= up_to)
        .order_by(audit_event.c.id)
        .limit(limit)
    )
    last = connection.execute(select(func.max(oldest.subquery().c.id))).scalar()
    if last is None:
        return 0
    erased.forget(connection, int(last))
    views.purge(connection, last)
    return connection.execute(delete(audit_event).where(audit_event.c.id <= last)).rowcount
