"""The chain of the trail: a digest for each row, and triggers that refuse what is no addition.

Rows that are there already are chained here, in their order: from now on a change of them shows.
"""

import sqlalchemy as sa
from alembic import op

from thoracle.store.chain import COLUMNS, FIRST, HEAD, digest_of

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ONLY_ADDED = "audit rows are only ever added"
_GONE = "OLD.id > COALESCE((SELECT MAX(up_to) FROM audit_checkpoint), 0)"
TRIGGERS = {
    "sqlite": (
        "CREATE TRIGGER audit_event_no_update BEFORE UPDATE ON audit_event "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
        f"CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event WHEN {_GONE} "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
        "CREATE TRIGGER audit_checkpoint_no_update BEFORE UPDATE ON audit_checkpoint "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
        "CREATE TRIGGER audit_checkpoint_no_delete BEFORE DELETE ON audit_checkpoint "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
        "CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head "
        f"BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION audit_only_added() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_ONLY_ADDED}'; END $$",
        "CREATE FUNCTION audit_only_purged() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF {_GONE} THEN RAISE EXCEPTION '{_ONLY_ADDED}'; END IF; RETURN OLD; END $$",
        "CREATE TRIGGER audit_event_no_update BEFORE UPDATE OR TRUNCATE ON audit_event "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_added()",
        "CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event "
        "FOR EACH ROW EXECUTE FUNCTION audit_only_purged()",
        "CREATE TRIGGER audit_checkpoint_only_added BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON audit_checkpoint FOR EACH STATEMENT EXECUTE FUNCTION audit_only_added()",
        "CREATE TRIGGER audit_head_no_delete BEFORE DELETE OR TRUNCATE ON audit_head "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_added()",
    ),
}
"""By dialect."""
_SPARSE = (
    "calling_ae_title",
    "called_ae_title",
    "network_address",
    "user_id",
    "bundle_version",
    "bundle_digest",
    "outcome",
    "reason_code",
    "destination",
    "proof",
    "status",
)
INDEXES: dict[str, tuple[list[str], str]] = {
    **{name: ([name, "recorded_at"], "") for name in ("event", "action")},
    **{name: ([name, "recorded_at"], f"{name} IS NOT NULL") for name in _SPARSE},
    "failed": (["recorded_at"], "event_outcome <> 0"),
    "slow": (["recorded_at"], "seconds >= 1"),
}
"""Columns, and which rows stand in it."""


def upgrade() -> None:
    """Move the schema one step forward."""
    op.add_column("audit_event", sa.Column("digest", sa.String(length=64), nullable=True))
    head = op.create_table(
        "audit_head",
        sa.Column("name", sa.String(length=8), nullable=False),
        sa.Column("last_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "audit_checkpoint",
        sa.Column(
            "up_to",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.String(length=27), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("up_to", name=op.f("pk_audit_checkpoint")),
    )
    last_id, digest = _chain(op.get_bind())
    op.bulk_insert(head, [{"name": HEAD, "last_id": last_id, "digest": digest}])
    for statement in TRIGGERS[op.get_context().dialect.name]:
        op.execute(statement)
    for name, (columns, condition) in INDEXES.items():
        there = sa.text(condition) if condition else None
        op.create_index(
            f"ix_audit_event_{name}_time",
            "audit_event",
            columns,
            sqlite_where=there,
            postgresql_where=there,
        )


def _chain(connection: sa.Connection) -> tuple[int, str]:
    """Give each row that is there its digest; return the end of the chain."""
    last_id, digest = 0, FIRST
    # Those of this time: COLUMNS has grown at its end since. The driver gives them as they are.
    columns = COLUMNS[: COLUMNS.index("detail") + 1]
    names = ", ".join(columns)
    if connection.dialect.name == "postgresql":
        names = names.replace("detail", "detail::text")
    found = connection.exec_driver_sql(f"SELECT {names} FROM audit_event ORDER BY id").all()  # noqa: S608 - no text from outside
    for values in found:
        last_id, digest = int(values[0]), digest_of(digest, values)
        connection.execute(
            sa.text("UPDATE audit_event SET digest = :digest WHERE id = :id"),
            {"digest": digest, "id": last_id},
        )
    return last_id, digest
