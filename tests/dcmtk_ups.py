"""DCMTK as client and station of workitems: a program of ours on its classes, compiled for a run.

DCMTK has no tool for Unified Procedure Steps, and all that they need: its dictionary, its encoders,
its associations and messages. What it takes is said at the top of ``dcmtk_ups.cc``.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import pydicom
from pydicom import Dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    UnifiedProcedureStepPush,
)

from ledger import eventually
from pacs import free_port
from peers import require, require_file

SOURCE = Path(__file__).parent / "dcmtk_ups.cc"
LIBRARIES = ("-ldcmnet", "-ldcmdata", "-loflog", "-lofstd")
SYNTAXES = ("implicit", "explicit", "big")
SERVICES = ("pull", "watch", "query")
_BUILT = tempfile.TemporaryDirectory(prefix="dcmtk_ups_")


@cache
def program() -> Path:
    """Return the compiled client; without a compiler or DCMTK's headers the test is skipped."""
    compiler = require("g++", "g++")
    require_file(Path("/usr/include/dcmtk/dcmnet/scu.h"), "libdcmtk-dev")
    binary = Path(_BUILT.name, "dcmtk_ups")
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", str(binary)]
    subprocess.run([*command, str(SOURCE), *LIBRARIES], check=True)
    return binary


@dataclass(frozen=True)
class Answer:
    """A response: its command, and its data set if it has one."""

    status: int
    sop_class_uid: str
    sop_instance_uid: str
    comment: str
    path: Path

    @property
    def ds(self) -> Dataset:
        """The data set, as it was written by DCMTK."""
        return pydicom.dcmread(self.path, force=True)


class Client:
    """An application that asks, with an association of its own for each request."""

    def __init__(self, port: int, folder: Path, ae_title: str = "DCMTK") -> None:
        self._port, self._folder, self._ae_title = port, folder, ae_title

    def find(
        self, *keys: str | bytes, service: str = "pull", syntax: str = "implicit"
    ) -> list[Answer]:
        """Return the answers to a C-FIND; the last is the one that ends it."""
        return self._ask("find", keys, service, syntax)

    def stop(self, *keys: str) -> list[Answer]:
        """Return the answers to a C-FIND that is canceled after the fifth."""
        return self._ask("stop", keys, "pull", "implicit")

    def get(self, uid: str, *tags: str, syntax: str = "implicit") -> Answer:
        """Return the answer to an N-GET of some attributes, or of all."""
        (answer,) = self._ask("get", (uid, *tags), "pull", syntax)
        return answer

    def set(self, uid: str, *values: str, syntax: str = "implicit") -> Answer:
        """Return the answer to an N-SET."""
        (answer,) = self._ask("set", (uid, *values), "pull", syntax)
        return answer

    def act(
        self, uid: str, action: int, *values: str, service: str = "watch", syntax: str = "implicit"
    ) -> Answer:
        """Return the answer to an N-ACTION."""
        (answer,) = self._ask("act", (uid, str(action), *values), service, syntax)
        return answer

    def act_by_class_of_context(self, uid: str, action: int, *values: str) -> int:
        """Return the status of an N-ACTION as DCMTK makes it, which names UPS Pull as its class."""
        (answer,) = self._ask("plain", (uid, str(action), *values), "pull", "implicit")
        return answer.status

    def change(self, uid: str, state: str, transaction_uid: str, syntax: str = "implicit") -> int:
        """Return the status of a change of state."""
        values = (f"ProcedureStepState={state}", f"TransactionUID={transaction_uid}")
        return self.act(uid, 1, *values, service="pull", syntax=syntax).status

    def _ask(
        self, request: str, arguments: Sequence[str | bytes], service: str, syntax: str
    ) -> list[Answer]:
        folder = tempfile.mkdtemp(dir=self._folder)
        command = [
            str(program()),
            request,
            self._ae_title,
            str(self._port),
            service,
            syntax,
            folder,
        ]
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
        if ended.returncode:
            raise RuntimeError(ended.stderr)
        answers = []
        for number, line in enumerate(ended.stdout.splitlines(), 1):
            status, sop_class, uid, comment = line.split("\t")
            path = Path(folder, f"{number}.dcm")
            answers.append(Answer(int(status, 16), sop_class, uid, comment, path))
        return answers


class Station:
    """A station that takes event reports; a context manager."""

    def __init__(self, folder: Path, ae_title: str = "STATION") -> None:
        self.ae_title, self.port = ae_title, free_port()
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self._lines = self._folder / "lines"
        command = [str(program()), "hear", self.ae_title, str(self.port), str(self._folder)]
        with self._lines.open("wb") as lines:
            self._process = subprocess.Popen(command, stdout=lines)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait(30)

    def of(self, uid: str) -> list[tuple[int, Dataset]]:
        """Return Event Type ID and Event Information of the reports on a workitem."""
        found: list[tuple[int, Dataset]] = []
        for number, line in enumerate(self._lines.read_text().splitlines(), 1):
            kind, sop_class, one = line.split("\t")
            assert sop_class == UnifiedProcedureStepPush
            if one == uid:
                ds = pydicom.dcmread(self._folder / f"{number}.dcm", force=True)
                found.append((int(kind), ds))
        return found

    def wait(self, uid: str, number: int, seconds: float = 60) -> list[tuple[int, Dataset]]:
        """Return the reports on a workitem once there are so many."""
        eventually(lambda: len(self.of(uid)) >= number, seconds)
        return self.of(uid)
