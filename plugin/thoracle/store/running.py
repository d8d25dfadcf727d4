"""Who works in a data folder: a lock, and in its file the process and the address it listens on."""

import fcntl
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from thoracle.settings import PAGES_FOLDER, Settings

GATEWAY = "lock"
"""The gateway's lock: one process a data folder, or several that share a database."""


def lock_of_pages(settings: Settings) -> str:
    """Return the name of the lock of the pages on a port, of one machine where several share it."""
    host = f"{socket.gethostname()}-" if settings.gateway.one_of_several else ""
    return f"web-{host}{settings.web.port}.lock"


def locks(data_folder: Path) -> list[str]:
    """Return the names of the locks of the gateway, and of all pages that there were."""
    folders = (data_folder, data_folder / PAGES_FOLDER)  # of one user, of two
    found = (one for folder in folders for one in folder.glob("web-*.lock"))
    return [GATEWAY, *sorted(str(one.relative_to(data_folder)) for one in found)]


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process that holds a lock."""

    pid: int
    listens: str
    """``host:port``."""


def hold(data_folder: Path, name: str, *, shared: bool = False) -> IO[str]:
    """Return a lock of a data folder; it holds until it is closed or the process ends.

    With ``shared``, others may hold it so, too.

    Raises
    ------
    BlockingIOError
        Another process holds it.
    """
    data_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Who can open a file can lock it: the gateway's is for its user alone, not for that of pages.
    mode = 0o600 if name == GATEWAY else 0o640
    descriptor = os.open(data_folder / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)
    file = os.fdopen(descriptor, "a+", encoding="utf-8")  # "w" would empty the holder's
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    if not shared:
        file.truncate(0)
    return file


def announce(lock: IO[str], pid: int, listens: str) -> None:
    """Write into a lock who holds it."""
    lock.write(json.dumps({"pid": pid, "listens": listens}) + "\n")
    lock.flush()


def holder(data_folder: Path, name: str) -> RunningProcess | None:
    """Return the process that holds a lock; ``None``: none does, or it does not say which it is."""
    try:
        with (data_folder / name).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found = json.loads(file.read())
                return RunningProcess(int(found["pid"]), str(found["listens"]))
    except (OSError, ValueError, KeyError):
        return None
    return None
