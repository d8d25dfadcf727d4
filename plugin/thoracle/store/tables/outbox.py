"""What is sent to other systems, and what proves that they have it."""

from sqlalchemy import (
    JSON,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from thoracle.store.tables.schema import ROW_ID, TIME, UID, kept, metadata

# One row for each item that a peer is to get, whatever the kind of the peer (outbox/).
outbox = Table(
    "outbox",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),  # of the sender: dicom, hl7, webhook, email
    Column("peer", String(32), nullable=False),  # its name in the settings
    # What it gets: SOP Instance UID of the object, or of the report that a message is about; of an
    # alarm, a digest.
    Column("item", String(64), nullable=False),
    Column("sop_instance_uid", UID, index=True),  # of the result that it is, or is about
    # held, waiting, sent (not proven yet), delivered, refused, failed, withdrawn (before sending)
    Column("state", String(16), nullable=False, index=True),
    Column("priority", Integer, nullable=False),  # 1 STAT, 100 routine, 1000 backlog
    Column("batch", String(36), index=True),  # the call that it goes in: a workflow
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", TIME),
    Column("status", String(32)),  # of the last answer, e.g. 0x0000
    Column("detail", Text),  # of the last failure
    # What showed that the peer has it: commitment, query, status, or acknowledgement.
    Column("proof", String(16)),
    # Differ from those of the result when the archive took Comprehensive SR alone.
    Column("delivered_sop_class_uid", UID),
    Column("delivered_sop_instance_uid", UID),
    # Of the request for proof under way.
    Column("transaction_uid", UID, index=True),
    # Of a message: a file of its own below the data folder, or the document itself.
    Column("path", Text),
    Column("content", JSON(none_as_null=True)),
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
    *kept(),
    UniqueConstraint("kind", "peer", "item"),
    ForeignKeyConstraint(["sop_instance_uid"], ["result.sop_instance_uid"]),
    Index(None, "peer", "state"),
)

# One row a request for proof: a Storage Commitment (PS3.4 Annex J), and a query when that fails.
commitment = Table(
    "commitment",
    metadata,
    Column("transaction_uid", UID, primary_key=True),
    Column("destination", String(32), nullable=False),
    Column("study_instance_uid", UID, nullable=False, index=True),
    # How often the archive was asked about these objects, this time included.
    Column("request", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # planned, asked, answered, expired, not offered
    Column("due_at", TIME),  # when asked: it is asked again, or queried, then
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
)
