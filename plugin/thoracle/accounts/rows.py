"""Statements about persons, their sessions and their API tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, insert, or_, select, update

from thoracle.store.tables import (
    api_token,
    now,
    person,
    saved_filter,
    second_factor,
    waiting_login,
    web_session,
)

_HAS_SECOND_FACTOR = (
    exists()
    .where(second_factor.c.person == person.c.name, second_factor.c.confirmed_at.is_not(None))
    .label("has_second_factor")
)


def anybody(connection: Connection) -> bool:
    """Return whether there is any person."""
    return connection.execute(select(person.c.name).limit(1)).first() is not None


def row_of(connection: Connection, name: str) -> Row[Any] | None:
    """Return the row of a person."""
    return connection.execute(select(person).where(person.c.name == name)).one_or_none()


def row_by_subject(connection: Connection, subject: str) -> Row[Any] | None:
    """Return the person whom an OpenID Connect provider knows by a subject."""
    return connection.execute(select(person).where(person.c.subject == subject)).one_or_none()


def rows(connection: Connection) -> Sequence[Row[Any]]:
    """Return all persons by name, with ``sessions`` that have not ended, ``has_second_factor``."""
    count = (
        select(func.count())
        .select_from(web_session)
        .where(web_session.c.person == person.c.name, web_session.c.expires_at > now())
        .scalar_subquery()
    )
    found = select(person, count.label("sessions"), _HAS_SECOND_FACTOR)
    return connection.execute(found.order_by(person.c.name)).all()


def active_administrators(connection: Connection) -> set[str]:
    """Return the names of the administrators whose account is not disabled."""
    found = connection.execute(select(person.c.name, person.c.roles).where(person.c.disabled == 0))
    return {row.name for row in found if "administrator" in row.roles}


def lock(connection: Connection) -> None:
    """Keep everybody else from changing persons until the transaction ends.

    A transaction that reads first and then writes what follows from it begins with this: SQLite
    begins to exclude others at the first statement that writes.
    """
    connection.execute(update(person).values(disabled=person.c.disabled))


def count_attempt(connection: Connection, name: str) -> int | None:
    """Count a log-in; return the number of those in a row, ``None`` while none is taken."""
    moment = now()
    return connection.execute(
        update(person)
        .where(
            person.c.name == name,
            person.c.disabled == 0,
            or_(person.c.locked_until.is_(None), person.c.locked_until <= moment),
        )
        .values(failures=person.c.failures + 1)
        .returning(person.c.failures)
    ).scalar_one_or_none()


def add(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    """Add a person."""
    moment = now()
    connection.execute(
        insert(person).values(
            {
                "name": name,
                "disabled": 0,
                "failures": 0,
                "created_at": moment,
                "changed_at": moment,
                **values,
            }
        )
    )


def set_row(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    """Set columns of a person."""
    connection.execute(
        update(person).where(person.c.name == name).values({**values, "changed_at": now()})
    )


def set_attempts(
    connection: Connection, name: str, failures: int, locked_until: str | None
) -> None:
    """Set how many log-ins in a row failed, and how long none is taken."""
    connection.execute(
        update(person)
        .where(person.c.name == name)
        .values(failures=failures, locked_until=locked_until)
    )


def uncount_attempt(connection: Connection, name: str) -> None:
    """Count one attempt less, unless they were forgotten meanwhile."""
    connection.execute(
        update(person)
        .where(person.c.name == name, person.c.failures > 0)
        .values(failures=person.c.failures - 1)
    )


def unlock(connection: Connection, name: str, locked_until: str, failures: int) -> None:
    """End one lock, and no other, with so many attempts that failed."""
    this = (person.c.name == name) & (person.c.locked_until == locked_until)
    connection.execute(update(person).where(this).values(failures=failures, locked_until=None))


def add_session(
    connection: Connection, digest: str, name: str, network_address: str | None, expires_at: str
) -> None:
    """Add a session, and forget those that have ended."""
    moment = now()
    connection.execute(delete(web_session).where(web_session.c.expires_at <= moment))
    connection.execute(
        insert(web_session).values(
            digest=digest,
            person=name,
            network_address=network_address,
            created_at=moment,
            seen_at=moment,
            expires_at=expires_at,
        )
    )


def sessions(connection: Connection, name: str) -> Sequence[Any]:
    """Return the sessions of a person that have not ended, newest first, without their digests."""
    session = web_session.c
    return connection.execute(
        select(session.network_address, session.created_at, session.seen_at, session.expires_at)
        .where(session.person == name, session.expires_at > now())
        .order_by(session.created_at.desc())
    ).all()


def session_row(connection: Connection, digest: str) -> Row[Any] | None:
    """Return a session with the columns of its person and ``has_second_factor``."""
    return connection.execute(
        select(person, web_session.c.seen_at, web_session.c.expires_at, _HAS_SECOND_FACTOR)
        .join(web_session)
        .where(web_session.c.digest == digest)
    ).one_or_none()


def set_session(connection: Connection, digest: str, values: Mapping[str, Any]) -> None:
    """Set columns of a session."""
    connection.execute(update(web_session).where(web_session.c.digest == digest).values(values))


def end_session(connection: Connection, digest: str) -> None:
    """End one session."""
    connection.execute(delete(web_session).where(web_session.c.digest == digest))


def end_sessions(connection: Connection, name: str, but: str | None = None) -> int:
    """End the sessions of a person but one, and log-ins that wait; return how many sessions."""
    connection.execute(delete(waiting_login).where(waiting_login.c.person == name))
    theirs = (web_session.c.person == name) & (web_session.c.digest != (but or ""))
    return connection.execute(delete(web_session).where(theirs)).rowcount


def add_token(connection: Connection, digest: str, name: str, values: Mapping[str, Any]) -> int:
    """Add an API token; return its id."""
    statement = insert(api_token).values(
        {"digest": digest, "person": name, "created_at": now(), **values}
    )
    return int(connection.execute(statement.returning(api_token.c.id)).scalar_one())


def token_row(connection: Connection, digest: str) -> Row[Any] | None:
    """Return an API token with the columns of its person."""
    token = api_token.c
    return connection.execute(
        select(person, token.id, token.scopes, token.expires_at, token.used_at, token.revoked_at)
        .join(api_token)
        .where(token.digest == digest)
    ).one_or_none()


def token_of(connection: Connection, name: str, token_id: int) -> Row[Any] | None:
    """Return an API token of a person."""
    return connection.execute(
        select(api_token).where(api_token.c.id == token_id, api_token.c.person == name)
    ).one_or_none()


def tokens(connection: Connection, name: str) -> Sequence[Row[Any]]:
    """Return the API tokens of a person, newest first."""
    return connection.execute(
        select(api_token).where(api_token.c.person == name).order_by(api_token.c.id.desc())
    ).all()


def set_token(connection: Connection, token_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of an API token."""
    connection.execute(update(api_token).where(api_token.c.id == token_id).values(values))


# ---- what the pages keep for a person ------------------------------------------------------------


def set_columns(connection: Connection, name: str, columns: Sequence[str] | None) -> None:
    """Keep which columns of the worklist a person wants to see; ``None``: the usual ones."""
    values = {"worklist_columns": None if columns is None else list(columns)}
    connection.execute(update(person).where(person.c.name == name).values(values))


def filters(connection: Connection, name: str) -> Sequence[Row[Any]]:
    """Return the filters that a person saved, by name."""
    return connection.execute(
        select(saved_filter).where(saved_filter.c.person == name).order_by(saved_filter.c.name)
    ).all()


def save_filter(connection: Connection, name: str, title: str, query: str) -> None:
    """Save a filter of the worklist, in place of one that has the same title."""
    delete_filter(connection, name, title)
    connection.execute(
        insert(saved_filter).values(person=name, name=title, query=query, created_at=now())
    )


def delete_filter(connection: Connection, name: str, title: str) -> None:
    """Delete a filter that a person saved."""
    mine = (saved_filter.c.person == name) & (saved_filter.c.name == title)
    connection.execute(delete(saved_filter).where(mine))
