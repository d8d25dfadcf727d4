"""What the commands have in common: options, the two consoles, settings and database."""

import getpass
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from thoracle.errors import ThoracleError
from thoracle.image import characters
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
STUDY_HELP = "Study Instance UID, Accession Number or Patient ID."
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help=STUDY_HELP)]
SEVERAL_STUDIES = 3
"""Exit code: more than one study is meant; they are listed."""


def settings_of(config: Path | None) -> Settings:
    """Return the settings in a file, the defaults without one."""
    settings = Settings() if config is None else load(config)
    if settings.data_folder_group:
        os.umask(0o027)  # what is written below the data folder is for its group to read
    characters.assume(settings.receive.default_character_set)
    return settings


def database_of(settings: Settings) -> "Database":
    """Return the gateway's database; raises ``DatabaseError`` when there is none."""
    from thoracle.store.database import existing

    return existing(settings)


def who(means: str, **more: Any) -> "trail.Columns":
    """Return the columns of an event that say who asked, and how."""
    return {"user_id": getpass.getuser()[:64], "detail": {"means": means, **more}}


def study_of(database: "Database", text: str, means: str) -> str:
    """Return the Study Instance UID of the one study that somebody means.

    Parameters
    ----------
    text
        A Study Instance UID, Accession Number or Patient ID.
    means
        The command, for the audit: studies that are listed were seen, and so is what is not there.

    Raises
    ------
    ThoracleError
        There is no such study.
    typer.Exit
        With ``SEVERAL_STUDIES``: there are several, and they were printed.
    """
    from thoracle.audit import lookup
    from thoracle.store import trail

    text = text.strip()
    with database.begin() as connection:
        found = lookup.studies(connection, text)
        if len(found) == 1:
            return found[0].study_instance_uid
        columns: trail.Columns = who(means, studies=[one.study_instance_uid for one in found])
        event = trail.Event.LIST_VIEWED
        if not found:
            event = trail.Event.STUDY_VIEWED
            columns["study_instance_uid"] = text[:64]
            columns["event_outcome"] = trail.MINOR_FAILURE
        trail.record(connection, event, columns)
        number = lookup.number_received(connection)
    if not found:
        where = database.url.database or database.url.host
        raise ThoracleError(
            f"found no study with Study Instance UID, Accession Number or Patient ID {text!r:.80}, "
            f"searched {number} studies in {where}"
        )
    say(f"found {len(found)} studies with {text!r:.80}, required: one of them:")
    for one in found:
        said = (one.accession_number and f"accession {one.accession_number}", one.state)
        more = ", ".join(filter(None, (*said, one.changed_at and f"changed {one.changed_at}")))
        say(f"  {one.study_instance_uid}  {more}".rstrip())
    raise typer.Exit(SEVERAL_STUDIES)


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
