"""The service and its connections.

`thoracle init`, `check`, `serve`, `accept-database`, `web`, `echo`, `send`.
"""

import getpass
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.cli.options import ConfigOption, say, settings_of
from thoracle.errors import ThoracleError

if TYPE_CHECKING:
    from thoracle.deliver.association import Peer

PeerArgument = Annotated[
    str,
    typer.Argument(
        metavar="PEER", help="Peer to call: AET@HOST:PORT, or the name of a destination."
    ),
]
CallingOption = Annotated[
    str | None,
    typer.Option("--calling", help="Our AE title; default: that of the configuration, THORACLE."),
]
PeerConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file, with the TLS settings of listener and destinations.",
    ),
]


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("thoracle.toml"),
) -> None:
    """Write a commented configuration."""
    from thoracle.settings.template import template

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError as error:
        raise ThoracleError(f"{path}: found a file, required: a new name") from error
    say(f"{path} written; next: edit it, then `thoracle check --config {path}`")


def check(
    config: ConfigOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 1 on warnings, too.")
    ] = False,
) -> None:
    """Validate the configuration, and this machine and its peers against it."""
    from thoracle.cli.machine import CheckLevel
    from thoracle.cli.machine import check as check_settings

    settings = settings_of(config)
    say(f"{CheckLevel.OK:5} settings")
    found = []
    for one in check_settings(settings):
        found.append(one.level)
        say(f"{one.level:5} {one.subject}: {one.text}")
    bad = CheckLevel.FAULT in found or (strict and CheckLevel.WARN in found)
    raise typer.Exit(1 if bad else 0)


def serve(config: ConfigOption = None) -> None:
    """Run the gateway until SIGTERM."""
    from thoracle import log

    settings = settings_of(config)
    log.configure(settings.log_level)
    from thoracle import gateway

    gateway.serve(settings)


def accept_database(
    reason: Annotated[str, typer.Option(help="Reason, kept in the audit.")],
    config: ConfigOption = None,
) -> None:
    """Accept a new database, or one that lacks objects of the data folder."""
    from thoracle.audit import continuity
    from thoracle.store import engine, objects, rights

    settings = settings_of(config)
    with engine.lock(settings.data_folder):
        rights.keep(settings)
        found = continuity.accept(settings, reason, getpass.getuser())
    say(
        f"accepted, and recorded in the audit: {found}. Images without a row are moved to "
        f"{objects.of(settings).where()} at the next start; `thoracle send` sends them again"
    )


def web(config: ConfigOption = None) -> None:
    """Serve the pages beside the gateway until SIGTERM: worklist, dashboard, accounts."""
    from thoracle import log
    from thoracle.web import serve as pages

    settings = settings_of(config)
    log.configure(settings.log_level)
    pages.serve(settings, config)


def echo(
    peer: PeerArgument, calling: CallingOption = None, config: PeerConfigOption = None
) -> None:
    """Test a connection with a C-ECHO."""
    from thoracle.deliver import storescu

    storescu.echo(_peer(peer, calling, config))
    say(f"{peer} answers")


def send(
    peer: PeerArgument,
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders.")],
    calling: CallingOption = None,
    config: PeerConfigOption = None,
) -> None:
    """Send files with C-STORE, once, and print each response."""
    from thoracle.deliver import storescu
    from thoracle.pipeline import offline

    failed = 0
    for path, answer in storescu.send(_peer(peer, calling, config), offline.dicom_files(paths)):
        failed += not answer.startswith("sent")
        say(f"{path}: {answer}")
    raise typer.Exit(1 if failed else 0)


def _peer(address: str, calling: str | None, config: Path | None) -> "Peer":
    from thoracle.deliver import peers

    settings = settings_of(config)
    named = [one for one in settings.destination if one.name == address]
    if named and named[0].url is not None:
        raise ThoracleError(
            f"found destination {address} with a url (DICOMweb), required: one with ae_title, "
            "host and port; `thoracle check` tests it"
        )
    ae_title, at, rest = address.partition("@")
    host, colon, port = rest.rpartition(":")
    if named:
        peer = peers.peer_of(named[0], settings)
    elif ae_title and at and host and colon and port.isdigit():
        peer = peers.peer_at(ae_title, host.strip("[]"), int(port), settings)
    else:
        names = ", ".join(one.name for one in settings.destination if one.url is None)
        known = f", or a destination of the configuration: {names}" if names else ""
        raise ThoracleError(f"found {address!r}, required: AET@HOST:PORT{known}")
    return replace(peer, calling_ae_title=calling) if calling else peer
