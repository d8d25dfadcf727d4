"""Associations that we request: to whom, as whom, and what came of it."""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context, build_role

from thoracle import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from thoracle.errors import ArchiveRefused, ArchiveUnavailable, SettingsError
from thoracle.settings import ClientTLS, tls

NATIVE: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
Handlers = list[evt.EventHandlerType]


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call, and as whom."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    timeout_seconds: float
    tls: ClientTLS | None = None


class Call:
    """An association that is released, or aborted when something is raised.

    Parameters
    ----------
    peer
        Whom to call.
    wanted
        SOP Classes, each proposed in a context of its own; alone, with the uncompressed transfer
        syntaxes, or as a pair with one transfer syntax.
    handlers
        What is to be told of events of the association, as pynetdicom takes them.
    roles
        SOP Classes of which we want to be the SCP (PS3.7 Section D.3.3.4).

    Raises
    ------
    ArchiveUnavailable
        On entering: not reached, rejected, TLS failed, or its files cannot be used.
    ArchiveRefused
        On entering: no presentation context was accepted.
    """

    def __init__(
        self,
        peer: Peer,
        wanted: Iterable[Any],
        handlers: Handlers | None = None,
        roles: Iterable[Any] = (),
    ) -> None:
        self._peer = peer
        self._roles: list[Any] = [build_role(one, scp_role=True) for one in roles]
        self._handlers = handlers or []
        self._connected = False
        self._fault: str | None = None
        self._contexts = [
            build_context(one[0], one[1]) if isinstance(one, tuple) else build_context(one, NATIVE)
            for one in wanted
        ]

    def __enter__(self) -> Association:
        peer = self._peer
        where = f"{peer.ae_title}@{peer.host}:{peer.port}"
        ae = AE(ae_title=peer.calling_ae_title)
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.connection_timeout = ae.acse_timeout = peer.timeout_seconds
        ae.dimse_timeout = ae.network_timeout = peer.timeout_seconds
        try:
            secured = None if peer.tls is None else (self._context(peer.tls), peer.host)
            self._assoc = ae.associate(
                peer.host,
                peer.port,
                contexts=self._contexts,
                ae_title=peer.ae_title,
                tls_args=secured,
                ext_neg=self._roles,
                evt_handlers=[(evt.EVT_CONN_OPEN, self._on_connected), *self._handlers],
            )
        except SettingsError as error:
            raise ArchiveUnavailable(f"TLS files cannot be used: {error}") from error
        except (OSError, UnicodeError) as error:  # no address for the host name
            raise ArchiveUnavailable(f"{where} not reached: {error}") from error
        if self._assoc.is_established:
            return self._assoc
        if self._fault is not None:
            raise ArchiveUnavailable(f"{where} {self._fault}")
        if self._assoc.is_rejected:
            raise ArchiveUnavailable(f"{where} rejected the association")
        if not self._assoc.accepted_contexts and self._assoc.rejected_contexts:
            raise ArchiveRefused(f"{where} accepted no presentation context")
        but = ": it took the connection but no association" if self._connected else ""
        raise ArchiveUnavailable(f"{where} not reached{but}")

    def _on_connected(self, event: evt.Event) -> None:
        self._connected = True
        # pynetdicom waits for ever for the rest of a PDU, and for the first one when the tickets of
        # TLS 1.3 come alone: select() says that there is something to read.
        connection: Any = event.assoc.dul.socket
        connection.socket.settimeout(self._peer.timeout_seconds)

    def _context(self, settings: ClientTLS) -> ssl.SSLContext:
        """Return a context whose sockets tell this call why they fail: pynetdicom does not."""
        call = self

        class Connection(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                try:
                    super().do_handshake(block)
                    _compare(self, settings.fingerprint)
                except OSError as error:
                    call._fault = tls.failure(error)
                    if isinstance(error, (*tls.ENDED, TimeoutError)):
                        call._fault += ", as if it spoke plain DICOM"
                    self.close()
                    raise

            def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
                try:
                    return super().recv(buflen, flags)
                except ssl.SSLError as error:  # TLS 1.3: here we learn that ours was refused
                    call._fault = tls.failure(error)
                    raise

            def shutdown(self, how: int) -> None:
                try:
                    super().shutdown(how)
                except OSError:  # the peer was quicker; pynetdicom would leave it open
                    self.close()
                    raise

        context = tls.client_context(settings)
        context.sslsocket_class = Connection
        return context

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        if kind is None:
            self._assoc.release()
        else:
            self._assoc.abort()


def _compare(connection: ssl.SSLSocket, required: str | None) -> None:
    found = tls.fingerprint(connection)
    if required is not None and found != required:
        raise OSError(0, f"has a certificate with SHA-256 {found}, required: {required}")
