"""Where the rows of this database went, if they were moved to another one."""

from sqlalchemy import Column, Table, Text

from thoracle.store.tables.schema import TIME, metadata

# One row in a database whose rows were moved, or are being moved; else none (store/moved.py).
database_move = Table(
    "database_move",
    metadata,
    Column("begun_at", TIME, primary_key=True),
    Column("target", Text, nullable=False),  # URL of the other database, without a password
    Column("ended_at", TIME),  # NULL: under way, or interrupted
)
