"""What was concluded, and where it went."""

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

from thoracle.store.tables.schema import DIGEST, FINDING, TIME, UID, kept, metadata

# Which models have read here, and what they find: what an earlier result meant stays known.
bundle = Table(
    "bundle",
    metadata,
    Column("digest", DIGEST, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", String(64), nullable=False),
    Column("finding", FINDING, nullable=False),
    # records.BundleIdentity as JSON; decision and calibration are null where they are not known.
    Column("identity", JSON, nullable=False),
)

analysis = Table(
    "analysis",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("bundle_digest", DIGEST, primary_key=True),
    Column("finding", FINDING, primary_key=True),  # records.Finding.key
    Column(
        "state", String(16), nullable=False, index=True
    ),  # planned, done, superseded, failed, withdrawn
    Column("priority", Integer, nullable=False),
    # Content Date and Time of the report: fixed once, so that a repetition writes the same bytes.
    Column("content_datetime", TIME, nullable=False),
    Column("outcome", String(16)),
    Column("probability", Float),
    Column("finished_at", TIME),
    # Whose images were read; NULL in old rows: all of the study.
    Column("patient_id", String(64)),
    Column("issuer_of_patient_id", String(64)),
    # What the rules decided (route.Decision as JSON), and what became of it: NULL (sent as they
    # say), held, shadow or released.
    Column("routing", JSON),
    Column("sending", String(16)),
    ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"]),
)

reading = Table(
    "reading",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("bundle_digest", DIGEST, primary_key=True),
    Column("finding", FINDING, primary_key=True),
    Column("sop_instance_uid", UID, primary_key=True),
    Column("outcome", String(16), nullable=False),
    Column("reason_code", String(16)),
    Column("reason_scheme", String(16)),
    Column("detail", Text),
    Column("probability", Float),
    Column("threshold", Float),
    Column("seconds", JSON, nullable=False),
    # Of the image as the model saw it, for the watch on input drift; NULL when it was not read.
    Column("features", JSON(none_as_null=True)),
)

result = Table(
    "result",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("sop_class_uid", UID, nullable=False),
    Column("series_instance_uid", UID, nullable=False),
    Column("study_instance_uid", UID, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("bundle_digest", DIGEST, nullable=False),
    Column("kind", String(16), nullable=False),  # of records.Kind
    Column("path", Text, nullable=False),  # below the data folder
    Column("sha256", DIGEST, nullable=False),  # of the file; of an original, of its data set
    Column("created_at", TIME, nullable=False),
    *kept(),
    Index(None, "study_instance_uid", "generation"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),
    Column("destination", String(32), primary_key=True),
    # held, waiting, sent (not proven yet), delivered, refused, failed, withdrawn (before sending)
    Column("state", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    # What showed that the archive has it: commitment, query or status (of C-STORE or STOW-RS).
    Column("proof", String(16)),
    # Differ from those of the result when the archive took Comprehensive SR alone.
    Column("delivered_sop_class_uid", UID),
    Column("delivered_sop_instance_uid", UID),
    # Of the request for proof under way.
    Column("transaction_uid", UID, index=True),
    Column("status", String(8)),  # of the last answer, e.g. 0x0000
    Column("detail", Text),  # of the last failure
    Column("next_attempt_at", TIME),
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
    ForeignKeyConstraint(["sop_instance_uid"], ["result.sop_instance_uid"]),
)

# One row for each receiver of HL7 messages and each report that it is told of.
notification = Table(
    "notification",
    metadata,
    Column("sop_instance_uid", UID, primary_key=True),  # of the report
    Column("receiver", String(32), primary_key=True),
    # held, waiting, told, refused, failed, withdrawn
    Column("state", String(16), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("path", Text, nullable=False),  # of the message, below the data folder
    Column("detail", Text),  # of the last failure
    Column("next_attempt_at", TIME),
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
    *kept(),
    ForeignKeyConstraint(["sop_instance_uid"], ["result.sop_instance_uid"]),
)

# One row a request for proof: a Storage Commitment (PS3.4 Annex J), and a query when that fails.
commitment = Table(
    "commitment",
    metadata,
    Column("transaction_uid", UID, primary_key=True),
    Column("destination", String(32), nullable=False),
    Column("study_instance_uid", UID, nullable=False),
    # How often the archive was asked about these objects, this time included.
    Column("request", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # planned, asked, answered, expired, not offered
    Column("due_at", TIME),  # when asked: it is asked again, or queried, then
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
)


# What the watch says.

# One row for each figure that is compared with the reference: the newest level of it.
alarm = Table(
    "alarm",
    metadata,
    Column("subject", String(64), primary_key=True),  # e.g. scores, rejected, input sharpness
    Column("level", String(16), nullable=False),  # calm, look, alarm, too few
    Column("sentence", Text, nullable=False),
    Column("device", Text),  # a sentence, too
    Column("since", TIME, nullable=False),  # when it came to this level
    Column("changed_at", TIME, nullable=False),
)
