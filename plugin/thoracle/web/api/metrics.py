"""``GET /metrics`` for Prometheus: numbers about the gateway, none about a patient."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from sqlalchemy import Connection
from starlette.responses import Response

from thoracle.audit import forwarding
from thoracle.monitoring import alarms, conditions, operations
from thoracle.monitoring.comparison import Comparison, Level
from thoracle.receive.inbox import MEGABYTE
from thoracle.settings import Settings
from thoracle.study import published
from thoracle.web.pages.dashboard import watched
from thoracle.web.pages.operations import Operations, age, gather
from thoracle.web.session.access import Person, Role, scoped
from thoracle.web.site import site_of

router = APIRouter()

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the exposition format that `generate_latest` writes."""


@router.get("/metrics", include_in_schema=False)
def metrics(
    request: Request, _person: Annotated[Person, Depends(scoped("admin", Role.ADMINISTRATOR))]
) -> Response:
    """Return the figures in Prometheus' text format."""
    site = site_of(request)
    with site.database.connect() as connection:
        told = _told(request, connection) if published.any_kept_back(connection) else None
        text = exposition(connection, site.settings, told)
    return Response(text, media_type=MEDIA_TYPE)


def _told(request: Request, connection: Connection) -> list[Comparison]:
    """Return the alarms about results, as what may be told of results alone would raise them."""
    settings, now = site_of(request).settings, datetime.now(UTC)
    devices = conditions.refused_devices(connection, settings, now, with_kept_back=False)
    return [*devices, *watched(request, with_kept_back=False).comparisons]


def exposition(
    connection: Connection, settings: Settings, told: Sequence[Comparison] | None = None
) -> bytes:
    """Return all figures in Prometheus' text format.

    Parameters
    ----------
    told
        Alarms about results, in place of those that the gateway raised of all results, also of
        what a rule keeps back; ``None``: nothing is kept back.
    """
    registry = CollectorRegistry()
    _stored(registry, connection, told)
    _now(registry, gather(connection, settings))
    return generate_latest(registry)


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"thoracle_{name}", text, labels, registry=registry)


def _stored(
    registry: CollectorRegistry, connection: Connection, told: Sequence[Comparison] | None
) -> None:
    outcomes = _gauge(registry, "analyses", "Analyses that have ended, by outcome.", "outcome")
    for outcome, number in operations.outcomes(connection).items():
        outcomes.labels(outcome).set(number)
    sent = _gauge(
        registry, "deliveries", "What is sent, by kind of peer and state.", "kind", "state"
    )
    for kind, states in operations.states(connection).items():
        for state, number in states.items():
            sent.labels(kind, state).set(number)
    raised = _gauge(registry, "alarm", "1 while an alarm stands.", "subject")
    for row in alarms.alarm_rows(connection):
        if told is None or not conditions.tells_results(row.subject):
            raised.labels(row.subject).set(row.level == "alarm")
    for one in told or ():
        raised.labels(one.subject).set(one.level is Level.ALARM)
    _sent_on(registry, connection)


def _sent_on(registry: CollectorRegistry, connection: Connection) -> None:
    waiting = _gauge(
        registry, "audit_waiting", "Events not yet taken by an audit repository.", "repository"
    )
    behind = _gauge(
        registry, "audit_behind", "1 while an audit repository is behind.", "repository"
    )
    for one in forwarding.repositories(connection):
        waiting.labels(one["repository"]).set(one["waiting"])
        behind.labels(one["repository"]).set(one["state"] == forwarding.BEHIND)


def _now(registry: CollectorRegistry, found: Operations) -> None:
    depth = _gauge(registry, "queue_depth", "Work in the engine's queues.", "queue", "state")
    for queue in found.queues:
        for state in ("waiting", "running", "later"):
            depth.labels(queue["queue"], state).set(queue[state])
    oldest = _gauge(
        registry, "oldest_waiting_seconds", "Age of the oldest waiting item; 0: none.", "what"
    )
    for one in found.waiting:
        oldest.labels(one["what"]).set(age(one["oldest"], found.made))
    _gauge(registry, "dead_letters", "Deliveries and messages refused or given up.").set(found.dead)
    _gauge(registry, "up", "1 while the gateway's listener takes connections.").set(found.gateway)
    free = _gauge(registry, "disk_free_bytes", "Free space of the data folder's file system.")
    free.set(found.free_megabytes * MEGABYTE)
    ends = _gauge(registry, "certificate_expiry_seconds", "Until a certificate expires.", "setting")
    for certificate in found.certificates:
        if certificate.not_after is not None:
            left = certificate.not_after - datetime.now(UTC)
            ends.labels(certificate.setting).set(left.total_seconds())
