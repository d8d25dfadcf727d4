"""What a burst of small studies costs, with default settings: processor time, and the database.

A part of bench.py; alone, `python tests/bench_burst.py` prints its section. `--base FOLDER` names a
checkout of another version, which takes turns with this one.
"""

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import generate_uid

import sender
from bench_images import real_chest, with_noise
from bench_processes import cpu_seconds, tree, wait_for_log
from gateway import Gateway
from pacs import Pacs

SIDE = 512
SENDERS = 4
ENGINE = (
    "workflow_status",
    "workflow_input",
    "workflow_output",
    "operation_outputs",
    "datasource_outputs",
)
ENDED = "('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')"


@dataclass
class Burst:
    """What a burst cost; CPU in milliseconds a study."""

    cpu: float
    """Of the gateway's process, with the networks and without its children."""
    children: float
    per_minute: float
    """Studies whose report arrived, from the first byte sent until the last report."""
    sizes: dict[str, float]
    """Bytes a study of each table of the database with its indexes."""
    rows: dict[str, float]
    """Rows a study of each table."""


def small_images(number: int) -> list[Dataset]:
    """Return so many studies of one image: a real chest, reduced, with noise."""
    ds, chest = real_chest(SIDE)
    ds.PixelData = b""
    random = np.random.default_rng(0)
    studies: list[Dataset] = []
    for index in range(number):
        one = deepcopy(ds)
        one.PatientID = f"BURST{index}"
        one.StudyInstanceUID, one.SeriesInstanceUID = generate_uid(), generate_uid()
        one.SOPInstanceUID = generate_uid()
        one.PixelData = with_noise(chest, random)
        studies.append(one)
    return studies


def store(port: int, ds: Dataset) -> None:
    """Send a study of one image over an association of its own."""
    if sender.send(port, ds).status != 0x0000:
        raise RuntimeError("image refused")


@contextmanager
def warm(folder: Path, pacs: Pacs, **environment: str) -> Iterator[Gateway]:
    """Give a gateway of default settings that has read one study."""
    folder.mkdir()
    with Gateway(folder, pacs, complete={"quiet_after_release_seconds": 2}) as gateway:
        if environment:
            gateway.terminate()
            gateway.start(180, **environment)
        wait_for_log(gateway, "classifier loaded")
        store(gateway.port, small_images(1)[0])
        pacs.wait_for(1, 120)
        wait_until_done(gateway)
        yield gateway


def wait_until_done(gateway: Gateway) -> None:
    """Return when no workflow is left that has not ended."""
    path = gateway.data_folder / "thoracle.sqlite"
    question = f"SELECT count(*) FROM workflow_status WHERE status NOT IN {ENDED}"
    while True:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            if not connection.execute(question).fetchone()[0]:
                return
        time.sleep(0.3)


def burst(folder: Path, number: int, **environment: str) -> Burst:
    """Send so many studies at once and return what came of it."""
    studies = small_images(number)
    with Pacs() as pacs, warm(folder, pacs, **environment) as gateway:
        assert gateway.process is not None
        pid = gateway.process.pid
        before = sizes(gateway)
        rows_before = rows(gateway)
        whole, children = cpu_seconds(pid), sum(map(cpu_seconds, tree(pid)[1:]))
        started = time.time()
        with ThreadPoolExecutor(SENDERS) as threads:
            list(threads.map(lambda ds: store(gateway.port, ds), studies))
        pacs.wait_for(number + 1, 900)
        minutes = (max(pacs.arrived.values()) - started) / 60
        wait_until_done(gateway)
        children = sum(map(cpu_seconds, tree(pid)[1:])) - children
        whole = cpu_seconds(pid) - whole - children
        assert gateway.process.poll() is None
        gateway.terminate()
        after, rows_after = sizes(gateway), rows(gateway)
    return Burst(
        cpu=whole / number * 1e3,
        children=children / number * 1e3,
        per_minute=number / minutes,
        sizes={name: (after[name] - before.get(name, 0)) / number for name in after},
        rows={name: (rows_after[name] - rows_before.get(name, 0)) / number for name in rows_after},
    )


def sizes(gateway: Gateway) -> dict[str, int]:
    """Return the bytes that each table takes with its indexes, from SQLite's own count."""
    question = """
        SELECT coalesce(known.tbl_name, pages.name), sum(pages.pgsize)
        FROM dbstat AS pages LEFT JOIN sqlite_schema AS known ON known.name = pages.name GROUP BY 1
    """
    with closing(sqlite3.connect(gateway.data_folder / "thoracle.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return dict(connection.execute(question).fetchall())


def rows(gateway: Gateway) -> dict[str, int]:
    """Return how many rows each table has."""
    with closing(sqlite3.connect(gateway.data_folder / "thoracle.sqlite")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        return {
            name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
            for (name,) in tables.fetchall()
        }


def of_engine(found: dict[str, float]) -> float:
    """Return the sum over the tables of the engine."""
    return sum(value for name, value in found.items() if name in ENGINE)


def rounded(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def section(number: int, bases: Sequence[Path] = (), turns: int = 1) -> list[str]:
    """Return the section of docs/benchmarks.md, as lines."""
    found: dict[str, list[Burst]] = {}
    for _ in range(turns):
        for name, checkout in [*((base.name, base) for base in bases), ("now", None)]:
            environment = {} if checkout is None else {"PYTHONPATH": str(checkout / "plugin")}
            with tempfile.TemporaryDirectory(prefix="thoracle-burst-") as folder:
                one = burst(Path(folder, "gateway"), number, **environment)
            found.setdefault(name, []).append(one)
    load = os.getloadavg()[1]
    lines = [
        f"{number} studies of one image of {SIDE} x {SIDE}, {SENDERS} senders, an association "
        f"each, default settings, SQLite; sender and archive on the same cores, load {load:.1f}.",
        "",
        f"| a study | {' | '.join(found)} |",
        f"|---|{'---|' * len(found)}",
    ]
    for what, value in (
        ("gateway, CPU ms", lambda one: one.cpu),
        ("its children, CPU ms", lambda one: one.children),
        ("studies a minute", lambda one: one.per_minute),
        ("database, kB", lambda one: sum(one.sizes.values()) / 1e3),
        ("of it rows of the engine, kB", lambda one: of_engine(one.sizes) / 1e3),
        ("rows of the engine", lambda one: of_engine(one.rows)),
    ):
        cells = (", ".join(rounded(value(one)) for one in of) for of in found.values())
        lines.append(f"| {what} | {' | '.join(cells)} |")
    newest = found["now"][-1]
    lines += ["", "| table with its indexes | bytes a study | rows a study |", "|---|---|---|"]
    lines += [
        f"| {name} | {size:.0f} | {newest.rows.get(name, 0):.1f} |"
        for name, size in sorted(newest.sizes.items(), key=lambda item: -item[1])
        if size >= 100
    ]
    return lines


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=100)
    arguments.add_argument("--base", type=Path, action="append", default=[])
    arguments.add_argument("--turns", type=int, default=1)
    chosen = arguments.parse_args()
    print("\n".join(section(chosen.studies, chosen.base, chosen.turns)))


if __name__ == "__main__":
    main()
