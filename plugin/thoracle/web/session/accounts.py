"""What an account has to be, whoever makes it: a page, the command line, or the first run."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from thoracle.accounts.accounts import PersonError
from thoracle.store.tables import timestamp
from thoracle.web.session import names, passwords
from thoracle.web.session.access import Role

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
    names.require_name(name)
    kept = None
    if password is not None:
        passwords.require_password(password, name)
        kept = passwords.hashed_password(password)
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
            f"found a name to show of {len(display_name)} characters, required are 1 to "
            f"{LONGEST_DISPLAY_NAME}, all of them printable"
        )
    chosen = set(roles)
    if not chosen:
        raise PersonError("found no role, required is at least one")
    return {"display_name": display_name, "roles": [role.value for role in Role if role in chosen]}


def one_time_password() -> tuple[str, dict[str, Any]]:
    """Return a new one-time password, and the columns of the person who gets it."""
    password = passwords.new_password()
    until = timestamp(datetime.now(UTC) + timedelta(hours=passwords.ONE_TIME_HOURS))
    return password, {
        "password_hash": passwords.hashed_password(password),
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
    passwords.require_password(password, name)
    return {"password_hash": passwords.hashed_password(password), "one_time_until": None}
