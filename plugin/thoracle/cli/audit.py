"""`thoracle audit`: questions to the log. Each command imports what it needs when it runs."""

import getpass
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from thoracle.audit import formats
from thoracle.cli.options import (
    STUDY_HELP,
    ConfigOption,
    JsonOption,
    StudyArgument,
    database_of,
    out,
    print_json,
    say,
    settings_of,
    study_of,
)
from thoracle.errors import ThoracleError
from thoracle.wording import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from thoracle.audit.replay import Replay
    from thoracle.store.database import Database

app = typer.Typer(help="Query and verify the audit log.")

LEADING = ("id", "recorded_at", "event", "event_id", "event_type_code", "action")


@app.callback(invoke_without_command=True)
def audit_command(
    context: typer.Context,
    study: Annotated[str | None, typer.Option(help=STUDY_HELP)] = None,
    patient: Annotated[str | None, typer.Option(help="Patient ID.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Issuer of the Patient ID.")] = None,
    accession: Annotated[str | None, typer.Option(help="Accession Number.")] = None,
    since: Annotated[
        str | None, typer.Option(help="UTC, e.g. 2026-11-22 or 2026-11-22T18:30.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="UTC, exclusive.")] = None,
    event: Annotated[str | None, typer.Option(help='What happened, e.g. "image read".')] = None,
    action: Annotated[str | None, typer.Option(help="C, R, U, D or E.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Serious failures only.")] = False,
    instance: Annotated[
        str | None, typer.Option(help="SOP Instance UID, of an image or of a result.")
    ] = None,
    ae_title: Annotated[str | None, typer.Option(help="Calling or called AE title.")] = None,
    address: Annotated[str | None, typer.Option(help="Network address.")] = None,
    user: Annotated[str | None, typer.Option(help="User.")] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Digest of a bundle, or its name and version.")
    ] = None,
    finding: Annotated[
        str | None, typer.Option(help="Scheme and code of a finding, e.g. SCT:233604007.")
    ] = None,
    outcome: Annotated[str | None, typer.Option(help="Outcome of the analysis.")] = None,
    reason: Annotated[str | None, typer.Option(help="Reason code of a rejection.")] = None,
    destination: Annotated[
        str | None, typer.Option(help="Name of a destination or receiver.")
    ] = None,
    proof: Annotated[str | None, typer.Option(help="commitment, query or status.")] = None,
    status: Annotated[str | None, typer.Option(help="Status, e.g. 0xA700.")] = None,
    slower_than: Annotated[float | None, typer.Option(help="Minimum duration, seconds.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, safe for spreadsheets.")] = False,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a Parquet file.")
    ] = None,
) -> None:
    """List events, oldest first. Reading the log is an event itself."""
    if context.invoked_subcommand is not None:
        context.obj = config  # it may stand before the sub-command, too
        return
    from thoracle.audit.query import Question

    question = Question(
        study_instance_uid=study and _study(database(config), study, "thoracle audit"),
        patient_id=patient,
        issuer_of_patient_id=issuer,
        accession_number=accession,
        since=moment(since),
        until=moment(until),
        event=event,
        action=action,
        event_outcome=8 if failed else None,
        sop_instance_uid=instance,
        ae_title=ae_title,
        network_address=address,
        user_id=user,
        bundle=bundle,
        finding=finding,
        outcome=outcome,
        reason_code=reason,
        destination=destination,
        proof=proof,
        status=status,
        at_least_seconds=slower_than,
        shown=True,
    )
    if as_json + as_csv + (parquet is not None) > 1:
        raise ThoracleError("found several of --json, --csv and --parquet, required: one at most")
    show(config, question, as_json, as_csv, parquet)


def show(
    config: Path | None, question: Any, as_json: bool, as_csv: bool, parquet: Path | None
) -> None:
    """Print or write the events that answer a question, and record that it was asked."""
    from thoracle import spreadsheet
    from thoracle.audit import query
    from thoracle.store.chain import COLUMNS

    if parquet is not None:
        formats.require_pyarrow()
    data = database(config)
    record_question(data, question, "thoracle audit")
    with data.connect() as connection:
        events = query.events(connection, question)
        if parquet is not None:
            found = query.rows(connection, question)
            number = formats.write_parquet(parquet, ([*map(_value, row.values())] for row in found))
            say(f"{parquet}: {number} events")
        elif as_csv:
            rows = ([_cell(event.get(name)) for name in COLUMNS] for event in events)
            for line in spreadsheet.lines(COLUMNS, rows):
                sys.stdout.write(line)
        elif as_json:
            for event in events:
                print_json(event)
        else:
            for event in events:
                say(_event_line(event))


def _event_line(event: dict[str, Any]) -> str:
    rest = {name: value for name, value in event.items() if name not in (*LEADING, "digest")}
    facts = " ".join(
        f"{name}={json.dumps(value) if isinstance(value, dict) else value}"
        for name, value in rest.items()
    )
    return f"{event['recorded_at']} {event['event']} {facts}"


def _value(value: Any) -> Any:
    """Return what a file has of a column: as the database keeps it, a detail as text."""
    return json.dumps(value, ensure_ascii=True) if isinstance(value, dict) else value


def _cell(value: Any) -> str:
    return "" if value is None else str(_value(value))


def record_question(database: Any, question: Any, means: str, studies: Sequence[str] = ()) -> None:
    """Record that somebody reads the trail, what for, and which studies are told of."""
    from thoracle.store import trail

    columns: trail.Columns = {
        "user_id": getpass.getuser(),
        "study_instance_uid": question.study_instance_uid,
        "patient_id": question.patient_id,
        "accession_number": question.accession_number,
        "detail": {"means": means, "question": question.given()},
    }
    if studies:
        columns["detail"]["studies"] = list(studies)
    with database.begin() as connection:
        trail.record(connection, trail.Event.AUDIT_READ, columns)


def database(config: Path | None) -> "Database":
    """Return the database of a configuration, which must be there."""
    return database_of(settings_of(config))


def moment(text: str | None) -> str | None:
    """Return a point in time that somebody typed as the trail keeps it.

    Raises
    ------
    ThoracleError
        It is none.
    """
    if text is None:
        return None
    from thoracle.store.tables import timestamp

    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ThoracleError(f"found {text!r}, required: a time as 2026-11-22T18:30") from error
    return timestamp(found if found.tzinfo else found.replace(tzinfo=UTC))


@app.command("why")
def why_command(
    context: typer.Context,
    study: Annotated[str | None, typer.Argument(help=STUDY_HELP)] = None,
    accession: Annotated[
        str | None, typer.Option(help="Accession Number, instead of the study.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Explain what happened to a study, why, and what it is waiting for."""
    from thoracle.audit import story
    from thoracle.audit.query import Question

    if (study is None) is (accession is None):
        raise ThoracleError("found both or neither of STUDY and --accession, required: one")
    data = database(config or context.obj)
    if study is not None:
        study = _study(data, study, "thoracle audit why")
    with data.connect() as connection:
        studies = [study] if study else story.of_accession(connection, accession or "")
        told = [_story(connection, one) for one in studies]
    question = Question(study_instance_uid=study, accession_number=accession)
    record_question(data, question, "thoracle audit why", studies)
    if not told:
        raise ThoracleError(f"found no study with accession number {accession!r:.80}")
    for number, one in enumerate(told):
        if as_json:
            print_json(one)
        else:
            for line in (*[""] * bool(number), *_story_lines(one)):
                say(line)


def _study(data: "Database", text: str, means: str) -> str:
    """Return the one study that somebody means; a UID may be of one that never came."""
    from thoracle.audit import lookup

    return text if lookup.is_uid(text) else study_of(data, text, means)


def _story(connection: Any, study: str) -> dict[str, Any]:
    from thoracle.audit import story

    known = story.known_of(connection, study)
    return {
        "study_instance_uid": study,
        "answer": story.answer(known),
        "waiting": story.waiting(known),
        "facts": [asdict(one) for one in story.facts(known.events)],
        "came": known.study is not None,
        "around": [asdict(one) for one in story.facts(story.around(connection, known))],
    }


def _story_lines(told: dict[str, Any]) -> Iterable[str]:
    yield told["answer"]
    yield f"{RESEARCH_USE_ONLY}."
    if told["waiting"]:
        yield from ("", "Waiting for:", *(f"  {one}" for one in told["waiting"]))
    if told["facts"]:
        yield from ("", "What happened (UTC):", *map(_line, told["facts"]))
    if told["around"]:
        title = (
            "Refused from its senders around that time:"
            if told["came"]
            else "Latest refusals, of any study:"
        )
        yield from ("", title, *map(_line, told["around"]))


def _line(fact: dict[str, Any]) -> str:
    began, ended = _moment(fact["at"]), _moment(fact["until"])
    until = "" if ended == began else f" to {ended}"
    return f"  {began}{until}  {fact['sentence']}"


def _moment(text: str) -> str:
    return text[:19].replace("T", " ")


BLOCKS = " ▏▎▍▌▋▊▉█"
"""Eighths of a character cell."""
MOST_DAYS = 400
"""Days without an event are filled in up to so many in all."""
NARROWEST, WIDEST = 10, 60
"""Cells of a bar."""


class CountBy(StrEnum):
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
    CountBy.DEVICE: "images stored, by the AE title that sent them",
    CountBy.OUTCOME: "images read",
    CountBy.REASON: "images rejected",
    CountBy.BUNDLE: "images read",
}
"""What is counted, where it is not events."""


@app.command("stats")
def stats_command(
    context: typer.Context,
    by: Annotated[CountBy, typer.Option(help="Group by.")] = CountBy.EVENT,
    since: Annotated[
        str | None, typer.Option(help="UTC, e.g. 2026-11-22 or 2026-11-22T18:30.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="UTC, exclusive.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Count events by day, device, outcome and more."""
    from thoracle.audit import query
    from thoracle.audit.query import Question

    question = Question(since=moment(since), until=moment(until))
    data = database(config or context.obj)
    with data.connect() as connection:
        found = query.count(connection, by, question.since, question.until)
    record_question(data, question, f"thoracle audit stats --by {by}")
    if by is CountBy.DAY:
        found = without_gaps(found)
    if as_json:
        for value, number in found:
            print_json({by: value, "count": number})
        return
    out.print(_table(by, found, out.width))
    total = sum(number for _, number in found)
    said = f"{total:,} {COUNTED.get(by, 'events')}"
    if len(found) >= query.MOST:
        said += f"; of more than {query.MOST} values, those that come first"
    say(said)


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


def _table(by: CountBy, found: Sequence[tuple[str, int]], width: int) -> Table:
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


@app.command("replay")
def replay_command(
    context: typer.Context,
    study: StudyArgument,
    generation: Annotated[
        int | None, typer.Option(min=1, help="Generation to replay; default: the newest.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Run a stored analysis again and compare the results; exit code 1 if they differ."""
    from thoracle import log
    from thoracle.audit import replay

    config = config or context.obj
    log.configure("ERROR")
    settings, data = settings_of(config), database(config)
    study = study_of(data, study, "thoracle audit replay")
    found = replay.replay(settings, data, study, generation, getpass.getuser())
    if as_json:
        print_json(asdict(found))
    else:
        for line in _replay_lines(found):
            say(line)
    raise typer.Exit(0 if found.outcome == "same" else 1)


def _replay_lines(found: "Replay") -> Iterator[str]:
    yield from found.beforehand
    match found.outcome:
        case "same":
            yield f"same: the readings, and {found.objects} objects byte by byte"
        case "different":
            yield f"different: first in {found.what}"
            yield from (f"  {one}" for one in found.differences)
        case _:
            yield f"impossible: {found.what}"
    yield f"{RESEARCH_USE_ONLY}."
