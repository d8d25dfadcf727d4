"""Who may do what below the data folder: one user all, or two users each what it needs.

With two, the gateway's user owns it. The user of the pages is in the folder's group: it reads
images and results, writes the database and what is its own, and cannot replace anything else. What
is not named here is for the owner alone. Rights are given while the folder is closed to the group:
it is opened last, so that a crash leaves a folder that is closed, and the next start goes on.
"""

import logging
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from thoracle.errors import SettingsError
from thoracle.settings import PAGES_FOLDER, Settings, users
from thoracle.store import files, running, sqlite

logger = logging.getLogger(__name__)

PICTURES = Path("cache", "pictures")
"""Below the data folder: what the pages have rendered."""
OWN, READ, WRITE = 0o2700, 0o2750, 0o2770
"""Modes of folders: for the owner, for the group to read, for the group to write. All pass their
group on: a file that is moved from one to the other has it."""
FOLDERS = {
    "incoming": OWN,
    "messages": OWN,
    "orphans": OWN,
    "images": READ,
    "results": READ,
    sqlite.SHARED_FOLDER: WRITE,
    "cache": WRITE,
    PAGES_FOLDER: WRITE,
}
READABLE = "audit-*.json*"
"""Files in the data folder that the pages read: anchors, time stamps. The key is a PEM file."""
READ_FILE = 0o640
GATEWAY_UMASK, PAGES_UMASK = 0o027, 0o007


def keep(settings: Settings) -> None:
    """Give the data folder the rights that the settings say; by the gateway, which holds its lock.

    Raises
    ------
    SettingsError
        The rights cannot be given: others own it, or somebody works with it.
    """
    folder = settings.data_folder
    if settings.data_folder_group:
        _share(folder, require_group(settings))
        return
    files.keep_private(folder)
    if (folder / sqlite.SHARED_FOLDER).exists():
        _take_back(folder)


def require_group(settings: Settings) -> int:
    """Return the number of the group of the data folder, of which this process is a member.

    Raises
    ------
    SettingsError
        It is not, or there is no such group.
    """
    gid = users.gid_of(settings.data_folder_group)
    if not users.is_member(gid):
        raise SettingsError(
            f"data_folder_group: found user {users.me()}, who is not in "
            f"{settings.data_folder_group}, required: a member"
        )
    return gid


def require_open(settings: Settings) -> None:
    """Return when this process, the pages, may do its part in the data folder.

    Raises
    ------
    SettingsError
        It may not, and what to do.
    """
    if not settings.data_folder_group:
        return
    gid, folder = require_group(settings), settings.data_folder
    closed = [
        path
        for path in (folder, *(folder / name for name, mode in FOLDERS.items() if mode == WRITE))
        if not os.access(path, os.R_OK | os.X_OK | (os.W_OK if path != folder else 0))
    ]
    if closed:
        raise SettingsError(
            f"data_folder: found {closed[0]} closed to user {users.me()}, required: a data folder "
            f"that `thoracle serve` was started in with data_folder_group = "
            f'"{settings.data_folder_group}" (group {gid})'
        )


# ---- two users -----------------------------------------------------------------------------------


def _share(folder: Path, gid: int) -> None:
    _require_mine(folder, folder.stat())
    if not _is_given(folder, gid):
        _require_no_pages(folder)
        files.keep_private(folder)
        _give(folder, gid)
        logger.info("data_folder: %s is for the users of group %d now", folder, gid)
    elif sqlite.places(folder)[0].exists():  # restored to where it was
        _require_no_pages(folder)
        _take_in(folder, gid)
    for path, mode in _required(folder):
        _mend(path, gid, mode)


def _is_given(folder: Path, gid: int) -> bool:
    """Return whether the rights were given, to this group, and to the end.

    The folder of the pages is made last; the modes of the data folder others may have set.
    """
    own = folder / PAGES_FOLDER
    return own.exists() and {path.stat().st_gid for path in (own, folder)} == {gid}


def _required(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield what must be as it is said here at each start, the data folder last."""
    yield from ((folder / name, mode) for name, mode in FOLDERS.items())
    if (database := folder / sqlite.SHARED_FOLDER / sqlite.FILE).exists():
        yield database, sqlite.SHARED_MODE
    yield folder, READ


def _mend(path: Path, gid: int, mode: int) -> None:
    """Give a folder or file its rights, with a word when it was open to more."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    _require_mine(path, found)
    was = stat.S_IMODE(found.st_mode)
    if (found.st_gid, was) == (gid, mode):
        return
    if was & 0o777 & ~mode:
        logger.warning(
            "data_folder: found permissions %04o on %s; they are now %04o", was, path, mode
        )
    _set(path, gid, mode)


def _set(path: Path, gid: int, mode: int) -> None:
    os.chown(path, -1, gid, follow_symlinks=False)  # first: it takes the set-group-ID bit away
    path.chmod(mode)


def _require_mine(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid() or stat.S_ISLNK(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else f"owner {users.name_of(found.st_uid)}"
        raise SettingsError(
            f"data_folder: found {what} of {path}, required: {users.me()} as its owner"
        )


def _give(folder: Path, gid: int) -> None:
    """Set the rights of all that is in a data folder of one user, which is closed meanwhile."""
    for entry in folder.iterdir():
        mode = FOLDERS.get(entry.name)
        _require_mine(entry, entry.lstat())
        if mode in (OWN, READ):
            _give_below(entry, gid, mode)
        elif entry.match(READABLE):
            _set(entry, gid, READ_FILE)
        elif mode is None and not entry.name.startswith(sqlite.FILE):
            entry.chmod(entry.stat().st_mode & 0o700)
    shutil.rmtree(folder / PICTURES, ignore_errors=True)  # the other user could not delete them
    for lock in folder.glob("web-*.lock"):  # nobody holds it, and the next ones are elsewhere
        lock.unlink()
    _mend(folder / sqlite.SHARED_FOLDER, gid, WRITE)
    _take_in(folder, gid)


def _take_in(folder: Path, gid: int) -> None:
    """Move the database of one user to where two can write beside it."""
    alone, of_two = sqlite.places(folder)
    if alone.exists():
        _require_mine(alone, alone.lstat())
        _set(alone, gid, sqlite.SHARED_MODE)
    _move(alone, of_two)


def _give_below(folder: Path, gid: int, mode: int) -> None:
    for top, _, names in os.walk(folder):
        _set(Path(top), gid, mode if Path(top) == folder else READ)
        for name in names:
            _set(Path(top, name), gid, READ_FILE)


# ---- one user again ------------------------------------------------------------------------------


def _take_back(folder: Path) -> None:
    """Make a data folder of two users, which is closed by now, one of its owner alone."""
    _require_no_pages(folder)
    alone, of_two = sqlite.places(folder)
    _move(of_two, alone)
    if alone.exists():
        alone.chmod(0o600)
    for name in (PICTURES, PAGES_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):  # what somebody else has put there stays
        of_two.parent.rmdir()
    logger.info("data_folder: %s is for its owner alone now", folder)


def _move(source: Path, target: Path) -> None:
    """Move the database, when it is there."""
    if not source.exists():
        return
    if target.exists():
        raise SettingsError(
            f"data_folder: found two databases, {source} and {target}, required: one"
        )
    try:
        sqlite.move(source, target)
    except sqlite3.Error as error:
        raise SettingsError(
            f"data_folder: found {source} in use, or no database ({error}), required: that pages "
            "and commands are stopped while it is moved"
        ) from error


def _require_no_pages(folder: Path) -> None:
    for path in [*folder.glob("web-*.lock"), *(folder / PAGES_FOLDER).glob("web-*.lock")]:
        if (process := running.holder(path.parent, path.name)) is not None:
            raise SettingsError(
                f"data_folder: found pages at work (process {process.pid}), required: none while "
                "the rights of the folder change: stop `thoracle web`"
            )
