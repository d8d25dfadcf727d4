"""Which lists were recorded as seen: one that keeps itself up to date counts once in a while.

Whether it was recorded is known here, so that nobody can escape the audit by a header.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from fastapi import Request

SAME_VIEW_SECONDS = 600
"""So long a list that was recorded counts as the same view, while it shows no other study."""


@dataclass(frozen=True, slots=True)
class _View:
    at: float
    studies: frozenset[str]


@dataclass(slots=True)
class _Views:
    views: dict[tuple[str, str], _View] = field(default_factory=dict)


def is_recorded(request: Request, address: str, studies: Iterable[str], *, again: bool) -> bool:
    """Return whether a list was recorded in this session with all that it shows now.

    If not, it counts as recorded from now on: the caller records it.

    Parameters
    ----------
    address
        Which list it is.
    again
        Whether the page asks by itself; else it is another view in any case.
    """
    state = request.app.state
    if not hasattr(state, "views_recorded"):
        state.views_recorded = _Views()
    known: dict[tuple[str, str], _View] = state.views_recorded.views
    key = (getattr(request.state, "session", ""), address)
    moment, shown = time.monotonic(), frozenset(studies)
    for old in [one for one, view in known.items() if moment - view.at > SAME_VIEW_SECONDS]:
        known.pop(old, None)
    before = known.get(key)
    if again and before is not None and shown <= before.studies:
        return True
    told = before.studies if again and before is not None else frozenset()
    known[key] = _View(moment, shown | told)
    return False
