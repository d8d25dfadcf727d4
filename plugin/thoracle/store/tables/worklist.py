"""What readers see, and what they say."""

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from thoracle.store.tables.schema import AE_TITLE, DIGEST, FINDING, ROW_ID, TIME, UID, metadata

# One row a study, as the worklist shows it; written in the transaction of what it tells.
worklist = Table(
    "worklist",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),
    Column("patient_name", Text),
    Column("patient_id", String(64), index=True),
    Column("accession_number", String(64), index=True),
    Column("modality", String(16)),
    Column("study_description", Text),
    Column("study_datetime", String(19)),  # local to the modality, e.g. 2026-11-22T18:45:29
    Column("device", String(64)),  # Station Name, else Manufacturer's Model Name
    Column("patient_sex", String(16)),
    Column("patient_age", String(4)),  # AS at the time of the study, e.g. 056Y
    # Name, ID and accession number without case and accents (reading_list.folded).
    Column("search", Text, nullable=False),
    Column("received_at", TIME, nullable=False),
    # queued, running, failed, withdrawn, or the outcome
    Column("ai_state", String(16), nullable=False),
    Column("probability", Float),
    Column("threshold", Float),
    Column("reason_code", String(16)),
    Column("bundle_version", String(64)),
    Column("finding", FINDING),  # what state and probability are about
    Column("finding_name", String(16)),  # its short name
    Column("urgency", Integer, nullable=False),  # 0 STAT, else 1
    Column("stat_rule", String(64)),  # the rule that made it STAT; NULL: the order, or no STAT
    Column("head_start_minutes", Integer, nullable=False),
    Column("why", Text),  # the rank rule that gave the head start
    Column("sort_key", TIME, nullable=False),  # received_at less the head start
    Column("reviewed_at", TIME),  # of the first verdict
    Column("verdict", String(16)),  # of the newest one
    Column("changed_at", TIME, nullable=False, index=True),
    ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"]),
    Index("ix_worklist_order", "urgency", "sort_key", "study_instance_uid"),
    Index("ix_worklist_state_order", "ai_state", "urgency", "sort_key", "study_instance_uid"),
    # What the list is counted and searched by, without a look at its rows.
    Index("ix_worklist_received_at", "received_at", "study_instance_uid"),
    Index("ix_worklist_state_reviewed", "ai_state", "reviewed_at"),
    Index("ix_worklist_modality", "modality"),
    # PostgreSQL indexes no text above 2.7 kB, and folding makes some names longer than that.
    Index("ix_worklist_search", "search", "study_instance_uid").ddl_if(dialect="sqlite"),
)

# What readers say of results. Rows are only ever added.
verdict = Table(
    "verdict",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("recorded_at", TIME, nullable=False, index=True),
    Column("study_instance_uid", UID, nullable=False, index=True),
    Column("generation", Integer, nullable=False),
    Column("bundle_digest", DIGEST, nullable=False),
    Column("sop_instance_uid", UID),  # of the report that was judged
    Column("opinion", String(16), nullable=False),  # agree, disagree, not applicable
    Column("comment", Text, nullable=False),
    Column("person", String(64), nullable=False),
    # Of the result at that time, so that rates need no other table.
    Column("outcome", String(16)),
    Column("probability", Float),
    Column("device", String(64)),
    ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"]),
)

# Verdicts that a rule of retention is about to delete: triggers let these go until the event that
# says so is added. Empty at the end of each transaction.
verdict_going = Table(
    "verdict_going",
    metadata,
    Column("verdict_id", ROW_ID, primary_key=True, autoincrement=False),
    Column("event_id", ROW_ID, nullable=False),  # of that event
)


# Unified Procedure Steps: ours, and those of others that we perform.

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
