"""The child process that decodes: bytes from strangers meet a codec there alone.

:class:`Decoder` asks ``python -m thoracle.image.decoder``, which has limits on memory and time: a
malformed image that kills a codec costs one image, never the service. The child is not trusted:
it answers in a framing whose every length is checked, and nothing it says is unpickled.
"""

import contextlib
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
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from thoracle.errors import NotAnalysable
from thoracle.image.codecs import (
    LARGEST_IMAGE_BYTES,
    LONGEST_DETAIL,
    Format,
    StoredPixels,
    decode_file,
)
from thoracle.records import Reason

_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8")
_FORMATS: tuple[Format, ...] = ("DICOM", "PNG", "JPEG")
_HEADER_LENGTH = struct.Struct(">I")
_LONGEST_HEADER = 4096
_START_SECONDS = 60.0
_OUT_OF_MEMORY = 71  # exit status of the child
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")


class Decoder:
    """The child process that decodes; a context manager, started when first asked.

    Threads may share it: they are served one after the other.

    Parameters
    ----------
    memory_megabytes
        Address space of the child, megabytes (``RLIMIT_AS``).
    timeout_seconds
        Time for one image, seconds.
    """

    def __init__(self, memory_megabytes: int, timeout_seconds: float) -> None:
        self._memory_megabytes = memory_megabytes
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """Process id of the child, ``None`` while there is none."""
        child = self._child
        return child.pid if child else None

    def decode(self, path: Path) -> StoredPixels:
        """Return the stored pixel values of a file, as :func:`decode_file` does.

        Raises
        ------
        NotAnalysable
            As by :func:`decode_file`; also when the child died, or ran out of memory or time.
        """
        with self._lock:
            while True:
                fresh = self._start()
                try:
                    return self._ask(path)
                except EOFError:
                    cause = self._end()
                except BaseException as error:
                    if not isinstance(error, NotAnalysable):
                        self._end()  # the rest of its answer would be taken for the next image's
                    raise
                # A child that has decoded before may die of what another image left behind, so
                # only a fresh one counts.
                if fresh:
                    raise NotAnalysable(Reason.UNDECODABLE, cause)

    def _start(self) -> bool:
        """Return whether a child had to be started."""
        if self._child is not None and self._child.poll() is None:
            return False
        self._end()
        limits = [str(self._memory_megabytes), str(self._timeout_seconds)]
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "thoracle.image.decoder", *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # codecs print a line for each fault they find
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            | {"OPENBLAS_NUM_THREADS": "1"},  # each of its threads reserves address space
            process_group=0,  # Ctrl-C is for the parent, which then ends the child
        )
        try:
            self._read_header(time.monotonic() + _START_SECONDS)
        except (EOFError, TimeoutError, ValueError) as error:
            detail = f"the decoder does not start: {self._end()}"
            raise NotAnalysable(Reason.SOFTWARE_FAILURE, detail) from error
        return True

    def _ask(self, path: Path) -> StoredPixels:
        """Return the child's answer; ``EOFError`` when it died."""
        assert self._child is not None
        assert self._child.stdin is not None
        deadline = time.monotonic() + self._timeout_seconds
        try:
            self._child.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
            self._child.stdin.flush()
            header = self._read_header(deadline)
            if "reason" in header:
                raise _refusal(header)
            dtype, shape, format_ = _described(header)
            array = np.empty(shape, dtype)
            self._read_into(array.reshape(-1).view(np.uint8).data, deadline)
        except BrokenPipeError as error:
            raise EOFError from error
        except TimeoutError as error:
            detail = f"decoding took longer than the {self._timeout_seconds:g} seconds allowed"
            self._end()
            raise NotAnalysable(Reason.UNDECODABLE, detail) from error
        except (ValueError, RecursionError) as error:  # the latter from JSON nested too deep
            self._end()
            detail = "the decoder's answer is malformed"
            raise NotAnalysable(Reason.UNDECODABLE, detail) from error
        return StoredPixels(array, format_)

    def _read_header(self, deadline: float) -> dict[str, Any]:
        """Return the JSON object at the start of an answer."""
        length = bytearray(_HEADER_LENGTH.size)
        self._read_into(memoryview(length), deadline)
        (size,) = _HEADER_LENGTH.unpack(length)
        if size > _LONGEST_HEADER:
            raise ValueError(f"found a header of {size} bytes, allowed are {_LONGEST_HEADER}")
        text = bytearray(size)
        self._read_into(memoryview(text), deadline)
        header = json.loads(text)
        if not isinstance(header, dict):
            raise ValueError("the header is not an object")
        return header

    def _read_into(self, buffer: memoryview, deadline: float) -> None:
        """Fill a buffer of bytes from the child; `deadline` is on the monotonic clock."""
        assert self._child is not None
        assert self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            count = os.readv(descriptor, [buffer])
            if count == 0:
                raise EOFError
            buffer = buffer[count:]

    def _end(self) -> str:
        """Return why the child ended, killing it when it has not."""
        child, self._child = self._child, None
        if child is None:
            return "it was not started"
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            status = child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
        if status == _OUT_OF_MEMORY:
            return f"decoding needs more than the {self._memory_megabytes} megabytes allowed"
        if status < 0:
            return f"the decoder died of signal {-status} ({signal.strsignal(-status)})"
        return f"the decoder ended with status {status}"


def _refusal(header: dict[str, Any]) -> NotAnalysable:
    """Return the error that the child describes; ``ValueError`` when it is none it may raise."""
    reasons = (Reason.NO_IMAGE, Reason.GEOMETRY, Reason.UNDECODABLE)
    reason = next((reason for reason in reasons if reason.name == header["reason"]), None)
    detail = header.get("detail")
    if reason is None or not isinstance(detail, str) or not detail.isprintable():
        raise ValueError("the refusal is malformed")
    return NotAnalysable(reason, detail[: 2 * LONGEST_DETAIL])


def _described(header: dict[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...], Format]:
    """Return data type, shape and format of the array that follows a header."""
    shape, dtype, format_ = (header.get(key) for key in ("shape", "dtype", "format"))
    if dtype not in _DTYPES or format_ not in _FORMATS or not isinstance(shape, list):
        raise ValueError("the header is malformed")
    if not all(type(length) is int and 1 <= length <= 65535 for length in shape):
        raise ValueError("the shape is malformed")
    if len(shape) not in (2, 3) or shape[2:] not in ([], [3]):
        raise ValueError("the shape is not that of an image")
    if math.prod(shape) * np.dtype(dtype).itemsize > LARGEST_IMAGE_BYTES:
        raise ValueError("the array is too large")
    return np.dtype(dtype), tuple(shape), format_


def _serve(memory_megabytes: int, timeout_seconds: float) -> None:
    """Answer the paths on standard input, one JSON string a line, until it is closed."""
    memory = memory_megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has no business writing files
    warnings.simplefilter("ignore")
    # Codecs print to standard output too, which would break the framing.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _write_header(answers, {})
    for line in sys.stdin.buffer:
        # The parent's deadline comes first; this one ends an endless loop when it is gone.
        signal.alarm(math.ceil(timeout_seconds) + 1)
        _answer(Path(json.loads(line)), answers)
        signal.alarm(0)


def _answer(path: Path, answers: BinaryIO) -> None:
    """Write the answer for one file: a header and, unless it is refused, its pixels."""
    try:
        stored = decode_file(path)
        array = np.ascontiguousarray(stored.array)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    except NotAnalysable as error:
        _write_header(answers, {"reason": error.reason.name, "detail": error.detail})
        return
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)  # nothing after a failed allocation can be relied on
    header = {"dtype": array.dtype.str, "shape": array.shape, "format": stored.format}
    _write_header(answers, header)
    answers.write(array.reshape(-1).view(np.uint8).data)
    answers.flush()


def _write_header(answers: BinaryIO, header: dict[str, Any]) -> None:
    """Write the length of a JSON object, then the object."""
    text = json.dumps(header).encode()
    answers.write(_HEADER_LENGTH.pack(len(text)) + text)
    answers.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]))
