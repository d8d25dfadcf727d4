"""Log-in by an OpenID Connect provider: out to it, and back with what it says of the person."""

import hashlib
import logging
import secrets
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from sqlalchemy import Engine
from starlette.responses import RedirectResponse, Response

from thoracle.accounts import accounts as audited
from thoracle.accounts import login_rows
from thoracle.accounts import rows as people
from thoracle.accounts.openid import Begun, OpenIDError, Provider, require_libraries, roles_of
from thoracle.errors import ThoracleError
from thoracle.settings import OIDC
from thoracle.web.session import cookies, credentials, login
from thoracle.web.session.credentials import LONGEST_DISPLAY_NAME
from thoracle.web.site import Site, site_of

logger = logging.getLogger(__name__)

router = APIRouter()

WAITING_SECONDS = 600
"""How long a person may take at the provider."""
MOST_WAITING = 1000
LONGEST_SUBJECT = 512
REFUSAL = "Log-in through your institution failed, or gives you no role here."


@dataclass(frozen=True, slots=True)
class _Waiting:
    begun: Begun
    back: str


class Logins:
    """The provider, and the log-ins that wait for its answer, by state; each is good once.

    The answer may come to another process of pages than the question went out from.
    """

    def __init__(self, settings: OIDC, database: Engine) -> None:
        require_libraries()
        self.provider = Provider(settings)
        self._database = database

    def add(self, begun: Begun, cookie: str, back: str) -> None:
        """Keep a log-in until it is answered; beyond ``MOST_WAITING``, the oldest is forgotten."""
        values = {
            "state": cookies.digest(begun.state),
            "browser": cookies.digest(cookie),
            "nonce": begun.nonce,
            "verifier": begun.verifier,
            "redirect_uri": begun.redirect_uri,
            "back": back,
        }
        with self._database.begin() as connection:
            login_rows.add_provider_login(connection, values, MOST_WAITING)

    def take(self, state: str, cookie: str) -> _Waiting:
        """Return the log-in that an answer belongs to, and forget it.

        Raises
        ------
        OpenIDError
            There is none, it is too old, or it was begun in another browser.
        """
        digest = cookies.digest(state)
        with self._database.begin() as connection:
            row = login_rows.take_provider_login(connection, digest, WAITING_SECONDS)
        if row is None:
            raise OpenIDError("no log-in is waiting for this answer")
        if row.browser != cookies.digest(cookie):
            raise OpenIDError("this log-in was started in another browser")
        return _Waiting(Begun("", state, row.nonce, row.verifier, row.redirect_uri), row.back)


def _logins(request: Request) -> Logins:
    found = request.app.state.logins
    if found is None:
        raise HTTPException(404, "log-in through an institution is not configured")
    assert isinstance(found, Logins)
    return found


@router.get("/login/provider")
def out(request: Request, next: str = "/") -> Response:
    """Send the browser to the provider."""
    logins, site = _logins(request), site_of(request)
    login.admit(request)
    host = request.headers["host"]  # one of those that are trusted: see guard.py
    scheme = "https" if site.secure else "http"
    try:
        begun = logins.provider.begin(f"{scheme}://{host}/login/callback")
    except OpenIDError as error:
        return _refused(request, None, error)
    cookie = cookies.value(request, site.secure)
    fresh = cookie or secrets.token_urlsafe(cookies.BYTES)
    logins.add(begun, fresh, login.own(next))
    response = RedirectResponse(begun.url, 303)
    if cookie is None:
        cookies.put(response, fresh, site.secure)
    return response


@router.get("/login/callback")
def back(
    request: Request, state: str = "", code: str = "", iss: str = "", error: str = ""
) -> Response:
    """Begin a session for whom the provider names."""
    logins, site = _logins(request), site_of(request)
    login.admit(request)
    settings = site.settings.web.oidc
    assert settings is not None
    name = None
    try:
        waiting = logins.take(state, cookies.value(request, site.secure) or "")
        if error or not code:
            raise OpenIDError(f"the provider answers {error!r:.60}")
        if iss and iss != settings.issuer:  # RFC 9207
            raise OpenIDError("another provider answers")
        claims = logins.provider.end(waiting.begun, code)
        name, values = _described(site, claims, settings)
        with site.database.begin() as connection:
            audited.provided(connection, login.by(request, name), name, values)
    except (OpenIDError, audited.PersonError) as fault:
        return _refused(request, name, fault)
    to = login.home(values["roles"], waiting.back)
    return login.begin(request, name, to, {"means": "OpenID Connect"})


def _refused(request: Request, name: str | None, fault: ThoracleError) -> Response:
    logger.warning("log-in by the provider refused: %s", fault)
    with site_of(request).database.begin() as connection:
        login.count_failure(connection, request)
        audited.refused(connection, login.by(request, name), str(fault))
    return login.form_again(request, "/", REFUSAL, 401)


def _described(site: Site, claims: dict[str, Any], settings: OIDC) -> tuple[str, dict[str, Any]]:
    """Return the name under which a person is or will be kept, and the columns of its row.

    Raises
    ------
    OpenIDError
        The person has no role here, or the account is disabled.
    """
    subject = f"{settings.issuer} {claims['sub']}"
    if len(subject) > LONGEST_SUBJECT or not subject.isprintable():
        raise OpenIDError(f"found a subject of {len(subject)} characters that cannot be kept")
    roles = roles_of(claims, settings)
    with site.database.connect() as connection:
        row = people.row_by_subject(connection, subject)
        if row is not None and row.disabled:
            raise OpenIDError(f"the account {row.name} is disabled")
        if not roles:
            raise OpenIDError(f"found no Thoracle role in the claim {settings.roles_claim}")
        wanted = credentials.folded_name(str(claims.get("preferred_username", "")))
        # A name that a local account has is never taken over: the provider does not own it.
        if row is not None:
            name = row.name
        elif credentials.is_name(wanted) and people.row_of(connection, wanted) is None:
            name = wanted
        else:
            name = "oidc-" + hashlib.sha256(subject.encode()).hexdigest()[:16]
    shown = str(claims.get("name", "")).strip()[:LONGEST_DISPLAY_NAME]
    return name, {
        "display_name": shown if shown and shown.isprintable() else name,
        "roles": roles,
        "subject": subject,
    }
