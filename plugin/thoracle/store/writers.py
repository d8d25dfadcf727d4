"""One writer at a time on the embedded database, in the order in which they asked.

SQLite takes one writer. Others poll for their turn, up to every 100 ms, in no order: with fifty
associations at once the database was idle most of the time, and some waited beyond the limit.
The threads of a process therefore queue here; SQLite alone decides between processes.
"""

import re
import sqlite3
import threading
from collections import deque
from typing import Any

from sqlalchemy import Connection, Engine, event

WAIT_SECONDS = 30.0
"""How long a writer waits for its turn, as ``busy_timeout`` says for those of other processes."""
_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|BEGIN IMMEDIATE)\b", re.IGNORECASE)
"""What begins a transaction that writes: those words for which sqlite3 begins one, and ours."""


class WriterQueue:
    """Threads that want to write: the first has its turn, the others wait behind it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def enter(self, seconds: float) -> bool:
        """Wait for a turn, at most so many seconds; return whether it has come."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        if turn.wait(seconds):
            return True
        with self._lock:
            if turn.is_set():  # it came just now
                return True
            self._waiting.remove(turn)
            return False

    def leave(self) -> None:
        """Give the turn to whoever has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


class WritingConnection(sqlite3.Connection):
    """A connection whose transactions that write wait for their turn in ``queue``."""

    queue: WriterQueue
    _has_turn = False

    def take_turn(self) -> None:
        """Wait for the turn of a transaction that is about to write.

        Raises
        ------
        sqlite3.OperationalError
            It has not come within ``WAIT_SECONDS``; SQLite's own words, for it is the same fault.
        """
        if self._has_turn:
            return
        if not self.queue.enter(WAIT_SECONDS):
            raise sqlite3.OperationalError("database is locked")
        self._has_turn = True

    def _end_turn(self) -> None:
        if self._has_turn and not self.in_transaction:
            self._has_turn = False
            self.queue.leave()

    def commit(self) -> None:
        """Commit, and give the turn on."""
        try:
            super().commit()
        finally:
            self._end_turn()

    def rollback(self) -> None:
        """Roll back, and give the turn on."""
        try:
            super().rollback()
        finally:
            self._end_turn()

    def close(self) -> None:
        """Close; a turn that is left goes on."""
        super().close()
        if self._has_turn:
            self._has_turn = False
            self.queue.leave()


def in_order(engine: Engine) -> None:
    """Have the writers of an engine, whose connections are ``WritingConnection``, wait in order."""
    queue = WriterQueue()

    def connected(connection: Any, _record: Any) -> None:
        connection.queue = queue

    event.listen(engine, "connect", connected)
    event.listen(engine, "before_cursor_execute", _take_turn)


def _take_turn(
    connection: Connection, _cursor: Any, statement: str, _values: Any, _context: Any, _many: bool
) -> None:
    if _WRITES.match(statement):
        found: Any = connection.connection.driver_connection
        found.take_turn()
