"""Refused callers in the log and the audit: few rows, however many come, and none uncounted.

The rule: the first refusal of a kind (address, AE titles, reason) is a row at once. Its repetitions
until the end of the minute that the first refusal of any kind began are one row, written then, with
their number. At most ``MOST_KINDS`` kinds have rows of their own in such a minute; all others are
one kind. A crash loses the numbers of its minute, nothing else does.
"""

import logging
import threading
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from thoracle.store import trail

logger = logging.getLogger(__name__)

SECONDS = 60.0
MOST_KINDS = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """Who was refused and why; equal ones are of one kind."""

    network_address: str | None
    reason: str
    calling_ae_title: str | None = None
    called_ae_title: str | None = None


OTHERS = Refusal(None, "further kinds of refusals, not told apart")


class Refusals:
    """Tells of refusals until it is closed; callers may come from several threads."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._repeated: dict[Refusal, int] = {}
        self._timer: threading.Timer | None = None

    def add(self, refusal: Refusal) -> None:
        """Tell of a refusal at once, or count it."""
        with self._lock:
            if refusal not in self._repeated and len(self._repeated) >= MOST_KINDS:
                refusal = OTHERS
            if refusal in self._repeated:
                self._repeated[refusal] += 1
                return
            self._repeated[refusal] = 0
            if self._timer is None:
                self._timer = threading.Timer(SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()
        self._tell(refusal, 1)

    def flush(self) -> None:
        """Tell what has been counted; the next refusal begins a new minute."""
        with self._lock:
            repeated, self._repeated = self._repeated, {}
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for refusal, times in repeated.items():
            if times:
                self._tell(refusal, times)

    def _tell(self, refusal: Refusal, times: int) -> None:
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
