"""Which results others may know of: the one definition, through which every question goes.

A rule *holds* a result until somebody releases it, or *shadows* it for ever. Its rows are written
as those of any other result; whatever is told of results asks here which ones may be told. The list
that readers see (reading_list.py) needs no such condition: what a rule keeps back is never written
into a column by which it is ordered, filtered, searched or counted.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select

from thoracle.store.tables import analysis, result, study

HELD, SHADOW = "held", "shadow"
KEPT_BACK = (HELD, SHADOW)
"""Values of ``analysis.sending`` of which nobody may know the result."""


def is_published(table: Any) -> ColumnElement[bool]:
    """Return whether an analysis has a result, withdrawn or not, that may be told."""
    return and_(table.c.state.in_(("done", "withdrawn")), ~is_kept_back(table))


def is_kept_back(table: Any) -> ColumnElement[bool]:
    """Return whether a rule keeps an analysis back.

    An index of a study's analyses finds them; that of what is kept back would find all of a site
    that shadows everything.
    """
    return func.coalesce(table.c.sending, "").in_(KEPT_BACK)


def is_of_analysis(table: Any) -> ColumnElement[bool]:
    """Return whether a row of ``reading``, ``result`` or ``verdict`` is of an analysis: to join."""
    return and_(
        analysis.c.study_instance_uid == table.c.study_instance_uid,
        analysis.c.generation == table.c.generation,
        analysis.c.bundle_digest == table.c.bundle_digest,
    )


def is_of_published(table: Any) -> ColumnElement[bool]:
    """Return whether a row of ``reading``, ``result`` or ``verdict`` is of a published analysis."""
    return exists().where(is_of_analysis(table), is_published(analysis))


def kept_back(connection: Connection, study_instance_uids: Sequence[str]) -> dict[str, Any]:
    """Return of those studies whose newest result a rule keeps back: ``sending`` and the result.

    Columns ``study_instance_uid``, ``state``, ``sending``, ``outcome`` and ``probability``. One
    that was withdrawn meanwhile is among them: what was to be sent of it tells the result, too.
    """
    found = connection.execute(
        select(
            analysis.c.study_instance_uid,
            analysis.c.state,
            analysis.c.sending,
            analysis.c.outcome,
            analysis.c.probability,
        )
        .join(study, study.c.study_instance_uid == analysis.c.study_instance_uid)
        .where(
            analysis.c.study_instance_uid.in_(study_instance_uids),
            analysis.c.generation == study.c.generation,
            analysis.c.state.in_(("done", "withdrawn")),
            is_kept_back(analysis),
        )
    )
    return {row.study_instance_uid: row for row in found}


def objects(connection: Connection, study_instance_uid: str) -> set[str]:
    """Return the SOP Instance UIDs of the objects on a study that are of published results."""
    found = connection.execute(
        select(result.c.sop_instance_uid).where(
            result.c.study_instance_uid == study_instance_uid, is_of_published(result)
        )
    )
    return set(found.scalars())


def generations(connection: Connection, study_instance_uid: str) -> set[int]:
    """Return the generations of a study of which the result is kept back."""
    found = connection.execute(
        select(analysis.c.generation).where(
            analysis.c.study_instance_uid == study_instance_uid, is_kept_back(analysis)
        )
    )
    return set(found.scalars())


def any_kept_back(connection: Connection) -> bool:
    """Return whether any result is kept back; an index knows."""
    statement = select(analysis.c.generation).where(analysis.c.sending.in_(KEPT_BACK)).limit(1)
    return connection.execute(statement).first() is not None
