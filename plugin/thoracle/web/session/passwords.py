"""Passwords: what is required of one, how it is kept (argon2id), and how it is compared."""

import secrets
import threading
from functools import cache

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from thoracle.errors import ThoracleError

SHORTEST_PASSWORD = 12
"""Characters. Length is what counts (NIST SP 800-63B, 3.1.1.2): no rule about kinds of them."""
LONGEST_PASSWORD = 256
ONE_TIME_HOURS = 72
"""How long a one-time password opens."""

_hasher = PasswordHash((Argon2Hasher(),))
_turn = threading.BoundedSemaphore(2)
"""One comparison takes 64 MiB: attackers must not multiply it by the number of threads."""


class PasswordError(ThoracleError):
    """A new password is not as required."""


def require_password(password: str, name: str) -> None:
    """Return when a password may be somebody's.

    Raises
    ------
    PasswordError
        Too short, too long, or the name of the person.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise PasswordError(
            f"found a password of {len(password)} characters, required are {SHORTEST_PASSWORD} to "
            f"{LONGEST_PASSWORD}"
        )
    if name and name in password.lower() and len(password) - len(name) < SHORTEST_PASSWORD // 2:
        raise PasswordError("found the name in the password, required is another password")
    if len(set(password)) < 5:
        raise PasswordError("found fewer than 5 different characters, required is another password")


def hashed_password(password: str) -> str:
    """Return what is kept of a password."""
    with _turn:
        return _hasher.hash(password)


def password_matches(password: str, kept: str | None) -> bool:
    """Return whether a password is the one that is kept; as slow when nothing is kept."""
    fits = len(password) <= LONGEST_PASSWORD
    with _turn:
        same = _hasher.verify(password if fits else "", kept or _nobodys())
    return same and fits and kept is not None


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_urlsafe(32))


def new_password() -> str:
    """Return a new password that is easy to read out: 20 letters in groups, 94 bits."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike
    groups = ("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))
    return "-".join(groups)
