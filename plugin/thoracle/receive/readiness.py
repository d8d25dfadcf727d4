"""Whether an object could be stored now: what C-ECHO answers, and what an alarm says."""

import logging
import threading
import time

from thoracle.receive.inbox import Inbox
from thoracle.store import database as databases
from thoracle.store.database import Database

logger = logging.getLogger(__name__)

KEPT_SECONDS = 1.0
"""An answer holds so long: a monitor, or a flood of C-ECHOs, costs one look a second."""


class Readiness:
    """Looks whether files and rows can be written; nothing that it writes stays."""

    def __init__(self, inbox: Inbox, database: Database) -> None:
        self._inbox = inbox
        self._database = database
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._fault = ""

    def fault(self) -> str:
        """Return why no object could be stored now; empty when one could."""
        with self._lock:
            if time.monotonic() - self._looked > KEPT_SECONDS:
                found = self._inbox.fault() or databases.fault(self._database)
                if found != self._fault:
                    logger.warning("storing of objects: %s", found or "possible again")
                self._fault, self._looked = found, time.monotonic()
            return self._fault
