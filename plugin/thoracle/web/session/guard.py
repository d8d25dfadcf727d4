"""What is done to every request before the application sees it, and to every answer.

A middleware on the bare protocol, because the middlewares that Starlette builds on functions
would hold back the events of a stream.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thoracle.settings import Web, is_loopback
from thoracle.web.connections import RESERVED

logger = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024
"""Bytes; the largest form is a verdict with its free text."""
BODY_SECONDS = 20
"""A body that has not come after so many seconds does not come."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
LONGEST_LOGGED = 200
"""Characters of a path in the log."""
HSTS = "max-age=31536000"


class Guard:
    """Checks the name by which the pages are called and the size of what is sent; adds headers.

    Parameters
    ----------
    app
        The application.
    settings
        ``trusted_hosts``, and ``host``: names of this machine are taken while only it can connect.
    secure
        Whether browsers come by https.
    is_known
        Says whether somebody is signed in; it asks the database.
    failed
        Answers what the application could not. It is done here, because Starlette's own place for
        it is outside of this one, and its answers would go without the headers.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Web,
        secure: bool,
        is_known: Callable[[Request], bool],
        failed: Callable[[Request], Response],
    ) -> None:
        self._app = app
        self._secure = secure
        self._is_known = is_known
        self._failed = failed
        self._hosts = {host.lower() for host in settings.trusted_hosts}
        if is_loopback(settings.host):
            self._hosts |= {*LOOPBACK_NAMES, settings.host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send, self._secure)
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if _host(headers.get("host", "")) not in self._hosts:
            await _say(scope, receive, answer, 400, "found a Host header that is not trusted")
        elif not length.isdecimal() or int(length[:12]) > LARGEST_BODY:
            await _say(scope, receive, answer, 413, f"required: at most {LARGEST_BODY} bytes")
        elif scope.get("state", {}).get(RESERVED) and not await self._may_use_reserve(scope):
            await _say(scope, receive, answer, 503, "all connections are in use; try again later")
        else:
            await self._pass_on(scope, _Body(scope, receive, answer).receive, answer)
        answer.log()

    async def _may_use_reserve(self, scope: Scope) -> bool:
        if scope["path"] == "/healthz":
            return True
        return await run_in_threadpool(self._is_known, Request(scope))

    async def _pass_on(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"][:LONGEST_LOGGED])
            if answer.status is not None:  # half an answer was sent: the connection has to break
                raise
            await self._failed(Request(scope))(scope, receive, answer.send)


def _host(header: str) -> str:
    """Return the name in a Host header, without its port."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdecimal() else header).lower()


async def _say(
    scope: Scope, receive: Receive, answer: "_Answer", status_code: int, text: str
) -> None:
    await PlainTextResponse(f"{text}\n", status_code)(scope, receive, answer.send)


class _Body:
    """Counts the bytes of a body whose length nobody stated, and the time that it takes.

    One that is too large or too slow is answered here; the application then sees a caller who has
    gone, and what it says to that is not sent.
    """

    def __init__(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        self._scope = scope
        self._receive = receive
        self._answer = answer
        self._bytes = 0
        self._complete = False
        self._deadline = time.monotonic() + BODY_SECONDS

    async def receive(self) -> Message:
        if self._complete:  # what comes now is the end of the connection: a stream waits for it
            return await self._receive()
        try:
            async with asyncio.timeout(max(self._deadline - time.monotonic(), 0)):
                message = await self._receive()
        except TimeoutError:
            return await self._refuse(408, f"required: the body within {BODY_SECONDS} s")
        self._bytes += len(message.get("body", b""))
        if self._bytes > LARGEST_BODY:
            return await self._refuse(413, f"required: at most {LARGEST_BODY} bytes")
        self._complete = not message.get("more_body", False)
        return message

    async def _refuse(self, status_code: int, text: str) -> Message:
        if self._answer.status is None:
            await _say(self._scope, self._receive, self._answer, status_code, text)
        self._answer.end()
        return {"type": "http.disconnect"}


class _Answer:
    """Adds the headers to an answer, and a line to the log."""

    def __init__(self, scope: Scope, send: Send, secure: bool) -> None:
        self._scope = scope
        self._send = send
        self._secure = secure
        self._began = time.monotonic()
        self._ended = False
        self.status: int | None = None

    def end(self) -> None:
        """Send nothing more."""
        self._ended = True

    async def send(self, message: Message) -> None:
        if self._ended:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._head(MutableHeaders(scope=message))
        await self._send(message)

    def _head(self, headers: MutableHeaders) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        # Files of ours hold no patient data; a page that is kept could be seen after the log-out.
        static = self._scope["path"].startswith("/static/")
        headers.setdefault("Cache-Control", "max-age=300" if static else "no-store")
        if self._secure:
            headers.setdefault("Strict-Transport-Security", HSTS)

    def log(self) -> None:
        """Write a line without the query, which may hold names of patients."""
        client: Any = self._scope.get("client") or ("",)
        logger.info(
            "%s %s %s %.0f ms from %s",
            self._scope["method"],
            self._scope["path"][:LONGEST_LOGGED],
            self.status,
            (time.monotonic() - self._began) * 1000,
            client[0],
        )
