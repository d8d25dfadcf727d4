"""Associations while they are open, and what is recorded of them.

Their places, the studies that they bring, the counts of what they sent, and those refused.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from thoracle.store import trail

# ---- arrivals ------------------------------------------------------------------------------------
# Arrivals: who plans the reading is told of the studies that associations bring.

logger = logging.getLogger(__name__)

PUSH_INTERVAL = 1.0
"""Seconds between two calls of ``on_arrival`` for one study of one association."""

Arrival = Callable[[str, bool], None]
"""Told of a Study Instance UID, and whether its sender has released the association."""


class Arrivals:
    """Notifies of arrivals; the associations may be served in several threads.

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
        """Notify of an arrival, at most once a second for each study of an association.

        Its end notifies of every study again, so no arrival is lost; and what a crash swallows
        is found by the recovery of unplanned studies.
        """
        moment = time.monotonic()
        with self._lock:
            studies = self._pushed.setdefault(assoc, {})
            if moment - studies.get(study_instance_uid, -PUSH_INTERVAL) < PUSH_INTERVAL:
                return
            studies[study_instance_uid] = moment
        self._notify(study_instance_uid, released=False)

    def _notify(self, study_instance_uid: str, *, released: bool) -> None:
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
        """Notify of all studies of an association that ended; return whether it was released."""
        with self._lock:
            released = assoc in self._released
            studies = self._pushed.pop(assoc, {})
            open_elsewhere = {uid for others in self._pushed.values() for uid in others}
        for study_instance_uid in studies:
            self._notify(
                study_instance_uid,
                released=released and study_instance_uid not in open_elsewhere,
            )
        return released


# ---- counts --------------------------------------------------------------------------------------
# Associations that sent something: one row of the audit for each, at its end, with its counts.
#
# The instances have rows of their own when they come; so a crash loses nothing but the sum. An
# association that sent no object is no row: what others ask (C-FIND, N-GET) has rows of its own,
# and a C-ECHO says nothing of anybody.

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


# ---- refusals ------------------------------------------------------------------------------------
# Refused callers in the log and the audit: few rows, however many come, and none uncounted.
#
# The rule: the first refusal of a kind (address, AE titles, reason) is a row at once. Its
# repetitions until the end of the minute that the first refusal of any kind began are one row,
# written then, with their number. At most ``MOST_REFUSALS`` kinds have rows of their own in such a
# minute; all others are one kind. A crash loses the numbers of its minute, nothing else does.

REFUSAL_SECONDS = 60.0
MOST_REFUSALS = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """Who was refused and why; equal ones are of one kind."""

    network_address: str | None
    reason: str
    calling_ae_title: str | None = None
    called_ae_title: str | None = None


OTHER_REFUSALS = Refusal(None, "further kinds of refusals, not told apart")


class Refusals:
    """Records refusals until it is closed; callers may come from several threads."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._repeated: dict[Refusal, int] = {}
        self._timer: threading.Timer | None = None

    def add(self, refusal: Refusal) -> None:
        """Record a refusal at once, or count it."""
        with self._lock:
            if refusal not in self._repeated and len(self._repeated) >= MOST_REFUSALS:
                refusal = OTHER_REFUSALS
            if refusal in self._repeated:
                self._repeated[refusal] += 1
                return
            self._repeated[refusal] = 0
            if self._timer is None:
                self._timer = threading.Timer(REFUSAL_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()
        self._record(refusal, 1)

    def flush(self) -> None:
        """Record what has been counted; the next refusal begins a new minute."""
        with self._lock:
            repeated, self._repeated = self._repeated, {}
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for refusal, times in repeated.items():
            if times:
                self._record(refusal, times)

    def _record(self, refusal: Refusal, times: int) -> None:
        logger.warning(
            "association refused: %s calls %s from %s, %s (%d times)",
            refusal.calling_ae_title or "somebody",
            refusal.called_ae_title or "us",
            refusal.network_address or "several addresses",
            refusal.reason,
            times,
        )
        try:
            with self._database.begin() as connection:
                trail.record(
                    connection,
                    trail.Event.ASSOCIATION_REFUSED,
                    {
                        "event_outcome": trail.MINOR_FAILURE,
                        "calling_ae_title": refusal.calling_ae_title,
                        "called_ae_title": refusal.called_ae_title,
                        "network_address": refusal.network_address,
                        "detail": {"reason": refusal.reason, "times": times},
                    },
                )
        except SQLAlchemyError:
            logger.exception("refusal not audited")


# ---- places --------------------------------------------------------------------------------------
# Places for associations: no peer takes so many that others find none.
#
# Of ``receive.maximum_associations`` one address may have nine tenths, and one AE title at one
# address four fifths. An AE title is counted for each address by itself: whoever calls with
# another's name takes none of its places. A connection has its place from its first byte on.


class Places:
    """Counts associations; they may be served in several threads.

    Parameters
    ----------
    maximum
        All associations that are served at the same time.
    """

    def __init__(self, maximum: int) -> None:
        self.per_address = max(1, maximum * 9 // 10)
        self.per_ae_title = max(1, maximum * 4 // 5)
        self._lock = threading.Lock()
        self._taken: dict[Any, list[tuple[str, str | None]]] = {}
        self._counts: Counter[tuple[str, str | None]] = Counter()

    def enter(self, assoc: Any, address: str) -> bool:
        """Return whether there is a place for a connection from an address, and take it."""
        return self._take(assoc, (address, None), self.per_address)

    def call(self, assoc: Any, address: str, ae_title: str) -> bool:
        """Return whether there is a place for an AE title at an address, and take it."""
        return self._take(assoc, (address, ae_title), self.per_ae_title)

    def _take(self, assoc: Any, whose: tuple[str, str | None], maximum: int) -> bool:
        with self._lock:
            if self._counts[whose] >= maximum:
                return False
            self._counts[whose] += 1
            self._taken.setdefault(assoc, []).append(whose)
            return True

    def leave(self, assoc: Any) -> None:
        """Give back what an association had."""
        with self._lock:
            for whose in self._taken.pop(assoc, []):
                self._counts[whose] -= 1
                if not self._counts[whose]:
                    del self._counts[whose]
