"""R1, acknowledged = durable: the order of the system calls, as the kernel saw them."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from gateway import Gateway
from ledger import eventually
from peers import require
from sender import Sender, small

CALLS = "fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg"
RESPONSE = r'"\4\0'
"""First bytes of a P-DATA-TF PDU, as strace writes them: in this test, of a C-STORE response."""


@dataclass(frozen=True)
class Call:
    """A system call: begun and ended at these lines of the trace."""

    thread: str
    text: str
    begun: int
    ended: int


@contextmanager
def traced(gateway: Gateway, trace: Path) -> Iterator[None]:
    """Record the system calls of a running gateway inside the block."""
    assert gateway.process is not None
    strace = require("strace", "strace")
    command = [strace, "-f", "-y", "-e", f"trace={CALLS}", "-o", str(trace)]
    with subprocess.Popen(
        [*command, "-p", str(gateway.process.pid)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        first = tracer.stderr.readline()
        if "attached" not in first:
            pytest.skip(f"strace may not attach to processes here: {first.strip()}")
        yield
        tracer.terminate()
        tracer.communicate()


def calls(trace: Path) -> list[Call]:
    """Return the successful calls of a trace, those that were interrupted put together."""
    unfinished: dict[str, tuple[str, int]] = {}
    answer = []
    for number, line in enumerate(trace.read_text().splitlines()):
        thread, text = line.split(maxsplit=1)
        if text.endswith("<unfinished ...>"):
            unfinished[thread] = (text.removesuffix("<unfinished ...>"), number)
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>", text)
        begun = number
        if resumed:
            start, begun = unfinished.pop(thread, ("", number))
            text = start + text[resumed.end() :]
        if not re.search(r"= -1 ", text):
            answer.append(Call(thread, text, begun, number))
    return answer


def first(found: list[Call], pattern: str, after: int, thread: str | None = None) -> Call:
    """Return the first call that matches and begins behind a line of the trace."""
    for call in found:
        if call.begun > after and thread in (None, call.thread) and re.search(pattern, call.text):
            return call
    raise AssertionError(f"no {pattern} behind line {after}")


def test_file_folder_and_row_are_on_the_disk_before_the_answer_is_sent(
    gateway: Gateway, tmp_path: Path
) -> None:
    number = 20
    study = generate_uid()  # one for all: the arrival of the first alone is queued, in the database
    trace = tmp_path / "trace"
    with Sender(gateway.port) as sender:
        assert sender.store(small(StudyInstanceUID=study)).status == 0x0000
        with traced(gateway, trace):
            for _ in range(number):
                assert sender.store(small(StudyInstanceUID=study)).status == 0x0000
            eventually(lambda: trace.read_text().count(RESPONSE) >= number, 10)
    found = calls(trace)
    answered = -1
    for _ in range(number):
        response = first(found, rf"^send\w+\(\d+<[^>]*>, {re.escape(RESPONSE)}", answered)
        written = first(found, r"^fsync\(\d+<[^>]*/incoming/[0-9a-f]{32}\.dcm>", answered)
        (name,) = re.findall(r"[0-9a-f]{32}\.dcm", written.text)
        kept = rf'^rename\w*\(.*/incoming/{name}".*images/{name[:2]}/{name}"'
        renamed = first(found, kept, written.ended)
        folder = first(found, rf"^fsync\(\d+<[^>]*/images/{name[:2]}>", renamed.ended)
        synced = r"^f(data)?sync\(\d+<[^>]*thoracle\.sqlite-wal>"
        commit = first(found, synced, folder.ended, written.thread)
        assert commit.ended < response.begun
        answered = response.ended
