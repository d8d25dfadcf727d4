"""`thoracle audit`: its commands. Each imports what it needs when it runs, as in ``cli``."""

import getpass
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from thoracle.audit import formats
from thoracle.cli.replay import replay_command
from thoracle.cli.stats import stats_command
from thoracle.cli.why import why_command
from thoracle.errors import ThoracleError
from thoracle.settings import Settings, load

app = typer.Typer(help="Ask the trail, and prove that nobody changed it.")
out = Console()

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
]
Text = Annotated[str | None, typer.Option()]
LEADING = ("id", "recorded_at", "event", "event_id", "event_type_code", "action")


@app.callback(invoke_without_command=True)
def audit_command(
    context: typer.Context,
    study: Annotated[str | None, typer.Option(help="Study Instance UID.")] = None,
    patient: Annotated[str | None, typer.Option(help="Patient ID.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Issuer of the Patient ID.")] = None,
    accession: Annotated[str | None, typer.Option(help="Accession Number.")] = None,
    since: Annotated[
        str | None, typer.Option(help="UTC, e.g. 2026-11-22 or 2026-11-22T18:30.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="UTC, exclusive.")] = None,
    event: Annotated[str | None, typer.Option(help='What happened, e.g. "image read".')] = None,
    action: Annotated[str | None, typer.Option(help="C, R, U, D or E.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Serious failures alone.")] = False,
    instance: Annotated[
        str | None, typer.Option(help="SOP Instance UID, of an image or of a result.")
    ] = None,
    ae_title: Annotated[str | None, typer.Option(help="Who called or was called.")] = None,
    address: Annotated[str | None, typer.Option(help="Network address.")] = None,
    user: Annotated[str | None, typer.Option(help="Who did it.")] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Digest of a bundle, or its name and version.")
    ] = None,
    outcome: Annotated[str | None, typer.Option(help="Outcome of the analysis.")] = None,
    reason: Annotated[str | None, typer.Option(help="Code of the reason of a rejection.")] = None,
    destination: Annotated[str | None, typer.Option(help="Name of who was sent to.")] = None,
    proof: Annotated[str | None, typer.Option(help="commitment, query or status.")] = None,
    status: Annotated[str | None, typer.Option(help="Status, e.g. 0xA700.")] = None,
    slower_than: Annotated[float | None, typer.Option(help="Seconds that it took.")] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, safe for spreadsheets.")] = False,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write them to a Parquet file.")
    ] = None,
) -> None:
    """Show events, oldest first. That the trail was read is an event itself."""
    if context.invoked_subcommand is not None:
        context.obj = config  # it may stand before the sub-command, too
        return
    from thoracle.audit.query import Question

    question = Question(
        study_instance_uid=study,
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
        outcome=outcome,
        reason_code=reason,
        destination=destination,
        proof=proof,
        status=status,
        at_least_seconds=slower_than,
    )
    if as_json + as_csv + (parquet is not None) > 1:
        raise ThoracleError("found several of --json, --csv and --parquet, required is one at most")
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
    asked(data, question, "thoracle audit")
    with data.connect() as connection:
        events = query.events(connection, question)
        if parquet is not None:
            found = query.rows(connection, question)
            number = formats.write_parquet(parquet, ([*map(_value, row.values())] for row in found))
            out.print(f"{parquet}: {number} events", markup=False, highlight=False, soft_wrap=True)
        elif as_csv:
            rows = ([_cell(event.get(name)) for name in COLUMNS] for event in events)
            for line in spreadsheet.lines(COLUMNS, rows):
                sys.stdout.write(line)
        elif as_json:
            for event in events:
                sys.stdout.write(json.dumps(event, ensure_ascii=True) + "\n")
        else:
            _print(events)


def _print(events: Iterable[dict[str, Any]]) -> None:
    for event in events:
        rest = {name: value for name, value in event.items() if name not in LEADING}
        del rest["digest"]
        facts = " ".join(
            f"{name}={json.dumps(value) if isinstance(value, dict) else value}"
            for name, value in rest.items()
        )
        line = f"{event['recorded_at']} {event['event']} {facts}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _value(value: Any) -> Any:
    """Return what a file has of a column: as the database keeps it, a detail as text."""
    return json.dumps(value, ensure_ascii=True) if isinstance(value, dict) else value


def _cell(value: Any) -> str:
    return "" if value is None else str(_value(value))


def asked(database: Any, question: Any, means: str) -> None:
    """Record that somebody reads the trail, and what for."""
    from thoracle.store import trail

    wanted = {name: value for name, value in asdict(question).items() if value is not None}
    columns: trail.Columns = {
        "user_id": getpass.getuser(),
        "study_instance_uid": question.study_instance_uid,
        "patient_id": question.patient_id,
        "accession_number": question.accession_number,
        "detail": {"means": means, "question": wanted},
    }
    with database.begin() as connection:
        trail.record(connection, trail.Event.AUDIT_READ, columns)


app.command("why")(why_command)
app.command("replay")(replay_command)
app.command("stats")(stats_command)


@app.command("verify")
def verify_command(
    context: typer.Context,
    config: ConfigOption = None,
    anchors: Annotated[
        Path | None, typer.Option(help="Anchors kept elsewhere; default: those beside the data.")
    ] = None,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Go on where the last verification ended.")
    ] = False,
) -> None:
    """Follow the chain of the trail and name the first row that was changed, added or taken out."""
    from thoracle.audit import verification
    from thoracle.audit import verification as kept

    config = config or context.obj
    folder = settings_of(config).data_folder
    data = database(config)
    if anchors is not None and not anchors.exists():
        raise ThoracleError(f"{anchors}: found no file, required is one with anchors")
    found = kept.read_anchors(anchors or folder / kept.ANCHORS_FILE)
    before = kept.last_verified(folder) if incremental else None
    with data.connect() as connection:
        result = verification.verify(connection, found, before)
    if not result.well:
        out.print(f"BROKEN at row {result.broken_id}: {result.fault}", highlight=False)
        out.print(f"{result.rows} rows before it fit", highlight=False)
        raise typer.Exit(1)
    kept.keep_verified(folder, result.last_id, result.digest)
    where = f"row {before.id}" if before else "the beginning"
    out.print(
        f"well: {result.rows} rows from {where} to row {result.last_id} fit, "
        f"{len(found)} anchors with them; the end is {result.digest}",
        highlight=False,
        soft_wrap=True,
    )


def settings_of(config: Path | None) -> Settings:
    """Return the settings in a file, without one the defaults."""
    return Settings() if config is None else load(config)


def database(config: Path | None) -> Any:
    """Return the database of a configuration, which must be there."""
    from thoracle.store.database import existing

    return existing(settings_of(config))


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
        raise ThoracleError(f"found {text!r}, required is a time as 2026-11-22T18:30") from error
    return timestamp(found if found.tzinfo else found.replace(tzinfo=UTC))
