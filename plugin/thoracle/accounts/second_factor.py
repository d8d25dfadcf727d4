"""The second factor of local accounts: rows and events written together, each in one transaction.

An event says what was done, by whom and from where; never a secret, a code or a digest.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection

from thoracle.accounts import factor_rows, rows, totp
from thoracle.accounts.accounts import Actor, PersonError, changed
from thoracle.store.tables import ago

SETUP_MINUTES = 10
"""How long a secret that was shown waits for its first code."""
APP = "authenticator app"
RECOVERY_CODE = "recovery code"


class CodeError(PersonError):
    """A code does not count; the text says why, for the audit."""


def begin(connection: Connection, name: str) -> str:
    """Return a new secret of a person, which counts once :func:`confirm` has seen a code of it.

    Raises
    ------
    PersonError
        The person has a second factor.
    """
    rows.lock(connection)
    if factor_rows.is_set(connection, name):
        raise PersonError(f"found a second factor of {name}, required: none: remove it first")
    secret = totp.new_secret()
    factor_rows.begin(connection, name, secret)
    return secret


def begun(connection: Connection, name: str) -> str:
    """Return the secret that waits for its first code.

    Raises
    ------
    PersonError
        None does, or for too long.
    """
    row = factor_rows.row_of(connection, name)
    oldest = ago(SETUP_MINUTES * 60)
    if row is None or row.confirmed_at is not None or row.created_at <= oldest:
        raise PersonError("found no set-up in progress, required: one; start again")
    return str(row.secret)


def confirm(connection: Connection, by: Actor, name: str, typed: str, session: str) -> list[str]:
    """Have a second factor count; return its recovery codes, and end all other sessions.

    Raises
    ------
    CodeError
        The code is none of the secret that waits for it.
    PersonError
        None waits.
    """
    rows.lock(connection)
    _use_step(connection, name, begun(connection, name), totp.folded(typed))
    factor_rows.confirm(connection, name)
    codes = _new_codes(connection, name)
    ended = rows.end_sessions(connection, name, but=session)
    changed(connection, by, name, {"second_factor": "set up", "sessions_ended": ended})
    return codes


def use(connection: Connection, name: str, typed: str) -> str:
    """Use a code of the app or a recovery code, which then never counts again; return which it was.

    Raises
    ------
    CodeError
        It does not count.
    """
    code = totp.folded(typed)
    row = factor_rows.row_of(connection, name)
    if row is None or row.confirmed_at is None:
        raise CodeError("no second factor")
    if totp.is_code(code):
        _use_step(connection, name, str(row.secret), code)
        return APP
    if not factor_rows.use_recovery_code(connection, name, totp.digest(code)):
        raise CodeError("wrong code")
    return RECOVERY_CODE


def renew_codes(connection: Connection, by: Actor, name: str, proof: str) -> list[str]:
    """Return new recovery codes; the ones before count no longer."""
    codes = _new_codes(connection, name)
    changed(connection, by, name, {"second_factor": "new recovery codes", "proof": proof})
    return codes


def remove(connection: Connection, by: Actor, name: str, proof: str) -> None:
    """Remove one's own second factor."""
    factor_rows.remove(connection, name)
    changed(connection, by, name, {"second_factor": "removed", "proof": proof})


def reset(connection: Connection, by: Actor, name: str) -> None:
    """Remove the second factor of somebody who cannot use it, and end the sessions.

    Raises
    ------
    PersonError
        There is no such person, or no second factor.
    """
    rows.lock(connection)
    if not factor_rows.remove(connection, name):
        raise PersonError(f"found no second factor of {name!r:.70}, required: one")
    ended = rows.end_sessions(connection, name)
    changed(connection, by, name, {"second_factor": "reset", "sessions_ended": ended})


def _use_step(connection: Connection, name: str, secret: str, code: str) -> None:
    step = totp.step_of(secret, code, datetime.now(UTC)) if totp.is_code(code) else None
    if step is None:
        raise CodeError("wrong code")
    if not factor_rows.use_step(connection, name, step):
        raise CodeError("code used before")


def _new_codes(connection: Connection, name: str) -> list[str]:
    codes = totp.new_recovery_codes()
    factor_rows.set_recovery_codes(connection, name, [totp.digest(code) for code in codes])
    return codes
