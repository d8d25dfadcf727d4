"""Where the trail begins, and by which event: a purge is an event of the chain itself.

Whoever can write to the database could say that the chain begins later, and delete the rows before.
So each checkpoint must be named by an event ``audit purged`` behind it, which the chain has, with
its id and digest and with the anchors below it. An anchor kept elsewhere must be among these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from thoracle.store.anchors import Anchor
from thoracle.store.tables import audit_checkpoint, audit_event
from thoracle.store.trail import Event


@dataclass(frozen=True, slots=True)
class Purged:
    """What was purged at one time."""

    after: Any
    """Id up to which rows were purged before, as its event says."""
    up_to: int
    """Id of the last row that was purged."""
    rows: int
    digest: str
    """Of that row, hexadecimal."""
    recorded_at: str
    """ISO 8601 in UTC."""
    reason: str
    event_id: int | None
    """Row of its event; ``None``: it was purged itself, or there is none."""
    before: str = ""
    """All rows that went were older than this; empty: by an earlier version, which did not say."""
    anchors: Mapping[int, str] | None = None
    """Digests by id of the anchors in what was purged; ``None``: of an earlier version."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The purges of a trail, oldest first, and whether they fit."""

    purges: tuple[Purged, ...] = ()
    broken_id: int | None = None
    """Row at which something does not fit; ``None``: all does."""
    fault: str = ""
    not_comparable: int = 0
    """Anchors below the beginning of which nothing in the trail can say whether they fit."""

    @property
    def rows(self) -> int:
        """How many rows were purged in all."""
        return sum(one.rows for one in self.purges)

    @property
    def last(self) -> Purged | None:
        """The purge behind which the chain begins."""
        return self.purges[-1] if self.purges else None


def of_trail(connection: Connection, anchors: Sequence[Anchor] = ()) -> Beginning:
    """Return where the trail begins, and whether that fits its events and its anchors.

    Parameters
    ----------
    anchors
        What the end of the chain was earlier, as kept elsewhere.
    """
    purges = tuple(_purges(connection))
    if not purges:
        return Beginning()
    for fault in _faults(purges):
        return Beginning(purges, *fault)
    not_comparable = 0
    for anchor in anchors:
        if anchor.id > purges[-1].up_to:
            continue
        fits = _fits(purges, anchor)
        if isinstance(fits, str):
            return Beginning(purges, anchor.id, fits)
        not_comparable += not fits
    return Beginning(purges, not_comparable=not_comparable)


def _purges(connection: Connection) -> Iterator[Purged]:
    """Yield what the checkpoints say, each with its event if that is in the trail."""
    column = audit_event.c
    found = connection.execute(
        select(column.id, column.detail)
        .where(column.event == Event.AUDIT_PURGED.verb)
        .order_by(column.recorded_at, column.id)
    ).all()
    events = {
        f"{row.detail.get('up_to')} {row.detail.get('digest')}": row
        for row in found
        if isinstance(row.detail, dict)
    }
    after = 0
    rows = connection.execute(select(audit_checkpoint).order_by(audit_checkpoint.c.up_to))
    for row in rows.all():
        yield _purged(row, after, events.get(f"{row.up_to} {row.digest}"))
        after = row.up_to


def _purged(row: Any, after: int, event: Any) -> Purged:
    detail = event.detail if event is not None else {}
    return Purged(
        after=detail.get("after") if event is not None else after,
        up_to=row.up_to,
        rows=row.rows,
        digest=row.digest,
        recorded_at=row.recorded_at,
        reason=row.reason,
        event_id=None if event is None or event.id <= row.up_to else event.id,
        before=str(detail.get("before") or ""),
        anchors=_anchors(detail["anchors"]) if "anchors" in detail else None,
    )


def _anchors(found: Any) -> dict[int, str]:
    """Return the anchors that an event names; none that is not one, whoever wrote it."""
    pairs = [one for one in found if isinstance(one, list)] if isinstance(found, list) else []
    return {one[0]: one[1] for one in pairs if len(one) == 2 and isinstance(one[0], int)}


def _faults(purges: Sequence[Purged]) -> Iterator[tuple[int, str]]:
    """Yield rows at which a checkpoint does not fit, and why."""
    after = 0
    for one in purges:
        if one.event_id is None and one is purges[-1]:
            yield (
                one.up_to,
                f"{one.rows} rows up to it were removed without an event: found none in the log "
                "that names this checkpoint, required: an event 'audit purged' behind it",
            )
        if one.event_id is not None and one.after != after:
            yield (
                one.up_to,
                f"its purge, row {one.event_id}, began behind row {one.after}, "
                f"required: row {after}: a checkpoint was added or removed",
            )
        if one.up_to - after != one.rows:
            yield one.up_to, f"its checkpoint counts {one.rows} rows, found {one.up_to - after}"
        after = one.up_to


def _fits(purges: Sequence[Purged], anchor: Anchor) -> bool | str:
    """Return whether an anchor below the beginning fits, ``False`` when nothing can say so.

    A text says why it does not.
    """
    purge = next(one for one in purges if anchor.id <= one.up_to)
    by = f"row {purge.event_id}" if purge.event_id else "a purge"
    if anchor.id == purge.up_to and anchor.digest != purge.digest:
        return f"it was purged by {by} with another digest than its anchor has"
    if purge.before and anchor.recorded_at >= purge.before:
        return (
            f"it was purged by {by} as older than {purge.before}, but its anchor is of "
            f"{anchor.recorded_at}"
        )
    if purge.anchors is None:
        return anchor.id == purge.up_to
    if anchor.id not in purge.anchors:
        return f"it was purged by {by}, which does not name its anchor"
    if purge.anchors[anchor.id] != anchor.digest:
        return f"it was purged by {by} with another digest than its anchor has"
    return True
