"""What every page has: the settings, the database, the templates, and who asks."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Engine
from starlette.responses import HTMLResponse

from thoracle import __version__
from thoracle.settings import Settings
from thoracle.web.session import cookies
from thoracle.wording import RESEARCH_USE_ONLY

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Site:
    """The pages of one gateway."""

    settings: Settings
    database: Engine
    templates: Environment
    config: Path | None = None
    """The file that the settings came from; ``None``: they are the defaults."""

    @property
    def secure(self) -> bool:
        """Whether browsers reach the pages by https: ours, or that of a reverse proxy."""
        return self.settings.web.certificate_file is not None or bool(
            self.settings.web.proxy_addresses
        )


def site(settings: Settings, database: Engine, config: Path | None) -> Site:
    """Return the site of a gateway's settings, the file that they came from, and its database."""
    templates = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return Site(settings, database, templates, config)


def site_of(request: Request) -> Site:
    """Return the site that a request came to."""
    found = request.app.state.site
    assert isinstance(found, Site)
    return found


def address_of(request: Request) -> str | None:
    """Return the network address of who asks, as the audit keeps it."""
    return None if request.client is None else request.client.host[:64]


def render(request: Request, template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
    """Return a page.

    The template gets, beside ``values``: ``person`` (``None`` before the log-in), ``csrf_token``,
    ``settings``, ``now`` (aware, UTC), ``version``, ``path`` and ``research_use_only``.
    """
    here = site_of(request)
    cookie = cookies.value(request, here.secure)
    fresh = secrets.token_urlsafe(cookies.BYTES) if cookie is None else None
    text = here.templates.get_template(template).render(
        {
            "person": getattr(request.state, "person", None),
            "csrf_token": cookies.csrf_token(cookie or fresh or ""),
            "settings": here.settings,
            "now": datetime.now(UTC),
            "version": __version__,
            "path": request.url.path,
            "research_use_only": RESEARCH_USE_ONLY,
            **values,
        }
    )
    response = HTMLResponse(text, status_code)
    if fresh is not None:  # the forms of somebody who is not signed in are protected, too
        cookies.put(response, fresh, here.secure)
    return response
