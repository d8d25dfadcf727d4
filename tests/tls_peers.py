"""Peers that speak TLS: their certificates, good and bad, and the settings that use them."""

import contextlib
import dataclasses
import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from certificates import DAY, NOW, Authority, Identity
from gateway import AE_TITLE
from pacs import free_port
from thoracle.deliver.association import Peer
from thoracle.errors import ArchiveUnavailable
from thoracle.settings import ClientTLS, ReceiveTLS

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclasses.dataclass(frozen=True)
class Names:
    """Everybody who has a certificate here."""

    ca: Authority
    other: Authority
    server: Identity
    client: Identity
    second: Identity
    expired: Identity
    future: Identity
    elsewhere: Identity
    stranger: Identity

    @classmethod
    def issued(cls, folder: Path) -> Self:
        """Issue all of it into a folder."""
        ca, other = Authority(folder), Authority(folder, "other")
        return cls(
            ca,
            other,
            ca.issue("server"),
            ca.issue("client"),
            ca.issue("second"),
            ca.issue("expired", not_after=NOW - DAY),
            ca.issue("future", not_before=NOW + DAY),
            ca.issue("elsewhere", "pacs.example"),
            other.issue("stranger"),
        )


def ours(names: Names, **settings: Any) -> ReceiveTLS:
    return ReceiveTLS(
        **{
            "certificate_file": names.server.certificate_file,
            "key_file": names.server.key_file,
            "client_ca_file": names.ca.ca_file,
            **settings,
        }
    )


def theirs(names: Names, shown: Identity | None = None, **settings: Any) -> ClientTLS:
    if shown is not None:
        settings |= {"certificate_file": shown.certificate_file, "key_file": shown.key_file}
    return ClientTLS(**{"ca_file": names.ca.ca_file, **settings})


def peer(
    port: int, settings: ClientTLS | None, calling: str = "SENDER", seconds: float = 10
) -> Peer:
    return Peer(AE_TITLE, "127.0.0.1", port, calling, seconds, settings)


def said_by(call: Callable[[], object]) -> str:
    """Return the words of the ``ArchiveUnavailable`` that is raised."""
    with pytest.raises(ArchiveUnavailable) as raised:
        call()
    return str(raised.value)


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    """Have a context speak this version alone."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    if version is ssl.TLSVersion.TLSv1_1:
        context.set_ciphers("ALL:@SECLEVEL=0")


def server_context(
    shown: Identity, ca: Authority | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """Return the context of an archive; with ``ca`` it requires certificates of that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate_file, shown.key_file)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca.ca_file)
    if version is not None:
        only(context, version)
    return context


@contextlib.contextmanager
def archive(context: ssl.SSLContext | None) -> Iterator[int]:
    """An archive that answers C-ECHO; yields its port."""
    ae = AE(ae_title=AE_TITLE)
    ae.add_supported_context(Verification)
    port = free_port()
    server: Any = ae.start_server(("127.0.0.1", port), block=False, ssl_context=context)
    try:
        yield port
    finally:
        server.shutdown()
