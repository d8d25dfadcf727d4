"""The finding: part of the key of what was read, and what the worklist and the trail say.

Up to here there was one finding, and every row is about it; so it is named here, and nowhere else
in the service. Rows of the trail stay as they are, for their digests hold them.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_KEY, _NAME = "SCT:840539006", "COVID-19"


def upgrade() -> None:
    """Move the schema one step forward."""
    bundle = op.create_table(
        "bundle",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("finding", sa.String(length=33), nullable=False),
        sa.Column("identity", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_bundle")),
    )
    rows = [_bundle(digest, named) for digest, named in _known(op.get_bind())]
    if rows:
        op.bulk_insert(bundle, rows)
    key = ["study_instance_uid", "generation", "bundle_digest", "finding"]
    _add_to_key("analysis", key)
    _add_to_key("reading", [*key, "sop_instance_uid"])
    op.add_column("worklist", sa.Column("finding", sa.String(length=33), nullable=True))
    op.add_column("worklist", sa.Column("finding_name", sa.String(length=16), nullable=True))
    op.execute(
        f"UPDATE worklist SET finding = '{_KEY}', finding_name = '{_NAME}' "  # noqa: S608 - no text from outside
        "WHERE study_instance_uid IN "
        "(SELECT study_instance_uid FROM analysis WHERE outcome IS NOT NULL)"
    )
    op.add_column("audit_event", sa.Column("finding", sa.String(length=33), nullable=True))
    there = sa.text("finding IS NOT NULL")
    op.create_index(
        "ix_audit_event_finding_time",
        "audit_event",
        ["finding", "recorded_at"],
        sqlite_where=there,
        postgresql_where=there,
    )


def _add_to_key(table: str, key: list[str]) -> None:
    """Make the finding a part of the primary key; SQLite needs a new table for that."""
    name = op.f(f"pk_{table}")
    with op.batch_alter_table(table) as batch:
        finding = sa.Column("finding", sa.String(length=33), nullable=False, server_default=_KEY)
        batch.add_column(finding)
        batch.drop_constraint(name, type_="primary")
        batch.create_primary_key(name, key)
    with op.batch_alter_table(table) as batch:  # what comes from now on says it itself
        batch.alter_column("finding", server_default=None)


def _known(connection: sa.Connection) -> list[tuple[str, str]]:
    """Return the models that have read here: digest, and name and version as the trail has them."""
    digests = connection.execute(sa.text("SELECT DISTINCT bundle_digest FROM analysis")).scalars()
    named = connection.execute(
        sa.text(
            "SELECT bundle_digest, MAX(bundle_version) FROM audit_event "
            "WHERE bundle_digest IS NOT NULL AND bundle_version IS NOT NULL GROUP BY bundle_digest"
        )
    )
    names = {str(row[0]): str(row[1]) for row in named}
    return [(digest, names.get(digest, "unknown 0")) for digest in digests]


def _bundle(digest: str, named: str) -> dict[str, Any]:
    name, _, version = named.rpartition(" ")
    identity = {
        "name": name or named,
        "version": version,
        "digest": digest,
        "decision": None,
        "calibration": None,
        "finding": json.loads(_FINDING),
    }
    return {
        "digest": digest,
        "name": identity["name"],
        "version": version,
        "finding": _KEY,
        "identity": identity,
    }


_FINDING = """{
    "code": {"value": "840539006", "scheme": "SCT", "meaning": "COVID-19"},
    "name": "COVID-19",
    "short_name": "COVID-19",
    "channel": 1,
    "outcomes": {
        "positive": {
            "code": {"value": "52101004", "scheme": "SCT", "meaning": "Present"},
            "sentence": "COVID-19 finding suggested",
            "caution": ""
        },
        "negative": {
            "code": {"value": "272519000", "scheme": "SCT", "meaning": "Absent"},
            "sentence": "COVID-19 finding not suggested",
            "caution": "This does not exclude COVID-19."
        },
        "indeterminate": {
            "code": {"value": "373068000", "scheme": "SCT", "meaning": "Undetermined"},
            "sentence": "COVID-19 result indeterminate, the model is not confident",
            "caution": "This neither suggests nor excludes COVID-19."
        },
        "rejected": {
            "code": {"value": "373068000", "scheme": "SCT", "meaning": "Undetermined"},
            "sentence": "This says nothing about COVID-19",
            "caution": ""
        }
    },
    "population": {
        "modalities": ["CR", "DX", "DR", "RG", "OT"],
        "views": ["AP", "PA"],
        "body_part": "CHEST",
        "least_age_years": 0
    },
    "saliency": "class activation"
}"""
