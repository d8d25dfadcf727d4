"""The durable engine: DBOS on our own database. Queues, retries and recovery are its work.

What the open library leaves to us in the embedded mode is here: one process at a time, settings
that lose nothing, and a version that does not strand waiting work.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Container, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, SQLAlchemyDatasource
from dbos._datasource import DatasourceOptions, IsolationLevel
from dbos._datasource_migration import migrate_datasource
from dbos._dbos import _get_dbos_instance
from dbos._queue import QueueRateLimit
from dbos._utils import INTERNAL_QUEUE_NAME
from sqlalchemy import Connection, Engine

from thoracle.errors import DataFolderInUse
from thoracle.settings import Deliver
from thoracle.store import running, workflows
from thoracle.store.database import ENGINE_SCHEMA, begin_writing
from thoracle.store.delays import Delays
from thoracle.store.lease import Alone
from thoracle.store.polling import ONE_BY_ONE_SECONDS, POLLING_SECONDS, Polling, polling_of

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

APPLICATION_VERSION = "schema-1"
"""Constant: by default DBOS hashes the code, and every upgrade would strand waiting work."""

INTAKE, ANALYSE, DELIVER, PROVE = "intake", "analyse", "deliver", "prove"
IN_ORDER, PERFORM = "tell", "perform"
QUEUES = (INTAKE, ANALYSE, DELIVER, PROVE, IN_ORDER, PERFORM)

_datasource: SQLAlchemyDatasource | None = None
_polling: Polling | None = None
_delays: Delays | None = None
_lease = Alone()


def lock(data_folder: Path, *, shared: bool = False) -> IO[str]:
    """Return the lock on a data folder; it holds until it is closed or the process ends.

    ``shared`` is for those whose executors differ, for they share a database (store/lease.py).

    Raises
    ------
    DataFolderInUse
        Two processes with one executor id would run each other's steps twice.
    """
    try:
        return running.hold(data_folder, running.GATEWAY, shared=shared)
    except BlockingIOError as error:
        raise DataFolderInUse(
            f"{data_folder}: found another Thoracle process at work, required: none"
        ) from error


def start(
    database: Engine, deliver: Deliver, lease: Alone | None = None, role: str = "all"
) -> None:
    """Begin to work: unfinished workflows first. Workflows must be imported by now."""
    global _datasource, _polling, _delays, _lease
    _lease = lease or Alone()
    # JSON, not DBOS's pickle: whoever can write to the database must not run code here.
    serializer = DBOSPortableJSONSerializer()
    DBOS(
        config={
            "name": "thoracle",
            "system_database_engine": database,  # and no URL: it would want the password
            "dbos_system_schema": ENGINE_SCHEMA,
            "executor_id": _lease.executor_id,
            "application_version": APPLICATION_VERSION,
            "serializer": serializer,
            "log_level": "WARNING",
        }
    )
    _datasource = SQLAlchemyDatasource.create(
        f"{database.dialect.name}://",  # what it takes from the URL when it gets an engine
        engine=database,
        schema=ENGINE_SCHEMA,
        serializer=serializer,
    )
    _polling = polling_of(database, QUEUES)
    _polling.install()
    if role == "receive":  # it may put work into all of them
        DBOS.listen_queues([INTAKE])
    DBOS.launch()
    _delays = Delays(_end_delays)
    queue = partial(DBOS.register_queue, polling_interval_sec=POLLING_SECONDS)
    queue(INTAKE, worker_concurrency=2)
    queue(ANALYSE, worker_concurrency=1, polling_interval_sec=ONE_BY_ONE_SECONDS)
    limiter: QueueRateLimit = {"limit": deliver.rate_per_second, "period": 1.0}
    queue(DELIVER, partition_concurrency=deliver.concurrency, partition_limiter=limiter)
    # Of its own, so that no object waits while an archive is given time to answer.
    queue(PROVE, partition_concurrency=deliver.concurrency)
    # One at a time to each station, so that it is told of things in their order.
    queue(IN_ORDER, partition_concurrency=1)
    queue(PERFORM, partition_concurrency=deliver.concurrency)
    # DBOS adds handlers of its own; ours at the root format and filter for both.
    library = logging.getLogger("dbos")
    library.handlers.clear()
    library.propagate = True


def make_tables(database: Engine) -> None:
    """Make or upgrade the tables of DBOS without a start."""
    client = _client(database)
    try:
        client._sys_db.run_migrations()
    finally:
        client.destroy()
    with database.begin() as connection:
        migrate_datasource(connection, None if database.dialect.name == "sqlite" else ENGINE_SCHEMA)


def stop(seconds: int) -> None:
    """Take no new work and let running workflows end for ``seconds``; the rest is recovered.

    For a process that is about to end. ``DBOS.destroy`` waits for a second or two, whatever runs,
    and joins threads that sleep.
    """
    if _polling is not None:
        _polling.close()
    dbos: Any = _get_dbos_instance()
    for ended in dbos.background_thread_stop_events:
        ended.set()
    deadline = time.monotonic() + seconds
    while dbos._active_workflows_set.activeList() and time.monotonic() < deadline:
        time.sleep(0.05)


def poll_often() -> None:
    """Look at the queues often from now on: work is, or will soon be, in one of them."""
    if _polling is not None:
        _polling.often()


def announce_delay(seconds: float) -> None:
    """Have a workflow that is delayed from now on begun as soon as the delay is over."""
    if _delays is not None:
        _delays.announce(seconds)


def _end_delays() -> None:
    dbos: Any = _get_dbos_instance()
    dbos._sys_db.transition_delayed_workflows()


def bring_delays_forward(database: Engine, seconds: float) -> None:
    """Have all delays end earlier by so many seconds: the clock was set back by them.

    DBOS keeps of each the time of the day at which it is over.
    """
    with database.begin() as connection:
        workflows.bring_delays_forward(connection, seconds)
    announce_delay(0)


def requeue_stalled(idle_before: set[str]) -> set[str]:
    """Return the workflows that count as running and are not; take up those idle before, too.

    A workflow whose checkpoint meets a full disk ends without a trace of its end; DBOS looks for
    such ones at a start alone. Two sightings in a row keep one that is just about to begin from
    being begun twice. To be called with some time between, and while the disk has room.
    """
    dbos: Any = _get_dbos_instance()
    pending = dbos._sys_db.get_pending_workflows(_lease.executor_id, APPLICATION_VERSION)
    idle = {one.workflow_id for one in pending} - set(dbos._active_workflows_set.activeList())
    for workflow_id in idle & idle_before:
        logger.warning("taking up workflow %s again", workflow_id)
        dbos._sys_db.reenqueue_for_recovery(workflow_id, [_lease.executor_id], INTERNAL_QUEUE_NAME)
    return idle


def recover_executors(database: Engine) -> None:
    """Have the work taken up of executors that are dead; again and again, for one call may fail.

    DBOS does it by itself for the executor of its own process alone.
    """
    with database.connect() as connection:
        owners = workflows.owners(connection, RUNNING)
    # Asked for after them: one that has begun since owns none of what was found.
    dead = sorted(owners - _lease.alive())
    if dead:
        logger.warning("taking up the work of %s", ", ".join(dead))
        DBOS._recover_pending_workflows(dead)


def owner() -> str:
    """Return whose files those are that this process makes, where several share a database."""
    return _lease.owner


def require_lease() -> None:
    """Return when this process may send; raises ``LeaseLost`` if another may do so instead."""
    _lease.require()


SUCCEEDED = ("SUCCESS",)
ENDED = (*SUCCEEDED, "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


def delete_ended(
    database: Engine, before: datetime, limit: int, states: Sequence[str] = ENDED
) -> int:
    """Delete at most so many workflows that ended before a moment; return how many there were.

    From any process. Their rows had two uses: to go on after a crash, which what has ended does
    not need, and to make a second request of the same id a repetition, for which the tables of our
    own are looked at, too.
    """
    with database.connect() as connection:
        if workflows.table(connection, workflows.OF_STEPS) is None:
            return 0
    client = _client(database)
    try:
        ended = client.list_workflows(
            status=list(states),
            completed_before=before.isoformat(),
            limit=limit,
            load_input=False,
            load_output=False,
        )
        ids = [one.workflow_id for one in ended]
        if ids:
            # First what DBOS would leave behind: a crash in between leaves what is found again.
            with database.begin() as connection:
                workflows.delete_steps(connection, ids)
            client.delete_workflows(ids)
    finally:
        client.destroy()
    return len(ids)


RUNNING = "PENDING"
"""Status of a workflow that is at work, or was when its process ended."""
_AT_ONCE = 200


def delete_naming(database: Engine, words: Iterable[str]) -> int:
    """Delete the workflows in whose texts one of these words stands; return how many.

    Those that wait are cancelled first. Of those at work none may be left: :func:`at_work` says.
    """
    ids = sorted(_naming(database, words))
    _delete(database, ids)
    return len(ids)


def _delete(database: Engine, ids: list[str]) -> None:
    """Delete workflows; those that wait are cancelled first."""
    if not ids:
        return
    client = _client(database)
    try:
        for begin in range(0, len(ids), _AT_ONCE):
            part = ids[begin : begin + _AT_ONCE]
            with database.connect() as connection:
                found = workflows.states(connection, part)
            client.cancel_workflows([one for one, state in found.items() if state not in ENDED])
            with database.begin() as connection:
                workflows.delete_steps(connection, part)
            client.delete_workflows(part)
    finally:
        client.destroy()


_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")


def delete_ended_naming(database: Engine, uids: Container[str]) -> tuple[int, set[str]]:
    """Delete the workflows that have ended and name one of these UIDs.

    Returns how many, and the UIDs that others name, which have not ended.
    """
    with database.connect() as connection:
        if workflows.table(connection, workflows.OF_STEPS) is None:
            return 0, set()
        found = workflows.naming(
            connection, lambda text: [one for one in _UID.findall(text) if one in uids]
        )
        states: dict[str, str] = {}
        ids = sorted(found)
        for begin in range(0, len(ids), _AT_ONCE):
            states |= workflows.states(connection, ids[begin : begin + _AT_ONCE])
    busy = {one for one in ids if states.get(one, ENDED[0]) not in ENDED}
    named = {uid for one in busy for uid in found[one]}
    ended = [one for one in ids if one not in busy]
    _delete(database, ended)
    return len(ended), named


def at_work(database: Engine, words: Iterable[str]) -> list[str]:
    """Return the workflows at work in whose texts one of these words stands."""
    ids = _naming(database, words)
    if not ids:
        return []
    with database.connect() as connection:
        found = workflows.states(connection, ids)
    return sorted(one for one, state in found.items() if state == RUNNING)


def _naming(database: Engine, words: Iterable[str]) -> set[str]:
    """Return the workflows that name one of these; a short word has to be a whole text."""
    wanted = {one if len(one) >= SHORTEST_WORD else json.dumps(one) for one in words if one}
    escaped = wanted | {json.dumps(one)[1:-1] for one in wanted if len(one) >= SHORTEST_WORD}
    if not escaped:
        return set()
    pattern = re.compile("|".join(re.escape(one) for one in sorted(escaped)))
    with database.connect() as connection:
        if workflows.table(connection, workflows.OF_STEPS) is None:
            return set()
        return set(workflows.naming(connection, pattern.findall))


SHORTEST_WORD = 4
"""Characters of a word that is looked for within a text."""


def request(database: Engine, queue: str, workflow: str, workflow_id: str, *args: str) -> None:
    """Have a workflow run by the service, or by the next one that starts; from another process.

    The same ``workflow_id`` again changes nothing.
    """
    client = _client(database)
    try:
        client.enqueue(
            {
                "queue_name": queue,
                "workflow_name": workflow,
                "workflow_id": workflow_id,
                "app_version": APPLICATION_VERSION,
            },
            *args,
        )
    finally:
        client.destroy()


def _client(database: Engine) -> DBOSClient:
    return DBOSClient(
        system_database_engine=database,
        dbos_system_schema=ENGINE_SCHEMA,
        serializer=DBOSPortableJSONSerializer(),
    )


def transaction(
    function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Return what ``function`` returns, its writes and the workflow's checkpoint in one commit.

    Must be called from a workflow. ``function`` gets the open connection first; what it returns
    must be plain JSON. Its name is that of the checkpoint in the database: with another one, a
    workflow that waits could not go on after an upgrade.
    """
    datasource = _datasource
    if datasource is None:
        raise RuntimeError("engine.start() comes first")

    def body() -> R:
        connection = datasource.sql_session().connection()
        begin_writing(connection)  # most read first, and a checkpoint is written in any case
        return function(connection, *args, **kwargs)

    # DBOS's default lets transactions of PostgreSQL fail and repeat that meet in a row; ours write
    # one after the other (store/postgresql.py), and need to see what the one before has written.
    isolation: IsolationLevel = "SERIALIZABLE"
    if datasource.engine.dialect.name == "postgresql":
        isolation = "READ COMMITTED"
    options: DatasourceOptions = {"name": function.__name__, "isolation_level": isolation}
    return datasource.run_tx_step(options, body)
