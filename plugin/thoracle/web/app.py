"""The application: its routers, and what every answer of it has."""

from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from thoracle import __version__
from thoracle.settings import Settings
from thoracle.web.api import (
    audit as api_audit,
)
from thoracle.web.api import (
    fhir,
    fhir_audit,
    metrics,
    results,
)
from thoracle.web.api import (
    worklist as api_worklist,
)
from thoracle.web.pages import (
    about,
    alarms,
    audit,
    dashboard,
    list_view,
    pictures,
    setup,
    setup_callers,
    study,
    worklist,
)
from thoracle.web.session import access, account, login, people, provider
from thoracle.web.session.guard import Guard
from thoracle.web.session.login import FirstRun, Throttle
from thoracle.web.session.provider import Logins
from thoracle.web.site import FOLDER, render, site
from thoracle.web.verifier import Verifier
from thoracle.wording import RESEARCH_USE_ONLY

ROUTERS = (
    about.router,
    alarms.router,
    account.router,
    results.router,
    api_audit.router,
    api_worklist.router,
    audit.router,
    dashboard.router,
    fhir_audit.router,  # before the one that takes every type
    fhir.router,
    list_view.router,
    login.router,
    metrics.router,
    pictures.router,
    setup_callers.router,
    setup.router,
    study.router,
    worklist.router,
    people.router,
    provider.router,
)
"""One line for each file of pages."""


def create_app(settings: Settings, database: Engine, config: Path | None = None) -> FastAPI:
    """Return the application of a gateway's settings and database.

    ``config`` is the file that the settings came from, which administrators can change.
    """
    app = FastAPI(
        title="Thoracle",
        version=__version__,
        description=f"{RESEARCH_USE_ONLY}.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(access.same_site)],
    )
    app.state.site = site(settings, database, config)
    app.state.first_run = FirstRun()
    app.state.throttle = Throttle()
    app.state.verifier = Verifier(database, settings)
    app.state.logins = Logins(settings.web.oidc) if settings.web.oidc is not None else None
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.add_middleware(Guard, settings=settings.web, secure=app.state.site.secure, failed=_failed)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    return app


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 303:
        return Response(status_code=303, headers=error.headers)
    if access.is_for_programs(request.url.path):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    to = None
    if isinstance(error, access.SignInRequired):
        to = login.address(request)
    elif isinstance(error, access.ChangeRequired):
        to = "/account/password"
    if to is None:
        return _page(request, error.status_code, str(error.detail))
    if "hx-request" in request.headers:  # htmx would put the page of the log-in into this one
        return Response(status_code=401, headers={"HX-Redirect": to})
    if request.method in access.SAFE_METHODS:
        return RedirectResponse(to, 303)
    return RedirectResponse("/login", 303)


def _malformed(request: Request, error: Exception) -> Response:
    """Answer 422 and name the fields alone: the values may be passwords or patients."""
    assert isinstance(error, RequestValidationError)
    fields = sorted({str(fault["loc"][-1])[:64] for fault in error.errors()})
    text = f"found no usable value of {', '.join(fields)}"
    if access.is_for_programs(request.url.path):
        return JSONResponse({"detail": text}, 422)
    return _page(request, 422, text)


def _failed(request: Request) -> Response:
    text = "Internal error; see the log of Thoracle"
    if access.is_for_programs(request.url.path):
        return JSONResponse({"detail": text}, 500)
    return _page(request, 500, text)


def _page(request: Request, status_code: int, text: str) -> Response:
    return render(request, "error.html", status_code, text=text, code=status_code)
