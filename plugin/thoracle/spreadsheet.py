"""CSV files that people open in spreadsheets: no cell of theirs is ever run as a formula."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is run by spreadsheet programs."""


def text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a header and rows as CSV; what would be a formula gets an apostrophe before it."""
    return "".join(lines(columns, rows))


def lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the same line by line."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for row in itertools.chain([columns], rows):
        writer.writerow("'" + cell if cell.startswith(FORMULA) else cell for cell in row)
        yield written.getvalue()
        written.seek(0)
        written.truncate()
