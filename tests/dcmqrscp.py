"""DCMTK's dcmqrscp as an archive: it stores and can be queried, and offers no commitment."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger import eventually
from pacs import free_port
from peers import require

CONFIGURATION = """\
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 4
HostTable BEGIN
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title} {folder} RW (10, 64mb) ANY
AETable END
"""


@dataclass(frozen=True)
class Dcmqrscp:
    """A running dcmqrscp."""

    port: int
    ae_title: str = "DCMQRSCP"

    def is_up(self) -> bool:
        """Return whether its port takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def running_dcmqrscp(folder: Path) -> Iterator[Dcmqrscp]:
    """Run a dcmqrscp of its own with nothing in it."""
    program = require("dcmqrscp", "dcmtk")
    archive = Dcmqrscp(free_port())
    storage = folder / "dcmqrscp"
    storage.mkdir()
    config = folder / "dcmqrscp.cfg"
    values = {"port": archive.port, "ae_title": archive.ae_title, "folder": storage}
    config.write_text(CONFIGURATION.format(**values))
    with (folder / "dcmqrscp.log").open("wb") as log:
        process = subprocess.Popen([program, "-v", "-c", str(config)], stdout=log, stderr=log)
    try:
        eventually(archive.is_up, 30)
        yield archive
    finally:
        process.terminate()
        process.wait(30)
