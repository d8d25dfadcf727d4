"""`thoracle audit verify` and `key`: is the log intact, and who signed its anchors."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.cli.audit import database as open_database
from thoracle.cli.options import ConfigOption, err, say, settings_of
from thoracle.errors import ThoracleError
from thoracle.wording import number

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from thoracle.audit.beginning import Beginning
    from thoracle.settings import Settings
    from thoracle.store.anchors import Anchor

MOST_STAMPS = 20
"""The last ones, that a verification tells one by one."""
MOST_PURGES = 20
"""Alike."""


def verify_command(
    context: typer.Context,
    config: ConfigOption = None,
    anchors: Annotated[
        Path | None, typer.Option(help="Anchors kept elsewhere; default: those beside the data.")
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(help="Public key the anchors must be signed with; default: those in the log."),
    ] = None,
    witnessed: Annotated[
        Path | None, typer.Option(help="Anchors kept by the witness, compared with the log, too.")
    ] = None,
    timestamps: Annotated[
        Path | None,
        typer.Option(help="Time stamps kept elsewhere; default: those beside the data."),
    ] = None,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Verify new entries only.")
    ] = False,
    files: Annotated[
        bool, typer.Option("--files/--no-files", help="Also verify the stored files.")
    ] = True,
) -> None:
    """Verify the log; name the first entry that was changed, added or removed.

    Without --incremental, results, verdicts and files are held against it, too.
    """
    from thoracle.audit import contents, elsewhere, verification
    from thoracle.store import objects, signing
    from thoracle.store.anchors import ANCHORS_FILE, read_anchors

    config = config or context.obj
    settings = settings_of(config)
    folder = settings.data_folder
    data = open_database(config)
    _require("anchors", anchors, witnessed)
    _require("time stamps", timestamps)
    kept = read_anchors(witnessed) if witnessed else []
    stamped = _Stamps(settings, timestamps)
    local = read_anchors(anchors or folder / ANCHORS_FILE)
    found = list(dict.fromkeys([*local, *kept, *stamped.anchors]))
    before = verification.last_verified(folder) if incremental else None
    keys = None if public_key is None else signing.from_pem(public_key)
    with data.connect() as connection:
        others = [*elsewhere.faults(connection, kept, "the witness"), *stamped.faults(connection)]
        result = verification.verify(connection, found, before, keys=keys)
    _say_all(f"DIFFERS: {one}" for one in others)
    if not result.well:
        say(f"BROKEN at row {result.broken_id}: {result.fault}")
        say(f"{number(result.rows, 'row before it is', 'rows before it are')} intact")
        _say_all(_beginning_lines(result.beginning))
    if others or not result.well:
        raise typer.Exit(1)
    verification.keep_verified(folder, result.last_id, result.digest)
    where = f"row {before.id}" if before else "the beginning"
    fit = "is intact and matches" if result.rows == 1 else "are intact and match"
    compared = number(len(found) - result.beginning.not_comparable, "anchor")
    say(
        f"OK: {number(result.rows, 'row')} from {where} to row {result.last_id} {fit} {compared}; "
        f"last digest {result.digest}"
    )
    if witnessed:
        one, several = "anchor of the witness is", "anchors of the witness are"
        say(f"{number(len(kept), one, several)} as in the log")
    _say_all(stamped.lines())
    if result.signed:
        signed = number(result.signed, "anchor")
        say(f"signatures of {signed} are valid (key {', '.join(result.keys)})")
    _say_all(_beginning_lines(result.beginning))
    if not incremental:
        said = contents.check(data, objects.of(settings), with_files=files)
        _say_all(f"CHANGED: {one}" for one in said.faults)
        if said.faults:
            raise typer.Exit(1)
        studies, stored = number(said.studies, "study", "studies"), number(said.files, "file")
        say(f"results and verdicts of {studies} and {stored} match the log")


def _require(what: str, *paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.exists():
            raise ThoracleError(f"{path}: found no file, required: one with {what}")


class _Stamps:
    """The time stamps of a log, held against it and against their authorities."""

    def __init__(self, settings: "Settings", path: Path | None) -> None:
        from thoracle.audit import timestamps

        local = timestamps.kept(settings.data_folder / timestamps.STAMPS_FILE)
        self._kept = timestamps.kept(path) if path else local
        self._anywhere = [*self._kept, *local]
        ca_file = settings.audit.timestamp_ca_file
        self._roots = timestamps.authorities(ca_file) if self._kept and ca_file else []

    @property
    def anchors(self) -> Iterator["Anchor"]:
        """What was time-stamped."""
        return (one.anchor for one in self._kept)

    def faults(self, connection: "Connection") -> Iterator[str]:
        """Yield what does not fit: an anchor that is not the log's, a stamp that is not its.

        And stamps that the log has recorded and that are kept nowhere.
        """
        from thoracle.audit import elsewhere, timestamps

        yield from elsewhere.faults(connection, self.anchors, "the time stamp")
        yield from timestamps.lost(connection, self._anywhere)
        for one in self._kept if self._roots else ():
            if fault := timestamps.fault(one, self._roots):
                yield f"row {one.anchor.id}: its time stamp: {fault}"

    def lines(self) -> Iterator[str]:
        """Yield when the log had which length, the last ones; without faults alone."""
        from thoracle.audit import timestamps

        if not self._kept:
            return
        if not self._roots:
            unverified = number(len(self._kept), "time stamp was", "time stamps were")
            yield (
                f"{unverified} not verified: found no "
                "audit.timestamp_ca_file, required: the certificates of their authority"
            )
            return
        yield f"{number(len(self._kept), 'time stamp is', 'time stamps are')} valid:"
        for one in self._kept[-MOST_STAMPS:]:
            by = timestamps.authority(one)
            rows = number(one.anchor.id, "row")
            yield f"  {one.time:%Y-%m-%d %H:%M:%S} UTC: {rows}; certified by {by}"


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _beginning_lines(begins: "Beginning") -> Iterator[str]:
    """Yield what was purged, and by which events."""
    if begins.last is None:
        return
    yield f"purged: {number(begins.rows, 'row')} up to row {begins.last.up_to}"
    for one in begins.purges[-MOST_PURGES:]:
        by = f"event {one.event_id}" if one.event_id else "an event that is purged itself"
        yield f"  {number(one.rows, 'row')} by {by} of {one.recorded_at[:19]}: {one.reason}"
    if begins.not_comparable:
        anchors = number(begins.not_comparable, "anchor is", "anchors are")
        yield f"  {anchors} older than what these events name"


def key_command(context: typer.Context, config: ConfigOption = None) -> None:
    """Print the public key with which anchors of the log are signed."""
    from thoracle.store import signing

    folder = settings_of(config or context.obj).data_folder
    signer = signing.existing(folder)
    if signer is None:
        raise ThoracleError(
            f"{folder / signing.KEY_FILE}: found no file, required: the key that the first start "
            "of `thoracle serve` makes"
        )
    sys.stdout.write(signing.as_pem(signer.public_key))
    err.print(f"key {signing.fingerprint(signer.public_key)}, Ed25519", highlight=False)
