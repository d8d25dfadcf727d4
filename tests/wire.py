"""The wire suite: ``python -m tests.wire HOST PORT AET`` tries an SCP and prints a table.

With the process of the SCP on this machine, memory (peak resident set beyond that before) and
processor time of each case are measured.
"""

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # started from the top folder, as a module

from rawpeer import Outcome, RawPeer, Target
from wirecases import ONE, Case, cases, is_right

SAMPLE_SECONDS = 0.05


@dataclass
class Cost:
    """What a case cost the SCP."""

    megabytes: float | None = None
    cpu_seconds: float | None = None


def resident_megabytes(pid: int) -> float:
    """Return the resident set of a process and its children."""
    return sum(_statm(one) for one in _family(pid))


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children."""
    return sum(_cpu(one) for one in _family(pid))


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def _statm(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def measured(pid: int | None) -> Iterator[Cost]:
    """Yield what is filled in at the end of the block: the cost of what happens in it."""
    cost = Cost()
    if pid is None:
        yield cost
        return
    before, began = resident_megabytes(pid), cpu_seconds(pid)
    peak, done = before, threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_SECONDS):
            peak = max(peak, resident_megabytes(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield cost
    finally:
        done.set()
        thread.join()
        cost.megabytes = peak - before
        cost.cpu_seconds = cpu_seconds(pid) - began


@contextmanager
def crowd(target: Target, number: int) -> Iterator[int]:
    """Hold so many idle associations; yield how many were accepted."""
    with ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(target)) for _ in range(number)]
        yield sum(peer.associate(ONE).what == "accepted" for peer in peers)


def cpu_share(pid: int, seconds: float = 10) -> float:
    """Return the share of a core that a process takes from now on, for so many seconds."""
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / seconds


def wake_ups(pid: int, among: set[str], seconds: float = 5) -> float:
    """Return how often a second these threads of a process begin to wait: what a bound can be set
    on, whatever else the machine does."""
    before = _waits(pid, among)
    time.sleep(seconds)
    return (_waits(pid, among) - before) / seconds


def _waits(pid: int, among: set[str]) -> int:
    lines = [
        line
        for one in among
        for line in Path(f"/proc/{pid}/task/{one}/status").read_text(encoding="ascii").splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def threads(pid: int) -> set[str]:
    """Return the ids of the threads of a process."""
    return {one.name for one in Path(f"/proc/{pid}/task").iterdir()}


def play(case: Case, target: Target) -> tuple[Outcome, float]:
    """Return what came of a case, and in how many seconds."""
    began = time.monotonic()
    try:
        outcome = case.play(target)
    except OSError as error:
        outcome = Outcome(type(error).__name__)
    return outcome, time.monotonic() - began


def echo_seconds(target: Target) -> float | None:
    """Return in how many seconds a C-ECHO succeeded; ``None`` when it did not."""
    began = time.monotonic()
    try:
        with RawPeer(target, 10) as peer:
            status = peer.echo().status
    except OSError:
        status = None
    return time.monotonic() - began if status == 0 else None


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("ae_title")
    parser.add_argument("--calling", default="WIRE")
    parser.add_argument("--pid", type=int, help="process of the SCP, if it runs on this machine")
    parser.add_argument("--only", default="", help="cases whose name has this text")
    given = parser.parse_args()
    target = Target(given.host, given.port, given.ae_title, given.calling)
    out = sys.stdout.write
    out("| case | outcome | right | seconds | C-ECHO after, s | memory, MB | CPU, s |\n")
    out("|---|---|---|---:|---:|---:|---:|\n")
    wrong = 0
    for case in cases():
        if given.only not in case.name:
            continue
        with measured(given.pid) as cost:
            outcome, seconds = play(case, target)
        after = echo_seconds(target)
        right = is_right(case, outcome) and seconds <= case.seconds and after is not None
        wrong += not right
        cells = [case.name, str(outcome), "yes" if right else "**no**", f"{seconds:.1f}"]
        cells.append("none" if after is None else f"{after:.2f}")
        cells += ["" if one is None else f"{one:.1f}" for one in (cost.megabytes, cost.cpu_seconds)]
        out(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()
    if given.pid is not None and not given.only:
        with crowd(target, 40) as established:
            share = cpu_share(given.pid)
        out(f"| {established} idle associations | {share:.1%} of a core | | | | | |\n")
    raise SystemExit(min(wrong, 1))


if __name__ == "__main__":
    main()
