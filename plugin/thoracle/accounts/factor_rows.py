"""Statements about second factors, recovery codes, and log-ins that wait for a code."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from thoracle.store.tables import now, person, recovery_code, second_factor, waiting_login


def row_of(connection: Connection, name: str) -> Row[Any] | None:
    """Return the second factor of a person, also one that is not confirmed."""
    return connection.execute(
        select(second_factor).where(second_factor.c.person == name)
    ).one_or_none()


def is_set(connection: Connection, name: str) -> bool:
    """Return whether a person has a second factor that is confirmed."""
    row = row_of(connection, name)
    return row is not None and row.confirmed_at is not None


def begin(connection: Connection, name: str, secret: str) -> None:
    """Keep a secret that is not confirmed, in place of any before."""
    connection.execute(delete(second_factor).where(second_factor.c.person == name))
    values = {"person": name, "secret": secret, "last_step": 0, "created_at": now()}
    connection.execute(insert(second_factor).values(values))


def confirm(connection: Connection, name: str) -> None:
    """Have the secret count from now on."""
    connection.execute(
        update(second_factor).where(second_factor.c.person == name).values(confirmed_at=now())
    )


def use_step(connection: Connection, name: str, step: int) -> bool:
    """Let no code of a time step or an earlier one count again; return whether none had."""
    later = (second_factor.c.person == name) & (second_factor.c.last_step < step)
    return (
        connection.execute(update(second_factor).where(later).values(last_step=step)).rowcount == 1
    )


def remove(connection: Connection, name: str) -> bool:
    """Delete the second factor of a person; return whether there was one."""
    set_recovery_codes(connection, name, ())
    statement = delete(second_factor).where(second_factor.c.person == name)
    return connection.execute(statement).rowcount == 1


def set_recovery_codes(connection: Connection, name: str, digests: Iterable[str]) -> None:
    """Keep recovery codes of a person, in place of all before."""
    connection.execute(delete(recovery_code).where(recovery_code.c.person == name))
    rows = [{"person": name, "digest": digest} for digest in digests]
    if rows:
        connection.execute(insert(recovery_code), rows)


def recovery_codes(connection: Connection, name: str) -> int:
    """Return how many recovery codes a person has left."""
    statement = select(func.count()).where(recovery_code.c.person == name)
    return int(connection.execute(statement).scalar_one())


def use_recovery_code(connection: Connection, name: str, digest: str) -> bool:
    """Delete a recovery code; return whether the person had it."""
    theirs = (recovery_code.c.person == name) & (recovery_code.c.digest == digest)
    return connection.execute(delete(recovery_code).where(theirs)).rowcount == 1


def add_waiting(connection: Connection, digest: str, name: str, expires_at: str) -> None:
    """Add a log-in that waits for its code, and forget those that have waited too long."""
    connection.execute(delete(waiting_login).where(waiting_login.c.expires_at <= now()))
    connection.execute(
        insert(waiting_login).values(digest=digest, person=name, expires_at=expires_at)
    )


def waiting(connection: Connection, digest: str) -> Row[Any] | None:
    """Return the person of a log-in that waits for its code."""
    return connection.execute(
        select(person)
        .join(waiting_login)
        .where(waiting_login.c.digest == digest, waiting_login.c.expires_at > now())
    ).one_or_none()


def end_waiting(connection: Connection, digest: str) -> None:
    """Let a log-in wait no longer."""
    connection.execute(delete(waiting_login).where(waiting_login.c.digest == digest))
