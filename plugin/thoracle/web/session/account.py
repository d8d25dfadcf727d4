"""One's own account: password and API tokens; and who a program is, by ``/api/whoami``."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from thoracle.accounts import accounts as audited
from thoracle.accounts import factor_rows
from thoracle.accounts import rows as people
from thoracle.accounts.accounts import PersonError
from thoracle.errors import ThoracleError
from thoracle.store.tables import now, timestamp
from thoracle.web.parameters import RowId
from thoracle.web.session import access, cookies, credentials
from thoracle.web.session.access import Person, anyone, changing_password
from thoracle.web.session.login import Text, begin, by, checked
from thoracle.web.site import render, site_of

router = APIRouter()
programs = APIRouter(prefix="/api", tags=["account"])
Anyone = Annotated[Person, Depends(anyone)]
Changing = Annotated[Person, Depends(changing_password)]

TOKEN_PREFIX = "thoracle_"  # noqa: S105  # so that scanners for secrets find tokens left in files
LONGEST_TOKEN_DAYS = 366
LONGEST_LABEL = 64
MOST_TOKENS = 50
"""Of one person, that are good."""


class WhoAnswer(BaseModel):
    """Who asks."""

    name: str
    roles: list[str]
    scopes: list[str] | None = Field(description="Of the token; null: signed in by a browser.")


@programs.get("/whoami")
def who_am_i(person: Anyone) -> WhoAnswer:
    """Say who asks, and what the token is good for."""
    return WhoAnswer(
        name=person.name,
        roles=sorted(role.value for role in person.roles),
        scopes=None if person.scopes is None else sorted(person.scopes),
    )


@router.get("/account")
def account(request: Request, person: Anyone, said: str = "") -> Response:
    """Show one's account."""
    texts = {
        "revoked": "Token revoked.",
        "password": "Password changed.",
        "factor": "Second factor removed.",
    }
    return _page(request, person, said=texts.get(said, ""))


def _page(
    request: Request,
    person: Person,
    status_code: int = 200,
    *,
    said: str = "",
    fault: str = "",
    token: str = "",
) -> Response:
    with site_of(request).database.connect() as connection:
        row = people.row_of(connection, person.name)
        tokens = people.tokens(connection, person.name)
        has_second_factor = factor_rows.is_set(connection, person.name)
    assert row is not None
    return render(
        request,
        "account.html",
        status_code,
        tokens=tokens,
        scopes=access.scopes_of(person),
        has_password=row.password_hash is not None,
        has_second_factor=has_second_factor,
        stamp=now(),
        longest_days=LONGEST_TOKEN_DAYS,
        said=said,
        fault=fault,
        token=token,
    )


@router.get("/account/password")
def password_form(request: Request, _person: Changing) -> Response:
    """Show the form for another password."""
    return render(request, "password.html", fault="")


@router.post("/account/password")
def change_password(
    request: Request, person: Changing, current: Text, password: Text, again: Text
) -> Response:
    """Change one's own password: all sessions end, and one begins."""
    try:
        if password != again:
            raise PersonError("found two different new passwords, required: the same twice")
        if password == current:
            raise PersonError("found the current password as the new one, required: another")
        # Before the current one is compared: a new one that is refused is no failed log-in.
        credentials.require_password(password, person.name)
        if checked(request, person.name, current).why:
            raise PersonError("the current password is wrong, or the account is locked")
        values = credentials.chosen_password(password, person.name)
    except ThoracleError as fault:
        return render(request, "password.html", 422, fault=str(fault))
    with site_of(request).database.begin() as connection:
        what = {"password": "changed"}
        audited.change(connection, by(request, person.name), person.name, values, what)
    to = "/" if person.must_change else "/account?said=password"  # after the first log-in: to work
    return begin(request, person.name, to, {"means": "password changed"})


@router.post("/account/tokens")
def add_token(
    request: Request,
    person: Anyone,
    label: Text,
    days: Annotated[int, Form()],
    scopes: Annotated[list[str], Form()] = [],  # noqa: B006  # FastAPI copies it
) -> Response:
    """Make an API token, and show it this once."""
    try:
        values = _token(person, label.strip(), days, scopes)
        token = TOKEN_PREFIX + secrets.token_urlsafe(cookies.BYTES)
        with site_of(request).database.begin() as connection:
            people.lock(connection)
            good = [one for one in people.tokens(connection, person.name) if _is_good(one)]
            if len(good) >= MOST_TOKENS:
                raise PersonError(f"found {len(good)} tokens, required: at most {MOST_TOKENS}")
            who = by(request, person.name)
            audited.add_token(connection, who, person.name, cookies.digest(token), values)
    except PersonError as fault:
        return _page(request, person, 422, fault=str(fault))
    return _page(request, person, token=token)


def _is_good(row: Any) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now())


def _token(person: Person, label: str, days: int, scopes: list[str]) -> dict[str, Any]:
    if not 0 < len(label) <= LONGEST_LABEL or not label.isprintable():
        raise PersonError(
            f"found a label of {len(label)} characters, required: 1 to {LONGEST_LABEL}, all of "
            "them printable"
        )
    if not 1 <= days <= LONGEST_TOKEN_DAYS:
        raise PersonError(f"found {days} days, required: 1 to {LONGEST_TOKEN_DAYS}")
    theirs = access.scopes_of(person)
    if not scopes or not set(scopes) <= set(theirs):
        raise PersonError(f"found other scopes, required: some of {', '.join(theirs)}")
    return {
        "label": label,
        "scopes": sorted(set(scopes)),
        "expires_at": timestamp(datetime.now(UTC) + timedelta(days=days)),
    }


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(request: Request, person: Anyone, token_id: RowId) -> Response:
    """Let one of one's own tokens open nothing any more."""
    try:
        with site_of(request).database.begin() as connection:
            audited.revoke_token(connection, by(request, person.name), person.name, token_id)
    except PersonError as fault:
        return _page(request, person, 404, fault=str(fault))
    return RedirectResponse("/account?said=revoked", 303)
