"""Associations that we request: to whom, as whom, and what came of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from thoracle.errors import ArchiveRefused, ArchiveUnavailable
from thoracle.settings import ClientTLS

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

    Raises
    ------
    ArchiveUnavailable
        On entering: not reached, or rejected.
    ArchiveRefused
        On entering: no presentation context was accepted.
    """

    def __init__(self, peer: Peer, wanted: Iterable[Any], handlers: Handlers | None = None) -> None:
        self._peer = peer
        self._handlers = handlers or []
        self._contexts = [
            build_context(one[0], one[1]) if isinstance(one, tuple) else build_context(one, NATIVE)
            for one in wanted
        ]

    def __enter__(self) -> Association:
        peer = self._peer
        ae = AE(ae_title=peer.calling_ae_title)
        ae.connection_timeout = ae.acse_timeout = peer.timeout_seconds
        ae.dimse_timeout = ae.network_timeout = peer.timeout_seconds
        self._assoc = ae.associate(
            peer.host,
            peer.port,
            contexts=self._contexts,
            ae_title=peer.ae_title,
            evt_handlers=self._handlers,
        )
        if self._assoc.is_established:
            return self._assoc
        where = f"{peer.ae_title}@{peer.host}:{peer.port}"
        if self._assoc.is_rejected:
            raise ArchiveUnavailable(f"{where} rejected the association")
        if not self._assoc.accepted_contexts and self._assoc.rejected_contexts:
            raise ArchiveRefused(f"{where} accepted no presentation context")
        raise ArchiveUnavailable(f"{where} not reached")

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        if kind is None:
            self._assoc.release()
        else:
            self._assoc.abort()
