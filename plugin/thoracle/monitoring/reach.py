"""Whether those whom we call answer: without sending them anything."""

from dataclasses import replace

from thoracle.audit import syslog
from thoracle.deliver import storescu
from thoracle.deliver.peers import peer_of_manager, peer_of_ourselves, peer_of_subscriber
from thoracle.errors import ArchiveUnavailable, SettingsError
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
    """Return how our own listener answered a C-ECHO; as :func:`manager`."""
    try:
        peer = peer_of_ourselves(settings)
    except SettingsError as error:
        raise ArchiveUnavailable(str(error)) from error
    storescu.echo(replace(peer, timeout_seconds=seconds))
    return "answers C-ECHO"
