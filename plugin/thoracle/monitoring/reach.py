"""Whether those whom we call answer: without sending them anything."""

from thoracle.audit import syslog
from thoracle.deliver import storescu
from thoracle.deliver.association import Peer
from thoracle.deliver.peers import peer_of_manager, peer_of_subscriber
from thoracle.errors import ArchiveRefused
from thoracle.settings import (
    AuditRepository,
    Settings,
    Subscriber,
    WorkflowManager,
)


def manager(one: WorkflowManager, settings: Settings) -> str:
    """Return how a workflow manager answered, as a sentence's end.

    Raises
    ------
    DeliveryError
        It did not answer, or refused.
    """
    storescu.echo(peer_of_manager(one, settings))
    return "answers C-ECHO"


def subscriber(one: Subscriber, settings: Settings) -> str:
    """Return how a subscriber to workitems answered; as :func:`manager`."""
    storescu.echo(peer_of_subscriber(one, settings))
    return "answers C-ECHO"


def repository(one: AuditRepository) -> str:
    """Return how a repository of audit messages answered; as :func:`manager`."""
    syslog.reach(one)
    if one.transport == "udp":
        return "has an address; whether messages arrive, UDP does not say"
    how = "with TLS" if one.transport == "tls" else "plain"
    return f"takes connections, {how}; nothing was sent"


def ourselves(settings: Settings, seconds: float) -> str:
    """Return how our own listener answered a C-ECHO; as :func:`manager`.

    A listener with TLS wants a certificate that only its callers have, so it is not to be asked.
    """
    ours = settings.receive
    if ours.tls is not None:
        raise ArchiveRefused("our listener wants TLS: try it from a sender")
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound
    host = everywhere.get(ours.host, ours.host)
    calling = ours.calling_ae_titles[0] if ours.calling_ae_titles else ours.ae_title
    storescu.echo(Peer(ours.ae_title, host, ours.port, calling, seconds))
    return "answers C-ECHO"
