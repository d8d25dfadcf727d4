"""What the commands have in common: options, the two consoles, settings and database."""

import getpass
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from thoracle.settings import Settings, load

if TYPE_CHECKING:
    from thoracle.store import trail
    from thoracle.store.database import Database

T = TypeVar("T")

out = Console()
"""What was asked for."""
err = Console(stderr=True)
"""Faults and progress."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
StudyArgument = Annotated[str, typer.Argument(help="Study Instance UID.")]


def settings_of(config: Path | None) -> Settings:
    """Return the settings in a file, the defaults without one."""
    return Settings() if config is None else load(config)


def database_of(settings: Settings) -> "Database":
    """Return the gateway's database; raises ``DatabaseError`` when there is none."""
    from thoracle.store.database import existing

    return existing(settings)


def who(means: str, **more: Any) -> "trail.Columns":
    """Return the columns of an event that say who asked, and how."""
    return {"user_id": getpass.getuser()[:64], "detail": {"means": means, **more}}


def say(line: str) -> None:
    """Print a line as it is: nothing in it is markup, and it is not broken."""
    out.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_json(values: Any) -> None:
    """Print one JSON object as a line."""
    sys.stdout.write(json.dumps(values, ensure_ascii=True) + "\n")


def with_progress(found: Iterable[T], total: int, verb: str = "reading") -> Iterator[T]:
    """Yield what is found, with a bar on a terminal that says how far it is."""
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task(verb, total=total)
        for one in found:
            progress.advance(bar)
            yield one
