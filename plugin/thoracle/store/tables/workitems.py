"""Unified Procedure Steps: ours, and those of others that we perform."""

from sqlalchemy import JSON, Column, ForeignKeyConstraint, Integer, String, Table, Text

from thoracle.store.tables.schema import AE_TITLE, DIGEST, ROW_ID, TIME, UID, metadata

# Workitems that we offer (PS3.4 Annex CC).
workitem = Table(
    "workitem",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("study_instance_uid", UID, nullable=False, index=True),
    # Of the result that is to be reviewed.
    Column("generation", Integer, nullable=False),
    Column("bundle_digest", DIGEST, nullable=False),
    # SCHEDULED, IN PROGRESS, COMPLETED, CANCELED; HELD: not offered until a person releases it
    Column("state", String(16), nullable=False, index=True),
    Column("transaction_uid", UID),  # the lock; never told
    Column("claimed_by", AE_TITLE),
    Column("attributes", JSON, nullable=False),  # DICOM JSON model (PS3.18 Annex F)
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
    ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"]),
)

# Who is told of changes; of all that are new under the well-known UID of the global subscription.
workitem_subscription = Table(
    "workitem_subscription",
    metadata,
    Column("ae_title", AE_TITLE, primary_key=True),
    Column("sop_instance_uid", UID, primary_key=True),
    Column("deletion_lock", Integer, nullable=False),  # 0 or 1
    Column("created_at", TIME, nullable=False),
)

# One row an event report and subscriber.
workitem_event = Table(
    "workitem_event",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("sop_instance_uid", UID, nullable=False, index=True),
    Column("ae_title", AE_TITLE, nullable=False),
    Column("event_type_id", Integer, nullable=False),
    Column("information", JSON, nullable=False),  # DICOM JSON model
    Column("state", String(16), nullable=False, index=True),  # waiting, told, refused, failed
    Column("attempts", Integer, nullable=False),
    Column("detail", Text),
    Column("next_attempt_at", TIME),
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
)

# Workitems of others that we perform.
performance = Table(
    "performance",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),  # of the workitem
    Column("manager", String(32), primary_key=True),
    Column("study_instance_uid", UID, index=True),
    Column("transaction_uid", UID, nullable=False),  # our lock
    # claiming, claimed, awaited (its images or result), completed, canceled, lost (another's)
    Column("state", String(16), nullable=False, index=True),
    Column("inputs", JSON, nullable=False),  # SOP Instance UIDs of the images that it names
    Column("attempts", Integer, nullable=False),
    Column("detail", Text),
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
)
