"""Files that survive a power failure: content and folder are both synchronised to the disk."""

import errno
import hashlib
import logging
import os
import shutil
import time
from pathlib import Path

from thoracle.errors import ThoracleError

logger = logging.getLogger(__name__)

ROOM_SECONDS = 5.0
"""Between two attempts to write to a full disk."""


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk: without it a renamed file can vanish with the power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


STORED = ("images", "results", "messages")
"""Below the data folder: where the files are that rows name."""


def stored(folder: Path, below: str) -> Path:
    """Return the path of a file that a row names, in a folder of files that rows name.

    Whoever writes rows, as the pages may, must not have the gateway delete or send another file.

    Raises
    ------
    ThoracleError
        It would be elsewhere.
    """
    parts = Path(below).parts
    if parts[:1] and parts[0] in STORED and ".." not in parts:
        return folder / below
    raise ThoracleError(
        f"found the path {below!r:.80} in a row, required: one in {', '.join(STORED)}"
    )


def write_durably(path: Path, content: bytes, behind: tuple[Path, int] | None = None) -> str:
    """Write a whole file durably, replacing one of that name; return its hexadecimal SHA-256.

    ``behind`` names a file and where in it the bytes begin that follow ``content``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(content)
        if behind is not None:
            with behind[0].open("rb") as rest:
                rest.seek(behind[1])
                shutil.copyfileobj(rest, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
    if behind is None:
        return hashlib.sha256(content).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_retrying(path: Path, content: bytes, behind: tuple[Path, int] | None = None) -> str:
    """Do what :func:`write_durably` does, and wait for room while the disk is full.

    For results: raised from a step, the error would be the recorded end of a study's analysis.
    """
    while True:
        try:
            return write_durably(path, content, behind)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            logger.warning("disk full, a result waits for room")
            time.sleep(ROOM_SECONDS)
