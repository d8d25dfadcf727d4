"""The application: its routers, and what every answer of it has."""

from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Match

from thoracle import __version__
from thoracle.errors import ObjectsAway
from thoracle.settings import Settings
from thoracle.web import openapi
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
from thoracle.web.session import access, account, factor, login, login_code, people, provider
from thoracle.web.session.guard import Guard
from thoracle.web.session.provider import Logins
from thoracle.web.site import FOLDER, render, site
from thoracle.web.verifier import Verifier
from thoracle.wording import RESEARCH_USE_ONLY

PROGRAMS = (
    about.programs,
    account.programs,
    results.router,
    api_audit.router,
    api_worklist.router,
)
"""One line for each file of interfaces that `/api/openapi.json` describes."""
PAGES = (
    about.router,
    alarms.router,
    account.router,
    audit.router,
    dashboard.router,
    fhir_audit.router,  # before the one that takes every type
    fhir.router,
    factor.router,
    list_view.router,
    login.router,
    login_code.router,
    metrics.router,
    pictures.router,
    setup_callers.router,
    setup.router,
    study.router,
    worklist.router,
    people.router,
    provider.router,
)
"""One line for each file of pages; FHIR and metrics describe themselves."""
ROUTERS = (*PROGRAMS, *PAGES)


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
    app.state.verifier = Verifier(database, settings)
    app.state.logins = (
        Logins(settings.web.oidc, database) if settings.web.oidc is not None else None
    )
    for router in PROGRAMS:
        is_open = router is about.programs
        app.include_router(router, responses=None if is_open else openapi.REFUSALS)
    for router in PAGES:
        app.include_router(router, include_in_schema=False)
    openapi.describe(app)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.add_middleware(
        Guard,
        settings=settings.web,
        secure=app.state.site.secure,
        is_known=_is_known,
        failed=_failed,
    )
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(ObjectsAway, _away)
    app.add_exception_handler(RequestValidationError, _malformed)
    return app


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        answer = _refusal(request, error)
        answer.headers["Allow"] = ", ".join(_methods(request))
        return answer
    return _refusal(request, error)


def _away(request: Request, _error: Exception) -> Response:
    said = "the object store does not answer; try again later"
    return _refusal(request, HTTPException(503, said))


def _methods(request: Request) -> list[str]:
    """Return the methods of all routes of a path: Starlette names those of the first one."""
    routes = [route for router in ROUTERS for route in router.routes]
    found = [one for one in routes if one.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for one in found for method in getattr(one, "methods", ())})


def _instead(request: Request, error: HTTPException) -> str | None:
    """Return the page that has to come before the one that was refused."""
    if isinstance(error, access.SignInRequired):
        return login.address(request)
    if isinstance(error, access.ChangeRequired):
        return "/account/password"
    return "/account/second-factor" if isinstance(error, access.SetUpRequired) else None


def _refusal(request: Request, error: HTTPException) -> Response:
    if error.status_code == 303:
        return Response(status_code=303, headers=error.headers)
    if access.is_for_programs(request.url.path):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    to = _instead(request, error)
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


def _is_known(request: Request) -> bool:
    return access.person_of(request) is not None


def _failed(request: Request) -> Response:
    text = "Internal error; see the log of Thoracle"
    if access.is_for_programs(request.url.path):
        return JSONResponse({"detail": text}, 500)
    return _page(request, 500, text)


def _page(request: Request, status_code: int, text: str) -> Response:
    return render(request, "error.html", status_code, text=text, code=status_code)
