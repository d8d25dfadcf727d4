"""What an account has to be, whoever makes it: its name, its password (argon2id), its roles."""

import re
import secrets
import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from thoracle.accounts.accounts import PersonError
from thoracle.errors import ThoracleError
from thoracle.store.tables import timestamp
from thoracle.web.session.access import Role

# ---- names ---------------------------------------------------------------------------------------
# The names under which persons sign in.

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
LONGEST_NAME = 64


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
    if is_name(name):
        return
    found = f"{len(name)} characters"
    if 1 <= len(name) <= LONGEST_NAME:
        wrong = "".join(dict.fromkeys(re.findall(r"[^a-z0-9._@-]", name)))
        found = f"{wrong!r}" if wrong else f"{name[0]!r} as its first character"
    raise ThoracleError(
        f"found {found} in a log-in name, required: 1 to {LONGEST_NAME} of a-z, 0-9 and "
        ". _ @ -, a letter or digit first; the name that is shown may have any characters"
    )


# ---- passwords -----------------------------------------------------------------------------------
# Passwords: what is required of one, how it is kept (argon2id), and how it is compared.

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
        Too short, too long, the name of the person, or among the first that somebody would try.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise PasswordError(
            f"found a password of {len(password)} characters, required: {SHORTEST_PASSWORD} to "
            f"{LONGEST_PASSWORD}"
        )
    if name and name in password.lower() and len(password) - len(name) < SHORTEST_PASSWORD // 2:
        raise PasswordError("found the name in the password, required: another password")
    if len(set(password)) < 5:
        raise PasswordError("found fewer than 5 different characters, required: another password")
    if _is_common(password, name):
        raise PasswordError(
            "found a common password, or one with little added to it, required: another password"
        )


def _is_common(password: str, name: str) -> bool:
    """Return whether a password would be among the first million that are tried.

    zxcvbn knows 30,000 common passwords and words, and what people add to them.
    """
    from zxcvbn import zxcvbn  # it takes a while to load its lists

    told = zxcvbn(password[:_LONGEST_JUDGED], user_inputs=[name, "thoracle"])
    return int(told["score"]) < _LOWEST_SCORE


_LONGEST_JUDGED = 72
"""Characters: zxcvbn takes no more, because its time grows with the square of them."""
_LOWEST_SCORE = 2
"""From this on it takes more than 10^6 guesses; an account is locked after a few."""


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


# ---- columns of a person -------------------------------------------------------------------------
# What an account has to be, whoever makes it: a page, the command line, or the first run.

LONGEST_DISPLAY_NAME = 128


def account_columns(
    name: str, display_name: str, roles: Iterable[Role], password: str | None
) -> dict[str, Any]:
    """Return the columns of a new person; without a password, nothing opens the account yet.

    Raises
    ------
    ThoracleError
        The name, a role or the password is not as required.
    """
    require_name(name)
    kept = None
    if password is not None:
        require_password(password, name)
        kept = hashed_password(password)
    return {**person_columns(display_name or name, roles), "password_hash": kept}


def person_columns(display_name: str, roles: Iterable[Role]) -> dict[str, Any]:
    """Return the columns that say who a person is.

    Raises
    ------
    PersonError
        The name shown is not printable or has no or too many characters, or there is no role.
    """
    display_name = display_name.strip()
    if not 0 < len(display_name) <= LONGEST_DISPLAY_NAME or not display_name.isprintable():
        raise PersonError(
            f"found a name to show of {len(display_name)} characters, required: 1 to "
            f"{LONGEST_DISPLAY_NAME}, all of them printable"
        )
    chosen = set(roles)
    if not chosen:
        raise PersonError("found no role, required: at least one")
    return {"display_name": display_name, "roles": [role.value for role in Role if role in chosen]}


def one_time_password() -> tuple[str, dict[str, Any]]:
    """Return a new one-time password, and the columns of the person who gets it."""
    password = new_password()
    until = timestamp(datetime.now(UTC) + timedelta(hours=ONE_TIME_HOURS))
    return password, {
        "password_hash": hashed_password(password),
        "one_time_until": until,
        "failures": 0,
        "locked_until": None,
    }


def chosen_password(password: str, name: str) -> dict[str, Any]:
    """Return the columns of a person who chose a password.

    Raises
    ------
    PasswordError
        It is not as required.
    """
    require_password(password, name)
    return {"password_hash": hashed_password(password), "one_time_until": None}
