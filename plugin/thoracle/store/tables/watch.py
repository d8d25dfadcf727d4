"""What the watch says."""

from sqlalchemy import Column, String, Table, Text

from thoracle.store.tables.schema import TIME, metadata

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
