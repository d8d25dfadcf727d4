"""`thoracle verdicts`: what readers said, for other programs. It imports as the others in ``cli``.

Whatever leaves is a row of the audit, in the transaction in which it is read.
"""

import getpass
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from thoracle import spreadsheet
from thoracle.errors import ThoracleError
from thoracle.settings import Settings, load

out = Console()

COLUMNS = (
    "recorded_at",
    "study_instance_uid",
    "accession_number",
    "generation",
    "sop_instance_uid",
    "bundle_digest",
    "outcome",
    "probability",
    "device",
    "opinion",
    "comment",
    "person",
    "counts",
)
"""Of the table ``verdict``, but for ``counts``: whether it is the newest verdict of its study."""


def verdicts_command(
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="CSV file to write: a line a verdict.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one object a verdict.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
    ] = None,
) -> None:
    """Export what readers said of results: all verdicts, oldest first. It is audited."""
    from thoracle.store import files

    if (csv_file is None) is not as_json:
        raise ThoracleError("found both or neither of --csv and --json, required is one")
    if csv_file is not None and not csv_file.parent.is_dir():
        raise ThoracleError(f"{csv_file}: found no folder {csv_file.parent}, required is one")
    settings = Settings() if config is None else load(config)
    rows = _exported(settings, "thoracle verdicts")
    if csv_file is None:
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=True) + "\n")
        return
    files.keep(csv_file, _csv(rows).encode())
    out.print(f"{csv_file} written: {len(rows)} verdicts", highlight=False, soft_wrap=True)


def _exported(settings: Settings, means: str) -> list[dict[str, Any]]:
    """Return all verdicts, and record that they leave."""
    from thoracle.store import database, trail
    from thoracle.study import verdicts

    with database.existing(settings).begin() as connection:
        found = list(verdicts.exported(connection))
        detail = {"verdicts": len(found), "means": means}
        columns: trail.Columns = {"user_id": getpass.getuser(), "detail": detail}
        trail.record(connection, trail.Event.EXPORTED, columns)
    return [{name: row[name] for name in COLUMNS} for row in found]


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    return spreadsheet.text(COLUMNS, ([_cell(row[name]) for name in COLUMNS] for row in rows))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4f}"
        case _:
            return str(value)
