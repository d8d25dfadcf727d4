"""`thoracle audit export`: the trail as files, a month each, for analysis away from the live file.

A month is complete or not there: it is written under another name, brought to the disk and renamed
at the end. The same export again replaces it, with what has come since.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.audit.formats import BATCH, Row, Unfinished, begin, require_pyarrow
from thoracle.cli.audit import database as open_database
from thoracle.cli.audit import record_question
from thoracle.cli.options import ConfigOption, say, settings_of
from thoracle.errors import ThoracleError

if TYPE_CHECKING:
    from thoracle.store.database import Database


OPEN = 3
"""Files at a time; each takes some megabytes until it is closed."""
MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_RECORDED_AT = 1
"""Place of ``recorded_at`` among the columns."""


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
        str | None, typer.Option(metavar="YYYY-MM", help="End month, exclusive, UTC.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Export the log as files, one a month. Reading it is an event itself."""
    from thoracle.audit.query import Question

    if (parquet is None) is (csv is None):
        raise ThoracleError("found both or neither of --parquet and --csv, required: one")
    for name, month in (("--since", since), ("--until", until)):
        if month is not None and not MONTH.fullmatch(month):
            raise ThoracleError(f"{name}: found {month!r}, required: a month as 2026-11")
    folder = parquet or csv
    assert folder is not None
    if parquet is not None:
        require_pyarrow()
    database = open_database(config)
    record_question(database, Question(since=since, until=until), "thoracle audit export")
    _write_public_key(settings_of(config).data_folder, folder)
    for path, rows in export(database, folder, parquet is not None, since, until):
        said = f"{rows} events" if rows else "kept as it is: events of that month have been purged"
        say(f"{path}: {said}")


def _write_public_key(data_folder: Path, folder: Path) -> None:
    """Put the key that anchors are signed with beside the months, if there is one."""
    from thoracle.store import signing

    signer = signing.existing(data_folder)
    if signer is not None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / signing.PUBLIC_KEY_FILE
        path.write_text(signing.as_pem(signer.public_key), encoding="ascii")


def export(
    database: "Database", folder: Path, as_parquet: bool, since: str | None, until: str | None
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


def _batches(database: "Database", since: str | None, until: str | None) -> Iterator[Sequence[Row]]:
    from thoracle.audit import query as audit_rows

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


def _cut_month(database: "Database") -> str | None:
    """Return the month of which the beginning has been purged, if any has."""
    from thoracle.audit import query as audit_rows
    from thoracle.store import chain

    with database.connect() as connection:
        up_to, _ = chain.checkpoint(connection)
        if up_to == 0:
            return None
        first = audit_rows.between(connection, up_to, up_to + 1, 1)
    return str(first[0][_RECORDED_AT])[:7] if first else None


# ---- files -----------------------------------------------------------------------------------


class _Months:
    """The files of all months while they are written, few of them open."""

    def __init__(self, folder: Path, as_parquet: bool) -> None:
        self._folder = folder
        self._suffix = "parquet" if as_parquet else "csv"
        self._open: dict[str, Unfinished] = {}
        self._all: list[tuple[str, Unfinished]] = []

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows of one month."""
        if name not in self._open:
            if len(self._open) == OPEN:
                self._open.pop(min(self._open)).close()
            number = sum(one == name for one, _ in self._all)
            self._open[name] = self._begin(name, number)
            self._all.append((name, self._open[name]))
        self._open[name].write(rows)

    def _begin(self, name: str, number: int) -> Unfinished:
        """Open a file; a second one of a month only when a clock was set back by much."""
        year, month = name.split("-")
        below = self._folder / f"year={year}" / f"month={month}"
        below.mkdir(parents=True, exist_ok=True, mode=0o700)
        return begin(below / f"part-{number}.{self._suffix}", self._suffix == "parquet")

    def close(self, *, keep: bool) -> None:
        """End the files that are open; without ``keep``, nothing of this export stays."""
        for month in self._open.values():
            month.close()
        if not keep:
            for _, month in self._all:
                month.drop()

    def finish(self, cut: str | None) -> Iterator[tuple[Path, int]]:
        """Give the files their names; of the month ``cut``, only where there is none."""
        written = set()
        for name, month in sorted(self._all, key=lambda one: one[0]):
            written.add(month.path)
            yield month.finish(keep_old=name == cut)
        for folder in {path.parent for path in written}:
            for old in set(folder.glob(f"part-*.{self._suffix}")) - written:
                old.unlink()
