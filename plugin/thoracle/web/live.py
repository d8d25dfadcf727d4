"""What tells open pages that the worklist changed: one look a process, however many are open."""

import asyncio
import time
from collections.abc import AsyncIterator

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from thoracle.study import reading_list

LOOK_SECONDS = 0.25
"""Between two looks; one of them reads the end of an index."""
STREAM_SECONDS = 300.0
"""A stream ends after so long. The browser opens it again, and has to be signed in for that."""


class Live:
    """When the worklist changed last, for all who wait for it to change again."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._changed_at = ""
        self._waiting = 0
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def changes(self, seconds: float = STREAM_SECONDS) -> AsyncIterator[str]:
        """Yield the time of the last change at once, and of each one that comes within a time."""
        end = time.monotonic() + seconds
        self._waiting += 1
        if self._task is None or self._task.done():
            self._changed_at = await run_in_threadpool(self._look)
            self._task = asyncio.create_task(self._watch())
        try:
            told = None
            while (left := end - time.monotonic()) > 0:
                if self._changed_at != told:
                    told = self._changed_at
                    yield told
                try:
                    async with asyncio.timeout(left), self._changed:
                        while self._changed_at == told:
                            await self._changed.wait()
                except TimeoutError:
                    return
        finally:
            self._waiting -= 1

    async def _watch(self) -> None:
        while self._waiting:
            try:
                found = await run_in_threadpool(self._look)
            except SQLAlchemyError:  # it is away for a while: those who wait shall hear it after
                found = self._changed_at
            if found != self._changed_at:
                async with self._changed:
                    self._changed_at = found
                    self._changed.notify_all()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> str:
        with self._database.connect() as connection:
            return reading_list.changed_at(connection)
