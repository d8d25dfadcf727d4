"""The start of the service, and what has changed in its settings since the start before."""

from sqlalchemy import Connection

from thoracle import __version__
from thoracle.audit import query
from thoracle.settings import Settings, digests
from thoracle.store import trail


def record(connection: Connection, settings: Settings, columns: trail.Columns) -> None:
    """Record a start, and before it which settings are not those of the start before.

    That is a row of its own: names of settings and digests of their values, never a value. The
    first start, or the first after that row was purged, has one too, in which nothing changed. Of
    several gateways, those settings are compared that all have to have alike.
    """
    now = digests.named(settings)
    before = known(connection)
    changed = None if before is None else digests.changed(before, now)
    if changed and settings.gateway.one_of_several:  # what is each one's own differs each time
        changed = [name for name in changed if not name.startswith(digests.OWN)]
    if changed is None or changed:
        detail = {"changed": changed or [], "first": changed is None, "settings": now}
        trail.record(connection, trail.Event.CONFIGURATION_CHANGED, {"detail": detail})
    detail = {
        **columns.get("detail", {}),
        "version": __version__,
        "settings_digest": digests.whole(settings),
    }
    trail.record(connection, trail.Event.APPLICATION_STARTED, {**columns, "detail": detail})


def record_refusal(connection: Connection, digest: str | None, reason: str) -> None:
    """Record that the service does not start, because its bundle is not the one it has to be."""
    columns: trail.Columns = {
        "event_outcome": trail.SERIOUS_FAILURE,
        "bundle_digest": digest,
        "detail": {"reason": reason, "version": __version__},
    }
    trail.record(connection, trail.Event.BUNDLE_REFUSED, columns)


def known(connection: Connection, until: str | None = None) -> dict[str, str] | None:
    """Return the digests of the settings of the newest start, before a time if one is given."""
    question = query.Question(event=trail.Event.CONFIGURATION_CHANGED.verb, until=until)
    rows = query.page(connection, question, 1)
    return rows[0]["detail"]["settings"] if rows else None
