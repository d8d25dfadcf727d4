"""Parameters that several routes have."""

from typing import Annotated

from fastapi import Path

LARGEST_ID = 2**63 - 1
"""Of rows on SQLite and PostgreSQL: a driver refuses a larger number by an error of its own."""

RowId = Annotated[int, Path(ge=0, le=LARGEST_ID, description="Number of the row.")]
