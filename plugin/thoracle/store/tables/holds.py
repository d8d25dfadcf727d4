"""What must not be deleted, whatever the rules of retention say."""

from sqlalchemy import Column, String, Table, Text

from thoracle.store.tables.schema import ROW_ID, TIME, UID, metadata

# One row a legal hold, of a patient or of a study; a hold that was released stays as a row.
legal_hold = Table(
    "legal_hold",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("patient_id", String(64)),
    Column("issuer_of_patient_id", String(64)),  # NULL: of any issuer
    Column("study_instance_uid", UID),
    Column("reason", Text, nullable=False),
    Column("placed_by", String(64), nullable=False),
    Column("placed_at", TIME, nullable=False),
    Column("released_by", String(64)),
    Column("released_at", TIME),  # NULL: it holds
)
