"""Associations that sent something: one row of the audit for each, at its end, with its counts.

The instances have rows of their own when they come; so a crash loses nothing but the sum. An
association that sent no object is no row: what others ask (C-FIND, N-GET) has rows of its own, and
a C-ECHO says nothing of anybody.
"""

import logging
import threading
import time
from collections import Counter
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from thoracle.store import trail

logger = logging.getLogger(__name__)

REFUSED = trail.Event.INSTANCE_REFUSED
_COUNTED = {
    trail.Event.INSTANCE_STORED: "stored",
    trail.Event.INSTANCE_DUPLICATE: "duplicates",
    trail.Event.INSTANCE_CORRECTED: "corrected",
    REFUSED: "refused",
}


class Visits:
    """Counts what associations bring; they may be served in several threads."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._open: dict[Any, tuple[float, Counter[trail.Event]]] = {}

    def count(self, assoc: Any, event: trail.Event) -> None:
        """Count an object of an association."""
        with self._lock:
            _, counts = self._open.setdefault(assoc, (time.monotonic(), Counter()))
            counts[event] += 1

    def end(self, assoc: Any, *, released: bool) -> None:
        """Record the end of an association, unless it has been or sent nothing."""
        with self._lock:
            began, counts = self._open.pop(assoc, (0.0, Counter[trail.Event]()))
        if not counts:
            return
        detail: dict[str, Any] = {name: counts[event] for event, name in _COUNTED.items()}
        columns: trail.Columns = {
            "event_outcome": trail.MINOR_FAILURE if counts[REFUSED] else trail.SUCCESS,
            "calling_ae_title": str(assoc.requestor.ae_title),
            "called_ae_title": str(assoc.requestor.primitive.called_ae_title),
            "network_address": assoc.requestor.address,
            "seconds": round(time.monotonic() - began, 4),
            "detail": {**detail, "released": released},
        }
        try:
            with self._database.begin() as connection:
                trail.record(connection, trail.Event.ASSOCIATION_ACCEPTED, columns)
        except SQLAlchemyError:
            logger.exception("association not audited")
