"""CSV files that people open in spreadsheets: no cell of theirs is ever run as a formula."""

import csv
import io
from collections.abc import Iterable, Sequence

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is run by spreadsheet programs."""


def text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a header and rows as CSV; what would be a formula gets an apostrophe before it."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(columns)
    for row in rows:
        lines.writerow("'" + cell if cell.startswith(FORMULA) else cell for cell in row)
    return written.getvalue()
