"""Log-in, log-out, and the first administrator."""

import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Form, HTTPException, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from thoracle.accounts import accounts as audited
from thoracle.accounts import factor_rows, login_rows
from thoracle.accounts import rows as people
from thoracle.accounts.accounts import Actor, PersonError
from thoracle.errors import ThoracleError
from thoracle.store.database import begin_writing
from thoracle.store.tables import now, timestamp
from thoracle.web.session import access, cookies, credentials
from thoracle.web.site import Site, address_of, render, site_of

# ---- throttle ------------------------------------------------------------------------------------
# How often one network may try to log in, at all processes of pages together. The lock of an
# account is another matter.

MOST_TRIES = 120
"""Log-ins a minute, well or not: each costs a comparison of a password. Departments share
addresses."""
MOST_FAILURES = 20
WINDOW_SECONDS = 60.0


def admit(request: Request) -> None:
    """Count a log-in of a network.

    Raises
    ------
    HTTPException
        429: there were too many in the last minute.
    """
    database, network = site_of(request).database, _network(address_of(request))
    with database.connect() as connection:  # who is refused costs no write
        is_open = _is_open(*login_rows.attempts(connection, network, WINDOW_SECONDS))
    if is_open:
        with database.begin() as connection:
            begin_writing(connection)
            login_rows.forget_attempts(connection, WINDOW_SECONDS)
            is_open = _is_open(*login_rows.attempts(connection, network, WINDOW_SECONDS))
            if is_open:
                login_rows.add_attempt(connection, network, failed=False)
    if not is_open:
        raise HTTPException(
            429, "too many log-ins from this address: wait one minute", {"Retry-After": "60"}
        )


def _is_open(tries: int, failures: int) -> bool:
    return tries < MOST_TRIES and failures < MOST_FAILURES


def count_failure(connection: Connection, request: Request) -> None:
    """Count a log-in that failed."""
    login_rows.add_attempt(connection, _network(address_of(request)), failed=True)


def _network(address: str | None) -> str:
    """Return what one attacker has: an address of IPv4, a /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if mapped := getattr(found, "ipv4_mapped", None):  # as proxies that listen on :: write it
        return str(mapped)
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))


# ---- the first administrator ---------------------------------------------------------------------
# The first administrator: made by whoever reads what `thoracle web` printed at its start.
#
# The database has digests of these tokens, one a process, while there is nobody: each of them opens
# the form at every process.


def new_first_run(connection: Connection) -> str | None:
    """Return a new token, to be printed once; ``None``: there is somebody, and no token counts."""
    if people.anybody(connection):
        login_rows.end_first_run(connection)
        return None
    token = secrets.token_urlsafe(cookies.BYTES)
    login_rows.add_first_run(connection, cookies.digest(token))
    return token


def _is_first_run(connection: Connection, token: str) -> bool:
    """Return whether a token is one that was printed."""
    digest = cookies.digest(token.strip())
    return any(hmac.compare_digest(one, digest) for one in login_rows.first_runs(connection))


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
        try:
            here = urlsplit(request.headers.get("hx-current-url", ""))
        except ValueError:  # no browser of ours sends what is no address
            here = urlsplit("/")
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
    admit(request)
    found = _compared(site_of(request), name, password)
    if found.why:
        with site_of(request).database.begin() as connection:
            count_failure(connection, request)
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
    with site_of(request).database.connect() as connection:
        _require_first_run(connection)
    return render(request, "first_run.html", fault="", name="")


@router.post("/first-run")
def first_run(request: Request, token: Text, name: Text, password: Text) -> Response:
    """Make the first administrator and sign in."""
    admit(request)
    database, name = site_of(request).database, credentials.folded_name(name)
    try:
        with database.begin() as connection:
            _require_first_run(connection)
            is_known = _is_first_run(connection, token)
            if not is_known:
                count_failure(connection, request)
        if not is_known:
            raise PersonError("found another token, required: the one printed at the start")
        roles = [access.Role.ADMINISTRATOR, access.Role.AUDITOR]
        values = credentials.account_columns(name, name, roles, password)
    except ThoracleError as fault:
        return render(request, "first_run.html", 422, fault=str(fault), name=name)
    with database.begin() as connection:
        begin_writing(connection)  # two requests at once must not both find nobody
        _require_first_run(connection)
        audited.add(connection, by(request, name), name, values)
        login_rows.end_first_run(connection)
    return begin(request, name, "/people", {"means": "first run"})


def _require_first_run(connection: Connection) -> None:
    if people.anybody(connection) or not login_rows.first_runs(connection):
        raise HTTPException(404, "the first administrator exists already")
