"""A child process with limits of memory and time: bytes of strangers are worked on there alone.

:class:`Child` keeps one ``python -m MODULE MEGABYTES SECONDS`` and asks it one question after the
other; the module calls :func:`serve`. What kills the child costs one question, never the service.
The child is not trusted: it answers in a framing whose every length is checked, and nothing that
it says is unpickled.
"""

import contextlib
import fcntl
import json
import math
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, Self, TypeVar

from thoracle.errors import ThoracleError

R = TypeVar("R")

_LENGTH = struct.Struct(">I")
_START_SECONDS = 60.0
_OUT_OF_MEMORY = 71  # exit status of the child
_PIPE_BYTES = 2**20
"""Of an answer that may wait to be read: as much as Linux allows without privileges. With the usual
64 kB, parent and child wake each other 16 times as often for an image."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
_OWN_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # each of its threads reserves address space
    # glibc gives memory of more than 128 kB back at once, and the next image pays for each page of
    # it again: half of the processor time of decoding. Up to 64 MB now stay with the child.
    "MALLOC_MMAP_THRESHOLD_": str(2**26),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}


class ChildFailed(ThoracleError):
    """The child gave no answer to be used; the message says why, without patient data."""


class ChildNotStarted(ChildFailed):
    """There is no child: that is no fault of the question."""


class Answer:
    """What the child writes, read under a deadline."""

    def __init__(self, descriptor: int, deadline: float) -> None:
        self._descriptor = descriptor
        self._deadline = deadline
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def header(self, longest: int) -> dict[str, Any]:
        """Return the JSON object at the start of an answer, of at most so many bytes.

        Raises
        ------
        ValueError, RecursionError
            There is none.
        """
        (size,) = _LENGTH.unpack(self.content(_LENGTH.size))
        if size > longest:
            raise ValueError(f"found a header of {size} bytes, allowed are {longest}")
        header = json.loads(self.content(size))
        if not isinstance(header, dict):
            raise ValueError("the header is not an object")
        return header

    def content(self, length: int) -> bytearray:
        """Return the next bytes."""
        content = bytearray(length)
        self.into(memoryview(content))
        return content

    def into(self, buffer: memoryview) -> None:
        """Fill a buffer of bytes.

        Raises
        ------
        EOFError, TimeoutError
            The child has ended; the deadline is over.
        """
        while buffer:
            left = max(0.0, self._deadline - time.monotonic())
            if not self._poll.poll(left * 1000):
                raise TimeoutError
            count = os.readv(self._descriptor, [buffer])
            if count == 0:
                raise EOFError
            buffer = buffer[count:]


class Child:
    """A child process, started when first asked; a context manager.

    Threads may share it: they are served one after the other.

    Parameters
    ----------
    module
        What it runs.
    name, work
        What messages call it and what it does, e.g. ``the decoder`` and ``decoding``.
    memory_megabytes
        Its address space, megabytes (``RLIMIT_AS``).
    timeout_seconds
        Time for one question, seconds.
    """

    def __init__(
        self, module: str, name: str, work: str, memory_megabytes: int, timeout_seconds: float
    ) -> None:
        self._module, self._name, self._work = module, name, work
        self._memory_megabytes = memory_megabytes
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """Process id of the child, ``None`` while there is none."""
        process = self._process
        return process.pid if process else None

    def ask(self, question: bytes, read: Callable[[Answer], R]) -> R:
        """Return what ``read`` makes of the child's answer.

        Raises
        ------
        ChildFailed
            It did not start or died, ran out of memory or time, or ``read`` found its answer
            malformed (``ValueError``, ``KeyError``, ``TypeError``).
        """
        with self._lock:
            while True:
                fresh = self._start()
                try:
                    return self._exchange(question, read)
                except EOFError:
                    cause = self._end()
                except BaseException:
                    self._end()  # the rest of its answer would be taken for that to the next one
                    raise
                # A child that has answered before may die of what an earlier question left
                # behind, so only a fresh one counts.
                if fresh:
                    raise ChildFailed(cause)

    def start(self) -> None:
        """Start the child now, so that the first question need not wait for it."""
        with self._lock, contextlib.suppress(ChildNotStarted):
            self._start()

    def _start(self) -> bool:
        """Return whether a child had to be started."""
        if self._process is not None and self._process.poll() is None:
            return False
        self._end()
        limits = [str(self._memory_megabytes), str(self._timeout_seconds)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, *limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # codecs print a line for each fault they find
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
                | _OWN_ENVIRONMENT,
                process_group=0,  # Ctrl-C is for the parent, which then ends the child
            )
        except OSError as error:  # no memory, descriptor or process is left
            raise ChildNotStarted(f"{self._name} does not start: {error.strerror}") from error
        assert self._process.stdout is not None
        # A user whose pipes are many already keeps the usual size.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._answer(time.monotonic() + _START_SECONDS).header(2)
        except (EOFError, TimeoutError, ValueError) as error:
            raise ChildNotStarted(f"{self._name} does not start: {self._end()}") from error
        return True

    def _answer(self, deadline: float) -> Answer:
        assert self._process is not None
        assert self._process.stdout is not None
        return Answer(self._process.stdout.fileno(), deadline)

    def _exchange(self, question: bytes, read: Callable[[Answer], R]) -> R:
        """Return what ``read`` makes of the answer; ``EOFError`` when the child died."""
        assert self._process is not None
        assert self._process.stdin is not None
        deadline = time.monotonic() + self._timeout_seconds
        try:
            self._process.stdin.write(_LENGTH.pack(len(question)) + question)
            self._process.stdin.flush()
            return read(self._answer(deadline))
        except BrokenPipeError as error:
            raise EOFError from error
        except TimeoutError as error:
            limit = f"the {self._timeout_seconds:g} seconds allowed"
            raise ChildFailed(f"{self._work} took longer than {limit}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ChildFailed(f"{self._name}'s answer is malformed") from error

    def _end(self) -> str:
        """Return why the child ended, killing it when it has not."""
        process, self._process = self._process, None
        if process is None:
            return "it was not started"
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            status = process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status == _OUT_OF_MEMORY:
            return f"{self._work} needs more than the {self._memory_megabytes} megabytes allowed"
        if status < 0:
            return f"{self._name} died of signal {-status} ({signal.strsignal(-status)})"
        return f"{self._name} ended with status {status}"


# ---- in the child ----------------------------------------------------------------------------


def serve(respond: Callable[[bytes, BinaryIO], None]) -> None:
    """Answer the questions on standard input until it is closed; the limits are the arguments.

    ``respond`` gets a question and writes its answer: a header, and whatever is announced there.
    """
    memory, seconds = int(sys.argv[1]) * 2**20, float(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has no business writing files
    warnings.simplefilter("ignore")
    # Codecs print to standard output too, which would break the framing.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    write_header(answers, {})
    while length := sys.stdin.buffer.read(_LENGTH.size):
        # The parent's deadline comes first; this one ends an endless loop when it is gone.
        signal.alarm(math.ceil(seconds) + 1)
        try:
            respond(sys.stdin.buffer.read(_LENGTH.unpack(length)[0]), answers)
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)  # nothing after a failed allocation can be relied on
        signal.alarm(0)


def write_header(answers: BinaryIO, header: dict[str, Any]) -> None:
    """Write the length of a JSON object, then the object."""
    text = json.dumps(header).encode()
    answers.write(_LENGTH.pack(len(text)) + text)
    answers.flush()
