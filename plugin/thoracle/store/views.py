"""Which events showed which studies: an index of the lists in ``detail`` of rows of the trail.

A list or a search is one row of the trail, with the studies that it showed under ``studies``: that
is what the chain proves. To ask for a patient each of them has a row here, too.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, union

from thoracle.store.tables import audit_event, audit_view, study, worklist

LONGEST_UID = 64
MOST = 1000
"""Studies that one event names; who shows more records several."""


def add(connection: Connection, event_id: int, studies: Iterable[Any]) -> None:
    """Record which studies an event showed."""
    uids = {str(one)[:LONGEST_UID] for one in studies if one}
    if uids:
        rows = [{"study_instance_uid": uid, "event_id": event_id} for uid in sorted(uids)]
        connection.execute(_ADD, rows)


_ADD = insert(audit_view)


def purge(connection: Connection, up_to: int) -> None:
    """Delete the rows of events that are purged."""
    connection.execute(delete(audit_view).where(audit_view.c.event_id <= up_to))


def pieces(studies: Sequence[str]) -> list[Sequence[str]]:
    """Return studies as the events that name them have them."""
    return [studies[at : at + MOST] for at in range(0, len(studies), MOST)]


# ---- conditions ----------------------------------------------------------------------------------


def showed(uids: Any) -> ColumnElement[bool]:
    """Return the condition under which an event showed one of some studies.

    ``uids`` is a list of Study Instance UIDs, or a query for them.
    """
    shown = select(audit_view.c.event_id).where(audit_view.c.study_instance_uid.in_(uids))
    return audit_event.c.id.in_(shown)


def of_patient(patient_id: str, issuers: Sequence[str] | None = None) -> Select[Any]:
    """Return a query for the studies that are of a patient, or were when an event was recorded.

    Parameters
    ----------
    issuers
        Of the Patient ID, one of which must fit; empty text: none. ``None``: any.
    """
    event, row = audit_event.c, worklist.c
    told = select(event.study_instance_uid).where(
        event.patient_id == patient_id, event.study_instance_uid.is_not(None)
    )
    listed = select(row.study_instance_uid).where(row.patient_id == patient_id)
    if issuers is not None:
        told = told.where(func.coalesce(event.issuer_of_patient_id, "").in_(issuers))
        listed = listed.join(study, study.c.study_instance_uid == row.study_instance_uid)
        listed = listed.where(func.coalesce(study.c.issuer_of_patient_id, "").in_(issuers))
    every = union(told, listed).subquery()
    return select(every.c.study_instance_uid)
