"""The trail, and what shows that nobody changed it."""

from collections.abc import Iterator

from sqlalchemy import JSON, Column, Float, Index, Integer, String, Table, Text, text

from thoracle.store.tables.schema import AE_TITLE, DIGEST, FINDING, ROW_ID, TIME, UID, metadata

FAILED = "event_outcome <> 0"
SLOW = "seconds >= 1"
"""Conditions of indexes; a question must name them in these words to use them."""
_OF_FEW = (
    "event",
    "action",
    "calling_ae_title",
    "called_ae_title",
    "network_address",
    "user_id",
    "outcome",
    "reason_code",
    "destination",
    "status",
)
"""What else is asked of events that failed or were slow: it stands in their index, so that of the
others of them no row is read."""


def _indexes() -> Iterator[Index]:
    """Yield an index for each filter that many rows can have alike (docs/audit.md).

    The time comes second, so that a page is read from one place in its order. Most rows leave most
    of these columns empty and stand in few of the indexes.
    """
    for name in ("event", "event_id", "action"):
        yield Index(f"ix_audit_event_{name}_time", name, "recorded_at")
    for name in (
        "event_type_code",
        "calling_ae_title",
        "called_ae_title",
        "network_address",
        "user_id",
        "bundle_version",
        "bundle_digest",
        "finding",
        "outcome",
        "reason_code",
        "destination",
        "proof",
        "status",
    ):
        there = text(f"{name} IS NOT NULL")
        yield Index(
            f"ix_audit_event_{name}_time",
            name,
            "recorded_at",
            sqlite_where=there,
            postgresql_where=there,
        )
    for name, column, condition in (
        ("failed", "event_outcome", FAILED),
        ("slow", "seconds", SLOW),
    ):
        yield Index(
            f"ix_audit_event_{name}_time",
            "recorded_at",
            column,
            *_OF_FEW,
            sqlite_where=text(condition),
            postgresql_where=text(condition),
        )


# One row an event of PS3.15 A.5 (see store/trail.py). Rows are only ever added, one after the
# other: triggers refuse everything else, and each row's digest has that of the row before in it
# (store/chain.py, which knows the order of these columns).
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
    Column("finding", FINDING),  # what outcome and probability are about; rows before it have none
    Column("digest", DIGEST),  # of the row before and of this one
    *_indexes(),
)

# One row: the end of the chain. Its update is the lock under which a row is added.
audit_head = Table(
    "audit_head",
    metadata,
    Column("name", String(8), primary_key=True),  # always "head"
    Column("last_id", ROW_ID, nullable=False),
    Column("digest", DIGEST, nullable=False),
)

# Where the chain begins after rows were purged: those up to here are gone, by rule.
audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("up_to", ROW_ID, primary_key=True, autoincrement=False),  # id of the last purged row
    Column("digest", DIGEST, nullable=False),  # of that row
    Column("rows", Integer, nullable=False),  # how many were purged this time
    Column("recorded_at", TIME, nullable=False),
    Column("reason", Text, nullable=False),
)

# Rows of which an erasure has replaced content (store/erased.py): one row for each of them and
# each erasure. The digest in the row stays, because the rows behind it have it in theirs.
audit_erased = Table(
    "audit_erased",
    metadata,
    Column("row_id", ROW_ID, primary_key=True, autoincrement=False),
    Column("event_id", ROW_ID, primary_key=True, autoincrement=False),  # of the erasure
    Column("digest", DIGEST, nullable=False),  # of the row before and of what is in it now
)

# Which events showed which studies: what their detail has under "studies", to be asked for.
audit_view = Table(
    "audit_view",
    metadata,
    Column("study_instance_uid", UID, primary_key=True),
    Column("event_id", ROW_ID, primary_key=True, autoincrement=False, index=True),
    sqlite_with_rowid=False,
)


# How far the audit was sent on.

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
