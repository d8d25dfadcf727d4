"""What one, two and three gateways on one PostgreSQL database do of a burst, and what limits them.

`python tests/bench_several.py --studies 60` prints a table for docs/several-machines.md. Gateways,
database, senders and the archive run on the same cores.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import Dataset

from bench_load import SENDERS, another
from bench_processes import TICKS, cpu_seconds, wait_for_log
from fleet import Fleet, Relay
from gateway import Gateway
from pacs import Pacs
from postgres import Server, as_documented, server
from radiographs import chest
from sender import send

SIZES = (1, 2, 3)
WAITS_SECONDS = 1800


def burst(folder: Path, running: Server, size: int, studies: int) -> str:
    """Return the row of so many gateways."""
    folder.mkdir()
    urls = [running.documented()] * size
    with Pacs() as pacs, Fleet(folder, urls, pacs) as fleet:
        for one in fleet.gateways:
            wait_for_log(one, "classifier loaded")
        with Relay(*(one.port for one in fleet.gateways)) as balancer:
            before, database = _cpu(fleet.gateways), _database_cpu()
            began = time.monotonic()
            _sent(balancer.port, chest(), studies)
            stored = time.monotonic() - began
            pacs.wait_for(studies, WAITS_SECONDS)
            took = time.monotonic() - began
            gateways, database = _cpu(fleet.gateways) - before, _database_cpu() - database
    cores = (gateways + database) / took / (os.cpu_count() or 1)
    return (
        f"| {size} | {stored:.0f} | {studies / took * 60:.0f} | {gateways / studies:.2f} "
        f"| {database / studies:.2f} | {cores:.0%} |"
    )


def _sent(port: int, image: Dataset, studies: int) -> None:
    """Send studies of one image, an association each, as several modalities do."""

    def sends(first: int) -> None:
        for number in range(first, studies, SENDERS):
            send(port, another(image, f"N{number}"))

    senders = [threading.Thread(target=sends, args=(first,)) for first in range(SENDERS)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()


def _cpu(gateways: Sequence[Gateway]) -> float:
    return sum(cpu_seconds(one.process.pid) for one in gateways if one.process is not None)


def _database_cpu() -> float:
    """Return the processor time of all processes of PostgreSQL servers, those of its sessions."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if "(postgres)" in text:
            fields = text.rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:13]) / TICKS
    return total


def section(studies: int, sizes: Sequence[int] = SIZES) -> Iterator[str]:
    """Yield the table."""
    yield (
        "| gateways | all stored after, s | studies a minute until the report is in the archive "
        "| CPU s a study, gateways | CPU s a study, database | of the cores |"
    )
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-several-") as name, server() as running:
        role, _ = as_documented()
        running.execute(role)
        for size in sizes:
            yield burst(Path(name) / f"of-{size}", running, size, studies)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=60)
    chosen = arguments.parse_args()
    for row in section(chosen.studies):
        print(row, flush=True)


if __name__ == "__main__":
    main()
