"""A second factor of persons of a site, and log-ins with it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import httpx
import pyotp
from sqlalchemy import update

from browsing import PASSWORD, Site, csrf_token, log_in
from thoracle.accounts import factor_rows, totp
from thoracle.store.tables import second_factor

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
RECOVERY = [f"aaaaa-bbbbb-cccc{letter}" for letter in "abcdefghjk"]
NUMBER = count(1)


@contextmanager
def browser(site: Site) -> Iterator[httpx.Client]:
    """Yield a browser at an address of its own: many tests fail to log in."""
    address = f"127.0.2.{next(NUMBER)}"
    with site.visitor(transport=httpx.HTTPTransport(local_address=address)) as found:
        yield found


def equip(site: Site, name: str) -> None:
    """Give a person a second factor that is confirmed, with ``SECRET`` and recovery codes."""
    with site.database.begin() as connection:
        factor_rows.begin(connection, name, SECRET)
        factor_rows.confirm(connection, name)
        codes = [totp.digest(f"{name} {code}"[-64:]) for code in RECOVERY]
        factor_rows.set_recovery_codes(connection, name, codes)


def recovery_code(name: str, number: int) -> str:
    return f"{name} {RECOVERY[number]}"


def code_of(site: Site, name: str, secret: str = SECRET) -> str:
    """Return the code that the app shows now, as if none had been used."""
    with site.database.begin() as connection:
        theirs = second_factor.c.person == name
        connection.execute(update(second_factor).where(theirs).values(last_step=0))
    return pyotp.TOTP(secret).now()


def wrong_code() -> str:
    """Return six digits that no app with ``SECRET`` shows about now."""
    app, moment = pyotp.TOTP(SECRET), int(time.time())
    near = {app.at(moment + seconds) for seconds in range(-90, 91, 30)}
    return next(
        code for code in ("000000", "111111", *map(str, range(222222, 222232))) if code not in near
    )


def send_code(client: httpx.Client, code: str, **fields: str) -> httpx.Response:
    form = {"csrf_token": csrf_token(client, "/login/code"), "code": code, **fields}
    return client.post("/login/code", data=form)


def signed_in(site: Site, client: httpx.Client, name: str) -> None:
    """Log a person in with password and code."""
    assert log_in(client, name, PASSWORD).headers["location"] == "/login/code?next=/"
    assert send_code(client, code_of(site, name)).status_code == 303
    client.headers["X-CSRF-Token"] = csrf_token(client, "/account")


def leave(client: httpx.Client) -> None:
    """Go without logging out."""
    client.cookies.clear()
    client.headers.pop("X-CSRF-Token", None)
