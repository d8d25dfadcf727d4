"""Headers: what corrections need of images that have gone."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move the schema one step forward."""
    op.create_table(
        "header",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("kept_at", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid", "version"],
            ["instance.sop_instance_uid", "instance.version"],
            name=op.f("fk_header_instance"),
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_header")),
    )
    op.create_index(op.f("ix_header_study_instance_uid"), "header", ["study_instance_uid"])
