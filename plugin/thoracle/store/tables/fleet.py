"""Which gateways work on the database, where several do."""

from sqlalchemy import Column, Integer, String, Table, Text

from thoracle.store.tables.schema import DIGEST, ROW_ID, TIME, metadata

# One row a gateway that runs, or ended without an orderly stop (store/lease.py). All times are of
# the database's clock.
gateway_lease = Table(
    "gateway_lease",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),  # the lowest one leads
    Column("executor_id", String(64), nullable=False, unique=True),  # the engine's, one a start
    Column("name", String(64), nullable=False),
    Column("host", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("role", String(8), nullable=False),  # all, receive, read
    Column("listens", String(80)),  # host:port; NULL: it does not
    Column("version", String(32), nullable=False),
    Column("bundle_digest", DIGEST),  # NULL until it is known
    Column("settings_digest", DIGEST, nullable=False),  # of those that all have to have alike
    Column("fault", Text, nullable=False),  # what is wrong with it, in sentences; empty: nothing
    Column("started_at", TIME, nullable=False),
    Column("renewed_at", TIME, nullable=False),
    Column("expires_at", TIME, nullable=False),
    Column("taken_at", TIME),  # when another took over its work: it writes no more
    Column("cleared_at", TIME),  # when its unfinished files were cleared away
)
