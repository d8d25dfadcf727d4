"""The second page of the log-in: the code, for those who have a second factor."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from thoracle.accounts import accounts as audited
from thoracle.accounts import factor_rows, second_factor
from thoracle.accounts import rows as people
from thoracle.accounts.second_factor import CodeError
from thoracle.web.session import cookies, login
from thoracle.web.session.login import Text
from thoracle.web.site import Site, render, site_of

router = APIRouter()

REFUSAL = "Wrong code, a code that was used before, or the account is locked."
EXPIRED = "The log-in took too long, or was ended: log in again."


@router.get("/login/code")
def form(request: Request, next: str = "/") -> Response:
    """Ask for the code, while a log-in waits for it."""
    with site_of(request).database.connect() as connection:
        if factor_rows.waiting(connection, _digest(request)) is None:
            return RedirectResponse(f"/login?next={quote(login.own(next), safe='/')}", 303)
    return _form(request, next)


def _form(request: Request, path: str, fault: str = "", status_code: int = 200) -> Response:
    return render(request, "login_code.html", status_code, next=login.own(path), fault=fault)


def _digest(request: Request) -> str:
    return cookies.digest(cookies.value(request, site_of(request).secure) or "")


@router.post("/login/code")
def log_in(request: Request, code: Text = "", next: Text = "/") -> Response:
    """Begin a session for whom the password was right and the code is."""
    site, digest = site_of(request), _digest(request)
    login.admit(request)
    with site.database.begin() as connection:
        people.lock(connection)
        row = factor_rows.waiting(connection, digest)
        if row is None:
            return login.form_again(request, next, EXPIRED, 401)
        try:
            detail = _used(connection, site, row, code)
        except CodeError as fault:
            login.count_failure(connection, request)
            audited.refused(connection, login.by(request, row.name), str(fault))
            return _form(request, next, REFUSAL, 401)
        factor_rows.end_waiting(connection, digest)
    return login.begin(request, row.name, login.after_log_in(row, next), detail)


def _used(connection: Connection, site: Site, row: Any, code: str) -> dict[str, Any]:
    """Use a code; return what the audit says of the log-in.

    Raises
    ------
    CodeError
        It does not count.
    """
    web = site.settings.web
    if not audited.attempt(connection, row.name, web.lockout_failures, web.lockout_minutes):
        raise CodeError(login.why_not_counted(row))
    kind = second_factor.use(connection, row.name, code)
    detail: dict[str, Any] = {"means": f"password and {kind}"}
    if kind == second_factor.RECOVERY_CODE:
        detail["recovery_codes_left"] = factor_rows.recovery_codes(connection, row.name)
    return detail
