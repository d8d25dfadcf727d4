"""Files that survive a power failure: content and folder are both synchronised to the disk."""

import errno
import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from thoracle.errors import SettingsError, ThoracleError

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


def keep_private(folder: Path) -> None:
    """Let nobody but its owner enter the data folder, and say so in the log if others could.

    Raises
    ------
    SettingsError
        Everybody can, and only the owner of the folder, who is another user, may change that.
    """
    found = stat.S_IMODE(folder.stat().st_mode)
    if not found & (stat.S_IRWXG | stat.S_IRWXO):
        return
    said = f"data_folder: found permissions {found:04o} on {folder}"
    try:
        folder.chmod(PRIVATE)
    except PermissionError as error:
        if found & stat.S_IRWXO:
            raise SettingsError(
                f"{said}, required: {PRIVATE:04o}, or 0770 of a group of ours"
            ) from error
        # A volume whose group is ours alone belongs to root.
        logger.warning("%s: its group can read patient data", said)
        return
    logger.warning("%s: others could read patient data; they are now %04o", said, PRIVATE)


PRIVATE = 0o700


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


def delete_untouched(folder: Path, until: float) -> int:
    """Delete files in a folder, and below, that nobody wrote or looked at since; return how many.

    The pages may write there, who may be another user: no link that they make leads elsewhere.
    """
    number = 0
    with suppress(FileNotFoundError):
        for _, _, names, descriptor in os.fwalk(folder):
            for name in names:
                with suppress(FileNotFoundError):  # somebody else has deleted or renamed it
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if found.st_mtime <= until:
                        os.unlink(name, dir_fd=descriptor)
                        number += 1
    return number


def write_durably(
    path: Path,
    content: bytes,
    behind: tuple[Path, int] | None = None,
    before: Callable[[Path], None] | None = None,
) -> str:
    """Write a whole file durably, replacing one of that name; return its hexadecimal SHA-256.

    ``behind`` names a file and where in it the bytes begin that follow ``content``. ``before`` is
    given the whole file before it gets its name, and raises when it shall not.
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
    if before is not None:
        before(temporary)
    temporary.replace(path)
    sync_folder(path.parent)
    if behind is None:
        return hashlib.sha256(content).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_retrying(
    path: Path,
    content: bytes,
    behind: tuple[Path, int] | None = None,
    before: Callable[[Path], None] | None = None,
) -> str:
    """Do what :func:`write_durably` does, and wait for room while the disk is full.

    For results: raised from a step, the error would be the recorded end of a study's analysis.
    """
    while True:
        try:
            return write_durably(path, content, behind, before)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            logger.warning("disk full, a result waits for room")
            time.sleep(ROOM_SECONDS)
