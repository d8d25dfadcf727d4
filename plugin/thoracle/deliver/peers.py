"""Whom to call: the peers of the settings as associations and requests take them."""

from thoracle.deliver.association import Peer
from thoracle.deliver.dicomweb import WebPeer
from thoracle.settings import Destination, Settings, Subscriber, WorkflowManager


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
