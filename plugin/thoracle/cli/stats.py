"""`thoracle audit stats`: how many events, by what one wants to know, with bars in the terminal."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console()

BLOCKS = " ▏▎▍▌▋▊▉█"
"""Eighths of a character cell."""
MOST_DAYS = 400
"""Days without an event are filled in up to so many in all."""
NARROWEST, WIDEST = 10, 60
"""Cells of a bar."""


class By(StrEnum):
    """What is counted apart."""

    DAY = "day"
    MONTH = "month"
    DEVICE = "device"
    OUTCOME = "outcome"
    REASON = "reason"
    BUNDLE = "bundle"
    DESTINATION = "destination"
    USER = "user"
    EVENT = "event"


COUNTED = {
    By.DEVICE: "images stored, by the AE title that sent them",
    By.OUTCOME: "images read",
    By.REASON: "images rejected",
    By.BUNDLE: "images read",
}
"""What is counted, where it is not events."""


def stats_command(
    context: typer.Context,
    by: Annotated[By, typer.Option(help="What is counted apart.")] = By.EVENT,
    since: Annotated[
        str | None, typer.Option(help="UTC, e.g. 2026-11-22 or 2026-11-22T18:30.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="UTC, exclusive.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one object a value.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
    ] = None,
) -> None:
    """Count events, by day, device, outcome or the like."""
    from thoracle.audit import query
    from thoracle.audit.query import Question
    from thoracle.cli import audit

    question = Question(since=audit.moment(since), until=audit.moment(until))
    data = audit.database(config or context.obj)
    with data.connect() as connection:
        found = query.count(connection, by, question.since, question.until)
    audit.asked(data, question, f"thoracle audit stats --by {by}")
    if by is By.DAY:
        found = without_gaps(found)
    if as_json:
        for value, number in found:
            sys.stdout.write(json.dumps({by: value, "count": number}, ensure_ascii=True) + "\n")
        return
    out.print(_table(by, found, out.width))
    total = sum(number for _, number in found)
    said = f"{total:,} {COUNTED.get(by, 'events')}"
    if len(found) >= query.MOST:
        said += f"; of more than {query.MOST} values, those that come first"
    out.print(said, markup=False, highlight=False, emoji=False, soft_wrap=True)


def without_gaps(found: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return counts by day with those days too on which nothing was, unless they are too many."""
    counted = dict(found)
    if not counted:
        return []
    first, last = (date.fromisoformat(one) for one in (found[0][0], found[-1][0]))
    days = (last - first).days + 1
    if days > MOST_DAYS:
        return list(found)
    every = ((first + timedelta(days=number)).isoformat() for number in range(days))
    return [(day, counted.get(day, 0)) for day in every]


def _table(by: By, found: Sequence[tuple[str, int]], width: int) -> Table:
    from thoracle.audit.sentences import inert

    names = [inert(value, 64) for value, _ in found]
    taken = max(map(len, [by, *names])) + 24  # count, share, and the space between columns
    cells = min(WIDEST, max(NARROWEST, width - taken))
    table = Table(box=None, pad_edge=False)
    table.add_column(by, overflow="fold")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    total = sum(number for _, number in found) or 1
    for name, (_, number), drawn in zip(names, found, bars(found, cells), strict=True):
        # As Text, so that nothing in a name is markup.
        share = f"{100 * number / total:.1f} %"
        table.add_row(Text(name), Text(f"{number:,}"), Text(share), Text(drawn))
    return table


def bars(found: Sequence[tuple[str, int]], cells: int) -> Iterator[str]:
    """Yield a bar for each count, the longest of so many cells; what is not nothing is seen."""
    most = max((number for _, number in found), default=1) or 1
    for _, number in found:
        eighths = round(8 * cells * number / most)
        if number:
            eighths = max(1, eighths)
        yield BLOCKS[8] * (eighths // 8) + BLOCKS[eighths % 8].strip()
