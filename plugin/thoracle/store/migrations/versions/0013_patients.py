"""Patients: whose images an analysis read, digests of frames, and studies to be reconciled."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move the schema one step forward."""
    op.add_column("instance", sa.Column("frames_sha256", sa.String(length=64)))
    op.add_column("instance", sa.Column("identity", sa.String(length=16)))
    op.add_column("analysis", sa.Column("patient_id", sa.String(length=64)))
    op.add_column("analysis", sa.Column("issuer_of_patient_id", sa.String(length=64)))
    op.create_table(
        "reconciliation",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("patients", sa.JSON(), nullable=False),
        sa.Column("raised_at", sa.String(length=27), nullable=False),
        sa.Column("settled_at", sa.String(length=27)),
        sa.Column("user_id", sa.String(length=64)),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"],
            ["study.study_instance_uid"],
            name=op.f("fk_reconciliation_study"),
        ),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_reconciliation")),
    )
    op.create_index(op.f("ix_reconciliation_state"), "reconciliation", ["state"])
