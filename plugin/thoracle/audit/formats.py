"""Files that rows of the trail are written to, with all columns: Parquet and CSV."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from thoracle import spreadsheet
from thoracle.errors import ThoracleError

_NUMBERS = {"id": "int64", "event_outcome": "int64", "probability": "float64", "seconds": "float64"}
BATCH = 20_000
"""Rows in memory, and in a row group of Parquet."""

Row = Sequence[Any]


class Writer(Protocol):
    """What writes rows in a format."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""

    def close(self) -> None:
        """End the file; also a second time."""


def require_pyarrow() -> None:
    """Raise ThoracleError when Parquet cannot be written here."""
    try:
        import pyarrow.parquet  # noqa: F401 - whether it is there
    except ImportError as error:
        raise ThoracleError(
            "found no pyarrow, required: `pip install thoracle[parquet]`"
        ) from error


class ParquetWriter:
    """Writes rows as Parquet, a row group for each call."""

    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow
        from pyarrow import parquet

        from thoracle.audit.query import NAMES

        self._file = file
        self._arrow: Any = pyarrow
        types = {name: getattr(pyarrow, kind)() for name, kind in _NUMBERS.items()}
        types["recorded_at"] = pyarrow.timestamp("us", tz="UTC")
        fields = [(name, types.get(name, pyarrow.string())) for name in NAMES]
        self._schema: Any = pyarrow.schema(fields)
        self._writer: Any = parquet.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        arrow = self._arrow
        arrays = []
        for field, values in zip(self._schema, zip(*rows, strict=True), strict=True):
            if field.name == "recorded_at":
                arrays.append(arrow.array(values, arrow.string()).cast(field.type))
            else:
                arrays.append(arrow.array(values, field.type))
        self._writer.write_table(arrow.table(arrays, schema=self._schema))

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()
        self._file.close()


class CSVWriter:
    """Writes rows as CSV in which no cell is run as a formula."""

    def __init__(self, file: IO[bytes]) -> None:
        from thoracle.audit.query import NAMES

        self._file = file
        self._names = NAMES
        self._begun = False

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        cells = (["" if value is None else str(value) for value in row] for row in rows)
        lines = spreadsheet.lines(self._names, cells)
        header = next(lines)
        if not self._begun:
            self._file.write(header.encode("utf-8", "replace"))
            self._begun = True
        for line in lines:
            self._file.write(line.encode("utf-8", "replace"))

    def close(self) -> None:
        """End the file."""
        self._file.close()


class Unfinished:
    """A file while it is written: under another name, so that nobody takes it for whole."""

    def __init__(self, path: Path, part: Path, writer: Writer) -> None:
        self.path = path
        self.part = part
        self._writer = writer
        self._rows = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        self._writer.write(rows)
        self._rows += len(rows)

    def close(self) -> None:
        """End the file that is being written."""
        self._writer.close()

    def finish(self, *, keep_old: bool) -> tuple[Path, int]:
        """Give the file its name, unless one of that name is to be kept."""
        from thoracle.store.files import sync_folder

        if keep_old and self.path.exists():
            self.part.unlink()
            return self.path, 0
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)
        sync_folder(self.path.parent)
        return self.path, self._rows

    def drop(self) -> None:
        """Delete what is written, unless it has got its name."""
        self.part.unlink(missing_ok=True)


def begin(path: Path, as_parquet: bool) -> Unfinished:
    """Return a file that will be at a path, for its owner alone to read."""
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    file = os.fdopen(descriptor, "wb")
    return Unfinished(path, part, ParquetWriter(file) if as_parquet else CSVWriter(file))


def write_parquet(path: Path, rows: Iterator[Row]) -> int:
    """Write rows to one Parquet file, and return their number; the file is whole or not there."""
    file = begin(path, as_parquet=True)
    try:
        while some := list(islice(rows, BATCH)):
            file.write(some)
        file.close()
        return file.finish(keep_old=False)[1]
    finally:
        file.close()
        file.drop()
