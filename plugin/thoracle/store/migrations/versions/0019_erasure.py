"""Rows of the trail of which an erasure has replaced content, and triggers that let it do so.

They let it delete verdicts, too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_ONLY_ADDED = "audit rows are only ever added"
_VERDICTS_ONLY_ADDED = "verdicts are only ever added"
_NOW = "event_id = (SELECT last_id + 1 FROM audit_head)"
"""The erasure is announced, and its event, which ends this, is not yet added."""
_ERASES = f"EXISTS (SELECT 1 FROM audit_erased WHERE row_id = OLD.id AND {_NOW})"  # noqa: S608 - constants
_ERASES_SOMETHING = f"EXISTS (SELECT 1 FROM audit_erased WHERE {_NOW})"  # noqa: S608 - constants
_SAME = "NEW.id = OLD.id AND NEW.digest = OLD.digest AND NEW.event = OLD.event"
TRIGGERS = {
    "sqlite": (
        "DROP TRIGGER audit_event_no_update",
        "CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON audit_event "
        f"WHEN NOT ({_SAME} AND {_ERASES}) "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
        "CREATE TRIGGER audit_erased_no_update BEFORE UPDATE ON audit_erased "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
        "DROP TRIGGER verdict_no_delete",
        "CREATE TRIGGER verdict_no_delete BEFORE DELETE ON verdict "
        f"WHEN NOT {_ERASES_SOMETHING} "
        f"BEGIN SELECT RAISE(ABORT, '{_VERDICTS_ONLY_ADDED}'); END",
    ),
    "postgresql": (
        "DROP TRIGGER audit_event_no_update ON audit_event",
        "CREATE FUNCTION audit_only_erased() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NOT ({_SAME} AND {_ERASES}) "
        f"THEN RAISE EXCEPTION '{_ONLY_ADDED}'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON audit_event "
        "FOR EACH ROW EXECUTE FUNCTION audit_only_erased()",
        "CREATE TRIGGER audit_event_no_truncate BEFORE TRUNCATE ON audit_event "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_added()",
        "CREATE TRIGGER audit_erased_no_update BEFORE UPDATE OR TRUNCATE ON audit_erased "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_added()",
        "DROP TRIGGER verdict_only_added ON verdict",
        "CREATE TRIGGER verdict_only_added BEFORE UPDATE OR TRUNCATE ON verdict "
        "FOR EACH STATEMENT EXECUTE FUNCTION verdict_only_added()",
        "CREATE FUNCTION verdict_only_erased() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NOT {_ERASES_SOMETHING} "
        f"THEN RAISE EXCEPTION '{_VERDICTS_ONLY_ADDED}'; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER verdict_no_delete BEFORE DELETE ON verdict "
        "FOR EACH ROW EXECUTE FUNCTION verdict_only_erased()",
    ),
}
"""By dialect."""


def upgrade() -> None:
    """Move the schema one step forward."""
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "audit_erased",
        sa.Column("row_id", row_id, autoincrement=False, nullable=False),
        sa.Column("event_id", row_id, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("row_id", "event_id", name=op.f("pk_audit_erased")),
    )
    for statement in TRIGGERS[op.get_context().dialect.name]:
        op.execute(statement)
