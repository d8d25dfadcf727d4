"""Arrivals: who plans the reading is told of the studies that associations bring."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

logger = logging.getLogger(__name__)

PUSH_INTERVAL = 1.0
"""Seconds between two calls of ``on_arrival`` for one study of one association."""

Arrival = Callable[[str, bool], None]
"""Told of a Study Instance UID, and whether its sender has released the association."""


class Arrivals:
    """Tells of arrivals; the associations may be served in several threads.

    Parameters
    ----------
    on_arrival
        Told as soon as something came, and at the end of each association.
    """

    def __init__(self, on_arrival: Arrival) -> None:
        self._on_arrival = on_arrival
        self._pushed: dict[Any, dict[str, float]] = {}
        self._released: WeakSet[Any] = WeakSet()
        self._lock = threading.Lock()

    def push(self, assoc: Any, study_instance_uid: str) -> None:
        """Tell of an arrival, at most once a second for each study of an association.

        Its end tells of every study again, so no arrival stays untold; and what a crash swallows
        is found by the recovery of unplanned studies.
        """
        moment = time.monotonic()
        with self._lock:
            studies = self._pushed.setdefault(assoc, {})
            if moment - studies.get(study_instance_uid, -PUSH_INTERVAL) < PUSH_INTERVAL:
                return
            studies[study_instance_uid] = moment
        self._tell(study_instance_uid, released=False)

    def _tell(self, study_instance_uid: str, *, released: bool) -> None:
        try:
            self._on_arrival(study_instance_uid, released)
        except Exception:
            # The object is durable and will be acknowledged; the recovery completes its study.
            logger.exception("arrival not queued, study %s", study_instance_uid)

    def release(self, assoc: Any) -> None:
        """Note that a sender has asked for the release of its association.

        A sender may close the connection right after it, so this is told by the thread that reads
        from the connection, when the A-RELEASE-RQ has come and before anything else is read.
        """
        with self._lock:
            self._released.add(assoc)

    def end(self, assoc: Any) -> bool:
        """Tell of every study of an association that has ended; return whether it was released."""
        with self._lock:
            released = assoc in self._released
            studies = self._pushed.pop(assoc, {})
            open_elsewhere = {uid for others in self._pushed.values() for uid in others}
        for study_instance_uid in studies:
            self._tell(
                study_instance_uid,
                released=released and study_instance_uid not in open_elsewhere,
            )
        return released
