"""Whether those whom we call answer: without sending them anything."""

from dataclasses import replace

from thoracle.audit import syslog
from thoracle.deliver import storescu, stowrs
from thoracle.deliver.association import Peer
from thoracle.deliver.line import peer_of, peer_of_manager, peer_of_subscriber, web_peer_of
from thoracle.errors import ArchiveRefused
from thoracle.hl7 import mllp
from thoracle.settings import (
    HL7,
    AuditRepository,
    Destination,
    Settings,
    Subscriber,
    WorkflowManager,
)


def destination(one: Destination, settings: Settings, seconds: float | None = None) -> str:
    """Return how a destination answered, as a sentence's end.

    Parameters
    ----------
    one
        Of the settings.
    seconds
        To wait at most; without it, as long as the settings say.

    Raises
    ------
    DeliveryError
        It did not answer, or refused.
    """
    patience = min(seconds or settings.deliver.timeout_seconds, settings.deliver.timeout_seconds)
    if one.url is not None:
        web = replace(web_peer_of(one, settings), timeout_seconds=patience)
        if stowrs.reachable(web):
            return "answers a search by QIDO-RS"
        return (
            "answers, and offers no QIDO-RS at this url: is it the root? Proof will be the status"
        )
    storescu.echo(replace(peer_of(one, settings), timeout_seconds=patience))
    return "answers C-ECHO"


def receiver(one: HL7, seconds: float | None = None) -> str:
    """Return how a receiver of messages answered; as :func:`destination`."""
    patience = min(seconds or one.timeout_seconds, one.timeout_seconds)
    mllp.reach(one.model_copy(update={"timeout_seconds": patience}))
    how = "plain" if one.tls is None else "with TLS"
    return f"takes connections, {how}; nothing was sent"


def manager(one: WorkflowManager, settings: Settings) -> str:
    """Return how a workflow manager answered; as :func:`destination`."""
    storescu.echo(peer_of_manager(one, settings))
    return "answers C-ECHO"


def subscriber(one: Subscriber, settings: Settings) -> str:
    """Return how a subscriber to workitems answered; as :func:`destination`."""
    storescu.echo(peer_of_subscriber(one, settings))
    return "answers C-ECHO"


def repository(one: AuditRepository) -> str:
    """Return how a repository of audit messages answered; as :func:`destination`."""
    syslog.reach(one)
    if one.transport == "udp":
        return "has an address; whether messages arrive, UDP does not say"
    how = "with TLS" if one.transport == "tls" else "plain"
    return f"takes connections, {how}; nothing was sent"


def ourselves(settings: Settings, seconds: float) -> str:
    """Return how our own listener answered a C-ECHO; as :func:`destination`.

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
