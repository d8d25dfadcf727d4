"""Rows that go by the rules of ``[retention]``: whole studies, verdicts, readings.

One study is one transaction with one event. A study goes after all of its files have gone, so that
it is here with all of its rows or not at all; what comes of it afterwards is a new study.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    delete,
    exists,
    func,
    insert,
    select,
)

from thoracle.retention import holds, rules, study_rows
from thoracle.retention import rows as stored
from thoracle.retention.rows import PurgeKind
from thoracle.retention.rules import RetentionLimits
from thoracle.retention.study_rows import count
from thoracle.store import chain, trail
from thoracle.store.database import begin_writing
from thoracle.store.tables import (
    analysis,
    commitment,
    instance,
    outbox,
    reading,
    reconciliation,
    result,
    study,
    verdict,
    verdict_going,
    workitem,
)
from thoracle.study import reading_list
from thoracle.study.analyses import of_study
from thoracle.study.instances import GONE

KINDS = (PurgeKind.READINGS, PurgeKind.VERDICTS, PurgeKind.STUDIES)
"""What consists of rows, in the order in which it goes."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What went with a study."""

    rows: int
    files_until: str
    """When the last of its files went; empty: it had none."""


# ---- what may go -----------------------------------------------------------------------------


def candidates(
    connection: Connection, what: PurgeKind, before: str, after: str, limit: int
) -> list[str]:
    """Return studies behind ``after``, at most so many, with rows from before a moment."""
    column: Column[str] = study.c.study_instance_uid
    condition: ColumnElement[bool] = study.c.changed_at < before
    if what is PurgeKind.VERDICTS:
        column, condition = verdict.c.study_instance_uid, verdict.c.recorded_at < before
    elif what is PurgeKind.READINGS:
        column = analysis.c.study_instance_uid
        condition = (analysis.c.finished_at < before) & exists().where(_of_analysis())
    statement = (
        select(column).where(column > after, condition).distinct().order_by(column).limit(limit)
    )
    return list(connection.execute(statement).scalars())


def _of_analysis() -> ColumnElement[bool]:
    """Return the condition that a reading is of an analysis."""
    names = ("study_instance_uid", "generation", "bundle_digest", "finding")
    first, *rest = (reading.c[name] == analysis.c[name] for name in names)
    for one in rest:
        first &= one
    return first


def size(connection: Connection, what: PurgeKind, uid: str, before: str) -> int:
    """Return how many rows of a study there are from before a moment."""
    if what is PurgeKind.STUDIES:
        return sum(study_rows.counts(connection, [uid]).values())
    table, condition = _old(what, uid, before)
    return count(connection, table, condition)


def _old(what: PurgeKind, uid: str, before: str) -> tuple[Table, ColumnElement[bool]]:
    """Return the table with verdicts or readings, and which of its rows are old."""
    if what is PurgeKind.VERDICTS:
        mine = verdict.c.study_instance_uid == uid
        return verdict, mine & (verdict.c.recorded_at < before)
    old = exists().where(_of_analysis(), analysis.c.finished_at < before)
    return reading, (reading.c.study_instance_uid == uid) & old


def reasons(
    connection: Connection, what: PurgeKind, uid: str, limits: RetentionLimits
) -> Iterator[str]:
    """Yield why rows of a study stay, in words; nothing when they may go."""
    facts, held_by = stored.facts(connection, uid), holds.of_study(connection, uid)
    if what is PurgeKind.STUDIES:
        yield from rules.reasons(facts, held_by, what, limits)
        yield from _under_way(connection, uid)
        judged_at = connection.execute(
            select(func.max(verdict.c.recorded_at)).where(verdict.c.study_instance_uid == uid)
        ).scalar()
        before = limits.before(what)
        if before and judged_at and judged_at >= before:
            yield f"judged at {judged_at} only, required: {limits.days[what]} days"
        return
    yield from (f"legal hold {number}" for number in held_by)
    if what is PurgeKind.READINGS:
        yield from rules.of_analyses(facts, limits)
    if not size(connection, what, uid, limits.before(what)):
        yield f"none is older than {limits.days[what]} days"


def _under_way(connection: Connection, uid: str) -> Iterator[str]:
    """Yield what of a study waits for somebody, beside what keeps its files, too."""
    for table, states, said in (
        (reconciliation, ("open",), "decisions about its patients are open"),
        (workitem, ("IN PROGRESS",), "workitems are claimed"),
        (workitem, ("HELD",), "workitems are held by a rule"),
        (commitment, ("planned", "asked"), "storage commitments are awaited"),
    ):
        mine = (table.c.study_instance_uid == uid) & table.c.state.in_(states)
        if number := count(connection, table, mine):
            yield f"{number} {said}"


def words(connection: Connection, uids: Sequence[str]) -> dict[str, str]:
    """Return the UIDs by which work of the engine names studies, each with its study."""
    found = study_rows.uids(connection, uids, instance, result, workitem)
    return {**found, **dict(zip(uids, uids, strict=True))}


# ---- what goes -------------------------------------------------------------------------------


def remove(
    connection: Connection, what: PurgeKind, uid: str, limits: RetentionLimits
) -> Removed | None:
    """Delete rows of a study if they may go, and record it; ``None`` when they stay.

    That is decided anew here, with the study's row locked: something may have come meanwhile.
    """
    begin_writing(connection)
    stored.lock(connection, uid)
    if any(reasons(connection, what, uid, limits)):
        return None
    if what is PurgeKind.STUDIES:
        return _remove_study(connection, uid, limits)
    before = limits.before(what)
    table, old = _old(what, uid, before)
    number = count(connection, table, old)
    detail: dict[str, object] = {"before": before, "rows": {table.name: number}}
    if what is PurgeKind.VERDICTS:
        detail["verdicts"] = _announce(connection, old)
    connection.execute(delete(table).where(old))
    _record(connection, what, of_study(connection, uid), limits, detail)
    if what is PurgeKind.VERDICTS and not count(
        connection, verdict, verdict.c.study_instance_uid == uid
    ):
        reading_list.forget_opinion(connection, uid)
    return Removed(number, "")


def _remove_study(connection: Connection, uid: str, limits: RetentionLimits) -> Removed | None:
    kept, files_until = _files(connection, uid)
    if kept:
        return None  # unreadable, or another one came meanwhile
    found = study_rows.counts(connection, [uid])
    concluded_at = rules.concluded_at(stored.facts(connection, uid))
    detail: dict[str, object] = {"rows": found, "concluded_at": concluded_at}
    named = of_study(connection, uid)
    _announce(connection, verdict.c.study_instance_uid == uid)
    study_rows.delete_studies(connection, [uid])
    _record(connection, PurgeKind.STUDIES, named, limits, detail)
    return Removed(sum(found.values()), files_until)


def _announce(connection: Connection, old: ColumnElement[bool]) -> list[int]:
    """Have triggers let verdicts go until the next event; return their numbers."""
    numbers = select(verdict.c.id).where(old).order_by(verdict.c.id)
    found = [int(one) for one in connection.execute(numbers).scalars()]
    event_id = chain.head(connection)[0] + 1
    values = [{"verdict_id": one, "event_id": event_id} for one in found]
    if values:
        connection.execute(insert(verdict_going), values)
    return found


def _files(connection: Connection, uid: str) -> tuple[int, str]:
    """Return how many files of a study have not gone, and when the last one went."""
    kept, moments = 0, [""]
    for table, mine in (
        (instance, instance.c.study_instance_uid == uid),
        (result, result.c.study_instance_uid == uid),
        (outbox, study_rows.sent([uid]) & outbox.c.path.is_not(None)),
    ):
        kept += count(connection, table, mine & (table.c.file_state != GONE))
        newest = select(func.max(table.c.purged_at)).where(mine)
        moments.append(connection.execute(newest).scalar() or "")
    return kept, max(moments)


def _record(
    connection: Connection,
    what: PurgeKind,
    named: trail.Columns,
    limits: RetentionLimits,
    detail: dict[str, object],
) -> None:
    """Record what goes."""
    detail = {"what": what.value, "days": limits.days[what], **detail}
    columns: trail.Columns = {**named, "detail": detail}
    trail.record(connection, trail.Event.RETENTION_DELETED, columns)
    connection.execute(delete(verdict_going))
