"""All commands by what they are for, and how a fault ends one: each command is a line here."""

import sys
from typing import Annotated, NoReturn

import typer

from thoracle import __version__
from thoracle.cli import (
    alarms,
    audit,
    audit_export,
    audit_timestamp,
    audit_verify,
    corrections,
    dataset,
    erase,
    evaluate,
    move,
    persons,
    research,
    retention,
    route,
    service,
    status,
    subject,
)
from thoracle.cli.options import err, out
from thoracle.errors import ThoracleError
from thoracle.settings import users
from thoracle.wording import SOFTWARE

RUN, LOOK, CORRECT = "Install and run", "Monitor", "Correct"
KEEP, EVALUATE = "Retention and privacy", "Evaluate"
"""Groups of ``thoracle --help``, in this order."""

app = typer.Typer(
    help=f"A DICOM node that reads chest radiographs. {SOFTWARE}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they print local variables, and with them patients
)


def _version(asked: bool) -> None:
    if asked:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    _asked: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take the options of the program itself."""


def version() -> None:
    """Print the version."""
    _version(True)


app.command("init", rich_help_panel=RUN)(service.init)
app.command("check", rich_help_panel=RUN)(service.check)
app.command("serve", rich_help_panel=RUN)(service.serve)
app.command("accept-database", rich_help_panel=RUN)(service.accept_database)
app.add_typer(move.app, name="move", rich_help_panel=RUN)
app.command("web", rich_help_panel=RUN)(service.web)
app.add_typer(persons.app, name="person", rich_help_panel=RUN)
app.command("echo", rich_help_panel=RUN)(service.echo)
app.command("send", rich_help_panel=RUN)(service.send)
app.command("version", rich_help_panel=RUN)(version)

app.command("status", rich_help_panel=LOOK)(status.status_command)
app.add_typer(alarms.app, name="alarms", rich_help_panel=LOOK)
audit.app.command("export")(audit_export.export_command)
audit.app.command("verify")(audit_verify.verify_command)
audit.app.command("key")(audit_verify.key_command)
audit.app.command("timestamp")(audit_timestamp.timestamp_command)
app.add_typer(audit.app, name="audit", rich_help_panel=LOOK)
app.add_typer(route.app, name="route", rich_help_panel=LOOK)

app.command("withdraw", rich_help_panel=CORRECT)(corrections.withdraw)
app.command("reanalyse", rich_help_panel=CORRECT)(corrections.reanalyse)
app.command("reconcile", rich_help_panel=CORRECT)(corrections.reconcile)
app.command("release", rich_help_panel=CORRECT)(corrections.release)
app.command("retry", rich_help_panel=CORRECT)(corrections.retry)

app.add_typer(retention.retention, name="retention", rich_help_panel=KEEP)
app.add_typer(retention.hold, name="hold", rich_help_panel=KEEP)
app.command("subject-export", rich_help_panel=KEEP)(subject.subject_export_command)
app.command("erase", rich_help_panel=KEEP)(erase.erase_command)
app.command("research-export", rich_help_panel=KEEP)(research.research_export_command)

app.command("analyse", rich_help_panel=EVALUATE)(evaluate.analyse_command)
app.command("evaluate", rich_help_panel=EVALUATE)(evaluate.evaluate_command)
app.command("verdicts", rich_help_panel=EVALUATE)(evaluate.verdicts_command)
app.add_typer(dataset.app, name="dataset", rich_help_panel=EVALUATE)


def main() -> None:
    """Run the command line; a fault that Thoracle can name ends in one line and exit code 1."""
    try:
        app()
    except ThoracleError as error:
        _end(str(error))
    except PermissionError as error:
        _end(
            f"{error.filename}: found no permission for user {users.me()}, required: the user of "
            "the gateway, who owns the data folder"
        )
    except Exception as error:
        if (detail := _database_error(error)) is None:
            raise
        _end(f"the database: {detail}")


def _end(text: str) -> NoReturn:
    err.print(f"thoracle: {text}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


def _database_error(error: Exception) -> str | None:
    """Return what the database says when it can do no work; ``None`` for any other error."""
    # Looked up, not imported: it takes time, and what never asked the database has no such error.
    database = sys.modules.get("thoracle.store.database")
    return None if database is None else database.operational_fault(error)
