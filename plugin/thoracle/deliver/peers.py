"""Whom to call: the peers of the settings as associations and requests take them."""

from dataclasses import replace

from thoracle.deliver.association import Peer
from thoracle.deliver.dicomweb import WebPeer
from thoracle.settings import (
    ClientTLS,
    Destination,
    Settings,
    Subscriber,
    WorkflowManager,
    tls,
)


def peer_of(destination: Destination, settings: Settings) -> Peer:
    """Return whom to call for a destination that has no ``url``."""
    # settings.py sees to it
    assert destination.ae_title is not None
    assert destination.host is not None
    assert destination.port is not None
    return Peer(
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        calling_ae_title=destination.calling_ae_title or settings.receive.ae_title,
        timeout_seconds=settings.deliver.timeout_seconds,
        tls=destination.tls,
    )


def peer_of_manager(manager: WorkflowManager, settings: Settings) -> Peer:
    """Return whom to call for a workflow manager."""
    return Peer(
        ae_title=manager.ae_title,
        host=manager.host,
        port=manager.port,
        calling_ae_title=manager.calling_ae_title or settings.receive.ae_title,
        timeout_seconds=manager.timeout_seconds,
        tls=manager.tls,
    )


def peer_of_subscriber(subscriber: Subscriber, settings: Settings) -> Peer:
    """Return whom to call to tell a subscriber of workitems."""
    return Peer(
        ae_title=subscriber.ae_title,
        host=subscriber.host,
        port=subscriber.port,
        calling_ae_title=settings.receive.ae_title,
        timeout_seconds=settings.deliver.timeout_seconds,
        tls=subscriber.tls,
    )


def peer_of_ourselves(settings: Settings) -> Peer:
    """Return whom to call for our own listener.

    With ``receive.tls`` it is known by its certificate, whatever the name in that, and we show
    the same one: a certificate of its callers' authorities for servers and clients (docs/tls.md).

    Raises
    ------
    SettingsError
        The certificate cannot be read.
    """
    ours = settings.receive
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound
    secured = None
    if ours.tls is not None:
        own = tls.certificates("receive.tls.certificate_file", ours.tls.certificate_file)[0]
        secured = ClientTLS(
            ca_file=ours.tls.certificate_file,
            certificate_file=ours.tls.certificate_file,
            key_file=ours.tls.key_file,
            minimum_version=ours.tls.minimum_version,
            fingerprint=own.fingerprint,
        )
    return Peer(
        ae_title=ours.ae_title,
        host=everywhere.get(ours.host, ours.host),
        port=ours.port,
        calling_ae_title=ours.calling_ae_titles[0] if ours.calling_ae_titles else ours.ae_title,
        timeout_seconds=settings.deliver.timeout_seconds,
        tls=secured,
    )


def peer_at(ae_title: str, host: str, port: int, settings: Settings) -> Peer:
    """Return whom to call at an address: as the settings call it, in plain where they do not.

    Raises
    ------
    SettingsError
        The address is our own, and the certificate of ``receive.tls`` cannot be read.
    """
    known = [peer_of(one, settings) for one in settings.destination if one.url is None]
    known += [peer_of_manager(one, settings) for one in settings.workflow_manager]
    known += [peer_of_subscriber(one, settings) for one in settings.subscriber]
    for peer in known:
        if (peer.ae_title, peer.host, peer.port) == (ae_title, host, port):
            return peer
    if (ae_title, port) == (settings.receive.ae_title, settings.receive.port):
        return replace(peer_of_ourselves(settings), host=host)
    calling, seconds = settings.receive.ae_title, settings.deliver.timeout_seconds
    return Peer(ae_title, host, port, calling, seconds)


def web_peer_of(destination: Destination, settings: Settings) -> WebPeer:
    """Return whom to call for a destination that has a ``url``."""
    assert destination.url is not None
    return WebPeer(
        url=destination.url,
        token=destination.token,
        username=destination.username,
        password=destination.password,
        tls=destination.tls,
        timeout_seconds=settings.deliver.timeout_seconds,
    )
