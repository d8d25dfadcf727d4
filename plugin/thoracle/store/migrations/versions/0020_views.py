"""Which events showed which studies, from the lists that rows of the trail have in their detail."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_ONLY_ADDED = "audit rows are only ever added"
_KEPT = "OLD.event_id > COALESCE((SELECT MAX(up_to) FROM audit_checkpoint), 0)"
TRIGGERS = {
    "sqlite": (
        "CREATE TRIGGER audit_view_no_update BEFORE UPDATE ON audit_view "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
        f"CREATE TRIGGER audit_view_no_delete BEFORE DELETE ON audit_view WHEN {_KEPT} "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION audit_view_only_purged() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF {_KEPT} THEN RAISE EXCEPTION '{_ONLY_ADDED}'; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER audit_view_no_update BEFORE UPDATE OR TRUNCATE ON audit_view "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_added()",
        "CREATE TRIGGER audit_view_no_delete BEFORE DELETE ON audit_view "
        "FOR EACH ROW EXECUTE FUNCTION audit_view_only_purged()",
    ),
}
"""By dialect."""
BATCH = 1000
"""Rows of the trail that are read at a time."""
VIEWS = ("list viewed", "study viewed", "audit read", "exported")


def upgrade() -> None:
    """Move the schema one step forward."""
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    view = op.create_table(
        "audit_view",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("event_id", row_id, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", "event_id", name=op.f("pk_audit_view")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_audit_view_event_id"), "audit_view", ["event_id"])
    _fill(op.get_bind(), view)
    for statement in TRIGGERS[op.get_context().dialect.name]:
        op.execute(statement)


def _fill(connection: sa.Connection, view: sa.Table) -> None:
    """Add the studies of views that were recorded before."""
    detail = "detail" if connection.dialect.name == "sqlite" else "detail::text AS detail"
    statement = sa.text(
        f"SELECT id, {detail} FROM audit_event WHERE id > :after AND event IN :views"  # noqa: S608 - no text from outside
        " ORDER BY id LIMIT :limit"
    ).bindparams(sa.bindparam("views", VIEWS, expanding=True))
    after = 0
    while rows := connection.execute(statement, {"after": after, "limit": BATCH}).all():
        found = [
            {"study_instance_uid": uid, "event_id": row.id}
            for row in rows
            for uid in _studies(json.loads(row.detail))
        ]
        if found:
            connection.execute(sa.insert(view), found)
        after = rows[-1].id


def _studies(detail: Any) -> list[str]:
    found = detail.get("studies") if isinstance(detail, dict) else None
    return sorted({str(one)[:64] for one in found if one}) if isinstance(found, list) else []
