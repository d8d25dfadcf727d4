"""SQL of what processes of pages have in common about log-ins, and the secrets that they share."""

import secrets
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, insert, select

from thoracle.store.database import begin_writing
from thoracle.store.tables import ago, login_attempt, now, page_secret, provider_login

# ---- attempts ------------------------------------------------------------------------------------


def attempts(connection: Connection, network: str, seconds: float) -> tuple[int, int]:
    """Return how many log-ins a network made in the last seconds, and how many failed."""
    column = login_attempt.c
    is_failure = case((column.failed == 1, 1), else_=0)
    failed, number = connection.execute(
        select(func.coalesce(func.sum(is_failure), 0), func.count()).where(
            column.network == network, column.recorded_at > ago(seconds)
        )
    ).one()
    return int(number) - int(failed), int(failed)


def forget_attempts(connection: Connection, seconds: float) -> None:
    """Delete those that are older; to be called first where one is counted, for it is a write."""
    connection.execute(delete(login_attempt).where(login_attempt.c.recorded_at <= ago(seconds)))


def add_attempt(connection: Connection, network: str, *, failed: bool) -> None:
    """Count a log-in, or that one has failed."""
    values = {"network": network, "failed": int(failed), "recorded_at": now()}
    connection.execute(insert(login_attempt).values(values))


# ---- log-ins at the provider ---------------------------------------------------------------------


def add_provider_login(connection: Connection, values: dict[str, Any], most: int) -> None:
    """Keep a log-in until it is answered; of more than ``most``, the oldest are forgotten."""
    column = provider_login.c
    connection.execute(insert(provider_login).values(**values, begun_at=now()))
    newest = select(column.begun_at).order_by(column.begun_at.desc()).offset(most).limit(1)
    connection.execute(delete(provider_login).where(column.begun_at <= newest.scalar_subquery()))


def take_provider_login(connection: Connection, state: str, seconds: float) -> Row[Any] | None:
    """Return the log-in of a state that was begun within so many seconds, and forget it."""
    column = provider_login.c
    taken = delete(provider_login).where(column.state == state).returning(provider_login)
    found = connection.execute(taken).one_or_none()
    connection.execute(delete(provider_login).where(column.begun_at <= ago(seconds)))
    return None if found is None or found.begun_at <= ago(seconds) else found


# ---- secrets -------------------------------------------------------------------------------------

PICTURES, FIRST_RUN = "pictures", "first run"


def key(connection: Connection, name: str) -> bytes:
    """Return a key that all processes have; the first who asks makes it."""
    begin_writing(connection)  # else two could make one
    statement = select(page_secret.c.value).where(page_secret.c.name == name)
    found = connection.execute(statement).scalar()
    if found is None:
        found = secrets.token_hex(32)
        connection.execute(insert(page_secret).values(name=name, value=found))
    return bytes.fromhex(found)


def add_first_run(connection: Connection, digest: str) -> None:
    """Let a token make the first administrator."""
    connection.execute(insert(page_secret).values(name=FIRST_RUN, value=digest))


def first_runs(connection: Connection) -> list[str]:
    """Return the digests of tokens that make the first administrator."""
    statement = select(page_secret.c.value).where(page_secret.c.name == FIRST_RUN)
    return list(connection.execute(statement).scalars())


def end_first_run(connection: Connection) -> None:
    """Let no token make an administrator any more."""
    connection.execute(delete(page_secret).where(page_secret.c.name == FIRST_RUN))
