"""Pages that require a second factor: set-up, log-in with a code, attacks, recovery, reset."""

import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pyotp
import pytest
from sqlalchemy import update

from api_tokens import bearer, new_token
from browsing import PASSWORD, PERSONS, Site, add_person, csrf_token, log_in
from factors import (
    NUMBER,
    SECRET,
    browser,
    code_of,
    equip,
    leave,
    recovery_code,
    send_code,
    signed_in,
    wrong_code,
)
from thoracle.accounts import factor_rows, totp
from thoracle.accounts import rows as people
from thoracle.store.tables import now, second_factor, timestamp, waiting_login
from thoracle.web.session.access import is_for_programs
from thoracle.web.session.cookies import digest
from web_routes import OPEN, routes

FAILURES = 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield pages that require a second factor."""
    text = f'second_factor = "required"\nlockout_failures = {FAILURES}\nlockout_minutes = 0.05'
    with Site(tmp_path_factory.mktemp("site"), text) as running:
        for name in PERSONS:
            equip(running, name)
        yield running


@pytest.fixture
def name(site: Site) -> str:
    """Return a reader who has a second factor."""
    added = f"person-{next(NUMBER)}"
    with site.database.begin() as connection:
        add_person(connection, added, ["reader"])
    equip(site, added)
    return added


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    """Yield a browser at an address of its own: many tests fail to log in."""
    with browser(site) as found:
        yield found


def why(site: Site) -> tuple[str, str]:
    """Return who was refused last, and why."""
    row = site.events("log-in refused")[-1]
    return row.user_id, row.detail["why"]


# Set-up, where it is required.


def test_nothing_opens_before_the_second_factor_is_set_up_but_tokens(
    site: Site, client: httpx.Client
) -> None:
    with site.database.begin() as connection:
        add_person(connection, "newcomer", ["reader", "administrator", "auditor"])
    assert log_in(client, "newcomer", PASSWORD).headers["location"] == "/"
    assert client.get("/").headers["location"] == "/account/second-factor"
    client.headers["X-CSRF-Token"] = csrf_token(client, "/account/second-factor")
    for method, path in routes(site):
        if path in OPEN or path.startswith("/account/second-factor"):
            continue
        answer = client.request(method, path)
        to_set_up = answer.headers.get("location") in ("/account/second-factor", "/login")
        assert answer.status_code == 403 or to_set_up, (method, path)
    with site.database.begin() as connection:
        people.add_token(
            connection,
            digest("a token"),
            "newcomer",
            {"label": "x", "scopes": ["worklist:read"], "expires_at": None},
        )
    with site.visitor() as program:
        assert program.get("/api/worklist", headers=bearer("a token")).status_code == 200
    _sets_up(site, client, "newcomer")


def _sets_up(site: Site, client: httpx.Client, name: str) -> None:
    path = "/account/second-factor"
    assert client.post(path, data={"password": "wrong horse"}).status_code == 422
    assert why(site) == (name, "wrong password, to change the second factor")
    shown = client.post(path, data={"password": PASSWORD})
    assert shown.headers["cache-control"] == "no-store"
    assert 'src="data:image/svg+xml' in shown.text
    found = re.search(r'id="key">([A-Z2-7 ]{39})<', shown.text)
    assert found is not None, shown.text
    secret = found[1].replace(" ", "")
    assert client.get("/api/whoami").status_code == 403
    wrong = client.post(f"{path}/confirm", data={"code": "000 00"})
    assert wrong.status_code == 422
    assert found[1] in wrong.text
    assert why(site) == (name, "wrong code, to change the second factor")
    with browser(site) as elsewhere:  # a session that knows the password alone
        assert log_in(elsewhere, name, PASSWORD).status_code == 303
        confirmed = pyotp.TOTP(secret).now()
        done = client.post(f"{path}/confirm", data={"code": confirmed})
        assert done.status_code == 200, done.text
        assert elsewhere.get("/api/whoami").status_code == 401
    codes = re.findall(r"<li>([a-z0-9]{5}-[a-z0-9]{5}-[a-z0-9]{5})</li>", done.text)
    assert len(codes) == totp.RECOVERY_CODES
    again = client.get(path).text
    assert codes[0] not in again
    assert found[1] not in again
    assert "recovery codes left: 10" in again
    assert client.get("/api/whoami").status_code == 200
    detail = site.events("person changed")[-1].detail
    assert detail == {"person": name, "second_factor": "set up", "sessions_ended": 1}
    assert client.post(path, data={"password": PASSWORD}).status_code == 422  # remove it first
    told = site.log.read_text() + json.dumps([row.detail for row in site.events()])
    for one in (secret, found[1], *codes, *(totp.digest(code) for code in codes)):
        assert one not in told
    with site.database.connect() as connection:
        assert factor_rows.use_recovery_code(connection, name, totp.digest(codes[9]))
    leave(client)
    log_in(client, name, PASSWORD)
    assert send_code(client, confirmed).status_code == 401  # a code is taken once
    assert send_code(client, codes[3].upper()).status_code == 303


def test_a_secret_that_was_shown_long_ago_is_not_confirmed(
    site: Site, client: httpx.Client
) -> None:
    with site.database.begin() as connection:
        add_person(connection, "slow", ["reader"])
    log_in(client, "slow", PASSWORD)
    client.headers["X-CSRF-Token"] = csrf_token(client, "/account/second-factor")
    path = "/account/second-factor/confirm"
    assert "found no set-up in progress" in client.post(path, data={"code": "123456"}).text
    with site.database.begin() as connection:
        factor_rows.begin(connection, "slow", SECRET)
        connection.execute(
            update(second_factor)
            .where(second_factor.c.person == "slow")
            .values(created_at=timestamp(datetime.now(UTC) - timedelta(minutes=11)))
        )
    late = client.post(path, data={"code": pyotp.TOTP(SECRET).now()})
    assert "found no set-up in progress" in late.text
    with browser(site) as other:  # and one that is not confirmed is not asked for
        assert log_in(other, "slow", PASSWORD).headers["location"] == "/"


def test_a_one_time_password_is_changed_before_the_set_up(site: Site, client: httpx.Client) -> None:
    until = timestamp(datetime.now(UTC) + timedelta(hours=1))
    with site.database.begin() as connection:
        add_person(connection, "invited", ["reader"], one_time_until=until)
    assert log_in(client, "invited", PASSWORD).headers["location"] == "/account/password"
    assert client.get("/account/second-factor").headers["location"] == "/account/password"
    client.headers["X-CSRF-Token"] = csrf_token(client, "/account/password")
    form = {"current": PASSWORD, "password": f"{PASSWORD}!", "again": f"{PASSWORD}!"}
    assert client.post("/account/password", data=form).headers["location"] == "/"
    assert client.get("/account/password").headers["location"] == "/account/second-factor"


# Log-in.


def test_a_log_in_needs_password_and_code_and_goes_where_it_was_to(
    site: Site, client: httpx.Client, name: str
) -> None:
    answer = log_in(client, name, PASSWORD, next="/account?x=1")
    assert answer.headers["location"] == "/login/code?next=/account%3Fx%3D1"
    page = client.get(answer.headers["location"]).text
    assert 'name="next" value="/account?x=1"' in page
    code = code_of(site, name)
    answer = send_code(client, f"{code[:3]} {code[3:]}", next="/account?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?x=1")
    assert client.get("/api/whoami").json()["name"] == name
    last = site.events("logged in")[-1]
    assert (last.user_id, last.detail) == (name, {"means": "password and authenticator app"})
    leave(client)
    log_in(client, name, PASSWORD)
    assert send_code(client, wrong_code(), next="//evil.example").status_code == 401
    answer = send_code(client, code_of(site, name), next="//evil.example")
    assert answer.headers["location"] == "/"


def test_between_password_and_code_nothing_opens(
    site: Site, client: httpx.Client, name: str
) -> None:
    log_in(client, name, PASSWORD)
    client.headers["X-CSRF-Token"] = csrf_token(client, "/login/code")
    with site.database.connect() as connection:
        assert people.session_row(connection, digest(client.cookies["thoracle"])) is None
    for method, path in routes(site):
        if path in OPEN:
            continue
        answer = client.request(method, path)
        if is_for_programs(path):
            assert answer.status_code in (401, 404), (method, path)
        else:
            assert answer.headers.get("location", "").startswith("/login"), (method, path)
    client.cookies.clear()
    assert client.get("/login/code?next=/people").headers["location"] == "/login?next=/people"


def test_a_code_counts_once(site: Site, name: str) -> None:
    code = code_of(site, name)
    with browser(site) as one, browser(site) as two:
        for client in (one, two):
            log_in(client, name, PASSWORD)
        assert send_code(one, code).status_code == 303
        assert send_code(two, code).status_code == 401
        assert why(site) == (name, "code used before")
        before = pyotp.TOTP(SECRET).at(time.time() - 30)  # an older one that nobody has used
        assert send_code(two, before).status_code == 401
        assert send_code(two, pyotp.TOTP(SECRET).at(time.time() + 30)).status_code == 303


def test_a_code_sent_twice_at_the_same_moment_counts_once(site: Site, name: str) -> None:
    code, answers, start = code_of(site, name), [], threading.Barrier(3)

    def come_in() -> None:
        with browser(site) as client:
            log_in(client, name, PASSWORD)
            form = {"csrf_token": csrf_token(client, "/login/code"), "code": code}
            start.wait()
            answers.append(client.post("/login/code", data=form).status_code)

    threads = [threading.Thread(target=come_in) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [303, 401, 401]


@pytest.mark.parametrize(
    "typed", ["", "12345", "1234567", "\u0661\u0662\u0663\u0664\u0665\u0666", "x" * 300]
)
def test_what_is_no_code_is_refused_in_words(
    site: Site, client: httpx.Client, name: str, typed: str
) -> None:
    log_in(client, name, PASSWORD)
    answer = send_code(client, typed)
    assert answer.status_code == 401
    assert "Wrong code" in answer.text
    assert why(site) == (name, "wrong code")


def test_wrong_codes_lock_the_account_and_a_right_password_between_forgets_none(
    site: Site, client: httpx.Client, name: str
) -> None:
    for _ in range(FAILURES):
        assert log_in(client, name, PASSWORD).headers["location"].startswith("/login/code")
        assert send_code(client, wrong_code()).status_code == 401
    assert send_code(client, code_of(site, name)).status_code == 401
    assert why(site) == (name, "locked")
    assert log_in(client, name, PASSWORD).status_code == 401
    time.sleep(3.1)
    signed_in(site, client, name)


def test_a_right_password_is_no_failure(site: Site, client: httpx.Client, name: str) -> None:
    """Else the last of the attempts would be locked out before its code could be sent."""
    for _ in range(FAILURES - 1):
        assert log_in(client, name, "wrong horse battery").status_code == 401
    signed_in(site, client, name)
    leave(client)
    for _ in range(FAILURES - 1):  # and the log-in has forgotten the failures
        assert log_in(client, name, "wrong horse battery").status_code == 401
    log_in(client, name, PASSWORD)
    assert send_code(client, wrong_code()).status_code == 401
    assert send_code(client, code_of(site, name)).status_code == 401
    assert why(site) == (name, "locked")


def test_an_address_cannot_try_codes_for_ever(site: Site, client: httpx.Client) -> None:
    answers = []
    for person in range(6):
        added = f"many-{person}"
        with site.database.begin() as connection:
            add_person(connection, added, ["reader"])
        equip(site, added)
        if log_in(client, added, PASSWORD).status_code == 303:
            answers += [send_code(client, wrong_code()).status_code for _ in range(FAILURES)]
    assert answers == [401] * 20


# The state between password and code.


def test_a_state_that_was_not_made_by_a_password_is_worth_nothing(
    site: Site, client: httpx.Client, name: str
) -> None:
    code = code_of(site, name)
    token = csrf_token(client)  # any cookie has one
    answer = client.post("/login/code", data={"csrf_token": token, "code": code})
    assert answer.status_code == 401
    assert "log in again" in answer.text
    for cookie in ("x", name, digest(name), "' OR 1=1 --"):
        client.cookies.clear()
        client.cookies.set("thoracle", cookie)
        token = csrf_token(client)
        answer = client.post("/login/code", data={"csrf_token": token, "code": code})
        assert answer.status_code == 401
        assert client.get("/login/code").status_code == 303
        assert client.get("/api/whoami").status_code == 401


def test_the_cookie_before_the_password_is_not_the_one_that_waits(site: Site, name: str) -> None:
    planted = "planted-by-somebody-else"
    with site.visitor(cookies={"thoracle": planted}) as victim:
        log_in(victim, name, PASSWORD)
    with site.visitor(cookies={"thoracle": planted}) as attacker:
        assert attacker.get("/login/code").status_code == 303


def test_a_state_is_of_one_person_and_good_for_one_log_in(
    site: Site, client: httpx.Client, name: str
) -> None:
    log_in(client, name, PASSWORD)
    waiting = client.cookies["thoracle"]
    assert send_code(client, recovery_code("reader", 0)).status_code == 401  # of somebody else
    assert send_code(client, code_of(site, name), name="administrator").status_code == 303
    assert client.get("/api/whoami").json()["name"] == name
    with site.visitor(cookies={"thoracle": waiting}) as later:
        assert later.get("/api/whoami").status_code == 401
        assert later.get("/login/code").status_code == 303


@pytest.mark.parametrize("end", ["expires", "disable", "password", "sessions", "second-factor"])
def test_a_state_ends_by_itself_and_by_a_change_of_the_account(
    site: Site, client: httpx.Client, name: str, end: str
) -> None:
    log_in(client, name, PASSWORD)
    token, code = csrf_token(client, "/login/code"), code_of(site, name)
    if end == "expires":
        with site.database.begin() as connection:
            row = connection.execute(
                update(waiting_login)
                .where(waiting_login.c.person == name)
                .values(expires_at=now())
                .returning(waiting_login.c.digest)
            ).scalar_one()
        assert row == digest(client.cookies["thoracle"])
    else:
        with browser(site) as boss:
            signed_in(site, boss, "administrator")
            assert boss.post(f"/people/{name}/{end}").status_code in (200, 303)
    answer = client.post("/login/code", data={"csrf_token": token, "code": code})
    assert answer.status_code == 401
    assert client.get("/api/whoami").status_code == 401


def test_a_log_in_that_waits_outlives_the_process_and_ends_the_session_before(
    site: Site, client: httpx.Client, name: str
) -> None:
    signed_in(site, client, name)
    before = client.cookies["thoracle"]
    form = {"csrf_token": client.headers["X-CSRF-Token"], "name": name, "password": PASSWORD}
    assert client.post("/login", data=form).status_code == 303
    with site.visitor(cookies={"thoracle": before}) as other:
        assert other.get("/api/whoami").status_code == 401
    del client.headers["X-CSRF-Token"]
    site.stop()
    site.start()
    assert send_code(client, code_of(site, name)).status_code == 303


# Recovery codes, removal, reset.


def test_a_recovery_code_opens_once_and_the_audit_says_so(
    site: Site, client: httpx.Client, name: str
) -> None:
    log_in(client, name, PASSWORD)
    assert send_code(client, recovery_code(name, 0)).status_code == 303
    last = site.events("logged in")[-1].detail
    assert last == {"means": "password and recovery code", "recovery_codes_left": 9}
    leave(client)
    log_in(client, name, PASSWORD)
    assert send_code(client, recovery_code(name, 0)).status_code == 401
    assert send_code(client, recovery_code(name, 1)).status_code == 303


def test_new_recovery_codes_replace_the_ones_before(
    site: Site, client: httpx.Client, name: str
) -> None:
    signed_in(site, client, name)
    form = {"password": PASSWORD, "code": code_of(site, name)}
    shown = client.post("/account/second-factor/codes", data=form)
    codes = re.findall(r"<li>([a-z0-9-]{17})</li>", shown.text)
    assert len(codes) == totp.RECOVERY_CODES
    detail = site.events("person changed")[-1].detail
    assert detail == {
        "person": name,
        "second_factor": "new recovery codes",
        "proof": "authenticator app",
    }
    leave(client)
    log_in(client, name, PASSWORD)
    assert send_code(client, recovery_code(name, 1)).status_code == 401
    assert send_code(client, codes[1]).status_code == 303


@pytest.mark.parametrize("action", ["codes", "remove"])
@pytest.mark.parametrize(
    ("password", "reason"),
    [(PASSWORD, "wrong code"), ("wrong horse battery", "wrong password")],
)
def test_a_change_of_the_second_factor_asks_for_password_and_code(
    site: Site,
    client: httpx.Client,
    name: str,
    action: str,
    password: str,
    reason: str,
) -> None:
    signed_in(site, client, name)
    code = wrong_code() if password == PASSWORD else code_of(site, name)
    form = {"password": password, "code": code}
    answer = client.post(f"/account/second-factor/{action}", data=form)
    assert answer.status_code == 422
    assert "<li>" not in answer.text
    assert why(site) == (name, f"{reason}, to change the second factor")
    with site.database.connect() as connection:
        assert factor_rows.is_set(connection, name)
        assert factor_rows.recovery_codes(connection, name) == 10


def test_who_removes_the_second_factor_has_to_set_up_another(
    site: Site, client: httpx.Client, name: str
) -> None:
    signed_in(site, client, name)
    token = new_token(client, "worklist:read")
    form = {"password": PASSWORD, "code": recovery_code(name, 2)}
    assert client.post("/account/second-factor/remove", data=form).status_code == 303
    detail = site.events("person changed")[-1].detail
    assert detail == {"person": name, "second_factor": "removed", "proof": "recovery code"}
    assert client.get("/account").headers["location"] == "/account/second-factor"
    with site.visitor() as program:
        assert program.get("/api/worklist", headers=bearer(token)).status_code == 200
    with site.database.connect() as connection:
        assert factor_rows.row_of(connection, name) is None
        assert factor_rows.recovery_codes(connection, name) == 0


def test_an_administrator_resets_a_second_factor_and_nobody_else(site: Site, name: str) -> None:
    path = f"/people/{name}/second-factor"
    with browser(site) as theirs, browser(site) as boss:
        signed_in(site, theirs, name)
        for other in ("reader", "auditor"):
            with browser(site) as client:
                signed_in(site, client, other)
                assert client.post(path).status_code == 403
        signed_in(site, boss, "administrator")
        assert "Remove second factor" in boss.get(f"/people/{name}").text
        assert "<td>app</td>" in boss.get("/people").text
        assert boss.post(path).headers["location"] == f"/people/{name}?said=second-factor"
        assert theirs.get("/api/whoami").status_code == 401
        assert boss.post(path).status_code == 422
        assert boss.post("/people/nobody/second-factor").status_code == 404
        assert "Remove second factor" not in boss.get(f"/people/{name}").text
    event = site.events("person changed")[-1]
    assert event.user_id == "administrator"
    assert event.detail == {"person": name, "second_factor": "reset", "sessions_ended": 1}
    with browser(site) as client:
        assert log_in(client, name, PASSWORD).headers["location"] == "/"
        assert client.get("/").headers["location"] == "/account/second-factor"
