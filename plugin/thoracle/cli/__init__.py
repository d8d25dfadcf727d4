"""The commands. Each imports what it needs when it runs, so that ``--help`` is quick."""

import getpass
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from thoracle import __version__
from thoracle.cli import audit as auditing
from thoracle.cli import audit_export, dataset, route, web
from thoracle.cli import retention as keeping
from thoracle.cli.evaluate import evaluate_command
from thoracle.cli.research import research_export_command
from thoracle.cli.status import status_command
from thoracle.cli.subject import subject_export_command
from thoracle.cli.verdicts import verdicts_command
from thoracle.errors import ThoracleError
from thoracle.settings import Settings, load

app = typer.Typer(
    help="A DICOM node that reads chest radiographs. Research software, not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they print local variables, and with them patients
)
app.add_typer(dataset.app, name="dataset")
app.add_typer(route.app, name="route")
app.add_typer(auditing.app, name="audit")
auditing.app.command("export")(audit_export.export_command)
app.add_typer(keeping.retention, name="retention")
app.add_typer(keeping.hold, name="hold")
app.command("subject-export")(subject_export_command)
app.command("research-export")(research_export_command)
app.command("evaluate")(evaluate_command)
app.command("web")(web.web_command)
app.add_typer(web.person, name="person")
app.command("verdicts")(verdicts_command)
app.command("status")(status_command)
out = Console()
err = Console(stderr=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
PeerArgument = Annotated[str, typer.Argument(metavar="AET@HOST:PORT", help="Whom to call.")]
CallingOption = Annotated[str, typer.Option("--calling", help="Our AE title.")]


def main() -> None:
    """Run the command line; a fault that Thoracle can name ends in one line and exit code 1."""
    try:
        app()
    except ThoracleError as error:
        _end(str(error))
    except Exception as error:
        if (told := _said_by_the_database(error)) is None:
            raise
        _end(f"the database: {told}")


def _end(text: str) -> NoReturn:
    err.print(f"thoracle: {text}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


def _said_by_the_database(error: Exception) -> str | None:
    """Return what the database says when it can do no work: full, locked, away; else ``None``."""
    # Looked up, not imported: it takes time, and what never asked the database has no such error.
    library = sys.modules.get("sqlalchemy.exc")
    if library is None or not isinstance(error, library.OperationalError):
        return None
    return " ".join(str(getattr(error, "orig", error)).split())


def _settings(config: Path | None) -> Settings:
    return Settings() if config is None else load(config)


def _print_json(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values, ensure_ascii=True) + "\n")


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__, highlight=False)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("thoracle.toml"),
) -> None:
    """Write a commented configuration."""
    from thoracle.settings.template import template

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as error:
        raise ThoracleError(f"{path}: found a file, required is a new name") from error
    out.print(
        f"{path} written; next: edit it, then `thoracle check --config {path}`", soft_wrap=True
    )


@app.command()
def check(config: ConfigOption = None) -> None:
    """Say what is wrong with a configuration, and with this machine for it."""
    from thoracle.cli.machine import check as check_settings

    settings = _settings(config)
    out.print("well   settings")
    faults = 0
    for finding in check_settings(settings):
        faults += not finding.well
        word = "well  " if finding.well else "FAULT "
        out.print(f"{word} {finding.subject}: {finding.text}", markup=False, soft_wrap=True)
    raise typer.Exit(1 if faults else 0)


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Run the gateway until SIGTERM."""
    from thoracle import log

    settings = _settings(config)
    log.configure(settings.log_level)
    from thoracle import gateway

    gateway.serve(settings)


@app.command()
def analyse(
    paths: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files, or folders.")],
    as_json: JsonOption = False,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result objects, per study.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Read images without a network, and say what the pipeline says of them."""
    from thoracle import log
    from thoracle.pipeline import offline

    settings = _settings(config)
    log.configure("ERROR")
    images = offline.images(paths)
    answers = offline.analyse(settings, images, out_folder)
    for answer in _with_progress(answers, len(images), as_json):
        if as_json:
            _print_json(answer)
        else:
            out.print(_sentence(answer), markup=False, highlight=False, soft_wrap=True)


def _with_progress(
    answers: Iterable[dict[str, Any]], total: int, quiet: bool
) -> Iterator[dict[str, Any]]:
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=quiet and not err.is_terminal) as progress:
        task = progress.add_task("reading", total=total)
        for answer in answers:
            progress.advance(task)
            yield answer


def _sentence(answer: dict[str, Any]) -> str:
    if answer["outcome"] == "rejected":
        said = f"rejected: {answer['reason']['meaning']} ({answer['detail']})"
    else:
        said = f"{answer['outcome']}, probability {answer['probability']:.4f}"
    return f"{answer['path']}: {said} [{answer['seconds']:.2f} s; research, not for diagnosis]"


def _peer(address: str, calling: str) -> Any:
    from thoracle.deliver.association import Peer

    ae_title, at, rest = address.partition("@")
    host, colon, port = rest.rpartition(":")
    if not (ae_title and at and host and colon and port.isdigit()):
        raise ThoracleError(f"found {address!r}, required is AET@HOST:PORT")
    return Peer(ae_title, host.strip("[]"), int(port), calling, timeout_seconds=30)


@app.command()
def echo(peer: PeerArgument, calling: CallingOption = "THORACLE") -> None:
    """Try a connection with a C-ECHO."""
    from thoracle.deliver import storescu

    storescu.echo(_peer(peer, calling))
    out.print(f"{peer} answers", highlight=False)


@app.command()
def send(
    peer: PeerArgument,
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders.")],
    calling: CallingOption = "THORACLE",
) -> None:
    """Send files with C-STORE, once, and print each answer."""
    from thoracle.deliver import storescu
    from thoracle.pipeline import offline

    failed = 0
    for path, said in storescu.send(_peer(peer, calling), offline.dicom_files(paths)):
        failed += not said.startswith("sent")
        out.print(f"{path}: {said}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if failed else 0)


@app.command()
def withdraw(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    reason: Annotated[str, typer.Option(help="Why, in words that the report will show.")],
    config: ConfigOption = None,
) -> None:
    """Withdraw the newest result of a study, by a correcting report."""
    from thoracle.pipeline import requests

    report = requests.withdraw(
        _database(config), study, reason, getpass.getuser(), named="--reason"
    )
    out.print(f"to be withdrawn: report {report}; `thoracle status {study}` shows when it is done")


@app.command()
def reanalyse(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")], config: ConfigOption = None
) -> None:
    """Read a study again, e.g. with a new bundle; its report names the earlier one."""
    from thoracle.pipeline import requests

    requests.reanalyse(_database(config), study, getpass.getuser())
    out.print(f"to be read again; `thoracle status {study}` shows when it is done")


@app.command()
def release(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")], config: ConfigOption = None
) -> None:
    """Send the result of a study that a rule holds."""
    from thoracle.pipeline import requests

    requests.release(_database(config), study, getpass.getuser())
    out.print(f"to be released; `thoracle status {study}` shows when it is done")


@app.command()
def retry(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")], config: ConfigOption = None
) -> None:
    """Send again what a destination refused, or what was given up."""
    from thoracle.pipeline import requests

    dead = requests.retry(_database(config), study, getpass.getuser())
    out.print(f"{dead} to be sent again; `thoracle status {study}` shows what becomes of it")


def _database(config: Path | None) -> Any:
    from thoracle.store.database import existing

    return existing(_settings(config))


if __name__ == "__main__":
    main()
