"""Steps of the machine's clock: somebody set it, or the machine was suspended."""

import logging
import time

logger = logging.getLogger(__name__)

SHORTEST_SECONDS = 5.0
"""What is shorter comes of clocks that are brought to the right time little by little."""


class Clock:
    """Compares the clock of the day with the one that nobody sets."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._step = 0.0
        self._stepped = float("-inf")

    def step(self) -> float:
        """Return by how many seconds the clock went forward since the last call; 0 as a rule."""
        offset = time.time() - time.monotonic()
        step, self._offset = offset - self._offset, offset
        if abs(step) < SHORTEST_SECONDS:
            return 0.0
        self._step, self._stepped = step, time.monotonic()
        logger.warning("the clock of this machine was set %s", _said(step))
        return step

    def recent(self, seconds: float) -> str:
        """Return how the clock was set in the last seconds; empty: it was not."""
        return _said(self._step) if time.monotonic() - self._stepped <= seconds else ""


def _said(step: float) -> str:
    return f"{'forward' if step > 0 else 'back'} by {abs(step):.0f} seconds"
