"""Places for associations: no peer takes so many that others find none.

Of ``receive.maximum_associations`` one address may have nine tenths, and one AE title at one
address four fifths. An AE title is counted for each address by itself: whoever calls with another's
name takes none of its places. A connection has its place from its first byte on.
"""

import threading
from collections import Counter
from typing import Any


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
