"""The bytes of a data set, read once from front to back, inflated if they are deflated."""

import zlib
from typing import BinaryIO, Protocol

from thoracle.errors import BeyondBudget, CannotUnderstand

INFLATE_RATIO = 100
"""A deflated data set may grow at most so many times; more is a bomb, not an image."""
INFLATE_FLOOR = 16 * 1024 * 1024
"""Bytes to which a deflated data set may grow whatever its ratio."""
CHUNK = 65536
"""Bytes that are read at a time."""


class Source(Protocol):
    """Bytes that are read once, from front to back."""

    position: int

    def read(self, length: int) -> bytes:
        """Return so many bytes, or those that are left."""

    def peek(self, length: int) -> bytes:
        """Return so many bytes without going on, or those that are left."""

    def skip(self, length: int) -> bool:
        """Go on by so many bytes; return whether there were so many."""


class Plain:
    """The bytes of a file from its position on; ``position`` counts from the file's beginning."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.position = file.tell()

    def read(self, length: int) -> bytes:
        """Return so many bytes, or those that are left."""
        value = self._file.read(length)
        self.position += len(value)
        return value

    def peek(self, length: int) -> bytes:
        """Return so many bytes without going on, or those that are left."""
        value = self._file.read(length)
        self._file.seek(self.position)
        return value

    def skip(self, length: int) -> bool:
        """Go on by so many bytes; return whether there were so many."""
        self.position += length
        self._file.seek(self.position)
        return self.position <= self._size


class Inflated:
    """The bytes of a deflated file, chunk by chunk."""

    def __init__(self, file: BinaryIO, compressed: int, ceiling: int) -> None:
        self._file = file
        self._limit = min(max(compressed * INFLATE_RATIO, INFLATE_FLOOR), ceiling)
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._waiting = b""
        self._grown = 0
        self.position = 0

    def _fill(self, length: int) -> None:
        while len(self._waiting) < length and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(CHUNK)
            try:
                more = self._inflater.decompress(packed, CHUNK)
            except zlib.error as error:
                raise CannotUnderstand("deflated data set cannot be inflated") from error
            # All input may have been taken although the last chunk had no room for what it holds.
            if not packed and not more and not self._inflater.eof:
                raise CannotUnderstand("deflated data set is cut short")
            self._grown += len(more)
            if self._grown > self._limit:
                raise BeyondBudget(f"deflated data set grows beyond {self._limit} bytes")
            self._waiting += more

    def read(self, length: int) -> bytes:
        """Return so many bytes, or those that are left."""
        self._fill(length)
        value, self._waiting = self._waiting[:length], self._waiting[length:]
        self.position += len(value)
        return value

    def peek(self, length: int) -> bytes:
        """Return so many bytes without going on, or those that are left."""
        self._fill(length)
        return self._waiting[:length]

    def skip(self, length: int) -> bool:
        """Go on by so many bytes; return whether there were so many."""
        while length > 0:
            step = len(self.read(min(length, CHUNK)))
            if step == 0:
                return False
            length -= step
        return True
