"""How far the audit was sent on."""

from sqlalchemy import Column, Integer, String, Table, Text

from thoracle.store.tables.schema import ROW_ID, TIME, metadata

# One row a repository. The events of the trail have one order, so one number says how far it is.
audit_forward = Table(
    "audit_forward",
    metadata,
    Column("repository", String(32), primary_key=True),
    Column("last_id", ROW_ID, nullable=False),  # of the last event that counts as taken
    Column("state", String(16), nullable=False),  # sending, behind, unused
    Column("failures", Integer, nullable=False),  # since an event was taken last
    Column("failing_since", TIME),
    Column("next_attempt_at", TIME),
    Column("detail", Text),  # of the last failure
    Column("changed_at", TIME, nullable=False),
)
