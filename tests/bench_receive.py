"""How fast images are received, beside DCMTK and Orthanc: a part of bench.py."""

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_images import make_large
from bench_processes import cpu_seconds, peak_megabytes, running, wait_for_log
from gateway import AE_TITLE, Gateway
from pacs import free_port


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
    command = ["storescu", "-aec", AE_TITLE, "--max-pdu", "131072", "127.0.0.1", str(port)]
    senders = [subprocess.Popen([*command, *map(str, share)]) for share in shares]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        raise RuntimeError(f"{peer} refused an image")
    seconds = time.perf_counter() - clock
    cpu = cpu_seconds(pid) - cpu
    return Rate(peer, len(shares), cpu / (size / 1e9), size / 1e6 / seconds)


def receive_all(folder: Path, files: Sequence[Path]) -> tuple[list[Rate], int]:
    """Return the rates of Thoracle, Orthanc and DCMTK for one and four associations.

    And by how many MB Thoracle's memory grows while ten associations send 100 MB each.
    """
    half = len(files) // 2
    one = [files[:half]]
    four = [files[half:][start::4] for start in range(4)]
    rates = []
    quiet = {"quiet_after_release_seconds": 600, "quiet_otherwise_seconds": 600}
    (folder / "receive").mkdir()
    with Gateway(folder / "receive", complete=quiet) as gateway:
        wait_for_log(gateway, "classifier loaded")
        assert gateway.process is not None
        pid = gateway.process.pid
        rates += [receive("Thoracle", pid, gateway.port, shares) for shares in (one, four)]
        before = peak_megabytes(pid)["gateway"]
        receive("Thoracle", pid, gateway.port, [[path] for path in make_large(folder)])
        growth = peak_megabytes(pid)["gateway"] - before
    for peer, command, port in (orthanc(folder), storescp(folder)):
        with running(command, port) as pid:
            rates += [receive(peer, pid, port, shares) for shares in (one, four)]
    return rates, growth


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
