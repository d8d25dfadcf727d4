"""The tables. A change here needs a migration in ``migrations/versions``; a test compares the two.

Points in time are ISO 8601 strings in UTC with microseconds (:func:`now`): they sort as text, mean
the same on SQLite and PostgreSQL, and are readable in any tool an auditor uses.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

UID = String(64)
AE_TITLE = String(16)
TIME = String(27)
DIGEST = String(64)
ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up INTEGER keys alone

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

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
    UniqueConstraint("sop_instance_uid", "version"),
    ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"]),
)

analysis = Table(
    "analysis",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("bundle_digest", DIGEST, primary_key=True),
    Column(
        "state", String(16), nullable=False, index=True
    ),  # planned, done, superseded, failed, withdrawn
    Column("priority", Integer, nullable=False),
    # Content Date and Time of the report: fixed once, so that a repetition writes the same bytes.
    Column("content_datetime", TIME, nullable=False),
    Column("outcome", String(16)),
    Column("probability", Float),
    Column("finished_at", TIME),
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
    Column("sop_instance_uid", UID, primary_key=True),
    Column("outcome", String(16), nullable=False),
    Column("reason_code", String(16)),
    Column("reason_scheme", String(16)),
    Column("detail", Text),
    Column("probability", Float),
    Column("threshold", Float),
    Column("seconds", JSON, nullable=False),
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
    Column("state", String(16), nullable=False, index=True),  # held, waiting, told, refused, failed
    Column("attempts", Integer, nullable=False),
    Column("path", Text, nullable=False),  # of the message, below the data folder
    Column("detail", Text),  # of the last failure
    Column("next_attempt_at", TIME),
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
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

# One row an event of PS3.15 A.5 (see audit/trail.py). Rows are only ever added.
audit_event = Table(
    "audit_event",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("recorded_at", TIME, nullable=False, index=True),
    Column("event", String(32), nullable=False),  # the verb of the trail
    Column("event_id", String(16), nullable=False),  # DCM code, e.g. 110104
    Column("event_type_code", String(16)),
    Column("action", String(1), nullable=False),  # C R U D E
    Column("event_outcome", Integer, nullable=False),  # 0 success, 4 minor, 8 serious, 12 major
    Column("calling_ae_title", AE_TITLE),
    Column("called_ae_title", AE_TITLE),
    Column("network_address", String(64)),
    Column("user_id", String(64)),
    Column("patient_id", String(64), index=True),
    Column("issuer_of_patient_id", String(64)),
    Column("study_instance_uid", UID, index=True),
    Column("accession_number", String(64), index=True),
    Column("sop_instance_uid", UID, index=True),
    Column("result_sop_instance_uid", UID, index=True),
    Column("bundle_version", String(64)),
    Column("bundle_digest", DIGEST),
    Column("outcome", String(16)),  # of the analysis
    Column("probability", Float),
    Column("reason_code", String(16)),
    Column("destination", String(32)),
    Column("proof", String(16)),
    Column("status", String(8)),
    Column("correlation_id", String(255)),  # workflow or association
    Column("seconds", Float),
    Column("detail", JSON, nullable=False),
)


def now() -> str:
    """Return this moment as it is stored: ``2026-11-22T18:45:29.123456Z``."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    """Return an aware datetime as it is stored."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
