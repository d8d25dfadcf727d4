"""The service and its connections.

`thoracle init`, `check`, `serve`, `accept-database`, `web`, `echo`, `send`.
"""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.cli.options import ConfigOption, say, settings_of
from thoracle.errors import ThoracleError

if TYPE_CHECKING:
    from thoracle.deliver.association import Peer

PeerArgument = Annotated[str, typer.Argument(metavar="AET@HOST:PORT", help="Whom to call.")]
CallingOption = Annotated[str, typer.Option("--calling", help="Our AE title.")]


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
    say(f"{path} written; next: edit it, then `thoracle check --config {path}`")


def check(config: ConfigOption = None) -> None:
    """Say what is wrong with a configuration, and with this machine for it."""
    from thoracle.cli.machine import check as check_settings

    settings = settings_of(config)
    say("well   settings")
    faults = 0
    for finding in check_settings(settings):
        faults += not finding.well
        word = "well  " if finding.well else "FAULT "
        say(f"{word} {finding.subject}: {finding.text}")
    raise typer.Exit(1 if faults else 0)


def serve(config: ConfigOption = None) -> None:
    """Run the gateway until SIGTERM."""
    from thoracle import log

    settings = settings_of(config)
    log.configure(settings.log_level)
    from thoracle import gateway

    gateway.serve(settings)


def accept_database(
    reason: Annotated[str, typer.Option(help="Why, in words that the audit keeps.")],
    config: ConfigOption = None,
) -> None:
    """Go on with a database that lacks what the data folder has, or with a new one."""
    from thoracle.audit import continuity
    from thoracle.store import engine

    settings = settings_of(config)
    with engine.lock(settings.data_folder):
        found = continuity.accept(settings, reason, getpass.getuser())
    say(
        f"accepted, and recorded in the audit: {found}. Images without a row are moved to "
        f"{settings.data_folder / 'orphans'} at the next start; `thoracle send` sends them again"
    )


def web(config: ConfigOption = None) -> None:
    """Serve the pages: worklist, dashboard, people; beside the gateway, until SIGTERM."""
    from thoracle import log
    from thoracle.web import serve as pages

    settings = settings_of(config)
    log.configure(settings.log_level)
    pages.serve(settings)


def echo(peer: PeerArgument, calling: CallingOption = "THORACLE") -> None:
    """Try a connection with a C-ECHO."""
    from thoracle.deliver import storescu

    storescu.echo(_peer(peer, calling))
    say(f"{peer} answers")


def send(
    peer: PeerArgument,
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders.")],
    calling: CallingOption = "THORACLE",
) -> None:
    """Send files with C-STORE, once, and print each answer."""
    from thoracle.deliver import storescu
    from thoracle.pipeline import offline

    failed = 0
    for path, answer in storescu.send(_peer(peer, calling), offline.dicom_files(paths)):
        failed += not answer.startswith("sent")
        say(f"{path}: {answer}")
    raise typer.Exit(1 if failed else 0)


def _peer(address: str, calling: str) -> "Peer":
    from thoracle.deliver.association import Peer

    ae_title, at, rest = address.partition("@")
    host, colon, port = rest.rpartition(":")
    if not (ae_title and at and host and colon and port.isdigit()):
        raise ThoracleError(f"found {address!r}, required is AET@HOST:PORT")
    return Peer(ae_title, host.strip("[]"), int(port), calling, timeout_seconds=30)
