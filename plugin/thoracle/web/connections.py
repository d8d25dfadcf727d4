"""Connections to the pages: how many there may be, and how long one may wait for its request.

uvicorn answers everybody with 503 when there are too many, whoever has them. Here one that waits
for its peer makes place for a new one: of the same address first, and of somebody who is signed in
last. Beyond the places for all there are some for who is signed in and for ``/healthz``.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from thoracle.settings import Web

MOST = 400
"""Connections of all addresses together."""
RESERVE = 100
"""Beyond them, when all are at work."""
RESERVED = "reserved"
"""In the state of a request: it came on a connection of the reserve."""
HEADER_SECONDS = 20
"""A request whose first lines have not come after so many seconds does not come."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 that bounds connections, and ends those on which a request does not come.

    uvicorn has a time-out between requests alone; connections that send a byte now and then would
    keep their places.
    """

    _deadline: asyncio.TimerHandle | None = None
    _since = 0.0
    _known = False
    """Whether the last request was of somebody who is signed in."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, and begin to wait for the first request."""
        super().connection_made(transport)
        self._since = self.loop.time()
        if self._has_place():
            self._wait()
        else:
            transport.abort()

    def _has_place(self) -> bool:
        """Return whether there is a place, if need be that of one who waits."""
        # uvicorn keeps connections of this protocol alone in the set.
        others: Any = self.connections - {self}
        web: Web = self.config.app.state.site.settings.web  # type: ignore[union-attr]
        address = self._address()
        if address not in web.proxy_addresses:
            same = [one for one in others if one._address() == address]
            if len(same) >= web.connections_per_address:
                return _ended_one(same)
        if len(others) < MOST or _ended_one(others):
            return True
        self.app_state = {**self.app_state, RESERVED: True}
        return len(others) < MOST + RESERVE

    def _address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def waits(self) -> bool:
        """Whether nothing is done for it before its peer sends more."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    @property
    def age(self) -> tuple[bool, float]:
        """What sorts the connections, the first that goes first."""
        return self._known, self._since

    def on_response_complete(self) -> None:
        """Remember whether the request was of somebody who is signed in."""
        self._known = self.scope.get("state", {}).get("person") is not None
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Go on waiting while no request is complete."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _ended_one(some: Iterable[BoundedProtocol]) -> bool:
    """End a connection that waits, and return whether there was one."""
    waiting = [one for one in some if one.waits]
    if not waiting:
        return False
    ended = min(waiting, key=lambda one: one.age)
    ended.connections.discard(ended)  # now: it is lost in the next round of the loop
    ended.transport.abort()
    return True
