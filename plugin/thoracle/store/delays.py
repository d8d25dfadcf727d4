"""When delays of the engine's workflows end: as soon as they are over.

DBOS looks once a second for delays that are over, which would add half a second to the quiet
period of each study. It does so all the same, for those that were not announced.
"""

import logging
import math
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_LATER_SECONDS = 0.02
"""A delay begins when DBOS writes it, a little after it was announced."""


class Delays:
    """Ends delays of workflows when they are over; a thread of its own.

    Parameters
    ----------
    end
        Makes ready whatever is due by now.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._due: set[float] = set()
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._run, name="delays", daemon=True).start()

    def announce(self, seconds: float) -> None:
        """Have a delay ended that begins now, and others within a tenth of a second with it."""
        with self._changed:
            self._due.add(math.ceil((time.monotonic() + seconds + _LATER_SECONDS) * 10) / 10)
            self._changed.notify()

    def close(self) -> None:
        """End no more delays."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (left := self._left()) != 0:
                    self._changed.wait(left)
                if self._closed:
                    return
                self._due = {due for due in self._due if due > time.monotonic()}
            try:
                self._end()
            except Exception as error:  # noqa: BLE001 - DBOS does it within a second
                logger.warning("a delay ends late: %s", type(error).__name__)

    def _left(self) -> float | None:
        """Return the seconds until the next delay is over; ``None``: there is none."""
        return max(0.0, min(self._due) - time.monotonic()) if self._due else None
