"""What the list is counted and searched by, without a look at its rows."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move the schema one step forward."""
    op.drop_index("ix_worklist_received_at", "worklist")
    op.create_index("ix_worklist_received_at", "worklist", ["received_at", "study_instance_uid"])
    op.create_index("ix_worklist_state_reviewed", "worklist", ["ai_state", "reviewed_at"])
    op.create_index("ix_worklist_modality", "worklist", ["modality"])
    # PostgreSQL indexes no text above 2.7 kB, and folding makes some names longer than that.
    if op.get_context().dialect.name == "sqlite":
        op.create_index("ix_worklist_search", "worklist", ["search", "study_instance_uid"])
