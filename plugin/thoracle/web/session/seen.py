"""Which lists were recorded as seen: one that keeps itself up to date counts once in a while.

Whether it was recorded is known here, so that nobody can escape the audit by a header.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from fastapi import Request

SAME_VIEW_SECONDS = 600
"""So long a list that was recorded counts as the same view, while it shows no other study."""


@dataclass(frozen=True, slots=True)
class _View:
    at: float
    studies: frozenset[str]


_TURN = threading.Lock()  # pages are answered in several threads


def is_recorded(request: Request, address: str, studies: Iterable[str]) -> bool:
    """Return whether a list was recorded in this session with all that it shows now.

    ``address`` says which list it is.
    """
    with _TURN:
        before = _known(request).get(_key(request, address))
    return before is not None and frozenset(studies) <= before.studies


def recorded(request: Request, address: str, studies: Iterable[str], *, again: bool) -> None:
    """Have a list count as recorded from now on: to be called when its row is committed.

    ``again``: the page asked by itself; what it showed before counts, too.
    """
    with _TURN:
        known, key = _known(request), _key(request, address)
        before = known.get(key) if again else None
        told = frozenset() if before is None else before.studies
        known[key] = _View(time.monotonic(), frozenset(studies) | told)


def _known(request: Request) -> dict[tuple[str, str], _View]:
    """Return what counts as recorded, by session and list."""
    state = request.app.state
    if not hasattr(state, "views_recorded"):
        state.views_recorded = {}
    known: dict[tuple[str, str], _View] = state.views_recorded
    oldest = time.monotonic() - SAME_VIEW_SECONDS
    for old in [one for one, view in known.items() if view.at < oldest]:
        del known[old]
    return known


def _key(request: Request, address: str) -> tuple[str, str]:
    return getattr(request.state, "session", ""), address
