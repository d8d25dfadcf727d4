"""Under load and over time: many associations, a burst, steady work with readers, a full database.

`python tests/bench_load.py --together --burst 5000 --minutes 30 --studies 1000000` prints tables
for docs/benchmarks.md. Default settings, SQLite; senders and archive are on the same cores.
"""

import argparse
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx
from pydicom import Dataset
from pydicom.uid import generate_uid

import bench_audit
import bench_web
import processes
import sender
from bench_processes import cpu_seconds, running, tree, wait_for_log
from browsing import Site
from gateway import AE_TITLE, Gateway
from pacs import free_port
from radiographs import chest, saved
from thoracle.store.database import open_database, sqlite_url

TOGETHER, EACH = 50, 8
"""Associations at once, and images of each, a study apiece."""
SENDERS = 4
PER_MINUTE = 60
LOOKS_SECONDS = 2.0
WAITS_SECONDS = 3600


@dataclass
class Watch:
    """Looks at a gateway's memory and its write-ahead log every two seconds, in a thread."""

    gateway: Gateway
    megabytes: list[float] = field(default_factory=list)
    log_megabytes: list[float] = field(default_factory=list)

    def look(self) -> None:
        """Note both now."""
        assert self.gateway.process is not None
        resident = sum(_resident(pid) for pid in tree(self.gateway.process.pid))
        self.megabytes.append(resident)
        log = self.gateway.data_folder / "thoracle.sqlite-wal"
        self.log_megabytes.append(log.stat().st_size / 1e6 if log.exists() else 0.0)

    def rows(self) -> Iterator[str]:
        """Yield rows of a table: what grew, by the first and last tenth of the time."""
        tenth = max(1, len(self.megabytes) // 10)
        first, last = self.megabytes[:tenth], self.megabytes[-tenth:]
        yield (
            "| memory of gateway and children, MB: first tenth, last tenth, peak "
            f"| {statistics.mean(first):.0f}, {statistics.mean(last):.0f}, "
            f"{max(self.megabytes):.0f} |"
        )
        yield f"| write-ahead log, largest, MB | {max(self.log_megabytes):.0f} |"


def _resident(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # a child that has just ended
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0")
    return int(line.split()[1]) / 1e3


@contextmanager
def watched(gateway: Gateway) -> Iterator[Watch]:
    """Yield a watch that looks until the end of the block."""
    watch, ended = Watch(gateway), threading.Event()

    def looks() -> None:
        while True:
            watch.look()
            if ended.wait(LOOKS_SECONDS):
                return

    thread = threading.Thread(target=looks)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


@contextmanager
def line(folder: Path) -> Iterator[Gateway]:
    """Yield a gateway with default settings and DCMTK's archive, ready to read."""
    folder.mkdir()
    (folder / "archive").mkdir()
    port = free_port()
    archive = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    keeps = ["--fork", "-pm", "-aet", "ARCHIVE", "-od", str(folder / "archive"), str(port)]
    gateway = with_defaults(Gateway(folder, archive, web={"port": free_port()}))
    with running(["storescp", *keeps], port), gateway:
        wait_for_log(gateway, "classifier loaded")
        yield gateway


def with_defaults(gateway: Gateway) -> Gateway:
    """Return a gateway without the settings that save the tests a second or two."""
    kept, table = [], ""
    for row in gateway.config.read_text().splitlines():
        table = row if row.startswith("[") else table
        if table not in ("[complete]", "[deliver]"):
            kept.append(row)
    gateway.config.write_text("\n".join(kept) + "\n")
    return gateway


def another(image: Dataset, patient_id: str) -> Dataset:
    """Return an image with the same pixels, of another study and patient."""
    ds = deepcopy(image)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.SOPInstanceUID, ds.PatientID = generate_uid(), patient_id
    return ds


def count(gateway: Gateway, statement: str) -> int:
    """Return the number that a statement finds in the gateway's database."""
    with _connected(gateway) as connection:
        return int(connection.execute(statement).fetchone()[0])


@contextmanager
def _connected(gateway: Gateway) -> Iterator[sqlite3.Connection]:
    name = gateway.data_folder / "thoracle.sqlite"
    connection = sqlite3.connect(f"file:{name}?mode=ro", uri=True, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


STUDIES = "SELECT count(*) FROM study"
ANSWERED = (
    "SELECT count(DISTINCT study_instance_uid) FROM audit_event WHERE event = 'delivery succeeded'"
)
TWICE = """
SELECT count(*) FROM (SELECT study_instance_uid FROM result WHERE kind = 'sr'
GROUP BY study_instance_uid HAVING count(*) > 1)
"""
SPANS = """
SELECT stored, min(recorded_at) FROM audit_event JOIN (
    SELECT study_instance_uid AS uid, max(recorded_at) AS stored FROM audit_event
    WHERE event = 'instance stored' GROUP BY study_instance_uid
) ON uid = study_instance_uid WHERE event = 'delivery succeeded' GROUP BY uid
"""


def all_answered(gateway: Gateway, studies: int) -> None:
    """Return when so many studies have a delivered result; each has one report.

    Raises
    ------
    TimeoutError
        They have not within an hour.
    """
    deadline = time.monotonic() + WAITS_SECONDS
    while count(gateway, ANSWERED) < studies:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count(gateway, ANSWERED)} of {studies} studies have an answer")
        time.sleep(1)
    assert count(gateway, STUDIES) == studies
    assert count(gateway, TWICE) == 0


def seconds_to_answer(gateway: Gateway) -> list[float]:
    """Return the seconds from the last image of each study to its first delivered object."""
    with _connected(gateway) as connection:
        rows = connection.execute(SPANS).fetchall()
    return [
        (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
        for start, end in rows
    ]


def p50_p95(values: list[float], unit: float = 1.0) -> str:
    """Return median and 95th percentile as a cell of a table."""
    places = 0 if unit > 1 else 1
    middle, high = statistics.median(values) * unit, statistics.quantiles(values, n=20)[18] * unit
    return f"{middle:.{places}f} / {high:.{places}f}"


def headed(title: str) -> tuple[str, ...]:
    """Return the head of a table."""
    return "", f"| {title} | |", "|---|---|"


# ---- many at once --------------------------------------------------------------------------------


def together(folder: Path) -> Iterator[str]:
    """Yield the section on fifty associations at once, from fifty addresses."""
    begun, image = threading.Barrier(TOGETHER), chest()
    answers: list[float] = []
    refused: list[str] = []

    def one(number: int, port: int) -> None:
        images = [another(image, f"T{number}-{index}") for index in range(EACH)]
        begun.wait()
        try:
            address = f"127.0.3.{number + 1}"
            with sender.Sender(port, calling=f"ROOM{number}", address=address) as assoc:
                for ds in images:
                    began = time.monotonic()
                    assert assoc.store(ds).status == 0x0000
                    answers.append(time.monotonic() - began)
        except (sender.NotAnswered, AssertionError) as error:
            refused.append(str(error))

    with line(folder) as gateway, watched(gateway) as watch:
        began = time.monotonic()
        threads = [
            threading.Thread(target=one, args=(number, gateway.port)) for number in range(TOGETHER)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sent = time.monotonic() - began
        all_answered(gateway, len(answers))
        took = time.monotonic() - began
    yield from headed(f"{TOGETHER} associations at once, {EACH} studies of one image on each")
    yield f"| images stored; associations refused or ended | {len(answers)}; {len(refused)} |"
    yield f"| C-STORE until its response, p50 / p95, s | {p50_p95(answers)} |"
    yield f"| until all were stored; until all reports were sent, s | {sent:.0f}; {took:.0f} |"
    yield from watch.rows()


# ---- a burst -------------------------------------------------------------------------------------


def burst(folder: Path, studies: int) -> Iterator[str]:
    """Yield the section on studies that come as fast as they can be sent."""
    with line(folder) as gateway, watched(gateway) as watch:
        image = saved(chest(), folder / "chest.dcm")
        assert gateway.process is not None
        cpu, began = cpu_seconds(gateway.process.pid), time.monotonic()
        command = [
            "storescu",
            "-aec",
            AE_TITLE,
            "-aet",
            "BURST",
            "--repeat",
            f"{studies // SENDERS}",
        ]
        command += ["+IR", "1", "+IS", "1", "+IP", "1", "127.0.0.1", f"{gateway.port}", f"{image}"]
        senders = [subprocess.Popen(command) for _ in range(SENDERS)]
        codes = [one.wait() for one in senders]
        assert not any(codes)
        sent = time.monotonic() - began
        all_answered(gateway, studies // SENDERS * SENDERS)
        took = time.monotonic() - began
        cpu = cpu_seconds(gateway.process.pid) - cpu
        size = (gateway.data_folder / "thoracle.sqlite").stat().st_size / 1e3
    yield from headed(f"{studies:,} studies in a burst, {SENDERS} senders")
    yield f"| until all were stored, s; images a second | {sent:.0f}; {studies / sent:.0f} |"
    rate = studies / took * 60
    yield f"| until all reports were in the archive, s; studies a minute | {took:.0f}; {rate:.0f} |"
    yield f"| CPU s a study, all processes of the gateway | {cpu / studies:.2f} |"
    yield f"| database, kB a study | {size / studies:.0f} |"
    yield from watch.rows()


# ---- over time -----------------------------------------------------------------------------------


@dataclass
class Reader:
    """Somebody who opens the list, a study and the list for programs, over and over."""

    site: Site
    gateway: Gateway
    took: dict[str, list[float]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Read until ``ended`` is set."""
        with self.site.client("reader") as client:
            while not self.ended.wait(1):
                newest = self._newest()
                self._open(client, "the list", "/")
                if newest:
                    self._open(client, "a study", f"/study/{newest}")
                self._open(client, "/api/worklist", "/api/worklist")

    def _newest(self) -> str:
        statement = (
            "SELECT study_instance_uid FROM result WHERE kind = 'sr' ORDER BY rowid DESC LIMIT 1"
        )
        with _connected(self.gateway) as connection:
            found = connection.execute(statement).fetchone()
        return str(found[0]) if found else ""

    def _open(self, client: httpx.Client, name: str, path: str) -> None:
        began = time.monotonic()
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        self.took.setdefault(name, []).append(time.monotonic() - began)


def steady(folder: Path, minutes: float) -> Iterator[str]:
    """Yield the section on a study a second for so many minutes, with a reader on the pages."""
    with line(folder) as gateway, Site(folder, config=gateway.config) as site:
        reader = Reader(site, gateway)
        thread = threading.Thread(target=reader.read)
        thread.start()
        studies, image = int(minutes * PER_MINUTE), chest()
        assert gateway.process is not None
        cpu, began = cpu_seconds(gateway.process.pid), time.monotonic()
        with watched(gateway) as watch:
            for number in range(studies):
                time.sleep(max(0, began + number * 60 / PER_MINUTE - time.monotonic()))
                sender.send(gateway.port, another(image, f"S{number}"))
            all_answered(gateway, studies)
        share = (cpu_seconds(gateway.process.pid) - cpu) / (time.monotonic() - began)
        reader.ended.set()
        thread.join()
        took = seconds_to_answer(gateway)
    yield from headed(
        f"{minutes:g} minutes at {PER_MINUTE} studies a minute, a reader on the pages"
    )
    yield f"| from the image to its report in the archive, p50 / p95, s | {p50_p95(took)} |"
    for name, seconds in reader.took.items():
        yield f"| {name}, p50 / p95, ms | {p50_p95(seconds, 1000)} |"
    yield f"| gateway and children, share of a core | {share:.0%} |"
    yield from watch.rows()


# ---- a full database -----------------------------------------------------------------------------


def large(folder: Path, studies: int, rows: int) -> Iterator[str]:
    """Yield the section on a database of years; one that is there already is taken as it is."""
    data = folder / "data"
    if not data.exists():
        data.mkdir(parents=True)
        bench_audit.fill(data, rows)
        database = open_database(sqlite_url(data))
        with database.begin() as connection:
            bench_web.fill(connection, studies)
            connection.exec_driver_sql(
                "UPDATE worklist SET ai_state = 'negative' WHERE ai_state IN ('queued', 'running')"
            )
        database.dispose()
    size = (data / "thoracle.sqlite").stat().st_size / 1e9
    yield from headed(f"{studies:,} studies and {rows:,} rows of the audit, {size:.1f} GB")
    gateway = with_defaults(Gateway(folder, web={"port": free_port()}))
    began = time.monotonic()
    with gateway:
        took = time.monotonic() - began
        yield f"| start of the gateway until it answers C-ECHO, s | {took:.1f} |"
        yield from _at_work(gateway, folder)


def _at_work(gateway: Gateway, folder: Path) -> Iterator[str]:
    wait_for_log(gateway, "classifier loaded")
    assert gateway.process is not None
    cpu, began = cpu_seconds(gateway.process.pid), time.monotonic()
    time.sleep(180)
    share = (cpu_seconds(gateway.process.pid) - cpu) / (time.monotonic() - began)
    yield f"| at rest for 3 minutes, with the housekeeping, share of a core | {share:.1%} |"
    uid = generate_uid()
    sender.send(gateway.port, chest(StudyInstanceUID=uid))
    took = _seconds(partial(gateway.wait_for_event, "result created", uid))
    yield f"| from an image to its report, s | {took:.1f} |"
    config = ("--config", str(gateway.config))
    for command in (("status",), ("retention", "plan"), ("alarms", "list")):
        took = _seconds(partial(processes.run, *command, *config, check=True))
        yield f"| `thoracle {' '.join(command)}`, s | {took:.1f} |"
    with Site(folder, config=gateway.config) as site, site.client("reader") as client:
        for name, address in bench_web.QUESTIONS.items():
            seconds = [_seconds(partial(client.get, address)) for _ in range(20)]
            yield f"| list: {name}, p50 / p95, ms | {p50_p95(seconds, 1000)} |"
    watch = Watch(gateway)
    watch.look()
    yield f"| memory of gateway and children, MB | {watch.megabytes[0]:.0f} |"


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def main() -> None:
    """Measure what was chosen, and print it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--together", action="store_true")
    arguments.add_argument("--burst", type=int, default=0, metavar="STUDIES")
    arguments.add_argument("--minutes", type=float, default=0)
    arguments.add_argument("--studies", type=int, default=0)
    arguments.add_argument("--rows", type=int, default=10_000_000)
    arguments.add_argument("--large", type=Path, help="keeps the large database, made once, here")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-load-") as name:
        folder = Path(name)
        parts: list[Iterator[str]] = []
        if chosen.together:
            parts.append(together(folder / "together"))
        if chosen.burst:
            parts.append(burst(folder / "burst", chosen.burst))
        if chosen.minutes:
            parts.append(steady(folder / "steady", chosen.minutes))
        if chosen.studies:
            parts.append(large(chosen.large or folder / "large", chosen.studies, chosen.rows))
        for part in parts:
            for row in part:
                print(row, flush=True)


if __name__ == "__main__":
    main()
