"""Verdicts that a rule of retention deletes are announced, and triggers let them go.

Until here an erasure alone could delete them. And an index of what goes with a study.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_ONLY_ADDED = "verdicts are only ever added"
_NOW = "event_id = (SELECT last_id + 1 FROM audit_head)"
"""The event is announced, and not yet added."""
_GOES = (
    f"EXISTS (SELECT 1 FROM audit_erased WHERE {_NOW}) "  # noqa: S608 - constants
    f"OR EXISTS (SELECT 1 FROM verdict_going WHERE verdict_id = OLD.id AND {_NOW})"
)
TRIGGERS = {
    "sqlite": (
        "DROP TRIGGER verdict_no_delete",
        f"CREATE TRIGGER verdict_no_delete BEFORE DELETE ON verdict WHEN NOT ({_GOES}) "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION verdict_only_erased() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NOT ({_GOES}) "
        f"THEN RAISE EXCEPTION '{_ONLY_ADDED}'; END IF; RETURN OLD; END $$",
    ),
}
"""By dialect."""


def upgrade() -> None:
    """Move the schema one step forward."""
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "verdict_going",
        sa.Column("verdict_id", row_id, autoincrement=False, nullable=False),
        sa.Column("event_id", row_id, nullable=False),
        sa.PrimaryKeyConstraint("verdict_id", name=op.f("pk_verdict_going")),
    )
    op.create_index(op.f("ix_commitment_study_instance_uid"), "commitment", ["study_instance_uid"])
    for statement in TRIGGERS[op.get_context().dialect.name]:
        op.execute(statement)
