"""How fast images are received, beside DCMTK and Orthanc: a part of bench.py."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench_images import make_large
from bench_processes import cpu_seconds, peak_megabytes, running, wait_for_log
from gateway import AE_TITLE, Gateway
from pacs import free_port

PDU = 131072
"""Bytes of one, as the sender is told to make them."""


@dataclass
class Rate:
    """What receiving cost."""

    peer: str
    associations: int
    cpu_seconds_per_gb: float
    megabytes_per_second: float


def receive(peer: str, pid: int, port: int, shares: Sequence[Sequence[Path]]) -> Rate:
    """Send each share over an association of its own and return what the server needed."""
    size = sum(path.stat().st_size for share in shares for path in share)
    cpu, clock = cpu_seconds(pid), time.perf_counter()
    command = ["storescu", "-aec", AE_TITLE, "--max-pdu", str(PDU), "127.0.0.1", str(port)]
    senders = [subprocess.Popen([*command, *map(str, share)]) for share in shares]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        raise RuntimeError(f"{peer} refused an image")
    seconds = time.perf_counter() - clock
    cpu = cpu_seconds(pid) - cpu
    return Rate(peer, len(shares), cpu / (size / 1e9), size / 1e6 / seconds)


def receive_all(
    folder: Path, files: Sequence[Path], bases: Sequence[Path] = ()
) -> tuple[list[Rate], int]:
    """Return the rates of Thoracle, Orthanc and DCMTK for one and four associations.

    And by how many MB Thoracle's memory grows while ten associations send 100 MB each. ``bases``
    are checkouts of other versions, which are measured, too.
    """
    half = len(files) // 2
    shares = ([files[:half]], [files[half:][start::4] for start in range(4)])
    rates = []
    for base in bases:
        with idle(folder / f"receive-{base.name}", base) as (gateway, pid):
            rates += [receive(base.name, pid, gateway.port, share) for share in shares]
    with idle(folder / "receive") as (gateway, pid):
        rates += [receive("Thoracle", pid, gateway.port, share) for share in shares]
        before = peak_megabytes(pid)["gateway"]
        receive("Thoracle", pid, gateway.port, [[path] for path in make_large(folder)])
        growth = peak_megabytes(pid)["gateway"] - before
    for peer, command, port in (orthanc(folder), storescp(folder)):
        with running(command, port) as pid:
            rates += [receive(peer, pid, port, share) for share in shares]
    return rates, growth


@contextmanager
def idle(folder: Path, base: Path | None = None) -> Iterator[tuple[Gateway, int]]:
    """Give a gateway that reads nothing of what it gets meanwhile, and its process id."""
    folder.mkdir()
    quiet = {"quiet_after_release_seconds": 600, "quiet_otherwise_seconds": 600}
    gateway = Gateway(folder, complete=quiet)
    gateway.start(180, **({} if base is None else {"PYTHONPATH": str(base / "plugin")}))
    try:
        wait_for_log(gateway, "classifier loaded")
        assert gateway.process is not None
        yield gateway, gateway.process.pid
    finally:
        gateway.kill()


def floor(folder: Path, files: Sequence[Path]) -> float:
    """Return CPU seconds a GB of what no receiver that digests and syncs can leave out.

    That is to write a file in pieces of a PDU, to digest them, and to sync it; nothing is received.
    """
    spent = total = 0.0
    for path in files:
        content = memoryview(path.read_bytes())
        total += len(content)
        began = time.process_time()
        digest = hashlib.sha256()
        with (folder / "floor").open("wb", buffering=0) as file:
            for at in range(0, len(content), PDU):
                file.write(content[at : at + PDU])
                digest.update(content[at : at + PDU])
            os.fsync(file.fileno())
        spent += time.process_time() - began
    return spent / (total / 1e9)


def orthanc(folder: Path) -> tuple[str, list[str], int]:
    """Return name, command and port of an Orthanc that syncs its files."""
    port, store = free_port(), folder / "orthanc"
    store.mkdir()
    config = folder / "orthanc.json"
    settings = {
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "HttpServerEnabled": False,
        "StorageDirectory": str(store),
        "IndexDirectory": str(store),
        "DicomAlwaysAllowStore": True,
        "SyncStorageArea": True,
    }
    config.write_text(json.dumps(settings))
    return "Orthanc (file synced)", ["Orthanc", str(config)], port


def storescp(folder: Path) -> tuple[str, list[str], int]:
    """Return name, command and port of DCMTK's storescp."""
    port, store = free_port(), folder / "storescp"
    store.mkdir()
    options = ["--fork", "--max-pdu", "131072", "-aet", AE_TITLE, "-od", str(store)]
    return "DCMTK storescp --fork (no sync)", ["storescp", *options, str(port)], port
