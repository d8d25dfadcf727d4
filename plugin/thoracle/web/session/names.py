"""The names under which persons sign in."""

import re

from thoracle.errors import ThoracleError

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


def folded_name(typed: str) -> str:
    """Return a name as it is kept: capitals and spaces around it do not count."""
    return typed.strip().lower()


def is_name(name: str) -> bool:
    """Return whether a text can be a name."""
    return _NAME.fullmatch(name) is not None


def require_name(name: str) -> None:
    """Return when a text can be a name.

    Raises
    ------
    ThoracleError
        It cannot.
    """
    if not is_name(name):
        raise ThoracleError(
            f"found a name of {len(name)} characters, required are 1 to 64 of a-z, 0-9 and . _ @ -"
        )
