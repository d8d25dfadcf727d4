"""API tokens of persons of a site."""

import re
import secrets
from typing import Any

import httpx
from sqlalchemy import Engine

from thoracle.accounts import rows as people
from thoracle.web.session import cookies


def new_token(client: httpx.Client, *scopes: str, **fields: Any) -> str:
    """Return a token that a person makes on the page of their account."""
    form = {"label": "a program", "days": 1, "scopes": list(scopes), **fields}
    answer = client.post("/account/tokens", data=form)
    assert answer.status_code == 200, answer.text
    found = re.search(r'<p class="secret mono">(thoracle_[\w-]{43})</p>', answer.text)
    assert found is not None
    return found[1]


def bearer(token: str) -> dict[str, str]:
    """Return the headers of a request with a token."""
    return {"Authorization": f"Bearer {token}"}


def token(database: Engine, person: str, *scopes: str) -> str:
    """Return a token that is put into the database, as a page would."""
    secret = secrets.token_urlsafe(32)
    values = {"label": "test", "scopes": list(scopes), "expires_at": None}
    with database.begin() as connection:
        people.add_token(connection, cookies.digest(secret), person, values)
    return secret
