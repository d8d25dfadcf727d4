"""Statements about many studies at once: what the dashboard and the watch count.

Every study counts by the moment its first image was received, and by its newest result. ``since``
and ``until`` are times as they are stored; the first is inclusive, the second is not. What a rule
keeps back counts only ``with_kept_back``: for administrators, and for the watch of the gateway,
which must go on when somebody shadows a device because of it.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    case,
    exists,
    func,
    literal_column,
    select,
    true,
)

from thoracle.outbox.rows import DICOM
from thoracle.store.tables import (
    analysis,
    outbox,
    reading,
    result,
    study,
    verdict,
    worklist,
)
from thoracle.study.published import KEPT_BACK, is_kept_back, is_of_published

Rows = Sequence[Any]
"""Rows with the columns that each function names."""
DAY, MONTH = 10, 7
"""Length of the text of a time that names its day, its month."""


def _beginning(moment: Any, length: int) -> Any:
    """Return the beginning of a time; in words of SQL, not as parameters: it is grouped by."""
    return func.substr(moment, literal_column("1"), literal_column(str(int(length))))


def first_day(connection: Connection) -> str | None:
    """Return the first day, as ``2026-11-22``, that has studies with readings.

    Those of earlier days may have gone by the rules of retention.
    """
    read = exists().where(reading.c.study_instance_uid == worklist.c.study_instance_uid)
    statement = select(worklist.c.received_at).where(read).order_by(worklist.c.received_at)
    first = connection.execute(statement.limit(1)).scalar()
    return None if first is None else str(first)[:DAY]


def outcomes(
    connection: Connection,
    since: str,
    until: str,
    period: int = DAY,
    *,
    with_kept_back: bool = False,
) -> Rows:
    """Return ``period`` (day or month), ``ai_state`` and ``number`` of studies, oldest first."""
    when = _beginning(worklist.c.received_at, period).label("period")
    return _by_state(connection, since, until, when, with_kept_back=with_kept_back)


def _by_state(
    connection: Connection,
    since: str,
    until: str,
    column: ColumnElement[Any],
    *,
    with_kept_back: bool,
) -> Rows:
    """Return numbers of studies by a column and the state, in that order."""
    number = func.count().label("number")
    came = (worklist.c.received_at >= since, worklist.c.received_at < until)
    listed = select(column, worklist.c.ai_state, number).where(*came)
    rows = connection.execute(
        listed.group_by(column, worklist.c.ai_state).order_by(column, worklist.c.ai_state)
    ).all()
    if not with_kept_back or not any(row.ai_state in KEPT_BACK for row in rows):
        return rows
    # The list itself does not say what they are.
    known = (
        select(column, analysis.c.outcome.label("ai_state"), number)
        .select_from(worklist)
        .join(study, study.c.study_instance_uid == worklist.c.study_instance_uid)
        .join(
            analysis,
            (analysis.c.study_instance_uid == study.c.study_instance_uid)
            & (analysis.c.generation == study.c.generation),
        )
        .where(worklist.c.ai_state.in_(KEPT_BACK), analysis.c.sending.in_(KEPT_BACK), *came)
        .group_by(column, analysis.c.outcome)
        .order_by(column, analysis.c.outcome)
    )
    told = [row for row in rows if row.ai_state not in KEPT_BACK]
    return [*told, *connection.execute(known)]


def devices(
    connection: Connection, since: str, until: str, *, with_kept_back: bool = False
) -> Rows:
    """Return ``device``, ``ai_state`` and ``number`` of studies; a device's may come in parts."""
    return _by_state(connection, since, until, worklist.c.device, with_kept_back=with_kept_back)


def _of_images(
    since: str, until: str, *columns: ColumnElement[Any], with_kept_back: bool
) -> Select[Any]:
    """Return the columns of each image of the newest results, by the arrival of its study."""
    statement = (
        select(*columns)
        .select_from(worklist)
        .join(study, study.c.study_instance_uid == worklist.c.study_instance_uid)
        .join(
            reading,
            (reading.c.study_instance_uid == study.c.study_instance_uid)
            & (reading.c.generation == study.c.generation),
        )
        .where(worklist.c.received_at >= since, worklist.c.received_at < until)
    )
    return statement if with_kept_back else statement.where(is_of_published(reading))


def reasons(
    connection: Connection, since: str, until: str, *, with_kept_back: bool = False
) -> Rows:
    """Return ``reason_code`` and ``number`` of rejected images, the most frequent first."""
    number = func.count().label("number")
    return connection.execute(
        _of_images(since, until, reading.c.reason_code, number, with_kept_back=with_kept_back)
        .where(reading.c.reason_code.is_not(None))
        .group_by(reading.c.reason_code)
        .order_by(number.desc(), reading.c.reason_code)
    ).all()


def refusals(
    connection: Connection, since: str, until: str, *, with_kept_back: bool = False
) -> Rows:
    """Return ``device``, ``reason_code``, ``detail`` and ``number`` of images, most of them first.

    Of images that were analysed reason and detail are ``None``. The detail names the value found.
    """
    number = func.count().label("number")
    columns = (worklist.c.device, reading.c.reason_code, reading.c.detail)
    return connection.execute(
        _of_images(since, until, *columns, number, with_kept_back=with_kept_back)
        .group_by(*columns)
        .order_by(number.desc(), *columns)
    ).all()


def times(connection: Connection, since: str, until: str, *, with_kept_back: bool = False) -> Rows:
    """Return when studies were received, first reported, proven to be kept, and judged.

    Columns ``received_at``, ``finished_at``, ``proven_at`` (by the last destination that has the
    report) and ``reviewed_at``; what has not happened is ``None``. It is the first report of a
    study that people wait for: one that replaces it a month later took no month. How long a
    positive report takes is not how long a negative one does.
    """
    earliest = analysis.alias("earliest")
    first = (
        select(func.min(earliest.c.generation))
        .where(
            earliest.c.study_instance_uid == study.c.study_instance_uid,
            earliest.c.state.in_(("done", "withdrawn")),
            true() if with_kept_back else ~is_kept_back(earliest),
        )
        .correlate(study)
        .scalar_subquery()
    )
    # Not in the WHERE: SQLite would then go through all deliveries in that state, for each study.
    at = case(((outbox.c.state == "delivered") & (outbox.c.kind == DICOM), outbox.c.changed_at))
    proven = (
        select(func.max(at))
        .select_from(result)
        .join(outbox, outbox.c.sop_instance_uid == result.c.sop_instance_uid)
        .where(
            result.c.study_instance_uid == study.c.study_instance_uid,
            result.c.generation == first,
            result.c.kind == "sr",
        )
        .correlate(study)
        .scalar_subquery()
    )
    return connection.execute(
        select(
            worklist.c.received_at,
            analysis.c.finished_at,
            proven.label("proven_at"),
            worklist.c.reviewed_at,
        )
        .select_from(worklist)
        .join(study, study.c.study_instance_uid == worklist.c.study_instance_uid)
        .outerjoin(
            analysis,
            (analysis.c.study_instance_uid == study.c.study_instance_uid)
            & (analysis.c.generation == first)
            & analysis.c.state.in_(("done", "withdrawn")),
        )
        .where(worklist.c.received_at >= since, worklist.c.received_at < until)
        .order_by(worklist.c.received_at)
    ).all()


def images(connection: Connection, since: str, until: str, *, with_kept_back: bool = False) -> Rows:
    """Return device, bundle_digest, probability and features of the images that were analysed."""
    columns = (
        worklist.c.device,
        reading.c.bundle_digest,
        reading.c.probability,
        reading.c.features,
    )
    return connection.execute(
        _of_images(since, until, *columns, with_kept_back=with_kept_back)
        .where(reading.c.probability.is_not(None))
        .order_by(worklist.c.received_at)
    ).all()


def opinions(
    connection: Connection, since: str, until: str, *, with_kept_back: bool = False
) -> Rows:
    """Return ``month``, ``device``, ``outcome``, ``opinion`` and ``number`` of verdicts.

    Of each study its newest verdict counts, in the month in which it was given.
    """
    newest = select(func.max(verdict.c.id)).group_by(verdict.c.study_instance_uid)
    month = _beginning(verdict.c.recorded_at, MONTH).label("month")
    columns = (month, verdict.c.device, verdict.c.outcome, verdict.c.opinion)
    return connection.execute(
        select(*columns, func.count().label("number"))
        .where(
            verdict.c.id.in_(newest),
            verdict.c.recorded_at >= since,
            verdict.c.recorded_at < until,
            true() if with_kept_back else is_of_published(verdict),
        )
        .group_by(*columns)
        .order_by(*columns)
    ).all()
