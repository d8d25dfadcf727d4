"""What hostile objects cost the receiver, in processor time and memory, without the wire.

`python tests/bench_hostile.py` prints its section of docs/benchmarks.md. Each object is written as
the listener writes it, and checked, in a process of its own; made and sent it is elsewhere.
"""

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, ComputedRadiographyImageStorage
from pynetdicom.dsutils import create_file_meta

import hostile
from hostile import Hostile
from thoracle.errors import ReceiveError
from thoracle.receive import completeness
from thoracle.receive.completeness import Command
from thoracle.receive.inbox import IncomingFile
from thoracle.settings import Receive

SETTINGS = Receive()
FRAGMENT = 131_072
"""Bytes that come at a time."""


def objects() -> Iterator[tuple[str, Hostile]]:
    """Yield what is refused, ten times what brought a receiver down, and what is just taken."""
    for name, (make, number, _) in hostile.COSTLY.items():
        yield f"{name}: {number:,}", make(number)
    budget = SETTINGS.budget
    large = partial(hostile.image, rows=8000, columns=8000)
    within = {
        "elements": hostile.elements(budget.elements - 100),
        "elements of an item": hostile.elements_of_item(budget.elements - 100),
        "items": hostile.items(budget.items - 100),
        "levels": hostile.nested(budget.nesting - 4),
        "fragments": hostile.fragments(budget.fragments - 100),
        "deflated, MB": hostile.deflated(30),
        "an image of 64 MB": large(),
        "an image of 64 MB, and as many elements": large(
            hostile.element(9, 0x10, "LO", b"MAKER")
            + hostile.element(9, 0x1001, "LO", b"x") * (budget.elements - 100)
        ),
    }
    for name, made in within.items():
        yield f"at the budget: {name}", made


def cost(made: Hostile, folder: Path) -> tuple[float, float, float, str]:
    """Return seconds of writing and of checking, growth of memory in MB, and what came of it."""
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writes, "\t".join(map(str, _cost(made, folder))).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answers:
        writing, checking, grown, outcome = answers.read().split("\t")
    os.waitpid(child, 0)
    return float(writing), float(checking), float(grown), outcome


def _cost(made: Hostile, folder: Path) -> tuple[float, float, float, str]:
    sop_class = str(ComputedRadiographyImageStorage)
    before, began = _megabytes(), time.thread_time()
    file = IncomingFile(folder / f"{os.getpid()}.dcm", 2**31)
    file.write(b"\0" * 128 + b"DICM")
    meta = create_file_meta(
        sop_class_uid=UID(sop_class),
        sop_instance_uid=UID(made.sop_instance_uid),
        transfer_syntax=made.syntax,
    )
    write_file_meta_info(file, meta)  # type: ignore[arg-type]  # a file will do, as elsewhere
    view = memoryview(made.data_set)
    for start in range(0, len(view), FRAGMENT):
        file.append(view[start : start + FRAGMENT])
    file.close()
    written = time.thread_time()
    command = Command(sop_class, made.sop_instance_uid, str(made.syntax))
    try:
        completeness.check(Path(file.name), command, SETTINGS.budget)
        outcome = "taken"
    except ReceiveError as error:
        outcome = str(error)
    ended = time.thread_time()
    return written - began, ended - written, _megabytes() - before, outcome


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def section(folder: Path) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| object | MB | writing, ms | checking, ms | both, s/GB | memory, MB | outcome |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for name, made in objects():
        writing, checking, grown, outcome = cost(made, folder)
        size = len(made.data_set)
        per_gigabyte = (writing + checking) / size * 1e9
        cells = [name, f"{size / 1e6:.2f}", f"{writing * 1e3:.0f}", f"{checking * 1e3:.0f}"]
        cells += [f"{per_gigabyte:.1f}", f"{grown:.0f}", outcome]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-") as name:
        for line in section(Path(name)):
            print(line, flush=True)
