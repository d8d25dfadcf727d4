"""One's own account: password and API tokens; and who a program is, by ``/api/whoami``."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from thoracle.store import people
from thoracle.web import access
from thoracle.web.access import Person, anyone
from thoracle.web.site import render, site_of

router = APIRouter()
Anyone = Annotated[Person, Depends(anyone)]


@router.get("/api/whoami")
def who_am_i(person: Anyone) -> dict[str, Any]:
    """Say who asks, and what the token is good for."""
    return {
        "name": person.name,
        "roles": sorted(role.value for role in person.roles),
        "scopes": None if person.scopes is None else sorted(person.scopes),
    }


@router.get("/account")
def account(request: Request, person: Anyone) -> Response:
    """Show one's account."""
    with site_of(request).database.connect() as connection:
        tokens = people.tokens(connection, person.name)
    scopes = [scope for scope, role in access.SCOPES.items() if person.has(role)]
    return render(request, "account.html", tokens=tokens, scopes=scopes)
