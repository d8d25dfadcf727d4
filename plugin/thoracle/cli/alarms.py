"""`thoracle alarms`: its commands. Each imports what it needs when it runs."""

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoracle.cli.options import ConfigOption, JsonOption, database_of, print_json, say, settings_of
from thoracle.errors import ThoracleError

if TYPE_CHECKING:
    from thoracle.accounts.accounts import Actor

app = typer.Typer(help="List, acknowledge and silence alarms.", no_args_is_help=True)

SubjectArgument = Annotated[
    str, typer.Argument(metavar="ALARM", help="Alarm name from the list, e.g. 'destination pacs'.")
]
CommentOption = Annotated[str, typer.Option(help="Why, or what is being done.")]


@app.callback()
def _group() -> None:
    """List, acknowledge and silence alarms."""


@app.command("list")
def list_command(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(min=0, help="Number of ended alarms to list.")] = 20,
) -> None:
    """List open alarms, then ended ones, newest first."""
    from thoracle.monitoring import occurrences

    with database_of(settings_of(config)).connect() as connection:
        found = occurrences.as_json(
            [*occurrences.standing(connection), *occurrences.ended(connection, limit)]
        )
    for one in found:
        if as_json:
            print_json(one)
            continue
        until = f" until {one['ended_at'][:16]}" if one["ended_at"] else ""
        say(f"{one['level']} {one['subject']}: since {one['since'][:16]}{until} UTC")
        for line in _lines(one):
            say(f"    {line}")
    if not found and not as_json:
        say("no alarms")


def _lines(one: dict[str, Any]) -> list[str]:
    lines = [one["sentence"], one["device"], one["advice"]]
    if one["acknowledged_at"]:
        said = f": {one['comment']}" if one["comment"] else ""
        when = one["acknowledged_at"][:16]
        lines.append(f"acknowledged by {one['acknowledged_by']} {when} UTC{said}")
    if one["silenced_until"]:
        said = f": {one['silence_comment']}" if one["silence_comment"] else ""
        until = one["silenced_until"][:16]
        lines.append(f"silenced by {one['silenced_by']} until {until} UTC{said}")
    return [line for line in lines if line]


@app.command("acknowledge")
def acknowledge_command(
    alarm: SubjectArgument, comment: CommentOption = "", config: ConfigOption = None
) -> None:
    """Acknowledge an open alarm. It is audited."""
    from thoracle.monitoring import occurrences

    with database_of(settings_of(config)).begin() as connection:
        standing = {row.subject: row.id for row in occurrences.standing(connection)}
        if alarm not in standing:
            there = ", ".join(map(repr, standing)) or "none"
            raise ThoracleError(f"found {alarm[:64]!r}, required: an alarm that stands: {there}")
        occurrences.acknowledge(connection, _by(), standing[alarm], comment)
    say(f"{alarm}: acknowledged")


@app.command("silence")
def silence_command(
    alarm: SubjectArgument,
    hours: Annotated[float | None, typer.Option(help="Duration in hours.")] = None,
    until: Annotated[str, typer.Option(help="End time in UTC, e.g. 2026-11-30T18:00.")] = "",
    comment: CommentOption = "",
    config: ConfigOption = None,
) -> None:
    """Silence an alarm: no webhook and no e-mail, for 30 days at most. It is audited."""
    from thoracle.monitoring import occurrences

    end = occurrences.until_of(hours, until)
    with database_of(settings_of(config)).begin() as connection:
        occurrences.silence(connection, _by(), alarm, end, comment)
    say(f"{alarm}: silenced until {end:%Y-%m-%dT%H:%M} UTC")


@app.command("unsilence")
def unsilence_command(alarm: SubjectArgument, config: ConfigOption = None) -> None:
    """End a silence now. It is audited."""
    from thoracle.monitoring import occurrences

    with database_of(settings_of(config)).begin() as connection:
        occurrences.unsilence(connection, _by(), alarm)
    say(f"{alarm}: no longer silenced")


def _by() -> "Actor":
    from thoracle.accounts.accounts import Actor

    return Actor(getpass.getuser()[:64])
