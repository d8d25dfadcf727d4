"""When the engine looks at its queues: as soon as work is in one of them, seldom at rest.

DBOS looks at each queue in a fixed interval, with several statements each time: six queues looked
at five times a second took a fifth of a core, whatever came. What puts work into a queue is a
commit, by this process or another one, and SQLite tells of commits for next to nothing: one thread
asks, and wakes the threads of those queues that have work. They are looked at in DBOS's interval
until they are empty, and all of them now and then.

PostgreSQL does not tell of commits. There, the queues are looked at in DBOS's interval while this
process has work, and once a second at rest.
"""

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dbos import _queue
from dbos._utils import INTERNAL_QUEUE_NAME
from sqlalchemy import Engine

POLLING_SECONDS = 0.2
"""DBOS's interval: the least time between two looks at a queue."""
ONE_BY_ONE_SECONDS = 0.05
"""The same for a queue of which one workflow runs at a time: the next one waits for a look."""
REST_SECONDS = {"sqlite": 5.0, "postgresql": 1.0}
"""The longest time between two looks at a queue."""
REST_AFTER_SECONDS = 60.0
"""After the last work of this process, where commits are not told."""
_CHANGED_SECONDS = 0.1
"""Time between two questions whether the database changed."""
_FULL_SECONDS = 0.02
"""Time between two questions whether a queue of which as much runs as may has a place again."""
_READY = """
SELECT EXISTS (
    SELECT 1 FROM workflow_status
    -- The first of these two is that of DBOS's index, which SQLite takes only then.
    WHERE queue_name = ? AND status IN ('ENQUEUED', 'PENDING') AND status = 'ENQUEUED'
)
"""

_worker: Callable[..., None] = _queue.queue_worker_thread


class Polling(ABC):
    """What the threads of an engine's queues share."""

    def install(self) -> None:
        """Have DBOS's threads of queues wait as this says; before they are started."""

        def worker(stop: threading.Event, dbos: Any, queue: Any) -> None:
            limit = queue._worker_concurrency

            def is_full() -> bool:
                running = dbos._active_workflows_set.count_for_queue(queue.name)
                return limit is not None and running >= limit

            _worker(_Pause(stop, self, queue.name, is_full), dbos, queue)

        setattr(_queue, "queue_worker_thread", worker)  # noqa: B010 - mypy takes it for a constant

    @abstractmethod
    def often(self) -> None:
        """Look often from now on: work is, or will soon be, in a queue."""

    @abstractmethod
    def wait(self, queue: str, stop: threading.Event) -> None:
        """Return when a queue is to be looked at; DBOS's interval has passed."""

    @abstractmethod
    def close(self) -> None:
        """Ask the database nothing more; the threads of the queues are about to be stopped."""


def polling_of(database: Engine, queues: Sequence[str]) -> Polling:
    """Return how queues of these names are looked at in a database."""
    if database.dialect.name != "sqlite":
        return _ByTheClock()
    return _AfterCommits(Path(str(database.url.database)), [*queues, INTERNAL_QUEUE_NAME])


class _AfterCommits(Polling):
    """Looks at a queue when there was a commit, and work is in it."""

    def __init__(self, path: Path, queues: Sequence[str]) -> None:
        self._queues = queues
        address = f"{path.absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        self._using = threading.Lock()
        self._changed = threading.Condition()
        self._ready: set[str] = set()
        self._closed = threading.Event()

    def install(self) -> None:
        super().install()
        threading.Thread(target=self._watch, name="commits", daemon=True).start()

    def often(self) -> None:
        pass  # a commit tells

    def wait(self, queue: str, stop: threading.Event) -> None:
        if self._closed.is_set():
            stop.wait(POLLING_SECONDS)
            return
        with self._changed:
            self._changed.wait_for(
                lambda: queue in self._ready or self._closed.is_set(), REST_SECONDS["sqlite"]
            )

    def close(self) -> None:
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        with self._using:
            self._connection.close()

    def _watch(self) -> None:
        """Ask for commits until closed, and after each for the queues that have work."""
        seen = -1
        while not self._closed.wait(_CHANGED_SECONDS):
            # A database that is away, or without tables yet: looked at by the clock alone.
            with suppress(sqlite3.Error), self._using:
                (found,) = self._connection.execute("PRAGMA data_version").fetchone()
                if found == seen:
                    continue
                ready = {one for one in self._queues if self._has_work(one)}
                seen = found
                with self._changed:
                    self._ready = ready
                    self._changed.notify_all()

    def _has_work(self, queue: str) -> bool:
        return bool(self._connection.execute(_READY, [queue]).fetchone()[0])


class _ByTheClock(Polling):
    """Looks at all queues in intervals."""

    def __init__(self) -> None:
        self._last_work = time.monotonic()

    def often(self) -> None:
        self._last_work = time.monotonic()

    def wait(self, queue: str, stop: threading.Event) -> None:
        began = time.monotonic() - POLLING_SECONDS
        while (now := time.monotonic()) - self._last_work > REST_AFTER_SECONDS:
            if now - began >= REST_SECONDS["postgresql"] or stop.wait(_CHANGED_SECONDS):
                return

    def close(self) -> None:
        pass


class _Pause:
    """In place of the event that ends a thread of a queue: it also says when to look."""

    def __init__(
        self, stop: threading.Event, polling: Polling, queue: str, is_full: Callable[[], bool]
    ) -> None:
        self._stop = stop
        self._polling = polling
        self._queue = queue
        self._is_full = is_full

    def is_set(self) -> bool:
        return self._stop.is_set()

    def wait(self, timeout: float) -> bool:
        """Return whether to end; ``timeout`` is the least time, which grows under contention."""
        if not self._stop.wait(timeout):
            # Nothing would be taken from it now: a look would cost statements and find no place.
            while self._is_full() and not self._stop.wait(_FULL_SECONDS):
                pass
            self._polling.wait(self._queue, self._stop)
        return self._stop.is_set()
