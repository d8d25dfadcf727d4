"""What the processes of the benchmark cost: a part of bench.py."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway import AE_TITLE, Gateway

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """Return processor time of a process and its descendants, reaped ones included."""
    total = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def peak_megabytes(pid: int) -> dict[str, int]:
    """Return the largest resident size of a process and of each descendant, MB."""
    peaks: dict[str, int] = {}
    for one in tree(pid):
        status = Path(f"/proc/{one}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        name = "gateway" if one == pid else _module(one)
        peaks[name] = max(peaks.get(name, 0), int(peak.split()[1]) // 1024)
    return peaks


def _module(pid: int) -> str:
    """Return what Python runs in a process, e.g. ``thoracle.image.decoder``."""
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return command[command.index("-m") + 1] if "-m" in command else command[0]


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[int]:
    """Run a server and give its process id once its port is open."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while subprocess.run(
            ["echoscu", "-aec", AE_TITLE, "127.0.0.1", str(port)], capture_output=True
        ).returncode:
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def wait_for_log(gateway: Gateway, message: str) -> None:
    """Return when the gateway has logged a message."""
    while message not in gateway.log.read_text():
        time.sleep(0.1)
