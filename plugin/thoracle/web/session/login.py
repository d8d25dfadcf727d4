"""Log-in, log-out, and the first administrator."""

import hmac
import ipaddress
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Form, HTTPException, Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.responses import RedirectResponse, Response

from thoracle.accounts import accounts as audited
from thoracle.accounts import factor_rows
from thoracle.accounts import rows as people
from thoracle.accounts.accounts import Actor, PersonError
from thoracle.errors import ThoracleError
from thoracle.store.tables import now, timestamp
from thoracle.web.session import access, cookies, credentials
from thoracle.web.site import Site, address_of, render, site_of

# ---- throttle ------------------------------------------------------------------------------------
# How often one network address may try to log in. The lock of an account is another matter.
#
# In the memory of the process: an attacker cannot restart it.

TRIES = RateLimitItemPerMinute(120)
"""Log-ins, well or not: each costs a comparison of a password. Departments share addresses."""
FAILURES = RateLimitItemPerMinute(20)


class Throttle:
    """Counts the log-ins of each address over the last minute."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def admit(self, address: str | None) -> None:
        """Count a log-in.

        Raises
        ------
        HTTPException
            429: there were too many.
        """
        who = _network(address)
        if not self._limiter.hit(TRIES, "try", who) or not self._limiter.test(
            FAILURES, "failure", who
        ):
            raise HTTPException(
                429, "too many log-ins from this address: wait one minute", {"Retry-After": "60"}
            )

    def failed(self, address: str | None) -> None:
        """Count a log-in that failed."""
        self._limiter.hit(FAILURES, "failure", _network(address))


def _network(address: str | None) -> str:
    """Return what one attacker has: an address of IPv4, a /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))


# ---- the first administrator ---------------------------------------------------------------------
# The first administrator: made by whoever reads what `thoracle web` printed at its start.
#
# The token lives in the memory of the process alone, as a digest; the next start prints another
# one while there is nobody.


class FirstRun:
    """The one-time token of this process."""

    def __init__(self) -> None:
        self._digest: str | None = None
        self.turn = threading.Lock()
        """Held while an account is made: two requests at once must not both find the token good."""

    def begin(self) -> str:
        """Return a new token, to be printed once."""
        token = secrets.token_urlsafe(cookies.BYTES)
        self._digest = cookies.digest(token)
        return token

    def fits(self, token: str) -> bool:
        """Return whether a token is the one that was printed."""
        return self._digest is not None and hmac.compare_digest(
            self._digest, cookies.digest(token.strip())
        )

    @property
    def open(self) -> bool:
        """Whether a token was printed and not used."""
        return self._digest is not None

    def end(self) -> None:
        """Let no token fit any more."""
        self._digest = None


router = APIRouter()

# ---- log-in --------------------------------------------------------------------------------------

REFUSAL = "Wrong name or password, or the account is locked."
CODE_MINUTES = 5
"""How long a log-in waits for the code after the password."""
Text = Annotated[str, Form()]


def address(request: Request) -> str:
    """Return the address of the log-in that leads back to where a request came from.

    A part of a page leads back to the page that asked for it, and a form to the start.
    """
    if "hx-request" in request.headers:
        here = urlsplit(request.headers.get("hx-current-url", ""))
    elif request.method == "GET":
        here = urlsplit(str(request.url))
    else:
        here = urlsplit("/")
    back = here.path + (f"?{here.query}" if here.query else "")
    return "/login" if back in ("", "/") else f"/login?next={quote(own(back), safe='/')}"


def own(path: str) -> str:
    """Return a path of ours; anything that a browser could take for another site becomes ``/``."""
    plain = all("!" <= character <= "~" and character != "\\" for character in path)
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"


def home(roles: Iterable[str], path: str) -> str:
    """Return a path of ours; the start is the worklist for those who may see it."""
    path = own(path)
    if path != "/" or {access.Role.READER, access.Role.ADMINISTRATOR} & set(roles):
        return path
    return "/audit" if access.Role.AUDITOR in roles else "/account"


@router.get("/login")
def form(request: Request, next: str = "/") -> Response:
    """Show the log-in."""
    person = access.person_of(request)
    if person is not None:
        return RedirectResponse(home(person.roles, next), 303)
    return form_again(request, next)


def form_again(request: Request, back: str, fault: str = "", status_code: int = 200) -> Response:
    """Show the log-in, with what was wrong."""
    oidc = site_of(request).settings.web.oidc
    return render(
        request, "login.html", status_code, next=own(back), fault=fault, oidc=oidc is not None
    )


@router.post("/login")
def log_in(request: Request, name: Text, password: Text = "", next: Text = "/") -> Response:
    """Begin a session, or refuse in the same words and time for every reason.

    Who has a second factor gets no session yet, but the page that asks for the code.
    """
    found = checked(request, credentials.folded_name(name), password)
    row = found.row
    with site_of(request).database.begin() as connection:
        if row is None or found.why:
            audited.refused(connection, by(request, None if row is None else row.name), found.why)
            return form_again(request, next, REFUSAL, 401)
        asked = factor_rows.is_set(connection, row.name)
    if asked:
        return _ask_for_code(request, found, next)
    return begin(request, row.name, after_log_in(row, next), {"means": "password"})


def after_log_in(row: Any, path: str) -> str:
    """Return where a person goes after the log-in; with a one-time password, to change it."""
    return "/account/password" if row.one_time_until is not None else home(row.roles, path)


def _ask_for_code(request: Request, found: "Checked", path: str) -> Response:
    """Have a log-in wait for its code, with a new cookie that is no session."""
    assert found.attempt is not None
    site, name = site_of(request), found.row.name
    cookie = secrets.token_urlsafe(cookies.BYTES)
    expires_at = timestamp(datetime.now(UTC) + timedelta(minutes=CODE_MINUTES))
    before = cookies.value(request, site.secure)
    with site.database.begin() as connection:
        if before is not None:
            people.end_session(connection, cookies.digest(before))
        audited.take_back(connection, name, found.attempt)
        factor_rows.add_waiting(connection, cookies.digest(cookie), name, expires_at)
    response = RedirectResponse(f"/login/code?next={quote(own(path), safe='/')}", 303)
    cookies.put(response, cookie, site.secure)
    return response


def by(request: Request, name: str | None) -> Actor:
    """Return who does something, for the audit."""
    return Actor(name, address_of(request))


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a password."""

    row: Any
    """Of the person; ``None``: there is none of the name."""
    attempt: audited.Attempt | None
    """As it was counted; ``None``: it was not, because the account is disabled or locked."""
    why: str
    """Why it is refused; empty: it is right."""


def checked(request: Request, name: str, password: str) -> Checked:
    """Compare the password of a person, if there is one of the name.

    Raises
    ------
    HTTPException
        429: the address tries too often.
    """
    throttle, address = throttle_of(request), address_of(request)
    throttle.admit(address)
    found = _compared(site_of(request), name, password)
    if found.why:
        throttle.failed(address)
    return found


def throttle_of(request: Request) -> Throttle:
    """Return what counts the log-ins of each address."""
    found = request.app.state.throttle
    assert isinstance(found, Throttle)
    return found


def _compared(site: Site, name: str, password: str) -> Checked:
    web = site.settings.web
    with site.database.begin() as connection:
        row = people.row_of(connection, name) if credentials.is_name(name) else None
        attempt = None
        if row is not None:
            attempt = audited.attempt(connection, name, web.lockout_failures, web.lockout_minutes)
        if attempt is None:
            people.lock(connection)  # a write as well, because its time could be measured
    # Compared in any case: the time must not tell who exists or is locked.
    same = credentials.password_matches(password, None if row is None else row.password_hash)
    return Checked(row, attempt, _why_refused(row, attempt, same))


def _why_refused(row: Any, attempt: audited.Attempt | None, same: bool) -> str:
    if row is None:
        return "unknown name"
    if attempt is None:
        return why_not_counted(row)
    if not same:
        return "wrong password"
    if row.one_time_until is not None and row.one_time_until <= now():
        return "one-time password too old"
    return ""


def why_not_counted(row: Any) -> str:
    """Return why an attempt of a person was not counted."""
    return "disabled" if row.disabled else "locked"


def begin(request: Request, name: str, to: str, detail: dict[str, Any]) -> Response:
    """Begin a session with a new cookie, end the one before, and go to a page.

    ``detail`` is for the audit: ``means``, by which the person is known.
    """
    site = site_of(request)
    cookie = secrets.token_urlsafe(cookies.BYTES)
    hours = site.settings.web.session_hours
    expires_at = timestamp(datetime.now(UTC) + timedelta(hours=hours))
    before = cookies.value(request, site.secure)
    with site.database.begin() as connection:
        if before is not None:
            people.end_session(connection, cookies.digest(before))
        audited.logged_in(connection, by(request, name), cookies.digest(cookie), expires_at, detail)
    response = RedirectResponse(to, 303)
    cookies.put(response, cookie, site.secure)
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session; without one, do nothing."""
    site = site_of(request)
    person = access.person_of(request)
    if person is not None:
        with site.database.begin() as connection:
            audited.logged_out(connection, by(request, person.name), request.state.session)
    response = RedirectResponse("/login", 303)
    cookies.clear(response, site.secure)
    return response


@router.get("/first-run")
def first_run_form(request: Request) -> Response:
    """Show the form of the first administrator, while there is nobody."""
    _require_first_run(request)
    return render(request, "first_run.html", fault="", name="")


@router.post("/first-run")
def first_run(request: Request, token: Text, name: Text, password: Text) -> Response:
    """Make the first administrator and sign in."""
    throttle_of(request).admit(address_of(request))
    with request.app.state.first_run.turn:
        _require_first_run(request)
        name = credentials.folded_name(name)
        try:
            if not request.app.state.first_run.fits(token):
                throttle_of(request).failed(address_of(request))
                raise PersonError("found another token, required: the one printed at the start")
            roles = [access.Role.ADMINISTRATOR, access.Role.AUDITOR]
            values = credentials.account_columns(name, name, roles, password)
        except ThoracleError as fault:
            return render(request, "first_run.html", 422, fault=str(fault), name=name)
        with site_of(request).database.begin() as connection:
            audited.add(connection, by(request, name), name, values)
        request.app.state.first_run.end()
    return begin(request, name, "/people", {"means": "first run"})


def _require_first_run(request: Request) -> None:
    with site_of(request).database.connect() as connection:
        if not request.app.state.first_run.open or people.anybody(connection):
            raise HTTPException(404, "the first administrator exists already")
