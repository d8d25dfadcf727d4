"""Rows of whole studies: which tables have them, how many, and their end.

An erasure deletes them for a patient, the rules of retention for their age.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select

from thoracle.store.tables import (
    analysis,
    commitment,
    header,
    instance,
    outbox,
    performance,
    reading,
    reconciliation,
    result,
    study,
    verdict,
    workitem,
    workitem_subscription,
    worklist,
)

OF_STUDIES: tuple[Table, ...] = (
    *(header, commitment, verdict, reading, worklist, workitem, performance, reconciliation),
    *(analysis, result, instance, study),
)
"""Tables with a study in each row, in an order in which none refers to one that has gone."""


def sent(studies: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition under which a row of the outbox is, or is about, a result of these."""
    made = select(result.c.sop_instance_uid).where(result.c.study_instance_uid.in_(studies))
    return outbox.c.sop_instance_uid.in_(made)


def counts(connection: Connection, studies: Sequence[str]) -> dict[str, int]:
    """Return how many rows each table has of these studies."""
    found = {}
    for table in OF_STUDIES:
        mine = table.c.study_instance_uid.in_(studies)
        found[table.name] = count(connection, table, mine)
    found[outbox.name] = count(connection, outbox, sent(studies))
    return {name: number for name, number in found.items() if number}


def count(connection: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    """Return how many rows of a table are as asked for."""
    statement = select(func.count()).select_from(table).where(condition)
    return int(connection.execute(statement).scalar_one())


def uids(connection: Connection, studies: Sequence[str], *tables: Table) -> dict[str, str]:
    """Return the SOP Instance UIDs that tables have of studies, each with its study."""
    found: dict[str, str] = {}
    for table in tables:
        columns: tuple[Any, Any] = (table.c.sop_instance_uid, table.c.study_instance_uid)
        statement = select(*columns).where(table.c.study_instance_uid.in_(studies))
        found |= {uid: of for uid, of in connection.execute(statement) if uid}
    return found


def delete_studies(connection: Connection, studies: Sequence[str]) -> None:
    """Delete all rows of studies. Triggers let verdicts go only before an event that says so."""
    connection.execute(delete(outbox).where(sent(studies)))
    offered = select(workitem.c.sop_instance_uid).where(workitem.c.study_instance_uid.in_(studies))
    told_of = workitem_subscription.c.sop_instance_uid.in_(offered)
    connection.execute(delete(workitem_subscription).where(told_of))
    for table in OF_STUDIES:
        connection.execute(delete(table).where(table.c.study_instance_uid.in_(studies)))
