"""The images read last: what a picture shows was read a moment ago, and is not read again.

An image is given once, and only while its file is the one that was read. Whoever does not find it
reads the file, as after a restart between both.
"""

import threading
from collections import OrderedDict
from pathlib import Path

from thoracle.records import Image, Saliency

LARGEST_BYTES = 64 * 2**20
"""Of all images that are kept: four of 2000 x 2000 pixels."""

FileState = tuple[int, int, int]


def state_of(path: Path) -> FileState | None:
    """Return what tells a file from another one of its name; ``None`` when there is none.

    Its time is no part of it: with a bucket, that of a copy is of its last use.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size


class RecentImages:
    """Images with what was found in them; threads may share it.

    Parameters
    ----------
    largest_bytes
        Of all arrays together. The oldest go first; a larger image is not kept.
    """

    def __init__(self, largest_bytes: int = LARGEST_BYTES) -> None:
        self._largest = largest_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Path, tuple[FileState, Image, Saliency | None]] = OrderedDict()

    def keep(
        self, path: Path, state: FileState | None, image: Image, saliency: Saliency | None
    ) -> None:
        """Keep an image; ``state`` is that of its file before it was read."""
        if state is None or image.array.nbytes > self._largest:
            return
        with self._lock:
            self._drop(path)
            self._kept[path] = (state, image, saliency)
            self._bytes += image.array.nbytes
            while self._bytes > self._largest:
                self._drop(next(iter(self._kept)))

    def take(self, path: Path) -> tuple[Image, Saliency | None] | None:
        """Return an image and its map, and keep it no longer; ``None`` when it is not here."""
        with self._lock:
            found = self._kept.get(path)
            self._drop(path)
        if found is None or found[0] != state_of(path):
            return None
        return found[1:]

    def _drop(self, path: Path) -> None:
        if (found := self._kept.pop(path, None)) is not None:
            self._bytes -= found[1].array.nbytes
