"""What the processes of pages have in common that nobody has to keep for long."""

from sqlalchemy import Column, Index, Integer, String, Table, Text

from thoracle.store.tables.schema import DIGEST, ROW_ID, TIME, metadata

# Log-ins of the last minute: how often a network may try.
login_attempt = Table(
    "login_attempt",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("network", String(64), nullable=False),
    Column("failed", Integer, nullable=False),  # 0: it was made; 1: one that was made has failed
    Column("recorded_at", TIME, nullable=False, index=True),
    Index(None, "network", "failed", "recorded_at"),
)

# Log-ins that wait for the answer of the OpenID Connect provider, which any process may get.
provider_login = Table(
    "provider_login",
    metadata,
    Column("state", DIGEST, primary_key=True),  # SHA-256 of what the answer has to name
    Column("browser", DIGEST, nullable=False),  # SHA-256 of the cookie
    Column("nonce", String(64), nullable=False),
    Column("verifier", String(128), nullable=False),  # of PKCE (RFC 7636)
    Column("redirect_uri", Text, nullable=False),
    Column("back", Text, nullable=False),  # the page that was asked for
    Column("begun_at", TIME, nullable=False, index=True),
)

# Secrets of all processes: pictures (a key), first run (the digest of a token, one a process).
page_secret = Table(
    "page_secret",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("value", String(64), primary_key=True),
)
