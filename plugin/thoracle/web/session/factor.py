"""One's own second factor: set it up, renew its recovery codes, remove it."""

from typing import Annotated, Any

import segno
from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from thoracle.accounts import accounts as audited
from thoracle.accounts import factor_rows, second_factor, totp
from thoracle.accounts import rows as people
from thoracle.accounts.accounts import PersonError
from thoracle.accounts.second_factor import CodeError
from thoracle.web.session.access import Person, setting_up
from thoracle.web.session.login import Text, admit, by, checked, count_failure
from thoracle.web.site import render, site_of

router = APIRouter()
SettingUp = Annotated[Person, Depends(setting_up)]

WRONG_PASSWORD = "the password is wrong, or the account is locked"  # noqa: S105  # no password
WRONG_CODE = "the code is wrong, or was used before"


@router.get("/account/second-factor")
def show(request: Request, person: SettingUp) -> Response:
    """Show whether there is a second factor, and what can be done about it."""
    return _page(request, person)


def _page(
    request: Request, person: Person, status_code: int = 200, fault: str = "", **shown: Any
) -> Response:
    with site_of(request).database.connect() as connection:
        row = people.row_of(connection, person.name)
        factor = factor_rows.row_of(connection, person.name)
        left = factor_rows.recovery_codes(connection, person.name)
    assert row is not None
    values = {"secret": "", "picture": "", "codes": [], "renewed": False, **shown}
    return render(
        request,
        "second_factor.html",
        status_code,
        fault=fault,
        has_password=row.password_hash is not None,
        since=None if factor is None else factor.confirmed_at,
        left=left,
        **values,
    )


@router.post("/account/second-factor")
def begin(request: Request, person: SettingUp, password: Text) -> Response:
    """Show a new secret to who knows the password; it counts once a code of it has come."""
    try:
        _require_password(request, person, password)
        with site_of(request).database.begin() as connection:
            secret = second_factor.begin(connection, person.name)
            people.set_attempts(connection, person.name, 0, None)
    except PersonError as fault:
        return _page(request, person, 422, str(fault))
    return _page(request, person, **_shown(request, person, secret))


def _shown(request: Request, person: Person, secret: str) -> dict[str, Any]:
    """Return a secret as a text and as a QR code, which is made here and needs no other request."""
    site_name = site_of(request).settings.web.site_name
    uri = totp.uri(secret, person.name, f"Thoracle {site_name}".strip())
    picture = segno.make(uri, error="m").svg_data_uri(dark="#000", light="#fff", omitsize=True)
    groups = (secret[start : start + 4] for start in range(0, len(secret), 4))
    return {"secret": " ".join(groups), "picture": picture}


@router.post("/account/second-factor/confirm")
def confirm(request: Request, person: SettingUp, code: Text) -> Response:
    """Have the secret count; show the recovery codes this once."""
    admit(request)
    shown: dict[str, Any] = {}
    with site_of(request).database.begin() as connection:
        people.lock(connection)
        try:
            secret = second_factor.begun(connection, person.name)
            shown = _shown(request, person, secret)
            codes = second_factor.confirm(
                connection, by(request, person.name), person.name, code, request.state.session
            )
        except CodeError as fault:
            _refused(connection, request, person, str(fault))
            text = WRONG_CODE
        except PersonError as fault:
            text, shown = str(fault), {}
        else:
            text, shown = "", {"codes": codes}
    return _page(request, person, 422 if text else 200, text, **shown)


@router.post("/account/second-factor/codes")
def renew(request: Request, person: SettingUp, password: Text, code: Text) -> Response:
    """Make new recovery codes, and show them this once."""
    codes: list[str] = []

    def change(connection: Any, proof: str) -> None:
        who = by(request, person.name)
        codes.extend(second_factor.renew_codes(connection, who, person.name, proof))

    fault = _changed(request, person, password, code, change)
    return _page(request, person, 422 if fault else 200, fault, codes=codes, renewed=True)


@router.post("/account/second-factor/remove")
def remove(request: Request, person: SettingUp, password: Text, code: Text) -> Response:
    """Remove the second factor; where one is required, another is to be set up then."""

    def change(connection: Any, proof: str) -> None:
        second_factor.remove(connection, by(request, person.name), person.name, proof)

    fault = _changed(request, person, password, code, change)
    if fault:
        return _page(request, person, 422, fault)
    return RedirectResponse("/account?said=factor", 303)


def _changed(request: Request, person: Person, password: str, code: str, change: Any) -> str:
    """Change a second factor for who knows the password and has a code; return what is wrong.

    Both are one attempt: the one that the password counted.
    """
    try:
        _require_password(request, person, password)
    except PersonError as fault:
        return str(fault)
    with site_of(request).database.begin() as connection:
        people.lock(connection)
        try:
            change(connection, second_factor.use(connection, person.name, code))
        except CodeError as fault:
            _refused(connection, request, person, str(fault))
            return WRONG_CODE
        people.set_attempts(connection, person.name, 0, None)
    return ""


def _require_password(request: Request, person: Person, password: str) -> None:
    found = checked(request, person.name, password)
    if found.why:
        with site_of(request).database.begin() as connection:
            who = by(request, person.name)
            audited.refused(connection, who, f"{found.why}, to change the second factor")
        raise PersonError(WRONG_PASSWORD)


def _refused(connection: Any, request: Request, person: Person, why: str) -> None:
    count_failure(connection, request)
    audited.refused(connection, by(request, person.name), f"{why}, to change the second factor")
