"""Statements about workitems of others that we perform."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from thoracle.records import Kind
from thoracle.store.tables import analysis, delivery, instance, now, performance, result, study

ENDED = ("completed", "canceled", "lost")


def _is(manager: str, sop_instance_uid: str) -> Any:
    return (performance.c.manager == manager) & (performance.c.sop_instance_uid == sop_instance_uid)


def row_of(connection: Connection, manager: str, sop_instance_uid: str) -> Row[Any] | None:
    """Return the row of a performance, if there is one."""
    return connection.execute(select(performance).where(_is(manager, sop_instance_uid))).first()


def add(connection: Connection, manager: str, sop_instance_uid: str, transaction_uid: str) -> None:
    """Record that we are about to claim a workitem, and with which lock."""
    moment = now()
    connection.execute(
        insert(performance).values(
            sop_instance_uid=sop_instance_uid,
            manager=manager,
            transaction_uid=transaction_uid,
            state="claiming",
            inputs=[],
            attempts=0,
            created_at=moment,
            changed_at=moment,
        )
    )


def set_row(
    connection: Connection, manager: str, sop_instance_uid: str, values: Mapping[str, Any]
) -> None:
    """Set columns of a performance."""
    connection.execute(
        update(performance).where(_is(manager, sop_instance_uid)).values(**values, changed_at=now())
    )


def of_study(connection: Connection, *study_instance_uids: str) -> Sequence[Row[Any]]:
    """Return the performances about one study or several, oldest first."""
    return connection.execute(
        select(performance)
        .where(performance.c.study_instance_uid.in_(study_instance_uids))
        .order_by(performance.c.created_at, performance.c.sop_instance_uid)
    ).all()


def unended(connection: Connection) -> list[tuple[str, str]]:
    """Return the performances that have not ended: manager and workitem."""
    statement = select(performance.c.manager, performance.c.sop_instance_uid).where(
        performance.c.state.not_in(ENDED)
    )
    return [(row.manager, row.sop_instance_uid) for row in connection.execute(statement)]


def is_here(connection: Connection, study_instance_uid: str) -> bool:
    """Return whether anything of a study has been received."""
    statement = select(study.c.generation).where(study.c.study_instance_uid == study_instance_uid)
    return connection.execute(statement).first() is not None


def missing(
    connection: Connection, study_instance_uid: str, sop_instance_uids: Sequence[str]
) -> list[str]:
    """Return those of the images that have not been received."""
    here = select(instance.c.sop_instance_uid).where(
        instance.c.study_instance_uid == study_instance_uid,
        instance.c.sop_instance_uid.in_(sop_instance_uids),
    )
    found = set(connection.execute(here).scalars())
    return [uid for uid in sop_instance_uids if uid not in found]


def analysis_of(
    connection: Connection, study_instance_uid: str, sop_instance_uids: Sequence[str]
) -> Row[Any] | None:
    """Return the newest analysis of a study that covers all of the images, if there is one."""
    first = select(instance.c.sop_instance_uid, func.min(instance.c.generation).label("first"))
    first = first.where(
        instance.c.study_instance_uid == study_instance_uid,
        instance.c.sop_instance_uid.in_(sop_instance_uids),
    ).group_by(instance.c.sop_instance_uid)
    generations = [row.first for row in connection.execute(first)]
    if len(generations) < len(set(sop_instance_uids)) or None in generations:
        return None  # some are not part of a generation yet
    return connection.execute(
        select(analysis)
        .where(
            analysis.c.study_instance_uid == study_instance_uid,
            analysis.c.generation >= max(generations),
            analysis.c.state != "superseded",
        )
        .order_by(analysis.c.generation.desc())
        .limit(1)
    ).first()


def deliveries(connection: Connection, row: Row[Any]) -> Sequence[Row[Any]]:
    """Return the deliveries of what an analysis made."""
    return connection.execute(
        select(delivery)
        .join(result)
        .where(
            result.c.study_instance_uid == row.study_instance_uid,
            result.c.generation == row.generation,
            result.c.bundle_digest == row.bundle_digest,
            result.c.kind.not_in((Kind.ORIGINAL, Kind.REJECTION)),
        )
    ).all()
