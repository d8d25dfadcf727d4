"""Users and groups of this machine: by name, and by number where there is no name."""

import grp
import os
import pwd

from thoracle.errors import SettingsError


def name_of(uid: int) -> str:
    """Return what a user is called; in a container the number may have no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def me() -> str:
    """Return who this process is."""
    return name_of(os.geteuid())


def gid_of(group: str) -> int:
    """Return the number of a group.

    Raises
    ------
    SettingsError
        This machine has none of that name.
    """
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise SettingsError(
            f"data_folder_group: found {group}, required: a group of this machine"
        ) from error


def is_member(gid: int) -> bool:
    """Return whether this process may give files to a group."""
    return os.geteuid() == 0 or gid in {os.getegid(), *os.getgroups()}
