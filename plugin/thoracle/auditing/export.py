"""`thoracle audit export`: the trail as files, a month each, for analysis away from the live file.

A month is complete or not there: it is written under another name, brought to the disk and renamed
at the end. The same export again replaces it, with what has come since.
"""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rich.console import Console

from thoracle import spreadsheet
from thoracle.errors import ThoracleError

if TYPE_CHECKING:
    from sqlalchemy import Engine

out = Console()

OPEN = 3
"""Files at a time; each takes some megabytes until it is closed."""
BATCH = 20_000
"""Rows in memory, and in a row group of Parquet."""
MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_NUMBERS = {"id": "int64", "event_outcome": "int64", "probability": "float64", "seconds": "float64"}
_RECORDED_AT = 1
"""Place of ``recorded_at`` among the columns."""

Row = Sequence[Any]


def export_command(
    parquet: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for Parquet files, a month each.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for CSV files, safe for spreadsheets."),
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="First month, UTC.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="Month before which it ends, UTC.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
    ] = None,
) -> None:
    """Write the trail as files, partitioned by month. That it was read is an event itself."""
    from thoracle.audit.query import Question
    from thoracle.auditing import commands

    if (parquet is None) is (csv is None):
        raise ThoracleError("found both or neither of --parquet and --csv, required is one")
    for name, month in (("--since", since), ("--until", until)):
        if month is not None and not MONTH.fullmatch(month):
            raise ThoracleError(f"{name}: found {month!r}, required is a month as 2026-11")
    folder = parquet or csv
    assert folder is not None
    if parquet is not None:
        require_pyarrow()
    database = commands.database(config)
    commands.asked(database, Question(since=since, until=until), "thoracle audit export")
    for path, rows in export(database, folder, parquet is not None, since, until):
        said = f"{rows} events" if rows else "kept as it is: events of that month have been purged"
        out.print(f"{path}: {said}", markup=False, highlight=False, soft_wrap=True)


def require_pyarrow() -> None:
    """Raise ThoracleError when Parquet cannot be written here."""
    try:
        import pyarrow.parquet  # noqa: F401 - whether it is there
    except ImportError as error:
        raise ThoracleError(
            "found no pyarrow, required is that of `pip install thoracle[parquet]`"
        ) from error


def export(
    database: "Engine", folder: Path, as_parquet: bool, since: str | None, until: str | None
) -> Iterator[tuple[Path, int]]:
    """Write the months of the trail; yield each file with its number of events, by month.

    A month of which the beginning has been purged, and that is there from an earlier export, is
    left as it is, because that has more; its number is 0.
    """
    months = _Months(folder, as_parquet)
    cut = _cut_month(database)
    ended = False
    try:
        for rows in _batches(database, since, until):
            for name, some in groupby(rows, lambda row: str(row[_RECORDED_AT])[:7]):
                if (since is None or name >= since) and (until is None or name < until):
                    months.write(name, list(some))
        ended = True
    finally:
        months.close(keep=ended)
    yield from months.finish(cut)


def _batches(database: "Engine", since: str | None, until: str | None) -> Iterator[Sequence[Row]]:
    from thoracle.store import audit_rows

    with database.connect() as connection:
        bounds = audit_rows.bounds(connection, since, until)
    if bounds is None:
        return
    after, last = bounds[0] - 1, bounds[1]
    while after < last:
        with database.connect() as connection:
            rows = audit_rows.between(connection, after, last, BATCH)
        if not rows:
            return
        yield rows
        after = int(rows[-1][0])


def _cut_month(database: "Engine") -> str | None:
    """Return the month of which the beginning has been purged, if any has."""
    from thoracle.store import audit_rows, chain

    with database.connect() as connection:
        up_to, _ = chain.checkpoint(connection)
        if up_to == 0:
            return None
        first = audit_rows.between(connection, up_to, up_to + 1, 1)
    return str(first[0][_RECORDED_AT])[:7] if first else None


# ---- files -----------------------------------------------------------------------------------


class Writer(Protocol):
    """What writes rows in a format."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""

    def close(self) -> None:
        """End the file; also a second time."""


class Month:
    """The file of one month while it is written."""

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


class _Months:
    """The files of all months while they are written, few of them open."""

    def __init__(self, folder: Path, as_parquet: bool) -> None:
        self._folder = folder
        self._suffix = "parquet" if as_parquet else "csv"
        self._open: dict[str, Month] = {}
        self._all: list[tuple[str, Month]] = []

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows of one month."""
        if name not in self._open:
            if len(self._open) == OPEN:
                self._open.pop(min(self._open)).close()
            number = sum(one == name for one, _ in self._all)
            self._open[name] = self._begin(name, number)
            self._all.append((name, self._open[name]))
        self._open[name].write(rows)

    def _begin(self, name: str, number: int) -> Month:
        """Open a file; a second one of a month only when a clock was set back by much."""
        year, month = name.split("-")
        below = self._folder / f"year={year}" / f"month={month}"
        below.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = below / f"part-{number}.{self._suffix}"
        # Another name: who reads the folder meanwhile must not find it.
        part = path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        file = os.fdopen(descriptor, "wb")
        writer = ParquetWriter(file) if self._suffix == "parquet" else CSVWriter(file)
        return Month(path, part, writer)

    def close(self, *, keep: bool) -> None:
        """End the files that are open; without ``keep``, nothing of this export stays."""
        for month in self._open.values():
            month.close()
        if not keep:
            for _, month in self._all:
                month.part.unlink(missing_ok=True)

    def finish(self, cut: str | None) -> Iterator[tuple[Path, int]]:
        """Give the files their names; of the month ``cut``, only where there is none."""
        written = set()
        for name, month in sorted(self._all, key=lambda one: one[0]):
            written.add(month.path)
            yield month.finish(keep_old=name == cut)
        for folder in {path.parent for path in written}:
            for old in set(folder.glob(f"part-*.{self._suffix}")) - written:
                old.unlink()


class ParquetWriter:
    """Writes rows as Parquet, a row group for each call."""

    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow
        from pyarrow import parquet

        from thoracle.store.audit_rows import NAMES

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
        from thoracle.store.audit_rows import NAMES

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
