"""One outbox: what is sent to archives, receivers of messages and stations, in one table.

Work of the earlier version that waits in the engine is deleted: the rows say what waits, and the
start has it sent (outbox/workflow.py, `recover`). So are the records of having enqueued it, which a
workflow that is taken up again would compare with what it enqueues now.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "INSERT INTO outbox (kind, peer, item, sop_instance_uid, state, priority, attempts, "
    "next_attempt_at, status, detail, proof, delivered_sop_class_uid, delivered_sop_instance_uid, "
    "transaction_uid, created_at, changed_at) "
    "SELECT 'dicom', destination, d.sop_instance_uid, d.sop_instance_uid, d.state, "
    "COALESCE((SELECT MIN(a.priority) FROM analysis a WHERE "
    "a.study_instance_uid = r.study_instance_uid AND a.generation = r.generation "
    "AND a.bundle_digest = r.bundle_digest), 100), attempts, next_attempt_at, status, detail, "
    "proof, delivered_sop_class_uid, delivered_sop_instance_uid, transaction_uid, d.created_at, "
    "d.changed_at FROM delivery d JOIN result r ON r.sop_instance_uid = d.sop_instance_uid "
    "ORDER BY d.created_at, d.sop_instance_uid, d.destination",
    "INSERT INTO outbox (kind, peer, item, sop_instance_uid, state, priority, attempts, "
    "next_attempt_at, detail, proof, path, created_at, changed_at, file_state, purged_at) "
    "SELECT 'hl7', receiver, sop_instance_uid, sop_instance_uid, "
    "CASE state WHEN 'told' THEN 'delivered' ELSE state END, 1, attempts, next_attempt_at, detail, "
    "CASE state WHEN 'told' THEN 'acknowledgement' END, NULLIF(path, ''), created_at, changed_at, "
    "file_state, purged_at FROM notification ORDER BY created_at, sop_instance_uid, receiver",
)


_NAMES = "('deliver', 'notify', 'tell')"
"""Of the workflows that sent."""


def upgrade() -> None:
    """Move the schema one step forward."""
    op.create_table(
        "outbox",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("peer", sa.String(length=32), nullable=False),
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("batch", sa.String(length=36), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.String(length=27), nullable=True),
        sa.Column("status", sa.String(length=32), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("proof", sa.String(length=16), nullable=True),
        sa.Column("delivered_sop_class_uid", sa.String(length=64), nullable=True),
        sa.Column("delivered_sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.Column("changed_at", sa.String(length=27), nullable=False),
        sa.Column("file_state", sa.String(length=8), server_default="kept", nullable=False),
        sa.Column("purged_at", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("kind", "peer", "item", name=op.f("uq_outbox_kind_peer_item")),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid"], ["result.sop_instance_uid"], name=op.f("fk_outbox_result")
        ),
    )
    for names in (
        ["batch"],
        ["file_state"],
        ["peer", "state"],
        ["sop_instance_uid"],
        ["state"],
        ["transaction_uid"],
    ):
        op.create_index(op.f(f"ix_outbox_{'_'.join(names)}"), "outbox", names)
    for statement in (*_STATEMENTS, _event_reports(op.get_bind().dialect.name)):
        op.execute(statement)
    op.drop_table("notification")
    op.drop_table("delivery")
    op.drop_table("workitem_event")
    _forget_sending()


def _event_reports(dialect: str) -> str:
    """Return the statement that moves the event reports, which have no result."""
    made, parsed = ("json_object", "json(information)")
    if dialect != "sqlite":
        made, parsed = ("json_build_object", "information")
    content = (
        f"{made}('workitem', sop_instance_uid, 'event_type_id', event_type_id, "
        f"'information', {parsed})"
    )
    return (
        "INSERT INTO outbox (kind, peer, item, state, priority, attempts, next_attempt_at, detail, "  # noqa: S608 - constants
        "proof, content, created_at, changed_at) SELECT 'ups', ae_title, "
        "'event ' || CAST(id AS VARCHAR(20)), "
        "CASE state WHEN 'told' THEN 'delivered' ELSE state END, 1, attempts, next_attempt_at, "
        f"detail, CASE state WHEN 'told' THEN 'acknowledgement' END, {content}, created_at, "
        "changed_at FROM workitem_event ORDER BY id"
    )


def _forget_sending() -> None:
    """Delete the workflows that send and have not ended, and the records of enqueuing them."""
    connection = op.get_bind()
    schema = None if connection.dialect.name == "sqlite" else "dbos"
    inspector = sa.inspect(connection)
    below = "" if schema is None else f"{schema}."
    if not inspector.has_table("workflow_status", schema):  # the engine has never been started
        return
    ended = "('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')"
    under_way = f"SELECT workflow_uuid FROM {below}workflow_status WHERE status NOT IN {ended}"  # noqa: S608 - constants
    sending = f"{under_way} AND name IN {_NAMES}"
    if inspector.has_table("datasource_outputs", schema):
        op.execute(f"DELETE FROM {below}datasource_outputs WHERE workflow_id IN ({sending})")  # noqa: S608 - constants
    op.execute(
        f"DELETE FROM {below}operation_outputs WHERE workflow_uuid IN ({sending})"  # noqa: S608 - constants
    )
    op.execute(
        f"DELETE FROM {below}operation_outputs WHERE function_name IN {_NAMES} "  # noqa: S608 - constants
        f"AND workflow_uuid IN ({under_way})"
    )
    op.execute(f"DELETE FROM {below}workflow_status WHERE workflow_uuid IN ({sending})")  # noqa: S608 - constants
