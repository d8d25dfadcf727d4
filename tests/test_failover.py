"""The database fails for good and its replica takes over: nothing acknowledged is lost."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import postgres
from fleet import Fleet, Relay
from ledger import eventually, residue, rows
from pacs import Pacs
from postgres import ROLE, USER, Server
from test_crash import Modality, assert_nothing_lost_or_done_twice

PRIMARY, STANDBY = "127.0.0.1", "127.0.0.2"
DELIVERED = "SELECT 1 FROM outbox WHERE state <> 'delivered'"
STREAMING = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"
SYNCHRONOUS = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"


class Standby:
    """A streaming replica of a server, on another address and the same port."""

    def __init__(self, primary: Server, folder: Path) -> None:
        self._data = folder / "data"
        copies = ["-h", PRIMARY, "-p", str(primary.port), "-U", USER, "-D", str(self._data), "-R"]
        postgres.run("pg_basebackup", *copies, "-X", "stream", "-c", "fast")
        options = f"-p {primary.port} -k {folder} -c listen_addresses={STANDBY}"
        log = str(folder / "log")
        postgres.run("pg_ctl", "-D", str(self._data), "-o", options, "-l", log, "-w", "start")

    def promote(self) -> None:
        postgres.run("pg_ctl", "-D", str(self._data), "-w", "promote")

    def stop(self) -> None:
        postgres.run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")


@contextmanager
def standby(primary: Server) -> Iterator[Standby]:
    """Yield a replica without which the primary commits nothing any more."""
    folder = Path(tempfile.mkdtemp(prefix="thoracle-standby-"))
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)
    made = Standby(primary, folder)
    try:
        eventually(lambda: primary.asked(STREAMING))
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        eventually(lambda: primary.asked(SYNCHRONOUS))
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def restarted(fleet: Fleet) -> None:
    """Start the gateways again that ended, as systemd does; return when all answer."""
    for one in fleet.gateways:
        deadline = time.monotonic() + 120
        while not one.answers():
            assert time.monotonic() < deadline
            assert one.process is not None
            if one.process.poll() is not None:
                one.start()
            time.sleep(0.2)


@pytest.mark.timeout(600)
def test_when_the_replica_is_promoted_the_gateways_go_on_and_nothing_is_lost(
    documented_server: Server, tmp_path: Path
) -> None:
    name = documented_server.documented().rpartition("/")[2]
    where = f"{PRIMARY},{STANDBY}/{name}?port={documented_server.port}"
    url = f"postgresql://{ROLE}@{where}&target_session_attrs=read-write"
    with standby(documented_server) as replica, Pacs() as pacs:
        try:
            with (
                Fleet(tmp_path, [url, url], pacs) as fleet,
                Relay(*(one.port for one in fleet.gateways)) as balancer,
            ):
                modality = Modality(balancer)
                with modality.sending():
                    modality.queue(8)
                    eventually(lambda: len(modality.acknowledged) >= 4)
                    documented_server.stop("immediate")
                    before = len(modality.acknowledged)
                    replica.promote()
                    modality.queue(8)
                    restarted(fleet)
                    eventually(lambda: len(modality.acknowledged) > before)
                eventually(lambda: len(pacs.kept) == 16)
                eventually(lambda: not rows(fleet.gateways[0], DELIVERED))
                restarted(fleet)  # one that missed the database a little later
                # What came while the database was away is cleared by the one that leads.
                eventually(lambda: residue(fleet.gateways[0]) == [])
                assert [one.terminate() for one in fleet.gateways] == [0, 0]
                assert_nothing_lost_or_done_twice(fleet.gateways[0], modality, pacs)
        finally:
            with suppress(subprocess.CalledProcessError):  # it has not been stopped
                documented_server.start()
            documented_server.execute("ALTER SYSTEM RESET synchronous_standby_names")
