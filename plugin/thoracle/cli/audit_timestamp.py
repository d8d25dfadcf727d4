"""`thoracle audit timestamp`: have a third party certify how long the log is now."""

import getpass

import typer

from thoracle.cli.audit import database as open_database
from thoracle.cli.options import ConfigOption, say, settings_of
from thoracle.errors import ThoracleError
from thoracle.wording import number


def timestamp_command(context: typer.Context, config: ConfigOption = None) -> None:
    """Time-stamp the newest anchor (RFC 3161) and store the response."""
    from thoracle.audit import elsewhere, timestamps
    from thoracle.store import anchors, trail

    config = config or context.obj
    settings = settings_of(config)
    folder, ca_file = settings.data_folder, settings.audit.timestamp_ca_file
    if not settings.audit.timestamp_url or ca_file is None:
        raise ThoracleError(
            "found no audit.timestamp_url or no audit.timestamp_ca_file, required: both"
        )
    roots = timestamps.authorities(ca_file)
    anchor = anchors.last_anchor(folder / anchors.ANCHORS_FILE)
    if anchor is None:
        raise ThoracleError(
            f"{folder / anchors.ANCHORS_FILE}: found no anchor, required: one: `thoracle serve` "
            "makes one a minute while the log grows"
        )
    data = open_database(config)
    with data.connect() as connection:
        for fault in elsewhere.faults(connection, [anchor], "the last anchor"):
            raise ThoracleError(f"{fault}: not time-stamped")
    before = timestamps.kept(folder / timestamps.STAMPS_FILE)
    if before and before[-1].anchor == anchor and not timestamps.fault(before[-1], roots):
        say(f"row {anchor.id} is time-stamped already: {before[-1].time:%Y-%m-%d %H:%M:%S} UTC")
        return
    stamp = timestamps.ask(settings.audit.timestamp_url, anchor, roots)
    timestamps.keep(folder, stamp)
    by, when = timestamps.authority(stamp), f"{stamp.time:%Y-%m-%d %H:%M:%S} UTC"
    columns: trail.Columns = {
        "user_id": getpass.getuser()[:64],
        "detail": {
            "anchor": anchor.id,
            "digest": anchor.digest,
            "time": when,
            "authority": by,
            "sha256": stamp.sha256,
            "serial_number": str(stamp.decoded.tst_info.serial_number),
        },
    }
    with data.begin() as connection:
        trail.record(connection, trail.Event.AUDIT_TIMESTAMPED, columns)
    say(
        f"{when}: the log had {number(anchor.id, 'row')}, digest {anchor.digest}; certified by {by}"
    )
