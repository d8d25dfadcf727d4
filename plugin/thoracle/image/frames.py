"""The digest of decoded frames: what makes two encodings the same image.

It is over shape and stored values: byte order, width of the sample type, sign, transfer syntax,
offset tables and fragments are no difference.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS = 256
"""Converted at a time, so that no second copy of the frames is made."""


def digest(array: NDArray[Any]) -> str:
    """Return the hexadecimal SHA-256 of decoded frames.

    Parameters
    ----------
    array
        ``(rows, columns)`` or ``(rows, columns, 3)``, integer or float.
    """
    sha256 = hashlib.sha256(repr(array.shape).encode())
    for start in range(0, len(array), _ROWS):
        sha256.update(np.ascontiguousarray(_alike(array[start : start + _ROWS])).data)
    return sha256.hexdigest()


def _alike(array: NDArray[Any]) -> NDArray[Any]:
    """Return values as little endian of 2, 4 or (floats) 8 bytes; a sign becomes its bits."""
    if array.dtype.kind == "f":
        return array.astype("<f8")
    width = 2 if array.dtype.itemsize <= 2 else 4
    return array.astype(f"<{array.dtype.kind}{width}").view(f"<u{width}")
