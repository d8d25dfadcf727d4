"""Housekeeping: what the service looks after again and again, each step on its own.

A step that fails raises an alarm and stops no other.
"""

import logging
import traceback
from collections.abc import Callable, Mapping

from sqlalchemy.exc import DBAPIError

from thoracle.monitoring import conditions
from thoracle.monitoring.comparison import Comparison
from thoracle.store.tables import now

logger = logging.getLogger(__name__)


class Housekeeping:
    """Steps that are run one after the other.

    Parameters
    ----------
    steps
        By a name of two or three words, e.g. ``audit anchors``.
    """

    def __init__(self, steps: Mapping[str, Callable[[], object]]) -> None:
        self._steps = steps
        self._failing: dict[str, tuple[str, str]] = {}
        """Of each step that fails, since when, and the kind of error."""

    def run(self) -> None:
        """Run each step; none raises."""
        for name, step in self._steps.items():
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the other steps must not wait for this one
                self._failed(name, error)
            else:
                self._failing.pop(name, None)

    def _failed(self, name: str, error: Exception) -> None:
        kind = type(error).__name__
        since, before = self._failing.get(name, (now(), ""))
        self._failing[name] = (since, kind)
        if kind == before:
            return  # once is enough: it is tried again
        # Without the text, which may quote what a header says; a database's own does not.
        said = str(error.orig) if isinstance(error, DBAPIError) else ""
        where = "".join(traceback.format_tb(error.__traceback__)[-3:])
        logger.error("housekeeping, %s: %s %s\n%s", name, kind, said, where)

    def alarms(self) -> list[Comparison]:
        """Return an alarm for each step that fails."""
        return [
            conditions.alarm(
                f"housekeeping {name}",
                f"Housekeeping: {name}",
                f"Housekeeping fails since {since[:19]} UTC: {name}, {kind}.",
                "What to do: look for this step in the log of the gateway.",
            )
            for name, (since, kind) in self._failing.items()
        ]
