"""The first administrator: made by whoever reads what `thoracle web` printed at its start.

The token lives in the memory of the process alone, as a digest; the next start prints another one
while there is nobody.
"""

import hmac
import secrets
import threading

from thoracle.web.session import cookies


class FirstRun:
    """The one-time token of this process."""

    def __init__(self) -> None:
        self._digest: str | None = None
        self.turn = threading.Lock()
        """Held while an account is made: two requests at once must not both find the token good."""

    def begin(self) -> str:
        """Return a new token, to be printed once."""
        token = secrets.token_urlsafe(cookies.BYTES)
        self._digest = cookies.digest(token)
        return token

    def fits(self, token: str) -> bool:
        """Return whether a token is the one that was printed."""
        return self._digest is not None and hmac.compare_digest(
            self._digest, cookies.digest(token.strip())
        )

    @property
    def open(self) -> bool:
        """Whether a token was printed and not used."""
        return self._digest is not None

    def end(self) -> None:
        """Let no token fit any more."""
        self._digest = None
