"""What the worklist shows, and what readers say of it.

The database itself refuses to change or delete a verdict: a program that errs cannot.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

VERDICTS_ONLY_ADDED = {
    "sqlite": tuple(
        f"CREATE TRIGGER verdict_no_{event} BEFORE {event} ON verdict "
        "BEGIN SELECT RAISE(ABORT, 'verdicts are only ever added'); END"
        for event in ("update", "delete")
    ),
    "postgresql": (
        "CREATE FUNCTION verdict_only_added() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'verdicts are only ever added'; END $$",
        "CREATE TRIGGER verdict_only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON verdict "
        "FOR EACH STATEMENT EXECUTE FUNCTION verdict_only_added()",
    ),
}
"""By dialect."""


def upgrade() -> None:
    """Move the schema one step forward."""
    op.create_table(
        "verdict",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("recorded_at", sa.String(length=27), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("opinion", sa.String(length=16), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("device", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_verdict_study")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdict")),
    )
    with op.batch_alter_table("verdict", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_verdict_recorded_at"), ["recorded_at"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_verdict_study_instance_uid"), ["study_instance_uid"], unique=False
        )
    for statement in VERDICTS_ONLY_ADDED[op.get_context().dialect.name]:
        op.execute(statement)

    op.create_table(
        "worklist",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=True),
        sa.Column("patient_id", sa.String(length=64), nullable=True),
        sa.Column("accession_number", sa.String(length=64), nullable=True),
        sa.Column("modality", sa.String(length=16), nullable=True),
        sa.Column("study_description", sa.Text(), nullable=True),
        sa.Column("study_datetime", sa.String(length=19), nullable=True),
        sa.Column("device", sa.String(length=64), nullable=True),
        sa.Column("search", sa.Text(), nullable=False),
        sa.Column("received_at", sa.String(length=27), nullable=False),
        sa.Column("ai_state", sa.String(length=16), nullable=False),
        sa.Column("probability", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("reason_code", sa.String(length=16), nullable=True),
        sa.Column("bundle_version", sa.String(length=64), nullable=True),
        sa.Column("urgency", sa.Integer(), nullable=False),
        sa.Column("head_start_minutes", sa.Integer(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("sort_key", sa.String(length=27), nullable=False),
        sa.Column("reviewed_at", sa.String(length=27), nullable=True),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("changed_at", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_worklist_study")
        ),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_worklist")),
    )
    with op.batch_alter_table("worklist", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_worklist_accession_number"), ["accession_number"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_worklist_changed_at"), ["changed_at"], unique=False)
        batch_op.create_index(
            "ix_worklist_order", ["urgency", "sort_key", "study_instance_uid"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_worklist_patient_id"), ["patient_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_worklist_received_at"), ["received_at"], unique=False)
        batch_op.create_index(
            "ix_worklist_state_order",
            ["ai_state", "urgency", "sort_key", "study_instance_uid"],
            unique=False,
        )

    with op.batch_alter_table("reading", schema=None) as batch_op:
        batch_op.add_column(sa.Column("features", sa.JSON(), nullable=True))
    # What came before has no header here: its names are filled in when its images come again.
    op.execute(
        """
        INSERT INTO worklist (study_instance_uid, patient_id, accession_number, search,
            received_at, ai_state, probability, urgency, head_start_minutes, sort_key, changed_at)
        SELECT study.study_instance_uid, study.patient_id, study.accession_number,
            LOWER(COALESCE(study.patient_id, '') || ' ' || COALESCE(study.accession_number, '')),
            study.first_received_at,
            CASE WHEN analysis.state IN ('failed', 'withdrawn') THEN analysis.state
                ELSE COALESCE(analysis.outcome, 'queued') END,
            analysis.probability, 1, 0, study.first_received_at, study.changed_at
        FROM study LEFT JOIN analysis
            ON analysis.study_instance_uid = study.study_instance_uid
            AND analysis.generation = study.generation AND analysis.state <> 'superseded'
        """
    )
