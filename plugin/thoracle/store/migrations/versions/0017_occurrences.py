"""Alarms that are acknowledged and silenced: each time that one stood, and its silence."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move the schema one step forward."""
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.String(length=27)
    op.create_table(
        "alarm_occurrence",
        sa.Column("id", row_id, autoincrement=True, nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("advice", sa.Text(), nullable=False),
        sa.Column("outside", sa.Text(), nullable=False),
        sa.Column("device", sa.Text()),
        sa.Column("since", time, nullable=False),
        sa.Column("ended_at", time),
        sa.Column("notified", sa.String(length=8)),
        sa.Column("acknowledged_by", sa.String(length=64)),
        sa.Column("acknowledged_at", time),
        sa.Column("comment", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm_occurrence")),
    )
    op.create_index(op.f("ix_alarm_occurrence_subject"), "alarm_occurrence", ["subject"])
    op.create_index(op.f("ix_alarm_occurrence_ended_at"), "alarm_occurrence", ["ended_at"])
    op.create_table(
        "alarm_silence",
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("silenced_by", sa.String(length=64), nullable=False),
        sa.Column("silenced_at", time, nullable=False),
        sa.Column("until", time, nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_alarm_silence")),
    )
    # What stands now was sent when it was raised. Its sentence may name studies, so others are
    # told the subject alone when it ends.
    op.execute(
        "INSERT INTO alarm_occurrence (subject, sentence, advice, outside, device, since, notified)"
        " SELECT subject, sentence, '', 'Alarm: ' || subject || '.', device, since, 'alarm'"
        " FROM alarm WHERE level = 'alarm' ORDER BY subject"
    )
