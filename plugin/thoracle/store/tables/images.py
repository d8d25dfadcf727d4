"""What was received."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from thoracle.store.tables.schema import AE_TITLE, DIGEST, ROW_ID, TIME, UID, kept, metadata

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),
    Column("patient_id", String(64)),
    Column("issuer_of_patient_id", String(64)),
    Column("accession_number", String(64)),
    # Number of the latest set of images that was found complete; 0 before the first.
    Column("generation", Integer, nullable=False),
    # SHA-256 over that set's SOP Instance UIDs: the same set again is no new generation.
    Column("instances_digest", DIGEST),
    Column("first_received_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False, index=True),
)

instance = Table(
    "instance",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("sop_instance_uid", UID, nullable=False),
    # 1, 2, ...: a corrected header keeps the UID; nothing acknowledged is overwritten.
    Column("version", Integer, nullable=False),
    Column("sop_class_uid", UID, nullable=False),
    Column("study_instance_uid", UID, nullable=False, index=True),
    Column("series_instance_uid", UID, nullable=False),
    Column("transfer_syntax_uid", UID, nullable=False),
    Column("patient_id", String(64)),
    Column("issuer_of_patient_id", String(64)),
    Column("priority", Integer, nullable=False),
    Column("path", Text, nullable=False),  # below the data folder
    Column("size", BigInteger, nullable=False),  # bytes of the data set
    Column("sha256", DIGEST, nullable=False),  # of the data set, without File Meta Information
    Column("calling_ae_title", AE_TITLE),
    Column("peer_address", String(64)),
    Column("received_at", TIME, nullable=False),
    Column(
        "generation", Integer, index=True
    ),  # the first one it was part of; NULL: not yet planned
    # SHA-256 over shape and values of the decoded frames; NULL: not decoded yet.
    Column("frames_sha256", DIGEST),
    # NULL: it counts. open: it came under another patient than the versions before, and waits for
    # a person; refused: that person said that it is another patient.
    Column("identity", String(16)),
    *kept(),
    UniqueConstraint("sop_instance_uid", "version"),
    ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"]),
)

# Studies with images of several patients, or of one under several identifiers.
reconciliation = Table(
    "reconciliation",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),
    Column("state", String(16), nullable=False, index=True),  # open, same, different
    Column("patients", JSON, nullable=False),  # a list of pairs: patient ID and its issuer
    Column("raised_at", TIME, nullable=False),
    Column("settled_at", TIME),
    Column("user_id", String(64)),  # who settled it
    ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"]),
)

# What corrections need of images whose files have gone, of each the newest version.
header = Table(
    "header",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("study_instance_uid", UID, nullable=False, index=True),
    Column("content", LargeBinary, nullable=False),  # a Part 10 file: report/context.py
    Column("kept_at", TIME, nullable=False),
    ForeignKeyConstraint(
        ["sop_instance_uid", "version"], ["instance.sop_instance_uid", "instance.version"]
    ),
)


# ---- legal holds ---------------------------------------------------------------------------------
# What must not be deleted, whatever the rules of retention say.

# One row a legal hold, of a patient or of a study; a hold that was released stays as a row.
legal_hold = Table(
    "legal_hold",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("patient_id", String(64)),
    Column("issuer_of_patient_id", String(64)),  # NULL: of any issuer
    Column("study_instance_uid", UID),
    Column("reason", Text, nullable=False),
    Column("placed_by", String(64), nullable=False),
    Column("placed_at", TIME, nullable=False),
    Column("released_by", String(64)),
    Column("released_at", TIME),  # NULL: it holds
)
