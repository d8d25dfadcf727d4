"""Statements about the workitems that we offer, who subscribes to them, and what they are told.

Every function that changes a workitem begins with :func:`lock`, so that of two who change it at
the same time one sees what the other did.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, tuple_, update

from thoracle.outbox import rows as outbox
from thoracle.outbox.rows import DICOM
from thoracle.records import Kind
from thoracle.store.tables import (
    now,
    result,
    workitem,
    workitem_subscription,
)
from thoracle.study import instances
from thoracle.ups.attributes import ObjectReference
from thoracle.ups.states import State

HELD = "HELD"
"""State of a workitem that a rule holds back: no client sees it."""
PAGE = 100
"""Workitems read at once for a query."""


# ---- workitems -------------------------------------------------------------------------------


def add(connection: Connection, values: Mapping[str, Any]) -> None:
    """Add a workitem."""
    moment = now()
    connection.execute(insert(workitem).values(**values, created_at=moment, changed_at=moment))


def row_of(connection: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """Return the row of a workitem that is offered, if there is one."""
    return connection.execute(
        select(workitem).where(
            workitem.c.sop_instance_uid == sop_instance_uid, workitem.c.state != HELD
        )
    ).first()


def lock(connection: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """Return the row of a workitem that is offered, and hold it until the transaction ends."""
    connection.execute(
        update(workitem)
        .where(workitem.c.sop_instance_uid == sop_instance_uid)
        .values(state=workitem.c.state)
    )
    return row_of(connection, sop_instance_uid)


def remove(connection: Connection, sop_instance_uid: str) -> None:
    """Remove a workitem that was told to nobody."""
    connection.execute(delete(workitem).where(workitem.c.sop_instance_uid == sop_instance_uid))


def exists(connection: Connection, sop_instance_uid: str) -> bool:
    """Return whether there is a workitem, offered or held."""
    statement = select(workitem.c.state).where(workitem.c.sop_instance_uid == sop_instance_uid)
    return connection.execute(statement).first() is not None


def set_row(connection: Connection, sop_instance_uid: str, values: Mapping[str, Any]) -> None:
    """Set columns of a workitem."""
    connection.execute(
        update(workitem)
        .where(workitem.c.sop_instance_uid == sop_instance_uid)
        .values(**values, changed_at=now())
    )


def of_study(connection: Connection, *study_instance_uids: str) -> Sequence[Row[Any]]:
    """Return the workitems of one study or several, oldest first, held ones too."""
    return connection.execute(
        select(workitem)
        .where(workitem.c.study_instance_uid.in_(study_instance_uids))
        .order_by(workitem.c.created_at, workitem.c.sop_instance_uid)
    ).all()


def lock_study(connection: Connection, study_instance_uid: str) -> Sequence[Row[Any]]:
    """Return the workitems of a study, and hold them until the transaction ends."""
    connection.execute(
        update(workitem)
        .where(workitem.c.study_instance_uid == study_instance_uid)
        .values(state=workitem.c.state)
    )
    return of_study(connection, study_instance_uid)


def pages(
    connection: Connection, states: Sequence[str], sop_instance_uids: Sequence[str] | None = None
) -> Iterator[Sequence[Row[Any]]]:
    """Yield the workitems in these states, oldest first, some at a time."""
    order = (workitem.c.created_at, workitem.c.sop_instance_uid)
    statement = select(workitem).where(workitem.c.state.in_(states)).order_by(*order).limit(PAGE)
    if sop_instance_uids is not None:
        statement = statement.where(workitem.c.sop_instance_uid.in_(sop_instance_uids))
    rows = connection.execute(statement).all()
    while rows:
        yield rows
        last = rows[-1]
        after = tuple_(*order) > tuple_(last.created_at, last.sop_instance_uid)
        rows = connection.execute(statement.where(after)).all()


def named(connection: Connection, row: Row[Any]) -> list[ObjectReference]:
    """Return the images and results that a workitem is about, with where each is proven to be."""
    images = instances.sources(connection, row.study_instance_uid, row.generation)
    objects = [*images, *_made(connection, row)]
    return _placed(connection, row.study_instance_uid, objects, ("delivered",))


def outputs(connection: Connection, row: Row[Any]) -> list[ObjectReference]:
    """Return what an analysis made, with which destinations have taken it, proven or not."""
    states = ("sent", "delivered")
    return _placed(connection, row.study_instance_uid, _made(connection, row), states)


def _made(connection: Connection, row: Row[Any]) -> Sequence[Row[Any]]:
    return connection.execute(
        select(result)
        .where(
            result.c.study_instance_uid == row.study_instance_uid,
            result.c.generation == row.generation,
            result.c.bundle_digest == row.bundle_digest,
            result.c.kind.not_in((Kind.ORIGINAL, Kind.REJECTION)),
        )
        .order_by(result.c.series_instance_uid, result.c.sop_instance_uid)
    ).all()


def _placed(
    connection: Connection, study: str, objects: Sequence[Row[Any]], states: Sequence[str]
) -> list[ObjectReference]:
    places: dict[str, dict[tuple[str, str], list[str]]] = {}
    for one in outbox.of_studies(connection, [study], DICOM):
        if one.state in states:
            # An archive may have the report as Comprehensive SR, under another UID.
            known_as = (
                one.delivered_sop_class_uid or one.sop_class_uid,
                one.delivered_sop_instance_uid or one.sop_instance_uid,
            )
            known = places.setdefault(one.sop_instance_uid, {})
            known.setdefault(known_as, []).append(one.peer)
    found = []
    for one in objects:
        here = {(one.sop_class_uid, one.sop_instance_uid): list[str]()}
        sender = one._mapping.get("calling_ae_title")
        for (sop_class, uid), names in places.get(one.sop_instance_uid, here).items():
            found.append(
                ObjectReference(sop_class, uid, one.series_instance_uid, tuple(names), sender)
            )
    return found


# ---- subscriptions ---------------------------------------------------------------------------


def subscriptions(connection: Connection, sop_instance_uid: str) -> dict[str, int]:
    """Return who subscribes to a workitem, or to all: AE title, and 1 with a deletion lock."""
    statement = select(
        workitem_subscription.c.ae_title, workitem_subscription.c.deletion_lock
    ).where(workitem_subscription.c.sop_instance_uid == sop_instance_uid)
    return {row.ae_title: row.deletion_lock for row in connection.execute(statement)}


def subscribers(connection: Connection) -> list[str]:
    """Return the AE titles that subscribe to anything."""
    statement = select(workitem_subscription.c.ae_title).distinct()
    return sorted(connection.execute(statement).scalars())


def subscribe(
    connection: Connection, ae_title: str, sop_instance_uid: str, deletion_lock: int
) -> None:
    """Subscribe to a workitem, or to all new ones, anew."""
    unsubscribe(connection, ae_title, sop_instance_uid)
    connection.execute(
        insert(workitem_subscription).values(
            ae_title=ae_title,
            sop_instance_uid=sop_instance_uid,
            deletion_lock=deletion_lock,
            created_at=now(),
        )
    )


def unsubscribe(connection: Connection, ae_title: str, sop_instance_uid: str | None = None) -> None:
    """End the subscription to a workitem, or to all new ones; ``None``: all of an AE title."""
    statement = delete(workitem_subscription).where(workitem_subscription.c.ae_title == ae_title)
    if sop_instance_uid is not None:
        statement = statement.where(workitem_subscription.c.sop_instance_uid == sop_instance_uid)
    connection.execute(statement)


def not_subscribed(connection: Connection, ae_title: str) -> Sequence[Row[Any]]:
    """Return the unfinished workitems that an AE title does not subscribe to."""
    mine = select(workitem_subscription.c.sop_instance_uid).where(
        workitem_subscription.c.ae_title == ae_title
    )
    return connection.execute(
        select(workitem)
        .where(
            workitem.c.state.in_((State.SCHEDULED, State.IN_PROGRESS)),
            workitem.c.sop_instance_uid.not_in(mine),
        )
        .order_by(workitem.c.created_at)
    ).all()
