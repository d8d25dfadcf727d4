"""Indexes of the audit for the codes of an event, which FHIR searches by."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move the schema one step forward."""
    op.create_index("ix_audit_event_event_id_time", "audit_event", ["event_id", "recorded_at"])
    there = sa.text("event_type_code IS NOT NULL")
    op.create_index(
        "ix_audit_event_event_type_code_time",
        "audit_event",
        ["event_type_code", "recorded_at"],
        sqlite_where=there,
        postgresql_where=there,
    )
