"""Legal holds: rows and events written together."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    false,
    func,
    insert,
    or_,
    select,
    update,
)

from thoracle.store import trail, views
from thoracle.store.tables import audit_event, instance, legal_hold, now, study

# ---- rows ----------------------------------------------------------------------------------------
# Statements about legal holds: what must stay, whatever the rules of retention say.


def add_row(
    connection: Connection,
    *,
    patient_id: str | None,
    issuer_of_patient_id: str | None,
    study_instance_uid: str | None,
    reason: str,
    placed_by: str,
) -> int:
    """Place a hold; return its number."""
    statement = insert(legal_hold).values(
        patient_id=patient_id,
        issuer_of_patient_id=issuer_of_patient_id,
        study_instance_uid=study_instance_uid,
        reason=reason,
        placed_by=placed_by,
        placed_at=now(),
    )
    return int(connection.execute(statement.returning(legal_hold.c.id)).scalar_one())


def release_row(connection: Connection, number: int, released_by: str) -> Row[Any] | None:
    """End a hold; return its row, ``None`` when there is none that holds."""
    return connection.execute(
        update(legal_hold)
        .where(legal_hold.c.id == number, legal_hold.c.released_at.is_(None))
        .values(released_by=released_by, released_at=now())
        .returning(legal_hold)
    ).first()


def rows(connection: Connection, *, released: bool = False) -> Sequence[Row[Any]]:
    """Return the holds by number; with ``released`` those too that have ended."""
    statement = select(legal_hold).order_by(legal_hold.c.id)
    if not released:
        statement = statement.where(legal_hold.c.released_at.is_(None))
    return connection.execute(statement).all()


def of_study(connection: Connection, study_instance_uid: str) -> Sequence[int]:
    """Return the numbers of the holds on a study, or on a patient of whom it has an image."""
    patients = [
        select(table.c.patient_id, table.c.issuer_of_patient_id).where(
            table.c.study_instance_uid == study_instance_uid
        )
        for table in (study, instance)
    ]
    found = {tuple(row) for one in patients for row in connection.execute(one)}
    return [
        row.id
        for row in rows(connection)
        if row.study_instance_uid == study_instance_uid
        or (row.patient_id and any(_is_patient(row, *patient) for patient in found))
    ]


def _is_patient(hold: Row[Any], patient_id: str | None, issuer: str | None) -> bool:
    if hold.patient_id != patient_id:
        return False
    return hold.issuer_of_patient_id is None or hold.issuer_of_patient_id == (issuer or "")


def first_held(connection: Connection, after: int, up_to: int) -> tuple[int, int] | None:
    """Return the first row of the audit, of those in between, that a hold keeps, and the hold.

    A row is kept that names the study or the patient of a hold, or a study of that patient.
    """
    found = []
    for row in rows(connection):
        first = connection.execute(
            select(func.min(audit_event.c.id)).where(
                audit_event.c.id > after, audit_event.c.id <= up_to, _about(row)
            )
        ).scalar()
        if first is not None:
            found.append((int(first), int(row.id)))
    return min(found, default=None)


def studies(connection: Connection, released: bool = False) -> list[str]:
    """Return the studies that holds name, and those of the patients that they name."""
    found: set[str] = set()
    for row in rows(connection, released=released):
        if row.study_instance_uid:
            found.add(row.study_instance_uid)
        if row.patient_id:
            issuer = row.issuer_of_patient_id
            wanted = views.of_patient(row.patient_id, None if issuer is None else [issuer])
            found |= set(connection.execute(wanted).scalars())
    return sorted(found)


def _about(hold: Row[Any]) -> ColumnElement[bool]:
    """Return the condition under which a row of the audit is about what a hold names."""
    wanted: ColumnElement[bool] = false()
    if hold.study_instance_uid:
        wanted = or_(wanted, audit_event.c.study_instance_uid == hold.study_instance_uid)
    if hold.patient_id:
        wanted = or_(wanted, _named(audit_event, hold))
        for table in (study, instance):
            of_patient = select(table.c.study_instance_uid).where(_named(table, hold))
            wanted = or_(wanted, audit_event.c.study_instance_uid.in_(of_patient))
    return wanted


def _named(table: Any, hold: Row[Any]) -> ColumnElement[bool]:
    same: ColumnElement[bool] = table.c.patient_id == hold.patient_id
    if hold.issuer_of_patient_id is None:
        return same
    issuer: ColumnElement[bool] = (
        func.coalesce(table.c.issuer_of_patient_id, "") == hold.issuer_of_patient_id
    )
    return and_(same, issuer)


# ---- events --------------------------------------------------------------------------------------


def place(
    connection: Connection,
    reason: str,
    columns: trail.Columns,
    *,
    patient_id: str | None = None,
    issuer_of_patient_id: str | None = None,
    study_instance_uid: str | None = None,
) -> int:
    """Keep all that is about a patient or a study until the hold is released; return its number.

    Parameters
    ----------
    columns
        Who places it, and by what means.
    issuer_of_patient_id
        ``None``: a patient of this ID, whoever issued it. Too much is kept rather than too little.
    """
    number = add_row(
        connection,
        patient_id=patient_id,
        issuer_of_patient_id=issuer_of_patient_id,
        study_instance_uid=study_instance_uid,
        reason=reason,
        placed_by=columns["user_id"] or "",
    )
    named: trail.Columns = {
        **columns,
        "patient_id": patient_id,
        "issuer_of_patient_id": issuer_of_patient_id,
        "study_instance_uid": study_instance_uid,
        "detail": {**columns["detail"], "hold": number, "reason": reason},
    }
    trail.record(connection, trail.Event.HOLD_PLACED, named)
    return number


def release(connection: Connection, number: int, columns: trail.Columns) -> Row[Any] | None:
    """End a hold; return its row, ``None`` when there is none of that number that holds."""
    row = release_row(connection, number, columns["user_id"] or "")
    if row is None:
        return None
    named: trail.Columns = {
        **columns,
        "patient_id": row.patient_id,
        "issuer_of_patient_id": row.issuer_of_patient_id,
        "study_instance_uid": row.study_instance_uid,
        "detail": {**columns["detail"], "hold": number, "placed_at": row.placed_at},
    }
    trail.record(connection, trail.Event.HOLD_RELEASED, named)
    return row
