"""Thoracle in a process of its own: as a command, or forked from one that has imported it."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, Protocol

import pytest

FOLDER = str(Path(__file__).parent)

forked = False
"""Whether :func:`start` and :func:`run` fork. ``conftest.py`` turns it on: importing torch, MONAI,
highdicom and the engine is more than half of a gateway's start, and the tests start about 150 and
run some 250 commands. What then runs is the same command with the same settings. The tests of
starting, stopping and crashing, of the command line, the demo and the benchmarks run the command
itself."""


class Process(Protocol):
    """A running Thoracle: what the tests use of :class:`subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine, who needs no name; only root can start its processes."""

    uid: int
    groups: tuple[int, ...]
    """The first is its own."""
    home: Path

    def popen(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Run Python with arguments, as this user."""
        # What is installed for us is so for a Python elsewhere, too, and nothing else.
        lines = ["import site, sys", "sys.path[:] = [p for p in sys.path if 'packages' not in p]"]
        lines += [f"site.addsitedir({one!r})" for one in sys.path if "site-packages" in one]
        (self.home / "sitecustomize.py").write_text("\n".join(lines) + "\n")
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "LOGNAME": f"user-{self.uid}",  # MONAI asks for one, and the number has none
            "PYTHONPATH": str(self.home),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.Popen(
            [_interpreter(self.uid), *arguments],
            user=self.uid,
            group=self.groups[0],
            extra_groups=self.groups,
            cwd=self.home,
            env=environment,
            text=True,
            **options,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with arguments until it ends; return its exit code and what it printed."""
        process = self.popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, error = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, output, error)


@cache
def _interpreter(uid: int) -> str:
    """Return a Python of this version that another user can run: ours may be in root's home."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, shutil.which(name, path="/usr/local/bin:/usr/bin")):
        with suppress(OSError, subprocess.CalledProcessError):
            if path is not None:
                subprocess.run(
                    [path, "-c", "import json, sqlite3"], check=True, user=uid, group=uid
                )
                return path
    pytest.skip(f"found no {name} that another user can run")


def start(arguments: list[str], log: Path, user: User | None = None, **environment: str) -> Process:
    """Start ``thoracle`` with arguments and return its process.

    Parameters
    ----------
    arguments
        As on the command line.
    log
        Takes its two outputs, at the end.
    user
        Who runs it; without, we do.
    environment
        Variables beside those of this process. With any, it is the command: libraries read some of
        them while they are imported.
    """
    if forked and not environment and user is None:
        return _Forked(arguments, log, log)
    with log.open("ab") as output:
        if user is not None:
            return user.popen(["-m", "thoracle", *arguments], stdout=output, stderr=output)
        return subprocess.Popen(
            [sys.executable, "-m", "thoracle", *arguments],
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )


def run(*arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``thoracle`` with arguments until it ends; return its exit code and what it printed.

    Parameters
    ----------
    arguments
        As on the command line.
    check
        Raise ``CalledProcessError`` for an exit code other than 0.
    """
    command = [sys.executable, "-m", "thoracle", *arguments]
    if not forked:
        return subprocess.run(command, capture_output=True, text=True, check=check)
    with tempfile.TemporaryDirectory(prefix="thoracle-command-") as folder:
        output, error = Path(folder, "output"), Path(folder, "error")
        code = _Forked(list(arguments), output, error).wait(600)
        done = subprocess.CompletedProcess(command, code, output.read_text(), error.read_text())
    if check:
        done.check_returncode()
    return done


class _Forked:
    """A process of the fork server, with the methods of :class:`subprocess.Popen`."""

    def __init__(self, arguments: list[str], output: Path, error: Path) -> None:
        self._process: ForkServerProcess = context().Process(
            target=_run,
            args=(arguments, (str(output), str(error)), str(Path.cwd()), dict(os.environ)),
            daemon=True,  # ends with the tests
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("thoracle", timeout or 0)
        return self._process.exitcode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def context() -> ForkServerContext:
    """Return the fork server, for other functions in a process of their own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        # The fork server does not know sys.path, and goes on without what it cannot import.
        patch.setenv("PYTHONPATH", FOLDER, prepend=os.pathsep)
        forkserver.ensure_running()
    return context


def _run(
    arguments: list[str], outputs: tuple[str, str], folder: str, environment: dict[str, str]
) -> None:
    for path, stream in zip(outputs, (sys.stdout, sys.stderr), strict=True):
        output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(output, stream.fileno())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["thoracle", *arguments]
    from thoracle.cli import main

    main()
