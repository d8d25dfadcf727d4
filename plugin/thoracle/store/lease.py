"""Leases: which gateways work on a database, and which of them leads.

The one rule: what a gateway writes is committed while its lease is its own, or not at all. Each
transaction of ours that writes locks the row of the lease (``FOR KEY SHARE``, which no renewal
waits for), and another gateway takes over by locking it ``FOR UPDATE``. So no transaction has that
row while its gateway's work is taken over, however long a process stood still, and no clocks are
compared for it. The database's clock says when a lease has run out and may be taken over. A clock
of its own tells a gateway when that may be so, without the database: it ends itself then, for what
it would send from then on, another sends, too.

A lease that was taken is never renewed, and a start takes a new one. So the gateway with the lowest
number among those whose lease was not taken leads until it ends; no vote is needed.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from thoracle import __version__
from thoracle.errors import DataFolderInUse, LeaseLost, ThoracleError
from thoracle.settings import Settings, digests
from thoracle.store.tables import gateway_lease

logger = logging.getLogger(__name__)

ALONE = "local"
"""Executor of a gateway that is the only one: at each start it takes up its own work."""
_STORED = "to_char(({}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
_NOW = _STORED.format("clock_timestamp()")
"""The database's clock, as times are stored."""
_END = _STORED.format("clock_timestamp() + make_interval(secs => :seconds)")
GONE_DAYS = 7
"""A gateway that did not come back is an alarm so long."""
_CLOCK = time.CLOCK_BOOTTIME
"""Goes on while the machine sleeps, as the database's does."""


class Alone:
    """The right to work of the one gateway of a database: nothing is shared."""

    executor_id = ALONE
    owner = ""
    """Whose files these are, where several write into one folder."""
    name = ""
    fault = ""
    """What is wrong with this gateway, in sentences: told to the others at the next renewal."""

    def declare_bundle(self, digest: str) -> None:
        """Say with which bundle it reads."""

    def begun(self) -> None:
        """Let the next gateway begin: of several one does at a time."""

    def leads(self) -> bool:
        """Return whether what is done once for all gateways is for this one to do."""
        return True

    def is_first(self) -> bool:
        """Return whether no other gateway was at work when this one began."""
        return True

    def alive(self) -> set[str]:
        """Return the executors whose work is their own."""
        return {self.executor_id}

    def take_over(self) -> None:
        """Take leases over that have run out: from now on their gateways write nothing."""

    def gone(self) -> list["GatewayRow"]:
        """Return the gateways that are gone whose unfinished files nobody has cleared away."""
        return []

    def cleared(self, executor_id: str) -> None:
        """Note that what a gateway that is gone had left unfinished is cleared away."""

    def require(self) -> None:
        """Return when it may go on.

        Raises
        ------
        LeaseLost
            It may have been taken for dead.
        """


class Lease(Alone):
    """The right to work of one of several gateways, renewed until it is released.

    Parameters
    ----------
    lost
        Called from any thread, with the reason, when the right is lost. It should not return.
    begun
        Lets the next gateway begin.
    """

    def __init__(
        self,
        database: Engine,
        settings: Settings,
        lost: Callable[[str], None],
        begun: Callable[[], None],
    ) -> None:
        host = socket.gethostname()[:40]
        self._database, self._lost, self._begun = database, lost, begun
        self._seconds = settings.gateway.lease_seconds
        self._look_seconds = min(1.0, self._seconds / 20)
        self._released = threading.Event()
        self.executor_id = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self.owner = self.executor_id
        self.name = named(settings)
        self._take_over_run_before(host)
        self._first = all(row.is_gone for row in rows(database))
        self._deadline = _now() + self._seconds
        listens = f"{settings.receive.host}:{settings.receive.port}"
        self._change(
            _INSERT,
            name=self.name,
            host=host,
            pid=os.getpid(),
            role=settings.gateway.role,
            listens=None if settings.gateway.role == "read" else listens[:80],
            version=__version__,
            settings_digest=digests.shared(settings),
            seconds=self._seconds,
        )
        for work in (self._renew_again_and_again, self._watch):
            threading.Thread(target=work, name="lease", daemon=True).start()

    def _take_over_run_before(self, host: str) -> None:
        """Take over from the run before of this gateway, if it is dead, and not wait for its end.

        A process of this machine that does not exist has ended; one with the number of this one
        was in a container that was started again.
        """
        for row in rows(self._database):
            if row.is_gone or (row.name, row.host) != (self.name, host):
                continue
            if row.pid == os.getpid() or not Path(f"/proc/{row.pid}").exists():
                self._change(_TAKE_FROM, gone=row.executor_id)
            else:
                logger.warning("another gateway is called %s, too: set gateway.name", self.name)

    def _change(self, statement: str, **values: Any) -> int:
        """Run a statement about leases in a transaction of its own; return how many rows it met."""
        # As text, not as a construct: it must not wait for the one writer (store/postgresql.py).
        with self._database.begin() as connection:
            done = connection.execute(text(statement), {"me": self.executor_id, **values})
            return int(done.rowcount)

    # ---- to keep it ------------------------------------------------------------------------------

    def _renew_again_and_again(self) -> None:
        pause = self._seconds / 4
        while not self._released.wait(pause):
            try:
                self.renew()
                pause = self._seconds / 4
            except SQLAlchemyError as error:
                pause = self._look_seconds  # it may be back before the lease has run out
                reason = " ".join(str(getattr(error, "orig", error)).split())
                logger.warning("the lease of this gateway could not be renewed: %s", reason)

    def renew(self) -> None:
        """Have the lease run out later, unless its work was taken over."""
        began = _now()
        if self._change(_RENEW, seconds=self._seconds, fault=self.fault[:400]):
            self._deadline = began + self._seconds
        elif not self._released.is_set():
            self._lost(TAKEN)

    def _watch(self) -> None:
        # A process that stood still looks here first: its time to wait is over, too.
        while not self._released.wait(self._look_seconds):
            if _now() > self._deadline:
                self._lost(RAN_OUT)
                return

    def require(self) -> None:
        """Return when it may go on, as far as its own clock tells.

        Raises
        ------
        LeaseLost
            It has run out.
        SystemExit
            It was given up in order: the thread ends, and leaves its work to others.
        """
        if self._released.is_set() or _now() > self._deadline:
            self._refuse(RAN_OUT, "that has run out, required: one of this moment")

    def require_row(self, row: Any) -> None:
        """Return when a transaction has locked the lease's row; end when there is none of ours."""
        if row is None:
            self._refuse(TAKEN, "that was taken over, required: one of our own")

    def _refuse(self, reason: str, found: str) -> NoReturn:
        if self._released.is_set():
            # The process is about to end, and others have its work. To the engine an exception of
            # another kind would be the end of a workflow, and it would record that.
            raise SystemExit
        self._lost(reason)
        raise LeaseLost(f"found a lease {found}")

    def release(self) -> None:
        """Give it up in order: others take up what is left, and nobody is alarmed."""
        self._released.set()
        try:
            self._change(_RELEASE, name=self.name)
        except SQLAlchemyError:  # as after a crash: it runs out
            logger.warning("the lease of this gateway could not be released")

    # ---- among others ----------------------------------------------------------------------------

    def declare_bundle(self, digest: str) -> None:
        """Say with which bundle it reads.

        Raises
        ------
        ThoracleError
            Others read with another one. Each would plan anew what the other has planned.
        """
        for row in rows(self._database):
            if row.taken_at is None and row.bundle_digest not in (None, digest):
                raise ThoracleError(
                    f"classify.bundle: found digest {digest[:12]}, and gateway {row.name} at work "
                    f"with {row.bundle_digest[:12]}, required: the same bundle in all gateways; "
                    "stop all of them before one starts with another"
                )
        self._change(_DECLARE, digest=digest)

    def begun(self) -> None:
        """Let the next gateway begin."""
        self._begun()

    def leads(self) -> bool:
        """Return whether what is done once for all gateways is for this one to do."""
        at_work = [row for row in rows(self._database) if row.taken_at is None]
        return bool(at_work) and at_work[0].executor_id == self.executor_id

    def is_first(self) -> bool:
        """Return whether no other gateway was at work when this one began."""
        return self._first

    def alive(self) -> set[str]:
        """Return the executors whose work is their own."""
        return {row.executor_id for row in rows(self._database) if row.taken_at is None}

    def take_over(self) -> None:
        """Take leases over that have run out: from now on their gateways write nothing."""
        for name in take_over(self._database, self.executor_id):
            logger.warning("gateway %s is gone; others take up its work", name)
        self._change(_FORGET)

    def gone(self) -> list["GatewayRow"]:
        """Return the gateways that are gone whose unfinished files nobody has cleared away."""
        return [row for row in rows(self._database) if row.is_gone and row.cleared_at is None]

    def cleared(self, executor_id: str) -> None:
        """Note that what a gateway that is gone had left unfinished is cleared away."""
        self._change(_CLEARED, gone=executor_id)


TAKEN = "another gateway has taken over the work of this one"
RAN_OUT = "the lease of this gateway has run out"

_MINE = "WHERE executor_id = :me AND taken_at IS NULL"
_INSERT = f"""
INSERT INTO gateway_lease (executor_id, name, host, pid, role, listens, version, settings_digest,
                           fault, started_at, renewed_at, expires_at)
VALUES (:me, :name, :host, :pid, :role, :listens, :version, :settings_digest, '',
        {_NOW}, {_NOW}, {_END})
"""  # noqa: S608 - constants
_RENEW = f"""
UPDATE gateway_lease SET renewed_at = {_NOW}, expires_at = {_END}, fault = :fault {_MINE}
"""  # noqa: S608 - constants
_DECLARE = f"UPDATE gateway_lease SET bundle_digest = :digest {_MINE}"  # noqa: S608 - constants
_CLEARED = f"UPDATE gateway_lease SET cleared_at = {_NOW} WHERE executor_id = :gone"  # noqa: S608 - constants
_RELEASE = """
DELETE FROM gateway_lease
WHERE executor_id = :me AND taken_at IS NULL OR name = :name AND cleared_at IS NOT NULL
"""
_FORGET = f"""
DELETE FROM gateway_lease AS old WHERE cleared_at IS NOT NULL AND (
    taken_at < {_STORED.format(f"clock_timestamp() - interval '{GONE_DAYS} days'")}
    OR EXISTS (SELECT 1 FROM gateway_lease AS new WHERE new.name = old.name AND new.id > old.id))
"""  # noqa: S608 - constants
_TAKE_FROM = f"""
UPDATE gateway_lease SET taken_at = {_NOW} WHERE executor_id IN (
    SELECT executor_id FROM gateway_lease WHERE executor_id = :gone AND taken_at IS NULL
    FOR UPDATE SKIP LOCKED)
"""  # noqa: S608 - constants
_TAKE_OVER = f"""
UPDATE gateway_lease SET taken_at = {_NOW} WHERE executor_id IN (
    SELECT executor_id FROM gateway_lease
    WHERE taken_at IS NULL AND expires_at < {_NOW} AND executor_id <> :me
    FOR UPDATE SKIP LOCKED)
RETURNING name
"""  # noqa: S608 - constants


def _now() -> float:
    return time.clock_gettime(_CLOCK)


def named(settings: Settings) -> str:
    """Return what the gateway of some settings is called."""
    if settings.gateway.name:
        return settings.gateway.name
    host = socket.gethostname()[:40]
    return host if settings.gateway.role == "read" else f"{host}:{settings.receive.port}"


def take_over(database: Engine, executor_id: str = "") -> list[str]:
    """Take over the leases that have run out; return the names of their gateways."""
    with database.begin() as connection:
        return list(connection.execute(text(_TAKE_OVER), {"me": executor_id}).scalars())


# ---- to be seen ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """A gateway that is at work, or ended without an orderly stop."""

    id: int
    executor_id: str
    name: str
    host: str
    pid: int
    role: str
    listens: str | None
    version: str
    bundle_digest: str | None
    settings_digest: str
    fault: str
    started_at: str
    renewed_at: str
    taken_at: str | None
    cleared_at: str | None
    heard_seconds: float
    """Since it was heard of last, by the database's clock."""

    @property
    def is_gone(self) -> bool:
        """Whether another has taken over its work."""
        return self.taken_at is not None

    def said(self, *, leads: bool = False) -> str:
        """Return what it is and does, in words."""
        where = f"process {self.pid} on {self.host}"
        if self.is_gone:
            return f"gone ({where}), heard of last at {self.renewed_at[:19]} UTC"
        listens = f", listens on {self.listens}" if self.listens else ""
        return (
            f"{self.role}{listens} ({where}), heard of {self.heard_seconds:.0f} s ago"
            f"{', leads' * leads}{f', {self.fault}' if self.fault else ''}"
        )


def rows(database: Engine) -> list[GatewayRow]:
    """Return the gateways of a database that several share, the one that leads first."""
    if database.dialect.name == "sqlite":
        return []
    with database.connect() as connection:
        return known(connection)


def known(connection: Connection) -> list[GatewayRow]:
    """Return what :func:`rows` does, in an open transaction; none before there is the table."""
    if connection.dialect.name == "sqlite":
        return []
    if not inspect(connection).has_table(gateway_lease.name):
        return []
    return [GatewayRow(**row) for row in connection.execute(text(_ROWS)).mappings()]


_ROWS = """
SELECT id, executor_id, name, host, pid, role, listens, version, bundle_digest, settings_digest,
       fault, started_at, renewed_at, taken_at, cleared_at,
       extract(epoch FROM clock_timestamp() - renewed_at::timestamptz)::float8 AS heard_seconds
FROM gateway_lease ORDER BY taken_at IS NOT NULL, id
"""


def require_none(database: Engine, required: str) -> None:
    """Return when no gateway is at work that shares the database with others.

    Raises
    ------
    DataFolderInUse
        One is, or its lease has not run out yet.
    """
    if not rows(database):
        return
    take_over(database)
    for row in rows(database):
        if not row.is_gone:
            raise DataFolderInUse(
                f"found gateway {row.name} on {row.host} at work, heard of "
                f"{row.heard_seconds:.0f} s ago, required: {required}"
            )


def gone(connection: Connection) -> list[GatewayRow]:
    """Return the gateways that ended without an orderly stop and have not begun again."""
    newest: dict[str, GatewayRow] = {}
    for row in known(connection):
        if row.name not in newest or row.id > newest[row.name].id:
            newest[row.name] = row
    return [row for row in newest.values() if row.is_gone]


def forget(database: Engine) -> None:
    """Forget gateways that are gone, when there is only one from now on."""
    with database.begin() as connection:
        connection.execute(text("DELETE FROM gateway_lease WHERE taken_at IS NOT NULL"))
