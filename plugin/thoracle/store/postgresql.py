"""PostgreSQL: what we ask of a server, and what makes it mean the same as SQLite.

Three things differ, and each is settled here once, for every statement of ours:

* What survives a power failure is a matter of settings: they are looked at on each connection.
* Two transactions run at the same time, and what one has read the other may change. SQLite lets
  one transaction write at a time; here an advisory lock does, taken before the first row that a
  transaction writes. All that was thought through for SQLite holds, and nothing can deadlock.
  It costs little that is needed: nearly every transaction adds a row to the audit, whose chain has
  one end (docs/database.md has figures).
* Text must not contain NUL. Hostile headers do.
"""

import hashlib
import logging
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import Connection, Dialect, Engine, create_engine, event, make_url

from thoracle.errors import DataFolderInUse, SettingsError
from thoracle.settings.section import require_private
from thoracle.store.lease import Lease

OLDEST = 15
"""Major version of the oldest server, which is the one that the tests run."""
POOL = 20
"""Connections that stay open. More are opened while they are needed, without a limit of ours: who
waits to write has one, and who writes may need a second."""
IDLE_SECONDS = 60.0
"""A transaction in which nothing happens for so long is ended by the server: a process that hangs
must not keep the others from writing."""
_CONNECT = {
    "application_name": "thoracle",
    "client_encoding": "utf8",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "target_session_attrs": "read-write",
}
"""Parameters of libpq, unless the URL has them: a server that is gone is noticed within seconds,
and one that only follows another is not taken for it."""


def key(name: str) -> int:
    """Return the number of an advisory lock of ours."""
    content = hashlib.sha256(f"thoracle {name}".encode()).digest()
    return int.from_bytes(content[:8], "big", signed=True)


WRITERS = key("writers")


def create(url: str, password_file: Path | None, idle_seconds: float = IDLE_SECONDS) -> Engine:
    """Return an engine on a PostgreSQL database; it connects when it is used.

    Connections that do not give what is required fail with an ``OperationalError``.

    Parameters
    ----------
    idle_seconds
        A transaction in which nothing happens for so long is ended by the server.
    """
    made = make_url(url).set(drivername="postgresql+psycopg")
    parameters = {name: value for name, value in _CONNECT.items() if name not in made.query}
    # hide_parameters: an exception that reaches the log must not carry patient data.
    engine = create_engine(
        made,
        connect_args=parameters,
        pool_pre_ping=True,
        pool_size=POOL,
        max_overflow=-1,
        hide_parameters=True,
    )
    if password_file is not None:
        event.listen(engine, "do_connect", partial(_with_password, password_file))
    event.listen(engine, "connect", partial(_prepare, idle_seconds))
    event.listen(engine, "before_cursor_execute", _one_writer)
    return engine


def password(path: Path) -> str:
    """Return the password in a file, which nobody else may read.

    Raises
    ------
    SettingsError
        It cannot be read, others can read it, or it is empty.
    """
    setting = "database.password_file"
    try:
        require_private(setting, path)
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise SettingsError(
            f"{setting}: {path}: {reason}, required: a file that can be read"
        ) from error
    if not text:
        raise SettingsError(f"{setting}: found nothing in {path}, required: a password")
    return text


def refuse(connection: Any, reason: str) -> None:
    """Close a connection of psycopg's that must not be used; raise as if it had not come about."""
    connection.close()
    # In these words libpq says so, and by them DBOS knows that trying again may help.
    raise psycopg.OperationalError(f"connection failed: {reason}")


def faults(found: dict[str, Any]) -> list[str]:
    """Return what a server does not give, of what is in a row of ``GUARANTEES``."""
    version = int(found["server_version_num"]) // 10000
    required = [
        (version >= OLDEST, f"PostgreSQL {version}", f"{OLDEST} or newer"),
        (found["fsync"] == "on", f"fsync {found['fsync']}", "on: else a commit may be lost"),
        (
            found["synchronous_commit"] != "off",
            f"synchronous_commit {found['synchronous_commit']}",
            "any but off: else a commit may be lost",
        ),
        (found["encoding"] == "UTF8", f"encoding {found['encoding']}", "UTF8"),
        (found["binary_order"], f"collation {found['collation']}", "C, which sorts as SQLite does"),
    ]
    return [f"found {what}, required: {wanted}" for well, what, wanted in required if not well]


GUARANTEES = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num') AS server_version_num,
       current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('full_page_writes') AS full_page_writes,
       pg_encoding_to_char(encoding) AS encoding,
       datcollate || CASE datlocprovider WHEN 'i' THEN ' (ICU)' ELSE '' END AS collation,
       'B' < 'a' AND 'a' < 'b' AS binary_order,
       coalesce((SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), '') AS tls
FROM pg_database WHERE datname = current_database()
"""


def guarantees(connection: Any) -> dict[str, Any]:
    """Return what a server says of itself, for a connection of psycopg's."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        cursor.execute(GUARANTEES)
        return dict(cursor.fetchone())


def _with_password(
    path: Path, _dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]
) -> None:
    # Read anew for each connection: a changed password needs no restart, and no URL has it.
    parameters["password"] = password(path)


def _prepare(idle_seconds: float, connection: Any, _record: Any) -> None:
    connection.adapters.register_dumper(str, _Text)
    found = faults(guarantees(connection))
    if found:
        refuse(connection, "; ".join(found))
    with connection.cursor() as cursor:
        for name, value in (
            ("idle_in_transaction_session_timeout", f"{round(idle_seconds * 1000)}ms"),
            # Of the server's end: a client that is gone must not keep its locks for hours.
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ):
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
    connection.commit()  # else the pool would take the settings back


class _Text(StrDumperUnknown):
    """Text as both databases take it: no NUL, and no half characters."""

    def dump(self, obj: str) -> Any:
        """Return the text in UTF-8."""
        return obj.replace("\0", "\ufffd").encode("utf-8", "replace")


def _one_writer(
    connection: Connection,
    cursor: Any,
    _statement: str,
    _parameters: Any,
    context: Any,
    _many: bool,
) -> None:
    """Take the writers' lock before the first row of ours that a transaction writes."""
    if context is None or not (context.isinsert or context.isupdate or context.isdelete):
        return
    if context.compiled.statement.table.schema is not None:  # DBOS looks after its own
        return
    transaction = connection.get_transaction()
    taken = connection.info.get("writers")
    if transaction is None or (taken is not None and taken() is transaction):
        return
    cursor.execute(_LOCK, (WRITERS,))
    connection.info["writers"] = weakref.ref(transaction)
    lease = _LEASES.get(connection.dialect)
    if lease is not None:
        cursor.execute(_HELD, (lease.executor_id,))
        lease.require_row(cursor.fetchone())


_LOCK = "SELECT pg_advisory_xact_lock(%s)"


def begin_writing(connection: Connection) -> None:
    """Take the writers' lock until the transaction ends."""
    connection.exec_driver_sql(_LOCK, (WRITERS,))
    connection.info["writers"] = weakref.ref(connection.get_transaction())
    lease = _LEASES.get(connection.dialect)
    if lease is not None:
        lease.require_row(connection.exec_driver_sql(_HELD, (lease.executor_id,)).first())


# Nobody can take the lease over until the transaction has ended (store/lease.py).
_HELD = """
SELECT 1 FROM gateway_lease WHERE executor_id = %s AND taken_at IS NULL FOR KEY SHARE
"""
_LEASES: weakref.WeakKeyDictionary[Dialect, Lease] = weakref.WeakKeyDictionary()


def write_under(engine: Engine, lease: Lease) -> None:
    """Have each transaction that writes require a lease, which it keeps from being taken over."""
    _LEASES[engine.dialect] = lease


# ---- moving to it, and away ----------------------------------------------------------------------


_OTHERS = """
SELECT application_name || ' (' || coalesce(host(client_addr), 'this machine') || ')'
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'thoracle%%'
  AND pid <> pg_backend_pid()
  AND pid NOT IN (
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND (classid::bigint << 32 | objid::bigint) = %s AND database =
        (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


def others(connection: Connection) -> list[str]:
    """Return the processes of ours on a database beside this connection and the one gateway."""
    return list(connection.exec_driver_sql(_OTHERS, (GATEWAY,)).scalars())


def rest_without_limit(connection: Connection) -> None:
    """Let nothing happen in a transaction for as long as it takes elsewhere."""
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def analyse(engine: Engine) -> None:
    """Let the server count anew what is in which table."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


logger = logging.getLogger(__name__)

# ---- the one gateway -----------------------------------------------------------------------------
# One gateway at a time on a PostgreSQL database, whatever its data folder is.
#
# The lock is the session's, on a connection of its own: when that ends, however it ends, the
# server gives the lock to the next who asks. So a gateway that loses the connection has no right
# to work any more, even if it could reach the server again: it has to end, and to begin as after
# a crash.

WAIT_SECONDS = 5.0
"""Until a server has noticed that the process before is dead."""
LOOK_SECONDS = 2.0
"""An end that nobody told of is noticed so soon, and libpq's ``tcp_user_timeout``."""
START_SECONDS = 120.0
"""For another gateway to begin, which may have to bring the schema to the newest version first."""
GATEWAY, START = key("gateway"), key("start")

_HELD_BY = """
SELECT pid, application_name, coalesce(host(client_addr), 'this machine') AS address,
       backend_start::timestamptz(0)::text AS since
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND (classid::bigint << 32 | objid::bigint) = %s
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _session(database: Engine) -> tuple[Any, Any]:
    """Return a connection of its own, for locks that end with it: what keeps it, and psycopg's."""
    pooled = cast(Any, database.raw_connection())
    connection = pooled.driver_connection
    pooled.detach()
    connection.autocommit = True
    name = f"thoracle serve on {socket.gethostname()}"[:63]
    connection.execute("SELECT set_config('application_name', %s, false)", (name,))
    return pooled, connection


def _held_by(connection: Any, lock: int) -> str:
    row = connection.execute(_HELD_BY, (lock,)).fetchone()
    _, who, address, since = row or (0, "another", "an address", "a moment ago")
    return f"found {who} ({address}) at work since {since}"


LOCK_LOST = "the connection that makes this process the one gateway of its database is lost"


class SoleGateway:
    """The right to be the gateway of a database.

    Parameters
    ----------
    name
        Of the database, in messages.
    lost
        Called once, from a thread of its own, with the reason, when the right is lost.

    Raises
    ------
    DataFolderInUse
        Another process has it.
    """

    def __init__(self, database: Engine, name: str, lost: Callable[[str], None]) -> None:
        self._database, self._name = database, name
        # The first is kept, because the connection is closed with it.
        self._pooled, self._connection = _session(database)
        self._closed = threading.Event()
        self._pid = int(self._connection.info.backend_pid)
        self._take()
        event.listen(database, "connect", self._require)
        threading.Thread(target=self._watch, args=(lost,), name="lock", daemon=True).start()

    def _take(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._one("SELECT pg_try_advisory_lock(%s)", GATEWAY)[0]:
            if time.monotonic() > deadline:
                found = _held_by(self._connection, GATEWAY)
                self._connection.close()
                raise DataFolderInUse(f"{self._name}: {found}, required: no other gateway")
            time.sleep(0.2)

    def _one(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement, values).fetchone()

    def _require(self, connection: Any, _record: Any) -> None:
        """Refuse a new connection to a server on which the lock is not: another one, or restarted.

        So nothing is written there while the end of the connection with the lock has not been
        noticed yet.
        """
        held = connection.execute(_HELD_BY, (GATEWAY,)).fetchone()
        if held is None or held[0] != self._pid:
            refuse(connection, "the lock of this gateway is not on the server any more")
        connection.commit()

    def _watch(self, lost: Callable[[str], None]) -> None:
        try:
            while not self._closed.is_set():
                # Readable without a question: the server says goodbye, or is gone.
                select.select([self._connection.fileno()], [], [], LOOK_SECONDS)
                self._connection.execute("SELECT 1")
        except (psycopg.Error, OSError, ValueError) as error:
            if not self._closed.is_set():
                reason = " ".join(str(error).split())
                lost(f"{LOCK_LOST} ({reason})")

    def close(self) -> None:
        """Give the right back."""
        self._closed.set()
        event.remove(self._database, "connect", self._require)
        self._connection.close()


class Start:
    """The right to begin as one of several: one at a time, and beside no :class:`SoleGateway`.

    Raises
    ------
    DataFolderInUse
        The one gateway is at work, or others take too long to begin.
    """

    def __init__(self, database: Engine, name: str) -> None:
        self._pooled, self._connection = _session(database)
        self._take("pg_try_advisory_lock_shared", GATEWAY, WAIT_SECONDS, name)
        self._take("pg_try_advisory_lock", START, START_SECONDS, name)

    def _take(self, function: str, lock: int, seconds: float, name: str) -> None:
        deadline = time.monotonic() + seconds
        question = f"SELECT {function}(%s)"
        while not self._connection.execute(question, (lock,)).fetchone()[0]:
            if time.monotonic() > deadline:
                found = _held_by(self._connection, lock)
                self._connection.close()
                said = "alone" if lock == GATEWAY else "beginning"
                raise DataFolderInUse(
                    f"{name}: {found} {said}, required: gateways with gateway.one_of_several"
                )
            time.sleep(0.2)

    def close(self) -> None:
        """Let the next begin."""
        self._connection.close()
