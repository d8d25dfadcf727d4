"""Persons: rows and events written together, each in one transaction.

An event says what was changed, by whom and from where; never a password, a token or a digest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from thoracle.accounts import rows as stored
from thoracle.errors import ThoracleError
from thoracle.store import trail
from thoracle.store.tables import now, timestamp


class PersonError(ThoracleError):
    """A person cannot be changed as asked."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and from where."""

    user_id: str | None
    network_address: str | None = None


def add(connection: Connection, by: Actor, name: str, values: Mapping[str, Any]) -> None:
    """Add a person.

    Raises
    ------
    PersonError
        There is one of that name.
    """
    stored.lock(connection)
    if stored.row_of(connection, name) is not None:
        raise PersonError(f"found a person {name}, required: a name that nobody has")
    stored.add(connection, name, values)
    changed(connection, by, name, {"added": True, "roles": values["roles"]})


def change(
    connection: Connection,
    by: Actor,
    name: str,
    values: Mapping[str, Any],
    what: dict[str, Any],
    *,
    ends_sessions: bool = True,
) -> None:
    """Change a person.

    Parameters
    ----------
    values
        Columns of the person.
    what
        What the audit says of it.
    ends_sessions
        Whether the person has to sign in again.

    Raises
    ------
    PersonError
        There is no such person, or no administrator would be left.
    """
    stored.lock(connection)
    row = _existing(connection, name)
    after = {"roles": row.roles, "disabled": row.disabled, **values}
    remains = "administrator" in after["roles"] and not after["disabled"]
    if not remains and stored.active_administrators(connection) == {name}:
        raise PersonError(
            f"{name} is the last administrator, required: another one who is not disabled"
        )
    stored.set_row(connection, name, values)
    if ends_sessions:
        what = {**what, "sessions_ended": stored.end_sessions(connection, name)}
    changed(connection, by, name, what)


def provided(connection: Connection, by: Actor, name: str, values: Mapping[str, Any]) -> None:
    """Have a person as the provider of the log-in describes it; other roles end the sessions.

    It is asked at each log-in, and its word counts: for the last administrator, too.

    Raises
    ------
    PersonError
        The name is that of another person, who must not be taken over.
    """
    stored.lock(connection)
    row = stored.row_of(connection, name)
    if row is None:
        add(connection, by, name, values)
        return
    if row.subject != values["subject"]:
        raise PersonError(f"found a person {name} who is another, required: the same subject")
    other = {key: value for key, value in values.items() if getattr(row, key) != value}
    if other:
        stored.set_row(connection, name, other)
        if "roles" in other:
            other["sessions_ended"] = stored.end_sessions(connection, name)
        changed(connection, by, name, {"by_provider": True, **other})


def end_sessions(connection: Connection, by: Actor, name: str) -> None:
    """End all sessions of a person.

    Raises
    ------
    PersonError
        There is no such person.
    """
    _existing(connection, name)
    changed(connection, by, name, {"sessions_ended": stored.end_sessions(connection, name)})


def add_token(
    connection: Connection, by: Actor, name: str, digest: str, values: Mapping[str, Any]
) -> int:
    """Add an API token; return its id."""
    token_id = stored.add_token(connection, digest, name, values)
    what = {key: values[key] for key in ("label", "scopes", "expires_at")}
    changed(connection, by, name, {"token_added": token_id, **what})
    return token_id


def revoke_token(connection: Connection, by: Actor, name: str, token_id: int) -> None:
    """Let an API token open nothing any more.

    Raises
    ------
    PersonError
        The person has no such token, or it is revoked.
    """
    row = stored.token_of(connection, name, token_id)
    if row is None or row.revoked_at is not None:
        raise PersonError(f"found no token {token_id} that is not revoked, required: one")
    stored.set_token(connection, token_id, {"revoked_at": now()})
    changed(connection, by, name, {"token_revoked": token_id, "label": row.label})


@dataclass(frozen=True, slots=True)
class Attempt:
    """A log-in that was counted as one that failed, before it is known whether it does."""

    made: int
    """How many there are in a row."""
    locked_until: str | None
    """Set when it has locked the account."""


def attempt(connection: Connection, name: str, failures: int, minutes: float) -> Attempt | None:
    """Count an attempt to log in before its password or code is compared.

    Counted before, attempts made at the same moment are all counted. While an account is locked,
    none is, and none may be compared: ``None``.
    """
    made = stored.count_attempt(connection, name)
    if made is None:
        return None
    if made < failures:
        return Attempt(made, None)
    until = timestamp(datetime.now(UTC) + timedelta(minutes=minutes))
    stored.set_attempts(connection, name, 0, until)
    return Attempt(made, until)


def take_back(connection: Connection, name: str, attempt: Attempt) -> None:
    """Count an attempt no longer whose password was right: its code is counted by itself.

    It forgets none of the others: who knows a password must not get more codes by it.
    """
    if attempt.locked_until is None:
        stored.uncount_attempt(connection, name)
    else:
        stored.unlock(connection, name, attempt.locked_until, attempt.made - 1)


def refused(connection: Connection, by: Actor, why: str) -> None:
    """Record a log-in that was refused.

    ``by.user_id`` is ``None`` for a name that nobody has: people type passwords there.
    """
    trail.record(
        connection,
        trail.Event.LOGIN_REFUSED,
        {**_who(by), "event_outcome": trail.MINOR_FAILURE, "detail": {"why": why}},
    )


def logged_in(
    connection: Connection, by: Actor, digest: str, expires_at: str, detail: dict[str, Any]
) -> None:
    """Begin a session of ``by.user_id``, and forget the attempts that failed.

    ``detail`` has the ``means``: what the person has shown.
    """
    assert by.user_id is not None
    stored.set_attempts(connection, by.user_id, 0, None)
    stored.add_session(connection, digest, by.user_id, by.network_address, expires_at)
    trail.record(connection, trail.Event.LOGGED_IN, {**_who(by), "detail": detail})


def logged_out(connection: Connection, by: Actor, digest: str) -> None:
    """End a session."""
    stored.end_session(connection, digest)
    trail.record(connection, trail.Event.LOGGED_OUT, _who(by))


def _existing(connection: Connection, name: str) -> Row[Any]:
    row = stored.row_of(connection, name)
    if row is None:
        raise PersonError(f"found no person {name!r:.70}, required: one that exists")
    return row


def changed(connection: Connection, by: Actor, name: str, what: dict[str, Any]) -> None:
    """Record a change of a person."""
    columns: trail.Columns = {**_who(by), "detail": {"person": name, **what}}
    trail.record(connection, trail.Event.PERSON_CHANGED, columns)


def _who(by: Actor) -> trail.Columns:
    return {"user_id": by.user_id, "network_address": by.network_address}
