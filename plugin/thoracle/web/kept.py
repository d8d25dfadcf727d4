"""Answers that are kept for a while: many people may look at what one question costs."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Kept:
    """Answers by key; who asks while one is being made waits for it.

    Parameters
    ----------
    seconds
        How long an answer is good.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._answers: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the answer to a key, made anew when there is none that is good."""
        with self._lock:
            until, answer = self._answers.get(key, (0.0, None))
            if time.monotonic() >= until:
                answer = make()
                self._answers[key] = (time.monotonic() + self._seconds, answer)
            kept: T = answer
            return kept

    def forget(self) -> None:
        """Have every answer made anew."""
        with self._lock:
            self._answers.clear()
