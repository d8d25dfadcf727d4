"""`thoracle audit replay`: a stored analysis is run again, and its result compared byte by byte.

Nothing is sent and nothing is kept but a row of the audit.
"""

import getpass
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from thoracle.audit.replay import Replay

out = Console()


def replay_command(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    generation: Annotated[
        int | None, typer.Option(min=1, help="Which analysis of it; default: the newest.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one object.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
    ] = None,
) -> None:
    """Run a stored analysis again, and say whether the same comes of it; if not, exit code 1."""
    from thoracle import log
    from thoracle.audit import replay
    from thoracle.cli import audit

    config = config or context.obj
    log.configure("ERROR")
    settings, data = audit.settings_of(config), audit.database(config)
    found = replay.replay(settings, data, study, generation, getpass.getuser())
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), ensure_ascii=True) + "\n")
    else:
        for line in _lines(found):
            out.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
    raise typer.Exit(0 if found.outcome == "same" else 1)


def _lines(found: "Replay") -> Iterator[str]:
    yield from found.beforehand
    match found.outcome:
        case "same":
            yield f"same: the readings, and {found.objects} objects byte by byte"
        case "different":
            yield f"different: first in {found.what}"
            yield from (f"  {one}" for one in found.differences)
        case _:
            yield f"impossible: {found.what}"
    yield "Research use only, not for diagnosis."
