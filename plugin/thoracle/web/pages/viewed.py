"""Each view of patient data is a row of the audit: exactly one for each request."""

from fastapi import Request
from sqlalchemy import Connection

from thoracle.store import trail
from thoracle.web.session.access import Person
from thoracle.web.site import address_of


def record_access(
    connection: Connection,
    request: Request,
    person: Person,
    event: trail.Event,
    columns: trail.Columns,
) -> None:
    """Record who saw what, in the transaction of the reading.

    ``detail`` gets ``means``: the method and the route, without what stood in the query, and
    ``token`` when an API token was used.
    """
    route = request.scope.get("route")
    path = getattr(route, "path", request.url.path)
    detail = {**columns.get("detail", {}), "means": f"{request.method} {path}"}
    if person.scopes is not None:
        detail["token"] = True
    trail.record(
        connection,
        event,
        {
            **columns,
            "user_id": person.name,
            "network_address": address_of(request),
            "detail": detail,
        },
    )
