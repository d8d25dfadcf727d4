"""Several gateways on one PostgreSQL database and one data folder, and what is between them."""

import socket
import threading
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg

from gateway import Archive, Gateway
from ledger import rows
from pacs import free_port

LEASE_SECONDS = 6.0
"""A tenth of the default, so that a test sees it run out; enough for a busy machine to renew it."""


class Fleet:
    """Gateways that share a database and a data folder; those that run are killed at the end.

    Parameters
    ----------
    folder
        Each gateway has a folder in it, with its configuration and log.
    urls
        Of the database, one a gateway: it may be reached by different ways.
    apart
        Each has a data folder of its own: their objects are in a bucket.
    tables
        Tables of settings, as of :class:`gateway.Gateway`.
    """

    def __init__(
        self,
        folder: Path,
        urls: list[str],
        *archives: Archive | dict[str, Any],
        roles: tuple[str, ...] = (),
        apart: bool = False,
        **tables: dict[str, Any],
    ) -> None:
        self.gateways: list[Gateway] = []
        for number, url in enumerate(urls):
            own = folder / f"gateway-{number}"
            own.mkdir()
            shared = {
                "one_of_several": True,
                "lease_seconds": LEASE_SECONDS,
                "name": own.name,
                "role": roles[number] if roles else "all",
                **tables.get("gateway", {}),
            }
            settings = {**tables, "database": {"url": url}, "gateway": shared}
            kind = Reader if shared["role"] == "read" else Gateway
            made = kind(own, *archives, **settings)
            if not apart:
                text = made.config.read_text().replace(str(made.data_folder), str(folder / "data"))
                made.config.write_text(text)
                made.data_folder = folder / "data"
            self.gateways.append(made)

    def __enter__(self) -> Self:
        for one in self.gateways:
            one.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for one in self.gateways:
            one.__exit__(*exception)


class Reader(Gateway):
    """A gateway without a listener."""

    def answers(self) -> bool:
        """Return whether it is at work, as its lease says."""
        assert self.process is not None
        declared = "SELECT 1 FROM gateway_lease WHERE pid = ? AND bundle_digest IS NOT NULL"
        try:
            return bool(rows(self, declared, self.process.pid))
        except psycopg.errors.UndefinedTable:
            return False


class Relay:
    """A TCP relay to one port or, in turn, to several; it can be cut.

    Like a balancer in front of listeners, or like the network in front of a database.
    """

    def __init__(self, *ports: int) -> None:
        self.port = free_port()
        self._ports, self._turn = ports, count()
        self._cut = False
        self._open: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, and take no more."""
        self._cut = True
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Take connections again."""
        self._cut = False

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(caller,), daemon=True).start()

    def _relay(self, caller: socket.socket) -> None:
        with closing(caller):
            called = None if self._cut else self._called()
            if called is None:
                return
            with closing(called):
                self._open |= {caller, called}
                back = threading.Thread(target=_copy, args=(called, caller), daemon=True)
                back.start()
                _copy(caller, called)
                back.join()
                self._open -= {caller, called}

    def _called(self) -> socket.socket | None:
        """Return a connection to the next port that takes one."""
        for _ in self._ports:
            port = self._ports[next(self._turn) % len(self._ports)]
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", port), 5)
        return None


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        source.settimeout(None)
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
