"""What was concluded."""

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

from thoracle.store.tables.schema import DIGEST, FINDING, ROW_ID, TIME, UID, kept, metadata

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
    Column("sending", String(16), index=True),
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

# Each time that an alarm stood; open while ended_at is NULL.
alarm_occurrence = Table(
    "alarm_occurrence",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("subject", String(64), nullable=False, index=True),
    Column("sentence", Text, nullable=False),
    Column("advice", Text, nullable=False),  # what to do; may be empty
    Column("outside", Text, nullable=False),  # the sentence without identifiers of studies
    Column("device", Text),
    Column("since", TIME, nullable=False),
    Column("ended_at", TIME, index=True),
    Column("notified", String(8)),  # what receivers were told last: alarm or ended
    Column("acknowledged_by", String(64)),
    Column("acknowledged_at", TIME),
    Column("comment", Text),
)

# Until when nobody is notified of an alarm, whether it stands or not.
alarm_silence = Table(
    "alarm_silence",
    metadata,
    Column("subject", String(64), primary_key=True),
    Column("silenced_by", String(64), nullable=False),
    Column("silenced_at", TIME, nullable=False),
    Column("until", TIME, nullable=False),
    Column("comment", Text, nullable=False),
)
