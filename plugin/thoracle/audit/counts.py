"""How many events there are of each kind, counted by the database.

A count by anything but time reads an index that has all it needs in its order, or the rows of a
span of time; docs/audit-questions.md says which.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, String, func, literal_column, select

from thoracle.store.tables import audit_event
from thoracle.store.trail import Event

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
