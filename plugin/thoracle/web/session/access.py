"""Who asks, and what they may: the dependencies that every route has, and the check of forms.

A person is known by a session (the cookie of a browser) or, on ``/api`` and ``/fhir``, by an API
token (``Authorization: Bearer``). A request with that header is judged by it alone.

A request that no click made keeps no session alive: a page that refreshes itself says so by the
header ``X-Automatic: 1``, and one that opens its stream of events again cannot say it.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fastapi import HTTPException, Request
from sqlalchemy import Connection

from thoracle.accounts import rows as people
from thoracle.store import trail
from thoracle.store.tables import ago, now
from thoracle.web.session import cookies
from thoracle.web.site import address_of, site_of

PROGRAM_PATHS = ("/api/", "/fhir/", "/metrics")
"""Where API tokens count, and where a refusal is JSON."""
SEEN_SECONDS = 60
"""A session's last use is written at most so often: a page must not cost a write each time."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Role(StrEnum):
    """What a person may do (docs/people.md)."""

    READER = "reader"
    ADMINISTRATOR = "administrator"
    AUDITOR = "auditor"


SCOPES: dict[str, Role] = {
    "worklist:read": Role.READER,
    "results:read": Role.READER,
    "verdicts:write": Role.READER,
    "fhir:read": Role.READER,
    "audit:read": Role.AUDITOR,
    "admin": Role.ADMINISTRATOR,
}
"""What an API token can be good for, and the role that its person must have as well."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks."""

    name: str
    display_name: str
    roles: frozenset[Role]
    scopes: frozenset[str] | None = None
    """Of the API token; ``None``: signed in by a browser."""
    must_change: bool = False
    """The password is a one-time one: nothing opens before it is changed."""
    must_set_up: bool = False
    """There is no second factor, and one is required: nothing opens before it is set up."""

    def has(self, role: Role) -> bool:
        """Return whether the person may do what a role may; administrators may what readers may."""
        return role in self.roles or (role == Role.READER and Role.ADMINISTRATOR in self.roles)


class SignInRequired(HTTPException):
    """Nobody is signed in: pages send to the log-in, programs get 401."""

    def __init__(self) -> None:
        super().__init__(401, "log in, or send a valid token", {"WWW-Authenticate": "Bearer"})


class ChangeRequired(HTTPException):
    """The one-time password is still to be changed."""

    def __init__(self) -> None:
        super().__init__(403, "change the one-time password first")


class SetUpRequired(HTTPException):
    """The second factor is still to be set up."""

    def __init__(self) -> None:
        super().__init__(403, "set up the second factor first")


def is_for_programs(path: str) -> bool:
    """Return whether tokens count at a path, and refusals are JSON."""
    return path.startswith(PROGRAM_PATHS)


def person_of(request: Request) -> Person | None:
    """Return who asks; the database is asked once a request."""
    if not hasattr(request.state, "person"):
        request.state.person = _by_token(request) if _has_token(request) else _by_cookie(request)
    found: Person | None = request.state.person
    return found


def _has_token(request: Request) -> bool:
    return is_for_programs(request.url.path) and "authorization" in request.headers


def _by_token(request: Request) -> Person | None:
    scheme, _, token = request.headers["authorization"].partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= cookies.LONGEST:
        return None
    moment = now()
    with site_of(request).database.begin() as connection:
        row = people.token_row(connection, cookies.digest(token))
        if row is None or row.revoked_at is not None or row.disabled:
            return None
        if row.expires_at is not None and row.expires_at <= moment:
            return None
        if row.used_at is None or row.used_at < ago(SEEN_SECONDS):
            people.set_token(connection, row.id, {"used_at": moment})
    return replace(_person(row), scopes=frozenset(row.scopes))


def _by_cookie(request: Request) -> Person | None:
    site = site_of(request)
    cookie = cookies.value(request, site.secure)
    if cookie is None:
        return None
    digest = cookies.digest(cookie)
    with site.database.connect() as connection:
        row = people.session_row(connection, digest)
    idle_seconds = site.settings.web.idle_minutes * 60
    if row is None or row.disabled or row.expires_at <= now() or row.seen_at <= ago(idle_seconds):
        return None
    seldom = min(SEEN_SECONDS, idle_seconds / 4)
    if row.seen_at < ago(seldom) and not _is_automatic(request):
        with site.database.begin() as connection:
            people.set_session(connection, digest, {"seen_at": now()})
    request.state.session = digest
    required = site.settings.web.second_factor == "required" and row.password_hash is not None
    return replace(_person(row), must_set_up=required and not row.has_second_factor)


def _is_automatic(request: Request) -> bool:
    headers = request.headers
    return headers.get("x-automatic") == "1" or headers.get("accept") == "text/event-stream"


def _person(row: Any) -> Person:
    roles = frozenset(Role(role) for role in row.roles)
    return Person(row.name, row.display_name, roles, None, row.one_time_until is not None)


def sees_kept_back(request: Request, person: Person) -> bool:
    """Return whether a person may know of results that a rule holds or shadows.

    An administrator releases them, an auditor reads of them in the audit. No program may, whosever
    token it has.
    """
    if person.scopes is not None:
        return False
    if person.roles & {Role.ADMINISTRATOR, Role.AUDITOR}:
        return True
    return site_of(request).settings.web.readers_see_kept_back


def _signed_in(request: Request) -> Person:
    person = person_of(request)
    if person is None:
        raise SignInRequired
    return person


def changing_password(request: Request) -> Person:
    """Return who is signed in, even when the password is still to be changed."""
    person = _signed_in(request)
    if person.must_set_up and not person.must_change:
        raise SetUpRequired
    return person


def setting_up(request: Request) -> Person:
    """Return who is signed in, even when the second factor is still to be set up."""
    person = _signed_in(request)
    if person.must_change:
        raise ChangeRequired
    return person


def anyone(request: Request) -> Person:
    """Return who is signed in by a browser, or with a token of any scope."""
    person = setting_up(request)
    if person.must_set_up:
        raise SetUpRequired
    return person


def _with_role(request: Request, role: Role) -> Person:
    person = anyone(request)
    if person.scopes is not None:  # a token opens only what asks for a scope: see scoped()
        raise HTTPException(403, "no token opens this; log in with a browser")
    if not person.has(role):
        raise HTTPException(403, f"the role {role.value} is required")
    return person


def reader(request: Request) -> Person:
    """Return the reader or administrator who asks with a browser."""
    return _with_role(request, Role.READER)


def administrator(request: Request) -> Person:
    """Return the administrator who asks with a browser."""
    return _with_role(request, Role.ADMINISTRATOR)


def auditor(request: Request) -> Person:
    """Return the auditor who asks with a browser; the audit is for nobody else."""
    return _with_role(request, Role.AUDITOR)


def auditor_or_administrator(request: Request) -> Person:
    """Return who asks with a browser about the state of the audit, which names no patient."""
    is_administrator = anyone(request).has(Role.ADMINISTRATOR)
    return _with_role(request, Role.ADMINISTRATOR if is_administrator else Role.AUDITOR)


def scopes_of(person: Person) -> list[str]:
    """Return the scopes that tokens of a person can have: those that open something for them."""
    # An administrator reads as a reader does, and does not judge as one.
    return [
        name
        for name, role in SCOPES.items()
        if (role in person.roles if name == "verdicts:write" else person.has(role))
    ]


def scoped(scope: str, role: Role) -> Callable[[Request], Person]:
    """Return a dependency: a session with a role, or a token with a scope of a person with it."""
    if scope not in SCOPES:
        raise ValueError(f"found scope {scope!r}, required: one of {', '.join(SCOPES)}")

    def dependency(request: Request) -> Person:
        person = anyone(request)
        if person.scopes is not None and scope not in person.scopes:
            raise HTTPException(403, f"the token has no scope {scope}")
        if not person.has(role):
            raise HTTPException(403, f"the role {role.value} is required")
        return person

    return dependency


async def same_site(request: Request) -> None:
    """Refuse what changes something and does not come from our own pages: the one such check.

    The application has it as a dependency of every route. A program with a token has no browser
    that another site could abuse.

    Raises
    ------
    HTTPException
        403: the token of the page is missing or wrong, or the browser names another site; 401: a
        program has no token.
    """
    if request.method in SAFE_METHODS or _has_token(request):
        return
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "this form was sent by another site")
    cookie = cookies.value(request, site_of(request).secure)
    if cookie is None and is_for_programs(request.url.path):
        raise SignInRequired  # a program without its token, and no browser
    sent = request.headers.get("x-csrf-token")
    if sent is None:
        found = (await request.form()).get("csrf_token", "")
        sent = found if isinstance(found, str) else ""
    expected = cookies.csrf_token(cookie or "")
    if cookie is None or not hmac.compare_digest(
        expected.encode(), sent.encode("utf-8", "replace")
    ):
        raise HTTPException(403, "this form has expired: reload the page")


# ---- record of views -----------------------------------------------------------------------------
# Each view of patient data is a row of the audit: exactly one for each request.


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
