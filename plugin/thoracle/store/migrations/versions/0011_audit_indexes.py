"""Indexes of the audit: for the codes that FHIR searches by, and of what is few, more columns."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OF_FEW = [
    "event",
    "action",
    "calling_ae_title",
    "called_ae_title",
    "network_address",
    "user_id",
    "outcome",
    "reason_code",
    "destination",
    "status",
]


def upgrade() -> None:
    """Move the schema one step forward."""
    _create("event_id", ["event_id", "recorded_at"], None)
    _create("event_type_code", ["event_type_code", "recorded_at"], "event_type_code IS NOT NULL")
    for name in ("failed", "slow"):
        op.drop_index(f"ix_audit_event_{name}_time", "audit_event")
    _create("failed", ["recorded_at", "event_outcome", *OF_FEW], "event_outcome <> 0")
    _create("slow", ["recorded_at", "seconds", *OF_FEW], "seconds >= 1")


def _create(name: str, columns: list[str], condition: str | None) -> None:
    there = sa.text(condition) if condition else None
    op.create_index(
        f"ix_audit_event_{name}_time",
        "audit_event",
        columns,
        sqlite_where=there,
        postgresql_where=there,
    )
