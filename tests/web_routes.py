"""Every route of the pages, and those that are open to everybody."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi.routing import _IncludedRouter
from starlette.routing import Mount

from browsing import Site
from thoracle.store.database import connect
from thoracle.web.app import create_app

OPEN = {
    "/healthz",
    "/login",
    "/login/code",
    "/login/provider",
    "/login/callback",
    "/logout",
    "/first-run",
    "/api/openapi.json",
    "/static",
}
"""What nobody has to be signed in for. None of it shows a patient."""


def routes(site: Site, value: str = "1") -> list[tuple[str, str]]:
    """Return method and path of every route, its parameters filled in with a value."""

    def walk(some: Iterable[Any]) -> Iterator[tuple[str, str]]:
        for route in some:
            if isinstance(route, _IncludedRouter):
                yield from walk(route.original_router.routes)
            elif isinstance(route, Mount):
                yield "GET", route.path
            else:
                path = re.sub(r"\{[^}]+\}", value, route.path)
                yield from ((method, path) for method in route.methods - {"HEAD"})

    app = create_app(site.settings, connect("sqlite://"))
    return sorted(walk(app.routes))
