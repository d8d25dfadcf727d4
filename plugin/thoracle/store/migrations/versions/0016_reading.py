"""The worklist for readers: age and sex, STAT by a rule, search without accents, saved filters."""

import sqlalchemy as sa
from alembic import op

from thoracle.store.folding import folded

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move the schema one step forward."""
    op.add_column("worklist", sa.Column("patient_sex", sa.String(length=16)))
    op.add_column("worklist", sa.Column("patient_age", sa.String(length=4)))
    op.add_column("worklist", sa.Column("stat_rule", sa.String(length=64)))
    op.add_column("person", sa.Column("worklist_columns", sa.JSON()))
    op.create_table(
        "saved_filter",
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.name"], name=op.f("fk_saved_filter_person")),
        sa.PrimaryKeyConstraint("person", "name", name=op.f("pk_saved_filter")),
    )
    _fold()


def _fold() -> None:
    """Store the search text of the rows that are there as it is stored from now on."""
    connection = op.get_bind()
    worklist = sa.table("worklist", sa.column("study_instance_uid"), sa.column("search"))
    found = connection.execute(sa.select(worklist.c.study_instance_uid, worklist.c.search)).all()
    changed = [
        {"uid": row.study_instance_uid, "folded": folded(row.search)}
        for row in found
        if folded(row.search) != row.search
    ]
    if changed:
        connection.execute(
            sa.update(worklist)
            .where(worklist.c.study_instance_uid == sa.bindparam("uid"))
            .values(search=sa.bindparam("folded")),
            changed,
        )
