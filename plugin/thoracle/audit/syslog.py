"""Syslog messages (RFC 5424) to a repository: over TLS (RFC 5425), TCP on this machine, or UDP.

Syslog has no acknowledgement. What a connection tells is less: that the other machine's kernel
has the bytes (:meth:`Stream.drain`), and that it has not broken since (:meth:`Stream.check`). A
receiver that ends with bytes unread breaks it. So whoever waits a while before he counts a message
as taken, and sends again what he had not counted when the connection broke, loses nothing in
between. What a receiver has read, and loses then, is beyond that.
"""

import fcntl
import re
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from typing import Protocol

from thoracle.errors import ArchiveUnavailable, SettingsError
from thoracle.settings import AuditRepository, ClientTLS, tls

FACILITY = 10
"""Security/authorization messages (RFC 5424 Table 1)."""
SEVERITIES = {0: 5, 4: 4, 8: 3, 12: 2}
"""By Event Outcome Indicator: notice, warning, error, critical (RFC 5424 Table 2)."""
BOM = b"\xef\xbb\xbf"
"""What follows is UTF-8 (RFC 5424 Section 6.4)."""
DRAIN_STEP = 0.002
"""Seconds between two looks at what the other machine has not acknowledged yet."""
RECORD = 16384
"""Bytes of a TLS record at most (RFC 8446 Section 5.1)."""
MOST_READ = 64
"""How often a look reads what the other side says: one that talks for ever must not hold us."""
REACH_SECONDS = 0.5
"""With TLS 1.3 it is behind the handshake that our certificate is refused."""
DATAGRAM_SECONDS = 0.001
"""Between two datagrams: a receiver has room for a few hundred, and drops the rest."""
CLOSE_SECONDS = 2.0
"""For the other side to close, too."""
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", 18)


def message(
    content: bytes, *, outcome: int, recorded_at: str, host: str, process: int, msgid: str
) -> bytes:
    """Return a syslog message.

    Parameters
    ----------
    content
        UTF-8, without line feeds.
    outcome
        Event Outcome Indicator: the severity follows from it.
    recorded_at
        When it happened, ISO 8601 in UTC with microseconds at most.
    host, process
        Name of this machine and number of the process that sends.
    msgid
        What kind of message it is.
    """
    priority = FACILITY * 8 + SEVERITIES.get(outcome, 2)
    name = re.sub(r"[^!-~]", "?", host)[:255] or "-"
    header = f"<{priority}>1 {recorded_at} {name} thoracle {process} {msgid} - "
    return header.encode("ascii") + BOM + content


class Link(Protocol):
    """A way to a repository."""

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages in their order."""

    def check(self) -> None:
        """Return when nothing says that the link is broken."""

    def close(self) -> bool:
        """End it; return whether the other side has read everything, as far as can be known."""


def connect(repository: AuditRepository) -> Link:
    """Return an open link.

    Raises
    ------
    ArchiveUnavailable
        Not reached, TLS failed, or its files cannot be used.
    """
    if repository.transport == "udp":
        return Datagrams(repository)
    return Stream(repository)


def reach(repository: AuditRepository) -> None:
    """Connect, with TLS where it is set, and send nothing.

    Raises
    ------
    ArchiveUnavailable
        As :func:`connect`, and when our certificate is refused.
    """
    link = connect(repository)
    time.sleep(REACH_SECONDS)
    link.check()
    link.close()


class Stream:
    """A connection over TLS or TCP; messages are framed by octet counting (RFC 5425 Section 4.3).

    Every method raises ``ArchiveUnavailable`` when the connection is broken; it is then of no more
    use, and closed.
    """

    def __init__(self, repository: AuditRepository) -> None:
        self._where = f"{repository.host}:{repository.port}"
        self._seconds = repository.timeout_seconds
        self._connection = self._connected(repository)

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages, and return when the other machine has them all: not yet its program."""
        self.check()
        frames = b"".join(b"%d %s" % (len(one), one) for one in messages)
        try:
            self._connection.settimeout(self._seconds)
            for start in range(0, len(frames), RECORD):  # each has the time-out anew
                self._connection.sendall(frames[start : start + RECORD])
        except OSError as error:
            raise self._broken(error) from error
        self.drain()

    def drain(self) -> None:
        """Return when the other machine has acknowledged every byte; it may be slow."""
        deadline, least = time.monotonic() + self._seconds, None
        while waiting := _unacknowledged(self._connection):
            if least is None or waiting < least:
                deadline, least = time.monotonic() + self._seconds, waiting
            if time.monotonic() > deadline:
                self._connection.close()
                raise ArchiveUnavailable(
                    f"{self._where} has not taken {waiting} bytes in {self._seconds:g} s"
                )
            time.sleep(DRAIN_STEP)
            self.check()

    def check(self) -> None:
        """Return when the other side has not closed: what it says, a repository, is ignored."""
        self._connection.settimeout(0)
        try:
            for _ in range(MOST_READ):
                if not self._connection.recv(4096):
                    break
            else:
                return
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        except OSError as error:
            raise self._broken(error) from error
        self._connection.close()
        raise ArchiveUnavailable(f"{self._where} closed the connection")

    def close(self) -> bool:
        """Say that nothing more comes; return whether the other side then closed without a fault.

        It has read everything then: one that closes with bytes unread resets the connection.
        """
        try:
            self.check()
            self._connection.settimeout(CLOSE_SECONDS)
            if isinstance(self._connection, ssl.SSLSocket):
                self._connection.unwrap()  # close_notify, and the other side's
            else:
                self._connection.shutdown(socket.SHUT_WR)
                while self._connection.recv(4096):
                    pass
        except ssl.SSLEOFError:
            return True  # it closes without a close_notify, as many do
        except (OSError, ArchiveUnavailable):
            return False
        finally:
            self._connection.close()
        return True

    def _connected(self, repository: AuditRepository) -> socket.socket:
        context = _context(repository)
        try:
            connection = socket.create_connection(
                (repository.host, repository.port), repository.timeout_seconds
            )
        except (OSError, UnicodeError) as error:  # UnicodeError: no host name can be so
            reason = getattr(error, "strerror", None) or str(error)
            raise ArchiveUnavailable(f"{self._where} not reached: {reason}") from error
        # A cable that is pulled shows within the time-out, and not after a quarter of an hour.
        milliseconds = int(repository.timeout_seconds * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, milliseconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if context is None:
            return connection
        try:
            secured = context.wrap_socket(connection, server_hostname=repository.host)
        except OSError as error:
            connection.close()
            raise ArchiveUnavailable(f"{self._where} {tls.failure(error)}") from error
        required = repository.tls.fingerprint if repository.tls else None
        found = tls.fingerprint(secured)
        if required is not None and found != required:
            secured.close()
            raise ArchiveUnavailable(
                f"{self._where} has a certificate with SHA-256 {found}, required: {required}"
            )
        return secured

    def _broken(self, error: OSError) -> ArchiveUnavailable:
        self._connection.close()
        if isinstance(error, TimeoutError):
            return ArchiveUnavailable(f"{self._where} took nothing for {self._seconds:g} s")
        if isinstance(error, tls.ENDED):
            return ArchiveUnavailable(f"{self._where} broke the connection")
        return ArchiveUnavailable(f"{self._where} {tls.failure(error)}")


class Datagrams:
    """Messages over UDP, one a datagram (RFC 5426): nobody says whether one arrived."""

    def __init__(self, repository: AuditRepository) -> None:
        self._where = f"{repository.host}:{repository.port}"
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                repository.host, repository.port, type=socket.SOCK_DGRAM
            )[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.connect(address)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ArchiveUnavailable(f"{self._where} not reached: {reason}") from error

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages; ``ArchiveUnavailable`` when the other machine said that nobody listens."""
        try:
            for one in messages:
                self._socket.send(one)
                time.sleep(DATAGRAM_SECONDS)
        except OSError as error:
            self._socket.close()
            raise ArchiveUnavailable(f"{self._where} {error.strerror}") from error

    def check(self) -> None:
        """Return when the other machine has not said that nobody listens (ICMP)."""
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._socket.close()
            raise ArchiveUnavailable(f"{self._where} is no port at which anybody listens")

    def close(self) -> bool:
        """Close the socket; return ``True``, for more will never be known."""
        self._socket.close()
        return True


def _context(repository: AuditRepository) -> ssl.SSLContext | None:
    if repository.transport != "tls":
        return None
    try:
        return tls.client_context(repository.tls or ClientTLS(), "audit_repository.tls")
    except SettingsError as error:
        raise ArchiveUnavailable(f"TLS files cannot be used: {error}") from error


def _unacknowledged(connection: socket.socket) -> int:
    """Return the bytes that the other machine's kernel has not acknowledged."""
    answer = fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
