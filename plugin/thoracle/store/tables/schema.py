"""What all tables have: one set of metadata, and how UIDs, times and digests are stored."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, String

UID = String(64)
AE_TITLE = String(16)
TIME = String(27)
DIGEST = String(64)
FINDING = String(33)  # scheme:code, 16 characters each at most
ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up INTEGER keys alone
LARGEST_ID = 2**63 - 1
"""Of a row; a driver or a database refuses a larger number by an error of its own."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def kept() -> tuple[Column[Any], Column[Any]]:
    """Return the columns that say what became of a row's file; the row itself stays.

    ``file_state`` is kept, going (by rule, it is being unlinked) or gone.
    """
    state = Column("file_state", String(8), nullable=False, server_default="kept", index=True)
    return state, Column("purged_at", TIME)


def now() -> str:
    """Return this moment as it is stored: ``2026-11-22T18:45:29.123456Z``."""
    return timestamp(datetime.now(UTC))


def ago(seconds: float) -> str:
    """Return the moment so many seconds ago as it is stored."""
    return timestamp(datetime.now(UTC) - timedelta(seconds=seconds))


def timestamp(moment: datetime) -> str:
    """Return an aware datetime as it is stored."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
