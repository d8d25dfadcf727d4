"""Questions to the trail: which events, by whom, of whom, about what."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    String,
    TextClause,
    and_,
    func,
    literal_column,
    or_,
    select,
    text,
)

from thoracle.store import chain, views
from thoracle.store.chain import COLUMNS
from thoracle.store.tables import audit_event
from thoracle.store.tables.audit import FAILED, SLOW
from thoracle.store.trail import Event

Condition = ColumnElement[bool] | TextClause
_EQUAL = (
    "event",
    "action",
    "event_outcome",
    "accession_number",
    "network_address",
    "user_id",
    "finding",
    "outcome",
    "reason_code",
    "destination",
    "proof",
    "status",
)
"""Fields that are columns of the same name."""
_WHOSE = ("patient_id", "issuer_of_patient_id", "study_instance_uid")
"""Such fields, too; with ``shown``, events that showed such a study have them as well."""
_IDENTIFIERS = ("patient_id", "study_instance_uid", "accession_number", "sop_instance_uid")
"""Fields that few events have alike."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which events are wanted; fields that are ``None`` do not restrict."""

    study_instance_uid: str | None = None
    patient_id: str | None = None
    accession_number: str | None = None
    since: str | None = None
    """ISO 8601 in UTC, inclusive; a prefix such as ``2026-11`` will do."""
    until: str | None = None
    """ISO 8601 in UTC, exclusive."""
    event: str | None = None
    """The verb of the trail, e.g. ``image read``."""
    action: str | None = None
    """C, R, U, D or E."""
    event_outcome: int | None = None
    """0 success, 4 minor, 8 serious or 12 major failure."""
    issuer_of_patient_id: str | None = None
    sop_instance_uid: str | None = None
    """Of an image or of an object that was made."""
    ae_title: str | None = None
    """Calling or called AE title."""
    network_address: str | None = None
    user_id: str | None = None
    bundle: str | None = None
    """Digest, hexadecimal, or name and version of a bundle, whole."""
    finding: str | None = None
    """Scheme and code, e.g. ``SCT:233604007``; rows of the first versions have none."""
    outcome: str | None = None
    """Of the analysis."""
    reason_code: str | None = None
    destination: str | None = None
    proof: str | None = None
    status: str | None = None
    """Of a C-STORE or the like, e.g. ``0xA700``."""
    at_least_seconds: float | None = None
    """Events that took so long at least."""
    shown: bool = False
    """Whether lists and searches that showed the study, or one of the patient's, count, too."""

    def given(self) -> dict[str, Any]:
        """Return what is asked for."""
        return {
            name: value
            for name, value in asdict(self).items()
            if value is not None and name != "shown"
        }


def events(connection: Connection, question: Question) -> Iterator[dict[str, Any]]:
    """Yield the matching events, oldest first, without their empty columns."""
    return map(as_dict, rows(connection, question))


def rows(connection: Connection, question: Question) -> Iterator[RowMapping]:
    """Yield the matching events, oldest first, with all columns."""
    either = [or_(*(and_(*one) for one in pair)) for pair in _pairs(question)]
    statement = (
        select(audit_event)
        .where(*_conditions(question), *either)
        .order_by(audit_event.c.recorded_at, audit_event.c.id)
    )
    result = connection.execute(statement.execution_options(yield_per=1000))
    yield from result.mappings()


def page(
    connection: Connection,
    question: Question,
    limit: int,
    before: tuple[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Return so many of the matching events, newest first, without their empty columns.

    Parameters
    ----------
    before
        ``recorded_at`` and ``id`` of the last event of the page before; the next ones follow it.
    """
    column = audit_event.c
    found: dict[int, dict[str, Any]] = {}
    # "Called or was called" is asked as two questions: of each, an index has the answer in order.
    for conditions in _alternatives(question):
        statement = select(audit_event).where(*conditions)
        if before is not None:
            moment, row_id = before
            statement = statement.where(
                column.recorded_at <= moment,
                or_(column.recorded_at < moment, column.id < row_id),
            )
        statement = statement.order_by(column.recorded_at.desc(), column.id.desc()).limit(limit)
        found |= {row["id"]: as_dict(row) for row in connection.execute(statement).mappings()}
    newest = sorted(found.values(), key=lambda one: (one["recorded_at"], one["id"]), reverse=True)
    return newest[:limit]


def as_dict(row: Any) -> dict[str, Any]:
    """Return a row without its empty columns."""
    return {name: value for name, value in row.items() if value not in (None, "", {})}


def _conditions(question: Question) -> list[Condition]:
    """Return what an event must be, but for the fields that two columns can have."""
    column = audit_event.c
    found: list[Condition] = []
    for name in _EQUAL:
        value = getattr(question, name)
        if value is not None:
            hidden = name != "event_outcome" and _is_narrow(question)
            found.append((column[name].concat("") if hidden else column[name]) == value)
    if question.event_outcome:
        found.append(text(FAILED))
    if question.since is not None:
        found.append(column.recorded_at >= question.since)
    if question.until is not None:
        found.append(column.recorded_at < question.until)
    if question.at_least_seconds is not None:
        found.append(column.seconds >= question.at_least_seconds)
        if question.at_least_seconds >= 1:
            found.append(text(SLOW))
    return found


def _is_narrow(question: Question) -> bool:
    """Return whether the few failures, or slow events, are to be gone through one by one.

    SQLite would take the index of another field, in which failures are as rare as everywhere: a
    text that something is appended to has no index. Identifiers are narrower still.
    """
    if any(getattr(question, name) is not None for name in _IDENTIFIERS):
        return False
    return bool(question.event_outcome) or (question.at_least_seconds or 0) >= 1


def _pairs(question: Question) -> list[list[list[ColumnElement[bool]]]]:
    """Return for each field that two columns can have the alternatives of which one must hold."""
    column = audit_event.c
    whose = _whose(question)
    return [whose] * bool(whose) + [
        [[one == value], [other == value]]
        for value, one, other in (
            (question.sop_instance_uid, column.sop_instance_uid, column.result_sop_instance_uid),
            (question.ae_title, column.calling_ae_title, column.called_ae_title),
            (question.bundle, column.bundle_digest, column.bundle_version),
        )
        if value is not None
    ]


def _alternatives(question: Question) -> Iterator[list[Condition]]:
    """Yield conditions that together let through what the question wants."""
    for chosen in itertools.product(*_pairs(question)):
        yield [*_conditions(question), *itertools.chain.from_iterable(chosen)]


def _whose(question: Question) -> list[list[ColumnElement[bool]]]:
    """Return the alternatives of which patient or study an event is; none: of any.

    It names them, or it is a list that showed such a study.
    """
    wanted = {name: value for name in _WHOSE if (value := getattr(question, name)) is not None}
    if not wanted:
        return []
    found = [[audit_event.c[name] == value for name, value in wanted.items()]]
    patient, uid = question.patient_id, question.study_instance_uid
    if not question.shown or (patient is None and uid is None):
        return found
    issuer = question.issuer_of_patient_id
    both: list[ColumnElement[bool]] = []
    if patient is not None:
        both.append(views.showed(views.of_patient(patient, None if issuer is None else [issuer])))
    if uid is not None:
        both.append(views.showed([uid]))
    return [*found, both]


# ---- single rows ---------------------------------------------------------------------------------
# Single rows of the trail, and its two ends: quick however long it is.


@dataclass(frozen=True, slots=True)
class Ends:
    """Where the trail begins and ends."""

    rows: int
    """From the last purge to the end of the chain; held rows from before it come on top."""
    first_id: int | None = None
    first_at: str | None = None
    """ISO 8601 in UTC."""
    last_id: int | None = None
    last_at: str | None = None


def event_row(connection: Connection, row_id: int) -> dict[str, Any] | None:
    """Return an event without its empty columns, if there is that row."""
    statement = select(audit_event).where(audit_event.c.id == row_id)
    row = connection.execute(statement).mappings().first()
    return None if row is None else as_dict(row)


def ends(connection: Connection) -> Ends:
    """Return where the trail begins and ends."""
    column = audit_event.c
    statement = select(column.id, column.recorded_at).limit(1)
    first = connection.execute(statement.order_by(column.id)).first()
    last = connection.execute(statement.order_by(column.id.desc())).first()
    rows = chain.head(connection)[0] - chain.checkpoint(connection)[0]
    if first is None or last is None:
        return Ends(rows)
    return Ends(rows, first.id, first.recorded_at, last.id, last.recorded_at)


# ---- pieces --------------------------------------------------------------------------------------
# The trail in pieces, each read in a transaction of its own.
#
# One long reading transaction would keep SQLite from folding its write-ahead log in, and the log
# would grow with all that arrives meanwhile.

NAMES = (*COLUMNS, "digest")
"""Columns of the rows that :func:`between` returns, in this order."""


def bounds(connection: Connection, since: str | None, until: str | None) -> tuple[int, int] | None:
    """Return the first and the last id of rows from ``since`` until before ``until``, if any."""
    moment = audit_event.c.recorded_at
    statement = select(func.min(audit_event.c.id), func.max(audit_event.c.id))
    if since is not None:
        statement = statement.where(moment >= since)
    if until is not None:
        statement = statement.where(moment < until)
    first, last = connection.execute(statement).one()
    return None if first is None else (int(first), int(last))


def between(connection: Connection, after: int, up_to: int, limit: int) -> Sequence[Sequence[Any]]:
    """Return rows behind one id and up to another, by id, at most so many; ``detail`` as text."""
    detail = "detail" if connection.dialect.name == "sqlite" else "detail::text"
    columns = ", ".join(detail if name == "detail" else name for name in NAMES)
    # They come from the driver as they are, as in store/chain.py.
    result = connection.exec_driver_sql(
        f"SELECT {columns} FROM audit_event WHERE id > {int(after)} AND id <= {int(up_to)} "  # noqa: S608 - no text from outside
        f"ORDER BY id LIMIT {int(limit)}"
    )
    cursor: Any = result.cursor
    found: Sequence[Sequence[Any]] = cursor.fetchall()
    result.close()
    return found


# ---- counts --------------------------------------------------------------------------------------
# How many events there are of each kind, counted by the database.
#
# A count by anything but time reads an index that has all it needs in its order, or the rows of a
# span of time; docs/audit-questions.md says which.

_column = audit_event.c
DAY, MONTH, SHORT = 10, 7, 12
"""Characters of a time that say the day, the month; of a digest that tell bundles apart."""
MOST = 1000
"""Values that are counted apart, the most frequent; days and months: the newest."""


@dataclass(frozen=True, slots=True)
class By:
    """What is counted apart."""

    of: ColumnElement[str]
    event: Event | None = None
    """Events of this kind alone are counted."""
    in_time: bool = False
    """In the order of time; else the most frequent come first."""


def _beginning(of: ColumnElement[str], length: int) -> ColumnElement[str]:
    """Return the first characters of a column, in words that can be grouped by on PostgreSQL."""
    found: ColumnElement[str] = func.substr(
        of, literal_column("1"), literal_column(str(length)), type_=String
    )
    return found


_SPACE: ColumnElement[str] = literal_column("' '", String)
BY = {
    "day": By(_beginning(_column.recorded_at, DAY), in_time=True),
    "month": By(_beginning(_column.recorded_at, MONTH), in_time=True),
    "event": By(_column.event),
    "device": By(_column.calling_ae_title, Event.INSTANCE_STORED),
    "outcome": By(_column.outcome, Event.IMAGE_READ),
    "reason": By(_column.reason_code, Event.IMAGE_READ),
    "bundle": By(
        _column.bundle_version + _SPACE + _beginning(_column.bundle_digest, SHORT),
        Event.IMAGE_READ,
    ),
    "destination": By(_column.destination),
    "user": By(_column.user_id),
}
"""What can be asked for. A device is the AE title that images came from; outcome, reason and bundle
are those of images read; a bundle is its version and the beginning of its digest."""


def count(
    connection: Connection, by: str, since: str | None = None, until: str | None = None
) -> list[tuple[str, int]]:
    """Return each value with the number of its events.

    Parameters
    ----------
    by
        A key of ``BY``.
    since, until
        ISO 8601 in UTC, inclusive and exclusive.
    """
    wanted = BY[by]
    number = func.count()
    order = wanted.of.desc() if wanted.in_time else number.desc()
    statement = (
        select(wanted.of, number)
        .where(wanted.of.is_not(None))
        .group_by(wanted.of)
        .order_by(order, wanted.of)
        .limit(MOST)
    )
    if wanted.event is not None:
        statement = statement.where(_column.event == wanted.event.verb)
    if since is not None:
        statement = statement.where(_column.recorded_at >= since)
    if until is not None:
        statement = statement.where(_column.recorded_at < until)
    found = [(str(value), int(rows)) for value, rows in connection.execute(statement)]
    return found[::-1] if wanted.in_time else found
