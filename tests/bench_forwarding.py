"""How fast the audit is sent on: to rsyslog on this machine, over TLS and over TCP."""

import argparse
import tempfile
import time
from pathlib import Path

from forwarded_audit import forwarding_to, record, settings_of
from rsyslog import Repository
from thoracle.audit import forwarding, message
from thoracle.audit.message import EventSource
from thoracle.store import database

COLUMNS = {
    "sop_instance_uid": "1.2.3.4",
    "result_sop_instance_uid": "1.2.3.5",
    "bundle_digest": "a" * 64,
    "user_id": "reader",
    "network_address": "192.0.2.1",
    "detail": {"generation": 1, "detail": "x" * 60},
}


def main() -> None:
    """Print a line for the making of messages, and one for each transport."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = database.open_database(database.sqlite_url(folder))
        record(engine, events, **COLUMNS)
        with engine.connect() as connection:
            rows = forwarding.batch(connection, 0, 2000)
        source = EventSource("THORACLE", "HOSPITAL", "THORACLE", "gateway")
        began = time.process_time()
        sizes = [len(message.build(row, source)) for row in rows]
        each = (time.process_time() - began) / len(rows)
        print(f"made: {each * 1e6:.0f} us each, {sum(sizes) / len(sizes):.0f} bytes")
        for transport in ("tls", "tcp"):
            with Repository(folder / transport, transport) as repository:
                wall, cpu = time.perf_counter(), time.process_time()
                settings = settings_of(repository.settings(name=transport))
                with forwarding_to(engine, settings):
                    while lines(repository.file) < events:
                        time.sleep(0.2)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(
                f"{transport}: {events / wall:.0f} messages/s, {cpu / events * 1e3:.2f} ms CPU each"
            )
        engine.dispose()


def lines(path: Path) -> int:
    """Return the number of lines in a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    main()
