"""How often one network address may try to log in. The lock of an account is another matter.

In the memory of the process: an attacker cannot restart it.
"""

import ipaddress

from fastapi import HTTPException
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

TRIES = RateLimitItemPerMinute(120)
"""Log-ins, well or not: each costs a comparison of a password. Departments share addresses."""
FAILURES = RateLimitItemPerMinute(20)


class Throttle:
    """Counts the log-ins of each address over the last minute."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def admit(self, address: str | None) -> None:
        """Count a log-in.

        Raises
        ------
        HTTPException
            429: there were too many.
        """
        who = _network(address)
        if not self._limiter.hit(TRIES, "try", who) or not self._limiter.test(
            FAILURES, "failure", who
        ):
            raise HTTPException(
                429, "too many log-ins from this address: wait a minute", {"Retry-After": "60"}
            )

    def failed(self, address: str | None) -> None:
        """Count a log-in that failed."""
        self._limiter.hit(FAILURES, "failure", _network(address))


def _network(address: str | None) -> str:
    """Return what one attacker has: an address of IPv4, a /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))
