"""Persons, as an administrator sees and changes them."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from thoracle.accounts import accounts as audited
from thoracle.accounts import factor_rows, second_factor
from thoracle.accounts import rows as people
from thoracle.accounts.accounts import PersonError
from thoracle.errors import ThoracleError
from thoracle.store.tables import now
from thoracle.web.parameters import RowId
from thoracle.web.session import credentials
from thoracle.web.session.access import Person, Role, administrator
from thoracle.web.session.login import Text, by
from thoracle.web.site import render, site_of

router = APIRouter()
Administrator = Annotated[Person, Depends(administrator)]
Roles = Annotated[list[Role], Form()]

DONE = {
    "described": "Name and roles saved.",
    "disabled": "Account disabled. Its sessions have ended and its tokens are not accepted.",
    "enabled": "Account enabled and unlocked.",
    "unlocked": "Account unlocked.",
    "sessions": "All sessions of the account ended.",
    "revoked": "Token revoked.",
    "second-factor": "Second factor removed. All sessions of the account ended.",
}
"""What is said after a change, by a word in the address."""


@router.get("/people")
def everybody(request: Request, _person: Administrator) -> Response:
    """Show all persons."""
    return _everybody(request)


def _everybody(request: Request, status_code: int = 200, fault: str = "", **typed: Any) -> Response:
    with site_of(request).database.connect() as connection:
        rows = people.rows(connection)
    form = {"name": "", "display_name": "", "chosen": [], **typed}
    return render(
        request,
        "people.html",
        status_code,
        rows=rows,
        roles=list(Role),
        stamp=now(),
        fault=fault,
        **form,
    )


@router.post("/people")
def add(
    request: Request,
    person: Administrator,
    name: Text,
    display_name: Text = "",
    roles: Roles = [],  # noqa: B006  # FastAPI copies it
) -> Response:
    """Add a person with a one-time password, and show it this once."""
    name = credentials.folded_name(name)
    try:
        values = credentials.account_columns(name, display_name, roles, None)
        password, secret = credentials.one_time_password()
        with site_of(request).database.begin() as connection:
            audited.add(connection, by(request, person.name), name, {**values, **secret})
    except ThoracleError as fault:
        typed = {"name": name, "display_name": display_name, "chosen": roles}
        return _everybody(request, 422, str(fault), **typed)
    return _one(request, name, password=password)


@router.get("/people/{name}")
def one(request: Request, _person: Administrator, name: str, said: str = "") -> Response:
    """Show one person."""
    return _one(request, name, said=DONE.get(said, ""))


def _one(
    request: Request,
    name: str,
    status_code: int = 200,
    *,
    said: str = "",
    fault: str = "",
    password: str = "",
) -> Response:
    with site_of(request).database.connect() as connection:
        row = people.row_of(connection, name) if credentials.is_name(name) else None
        if row is None:
            raise HTTPException(404, "there is no such person")
        return render(
            request,
            "one_person.html",
            status_code,
            row=row,
            sessions=people.sessions(connection, name),
            tokens=people.tokens(connection, name),
            has_second_factor=factor_rows.is_set(connection, name),
            roles=list(Role),
            stamp=now(),
            said=said,
            fault=fault,
            password=password,
        )


def _change(request: Request, name: str, done: str, change: Callable[[Any], None]) -> Response:
    """Change a person in one transaction; go back to the page of the person, with what was done."""
    try:
        with site_of(request).database.begin() as connection:
            change(connection)
    except PersonError as fault:
        return _one(request, name, 422, fault=str(fault))
    return RedirectResponse(f"/people/{name}?said={done}", 303)


@router.post("/people/{name}")
def describe(
    request: Request,
    person: Administrator,
    name: str,
    display_name: Text,
    roles: Roles = [],  # noqa: B006  # FastAPI copies it
) -> Response:
    """Change the name shown and the roles; other roles end the sessions."""

    def change(connection: Any) -> None:
        row = people.row_of(connection, name)
        values = credentials.person_columns(display_name, roles)
        other = row is not None and set(row.roles) != set(values["roles"])
        who = by(request, person.name)
        audited.change(connection, who, name, values, values, ends_sessions=other)

    return _change(request, name, "described", change)


@router.post("/people/{name}/disable")
def disable(request: Request, person: Administrator, name: str) -> Response:
    """Let nobody in by this account, and end its sessions."""
    who = by(request, person.name)
    values = {"disabled": 1}
    return _change(
        request,
        name,
        "disabled",
        lambda connection: audited.change(connection, who, name, values, {"disabled": True}),
    )


@router.post("/people/{name}/enable")
def enable(request: Request, person: Administrator, name: str) -> Response:
    """Let the person in again."""
    return _open(request, person, name, {"disabled": 0}, "enabled")


@router.post("/people/{name}/unlock")
def unlock(request: Request, person: Administrator, name: str) -> Response:
    """End the lock that failed log-ins made."""
    return _open(request, person, name, {}, "unlocked")


def _open(
    request: Request, person: Person, name: str, values: dict[str, Any], done: str
) -> Response:
    who, values = by(request, person.name), {**values, "failures": 0, "locked_until": None}
    return _change(
        request,
        name,
        done,
        lambda connection: audited.change(
            connection, who, name, values, {done: True}, ends_sessions=False
        ),
    )


@router.post("/people/{name}/password")
def one_time_password(request: Request, person: Administrator, name: str) -> Response:
    """Replace the password by a one-time one, and show it this once."""
    password, values = credentials.one_time_password()
    try:
        with site_of(request).database.begin() as connection:
            row = people.row_of(connection, name)
            if row is not None and row.subject is not None:
                raise PersonError(
                    f"{name} logs in through the institution and has no password here"
                )
            what = {"password": "one-time"}
            audited.change(connection, by(request, person.name), name, values, what)
    except PersonError as fault:
        return _one(request, name, 422, fault=str(fault))
    return _one(request, name, password=password)


@router.post("/people/{name}/second-factor")
def reset_second_factor(request: Request, person: Administrator, name: str) -> Response:
    """Remove the second factor of a person, and end the sessions."""
    who = by(request, person.name)
    return _change(
        request,
        name,
        "second-factor",
        lambda connection: second_factor.reset(connection, who, name),
    )


@router.post("/people/{name}/sessions")
def end_sessions(request: Request, person: Administrator, name: str) -> Response:
    """End all sessions of a person."""
    who = by(request, person.name)
    return _change(
        request,
        name,
        "sessions",
        lambda connection: audited.end_sessions(connection, who, name),
    )


@router.post("/people/{name}/tokens/{token_id}/revoke")
def revoke_token(request: Request, person: Administrator, name: str, token_id: RowId) -> Response:
    """Let a token of a person open nothing any more."""
    who = by(request, person.name)
    return _change(
        request,
        name,
        "revoked",
        lambda connection: audited.revoke_token(connection, who, name, token_id),
    )
