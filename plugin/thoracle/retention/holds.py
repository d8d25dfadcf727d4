"""Legal holds: rows and events written together."""

from typing import Any

from sqlalchemy import Connection, Row

from thoracle.retention import hold_rows as holds
from thoracle.store import trail


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
    number = holds.add_row(
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
    row = holds.release_row(connection, number, columns["user_id"] or "")
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
