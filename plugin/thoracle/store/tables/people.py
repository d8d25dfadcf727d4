"""Who may open the pages."""

from sqlalchemy import JSON, Column, ForeignKeyConstraint, Integer, String, Table, Text

from thoracle.store.tables.schema import DIGEST, ROW_ID, TIME, metadata

person = Table(
    "person",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("display_name", String(128), nullable=False),
    Column("roles", JSON, nullable=False),  # of reader, administrator, auditor
    Column("password_hash", Text),  # argon2id; NULL: no password opens it
    Column("one_time_until", TIME),  # not NULL: to be changed at log-in, and opens no longer
    Column("subject", String(512), unique=True),  # issuer and subject of OpenID Connect
    Column("disabled", Integer, nullable=False),  # 0 or 1
    Column("failures", Integer, nullable=False),  # log-ins in a row that failed
    Column("locked_until", TIME),
    Column("created_at", TIME, nullable=False),
    Column("changed_at", TIME, nullable=False),
    Column("worklist_columns", JSON(none_as_null=True)),  # names; NULL: the usual ones
)

# Filters of the worklist that a person saved under a name.
saved_filter = Table(
    "saved_filter",
    metadata,
    Column("person", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    # Query of the address, without what was searched for: it may name a patient.
    Column("query", Text, nullable=False),
    Column("created_at", TIME, nullable=False),
    ForeignKeyConstraint(["person"], ["person.name"]),
)

web_session = Table(
    "web_session",
    metadata,
    Column("digest", DIGEST, primary_key=True),  # SHA-256 of the cookie
    Column("person", String(64), nullable=False, index=True),
    Column("network_address", String(64)),
    Column("created_at", TIME, nullable=False),
    Column("seen_at", TIME, nullable=False),
    Column("expires_at", TIME, nullable=False),
    ForeignKeyConstraint(["person"], ["person.name"]),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("digest", DIGEST, nullable=False, unique=True),  # SHA-256 of the token
    Column("person", String(64), nullable=False),
    Column("label", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("expires_at", TIME),
    Column("used_at", TIME),
    Column("revoked_at", TIME),
    ForeignKeyConstraint(["person"], ["person.name"]),
)

# The second factor of a local account: an authenticator app (RFC 6238).
second_factor = Table(
    "second_factor",
    metadata,
    Column("person", String(64), primary_key=True),
    Column("secret", String(64), nullable=False),  # base32; codes are computed from it
    Column("last_step", Integer, nullable=False),  # of the last code accepted: none counts again
    Column("created_at", TIME, nullable=False),
    Column("confirmed_at", TIME),  # NULL: shown, and no code of it has come yet
    ForeignKeyConstraint(["person"], ["person.name"]),
)

recovery_code = Table(
    "recovery_code",
    metadata,
    Column("digest", DIGEST, primary_key=True),  # SHA-256 of the code; used ones are deleted
    Column("person", String(64), nullable=False, index=True),
    ForeignKeyConstraint(["person"], ["person.name"]),
)

# Log-ins of which the password was right, and which wait for the code. It is no session.
waiting_login = Table(
    "waiting_login",
    metadata,
    Column("digest", DIGEST, primary_key=True),  # SHA-256 of the cookie
    Column("person", String(64), nullable=False, index=True),
    Column("expires_at", TIME, nullable=False),
    ForeignKeyConstraint(["person"], ["person.name"]),
)
