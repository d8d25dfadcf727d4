"""Parameters that several routes have."""

from typing import Annotated

from fastapi import Path

from thoracle.store.tables import LARGEST_ID

RowId = Annotated[int, Path(ge=0, le=LARGEST_ID, description="Number of the row.")]
