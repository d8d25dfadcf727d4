"""Where the rows of a database went that was moved; and what processes of pages have in common."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move the schema one step forward."""
    op.create_table(
        "database_move",
        sa.Column("begun_at", sa.String(length=27), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.String(length=27), nullable=True),
        sa.PrimaryKeyConstraint("begun_at", name=op.f("pk_database_move")),
    )
    op.create_table(
        "login_attempt",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("network", sa.String(length=64), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_attempt")),
    )
    for columns in (["network", "failed", "recorded_at"], ["recorded_at"]):
        name = f"ix_login_attempt_{'_'.join(columns)}"
        op.create_index(op.f(name), "login_attempt", columns)
    op.create_table(
        "provider_login",
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("browser", sa.String(length=64), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("verifier", sa.String(length=128), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("back", sa.Text(), nullable=False),
        sa.Column("begun_at", sa.String(length=27), nullable=False),
        sa.PrimaryKeyConstraint("state", name=op.f("pk_provider_login")),
    )
    op.create_index(op.f("ix_provider_login_begun_at"), "provider_login", ["begun_at"])
    op.create_table(
        "page_secret",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("value", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name", "value", name=op.f("pk_page_secret")),
    )
