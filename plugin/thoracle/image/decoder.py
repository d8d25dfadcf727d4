"""The child process that decodes: bytes from strangers meet a codec there alone.

:class:`Decoder` asks ``python -m thoracle.image.decoder``, which has limits on memory and time: a
malformed image that kills a codec costs one image, never the service.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from thoracle import child
from thoracle.child import Answer, Child, ChildFailed, ChildNotStarted
from thoracle.errors import NotAnalysable
from thoracle.image import image_pixel
from thoracle.image.codecs import (
    LARGEST_IMAGE_BYTES,
    LONGEST_DETAIL,
    Format,
    StoredPixels,
    decode_file,
)
from thoracle.image.header import header_of
from thoracle.records import Reason

# ---- digest of frames ----------------------------------------------------------------------------
# The digest of decoded frames: what makes two encodings the same image.
#
# It is over shape and stored values: byte order, width of the sample type, sign, transfer syntax,
# offset tables and fragments are no difference. Unused bits of the pixel cells count, unless the
# header is asked which these are: overlays were kept there, and codecs leave them out.

_ROWS = 256
"""Converted at a time, so that no second copy of the frames is made."""


def frames_digest(array: NDArray[Any], ds: Dataset | None = None) -> str:
    """Return the hexadecimal SHA-256 of decoded frames.

    Parameters
    ----------
    array
        ``(rows, columns)`` or ``(rows, columns, 3)``, integer or float.
    ds
        The header, complete; then the unused bits of the pixel cells do not count.
    """
    sha256 = hashlib.sha256(repr(array.shape).encode())
    for start in range(0, len(array), _ROWS):
        rows = array[start : start + _ROWS]
        if ds is not None and array.dtype.kind in "iu":
            rows = image_pixel.stored_values(ds, rows).astype(np.int32)
        sha256.update(np.ascontiguousarray(_alike(rows)).data)
    return sha256.hexdigest()


def _alike(array: NDArray[Any]) -> NDArray[Any]:
    """Return values as little endian of 2, 4 or (floats) 8 bytes; a sign becomes its bits."""
    if array.dtype.kind == "f":
        return array.astype("<f8", copy=False)
    width = 2 if array.dtype.itemsize <= 2 else 4
    return array.astype(f"<{array.dtype.kind}{width}", copy=False).view(f"<u{width}")


# ---- decoder -------------------------------------------------------------------------------------

_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8")
_FORMATS: tuple[Format, ...] = ("DICOM", "PNG", "JPEG")
_LONGEST_HEADER = 4096
_ALL_BITS, _USED_BITS = "all bits", "used bits"
_DIGEST = re.compile(r"[0-9a-f]{64}")
R = TypeVar("R")


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
        limits = (memory_megabytes, timeout_seconds)
        self._child = Child("thoracle.image.decoder", "the decoder", "decoding", *limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._child.__exit__(*exception)

    @property
    def pid(self) -> int | None:
        """Process id of the child, ``None`` while there is none."""
        return self._child.pid

    def decode(self, path: Path) -> StoredPixels:
        """Return the stored pixel values of a file, as :func:`decode_file` does.

        Raises
        ------
        NotAnalysable
            As by :func:`decode_file`; also when the child died, or ran out of memory or time.
        """
        return self._asked(path, _read, "")

    def digest(self, path: Path, *, used_bits: bool = False) -> str:
        """Return the digest of a file's decoded frames; they stay in the child.

        With ``used_bits`` the unused bits of the pixel cells do not count.

        Raises
        ------
        NotAnalysable
            As by :meth:`decode`.
        """
        return self._asked(path, _read_digest, _USED_BITS if used_bits else _ALL_BITS)

    def _asked(self, path: Path, read: Callable[[Answer], R | NotAnalysable], digest: str) -> R:
        question = {"path": str(path.absolute()), "digest": digest}
        try:
            answer = self._child.ask(json.dumps(question).encode(), read)
        except ChildNotStarted as error:
            raise NotAnalysable(Reason.SOFTWARE_FAILURE, str(error)) from error
        except ChildFailed as error:
            raise NotAnalysable(Reason.UNDECODABLE, str(error)) from error
        if isinstance(answer, NotAnalysable):
            raise answer
        return answer


def _read(answer: Answer) -> StoredPixels | NotAnalysable:
    """Return the pixels in an answer, or the refusal."""
    header = answer.header(_LONGEST_HEADER)
    if "reason" in header:
        return _refusal(header)
    dtype, shape, format_ = _described(header)
    array = np.empty(shape, dtype)
    answer.into(array.reshape(-1).view(np.uint8).data)
    return StoredPixels(array, format_)


def _read_digest(answer: Answer) -> str | NotAnalysable:
    """Return the digest in an answer, or the refusal."""
    header = answer.header(_LONGEST_HEADER)
    if "reason" in header:
        return _refusal(header)
    text = header.get("frames_sha256")
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ValueError("the digest is malformed")
    return text


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


def _respond(question: bytes, answers: BinaryIO) -> None:
    """Write the answer for one file: a header and, unless that is all, its pixels."""
    asked = json.loads(question)
    try:
        stored = decode_file(Path(asked["path"]))
        if asked["digest"]:
            ds = header_of(Path(asked["path"])) if asked["digest"] == _USED_BITS else None
            child.write_header(answers, {"frames_sha256": frames_digest(stored.array, ds)})
            return
        array = np.ascontiguousarray(stored.array)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    except NotAnalysable as error:
        child.write_header(answers, {"reason": error.reason.name, "detail": error.detail})
        return
    described = {"dtype": array.dtype.str, "shape": array.shape, "format": stored.format}
    child.write_header(answers, described)
    answers.write(array.reshape(-1).view(np.uint8).data)
    answers.flush()


if __name__ == "__main__":
    child.serve(_respond)
