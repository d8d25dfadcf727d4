"""The one cookie: 256 random bits, of which the database keeps the SHA-256 alone.

Before the log-in it names nobody and only protects the forms; the log-in replaces it, so that a
cookie planted before is worth nothing after.
"""

import hashlib
import hmac

from fastapi import Request
from starlette.responses import Response

BYTES = 32
"""Random bytes of a cookie and of a token."""
LONGEST = 128
"""Characters; ours have 43."""


def name(secure: bool) -> str:
    """Return the cookie's name; browsers take the prefix from https and for one host alone."""
    return "__Host-thoracle" if secure else "thoracle"


def value(request: Request, secure: bool) -> str | None:
    """Return the cookie that came with a request."""
    found = request.cookies.get(name(secure), "")
    return found if 0 < len(found) <= LONGEST else None


def digest(secret: str) -> str:
    """Return what the database keeps of a cookie or token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def csrf_token(cookie: str) -> str:
    """Return the token that forms of the pages shown to the holder of a cookie must send.

    Nobody can compute it without the cookie, and from it nobody learns the cookie.
    """
    key = cookie.encode("utf-8", "surrogatepass")
    return hmac.new(key, b"thoracle csrf token", hashlib.sha256).hexdigest()


def put(response: Response, cookie: str, secure: bool) -> None:
    """Set the cookie until the browser is closed: a machine of a reading room is used by many."""
    response.set_cookie(
        name(secure), cookie, path="/", secure=secure, httponly=True, samesite="lax"
    )


def clear(response: Response, secure: bool) -> None:
    """Have the browser forget the cookie."""
    response.delete_cookie(name(secure), path="/", secure=secure, httponly=True, samesite="lax")
