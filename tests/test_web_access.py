"""The pages let in whom they should, and attacks on the log-in and the forms come to nothing."""

import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import _IncludedRouter
from sqlalchemy import update
from starlette.requests import Request
from starlette.routing import Mount

import processes
from browsing import PASSWORD, PERSONS, Site, add_person, csrf_token, log_in
from thoracle.accounts import rows as people
from thoracle.store.database import connect
from thoracle.store.tables import api_token, timestamp, web_session
from thoracle.web.app import create_app
from thoracle.web.session import login
from thoracle.web.session.access import is_for_programs
from thoracle.web.session.cookies import digest
from thoracle.web.site import FOLDER

OPEN = {
    "/healthz",
    "/login",
    "/login/code",
    "/login/provider",
    "/login/callback",
    "/logout",
    "/first-run",
    "/api/openapi.json",
    "/static",
}
"""What nobody has to be signed in for. None of it shows a patient."""
HOSTILE = "<script>alert('x')</script>\"'--{{191*193}}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    more = {"victim": ["reader"], "changing": ["reader"], "both": ["reader", "auditor"]}
    more["everybody"] = ["reader", "administrator", "auditor"]
    folder = tmp_path_factory.mktemp("site")
    text = "lockout_failures = 3\nlockout_minutes = 0.1"
    with Site(folder, text, persons={**PERSONS, **more}) as running:
        yield running


def routes(site: Site, value: str = "1") -> list[tuple[str, str]]:
    """Return method and path of every route, its parameters filled in with a value."""

    def walk(some: Iterable[Any]) -> Iterator[tuple[str, str]]:
        for route in some:
            if isinstance(route, _IncludedRouter):
                yield from walk(route.original_router.routes)
            elif isinstance(route, Mount):
                yield "GET", route.path
            else:
                path = re.sub(r"\{[^}]+\}", value, route.path)
                yield from ((method, path) for method in route.methods - {"HEAD"})

    app = create_app(site.settings, connect("sqlite://"))
    return sorted(walk(app.routes))


# The log-in.


def test_a_person_logs_in_and_out(site: Site) -> None:
    with site.client("reader") as client:
        assert client.get("/api/whoami").json() == {
            "name": "reader",
            "roles": ["reader"],
            "scopes": None,
        }
        cookie = dict(client.cookies)
        assert client.post("/logout").status_code == 303
        assert not client.cookies
        client.cookies.update(cookie)
        assert client.get("/api/whoami").status_code == 401
    last = site.events("logged in", "logged out")[-2:]
    assert [(row.event, row.user_id) for row in last] == [
        ("logged in", "reader"),
        ("logged out", "reader"),
    ]
    assert {row.network_address for row in last} == {"127.0.0.1"}


def test_the_cookie_is_for_the_browser_alone_and_only_its_digest_is_kept(site: Site) -> None:
    with site.visitor() as client:
        header = log_in(client, "reader", PASSWORD).headers["set-cookie"]
        cookie = client.cookies["thoracle"]
    flags = header.lower().split("; ")
    assert {"httponly", "samesite=lax", "path=/"} <= set(flags)
    assert "max-age" not in header.lower()  # it is gone when the browser is closed
    assert "expires" not in header.lower()
    assert len(cookie) == 43  # 256 bits
    with site.database.connect() as connection:
        assert people.session_row(connection, digest(cookie)) is not None
    for path in site.settings.data_folder.iterdir():
        assert cookie.encode() not in path.read_bytes(), path


def test_a_cookie_planted_before_the_log_in_opens_nothing(site: Site) -> None:
    planted = "planted-by-somebody-else"
    with site.visitor(cookies={"thoracle": planted}) as victim:
        log_in(victim, "reader", PASSWORD)
        jar = [one.value for one in victim.cookies.jar if one.value != planted]
        assert len(jar) == 1
    with site.visitor(cookies={"thoracle": planted}) as attacker:
        assert attacker.get("/api/whoami").status_code == 401
    with site.visitor(cookies={"thoracle": str(jar[0])}) as victim:
        assert victim.get("/api/whoami").status_code == 200


def test_a_new_log_in_ends_the_session_before(site: Site) -> None:
    with site.client("reader") as client:
        before = client.cookies["thoracle"]
        token = client.headers["X-CSRF-Token"]
        form = {"csrf_token": token, "name": "auditor", "password": PASSWORD}
        assert client.post("/login", data=form).status_code == 303
        assert client.get("/api/whoami").json()["name"] == "auditor"
    with site.visitor(cookies={"thoracle": before}) as client:
        assert client.get("/api/whoami").status_code == 401


def test_every_refusal_has_the_same_words(site: Site) -> None:
    with site.database.begin() as connection:
        add_person(connection, "locked", ["reader"], locked_until="2999-01-01T00:00:00.000000Z")
        add_person(connection, "disabled", ["reader"], disabled=1)
        add_person(connection, "provider", ["reader"], password_hash=None)
        add_person(connection, "late", ["reader"], one_time_until="2020-01-01T00:00:00.000000Z")
    tried = {
        "nobody": PASSWORD,
        "reader": "wrong horse battery staple",
        "locked": PASSWORD,
        "disabled": PASSWORD,
        "provider": "",
        "late": PASSWORD,
        HOSTILE[:40]: PASSWORD,
        "auditor": "x" * 300,
    }
    pages = set()
    with site.visitor() as client:
        for name, password in tried.items():
            answer = log_in(client, name, password)
            assert answer.status_code == 401, name
            pages.add(re.sub(r"[0-9a-f]{64}", "", answer.text))
    assert len(pages) == 1
    refused = site.events("log-in refused")[-len(tried) :]
    assert [(row.user_id, row.detail["why"]) for row in refused] == [
        (None, "unknown name"),
        ("reader", "wrong password"),
        ("locked", "locked"),
        ("disabled", "disabled"),
        ("provider", "wrong password"),
        ("late", "one-time password too old"),
        (None, "unknown name"),
        ("auditor", "wrong password"),
    ]
    assert {row.event_outcome for row in refused} == {4}


def test_failures_lock_an_account_for_its_time(site: Site) -> None:
    with site.visitor() as client:
        for _ in range(3):
            assert log_in(client, "victim", "wrong horse battery").status_code == 401
        assert log_in(client, "victim", PASSWORD).status_code == 401
        assert site.events("log-in refused")[-1].detail["why"] == "locked"
        time.sleep(6.1)
        assert log_in(client, "victim", PASSWORD).status_code == 303


def test_a_log_in_that_succeeds_forgets_the_failures(site: Site) -> None:
    for password in (*["wrong horse"] * 2, PASSWORD, *["wrong horse"] * 2, PASSWORD):
        with site.visitor() as client:
            answer = log_in(client, "both", password)
    assert answer.status_code == 303


def test_one_address_cannot_try_for_ever(site: Site) -> None:
    """Others can still log in; neither the page nor the audit is flooded."""
    here = httpx.HTTPTransport(local_address="127.0.0.66")
    with site.visitor(transport=here) as client:
        token = csrf_token(client)
        codes = [
            client.post(
                "/login", data={"csrf_token": token, "name": f"n{number}", "password": "x"}
            ).status_code
            for number in range(22)
        ]
    assert codes == [401] * 20 + [429] * 2
    with site.client("reader"):
        pass
    flood = [row for row in site.events("log-in refused") if row.network_address == "127.0.0.66"]
    assert len(flood) == 20


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::/64"),
        ("fe80::7%eth0", "fe80::/64"),
        (None, ""),
    ],
)
def test_log_ins_are_counted_by_what_one_attacker_has(address: str | None, network: str) -> None:
    assert login._network(address) == network


@pytest.mark.parametrize(
    ("asked", "reached"),
    [
        ("/people?page=2", "/people?page=2"),
        ("https://evil.example/", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/%0d%0aSet-Cookie:x", "/%0d%0aSet-Cookie:x"),
        ("/\r\nSet-Cookie: x=1", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_the_log_in_leads_to_pages_of_ours_alone(site: Site, asked: str, reached: str) -> None:
    with site.visitor() as client:
        answer = log_in(client, "administrator", PASSWORD, next=asked)
        assert answer.headers["location"] == reached
        again = client.get("/login", params={"next": asked})
        assert (again.status_code, again.headers["location"]) == (303, reached)


def test_a_page_that_needs_a_log_in_is_come_back_to(site: Site) -> None:
    with site.visitor() as client:
        answer = client.get("/people?page=2&name=a%26b")
        assert answer.headers["location"] == "/login?next=/people%3Fpage%3D2%26name%3Da%2526b"
        form = client.get(answer.headers["location"]).text
        assert 'name="next" value="/people?page=2&amp;name=a%26b"' in form
        part = client.get("/people", headers={"HX-Request": "true"})
        assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login")


@pytest.mark.parametrize(
    ("address", "to"),
    [("https://pages.example/?text=a", "/login?next=/%3Ftext%3Da"), ("http://[x", "/login")],
)
def test_a_part_of_a_page_leads_back_to_that_page(address: str, to: str) -> None:
    headers = [(b"hx-request", b"true"), (b"hx-current-url", address.encode())]
    assert login.address(Request({"type": "http", "method": "GET", "headers": headers})) == to


def test_somebody_who_may_not_see_the_list_starts_elsewhere(site: Site) -> None:
    with site.visitor() as client:
        assert log_in(client, "auditor", PASSWORD).headers["location"] == "/audit"
        assert client.get("/login").headers["location"] == "/audit"
        assert '<a class="brand" href="/audit">' in client.get("/account").text


# Sessions.


def test_a_session_ends_at_its_time_and_when_idle(site: Site) -> None:
    with site.client("reader") as client:
        kept = digest(client.cookies["thoracle"])

        def answers_with(**columns: str) -> int:
            with site.database.begin() as connection:
                people.set_session(connection, kept, columns)
            return client.get("/api/whoami").status_code

        now = datetime.now(UTC)
        assert answers_with(seen_at=timestamp(now - timedelta(minutes=59))) == 200
        assert answers_with(seen_at=timestamp(now - timedelta(minutes=61))) == 401
        assert answers_with(seen_at=timestamp(now)) == 200
        assert answers_with(expires_at=timestamp(now - timedelta(seconds=1))) == 401


def test_a_page_that_refreshes_itself_keeps_no_session_alive(site: Site) -> None:
    long_ago = timestamp(datetime.now(UTC) - timedelta(minutes=30))
    with site.client("reader") as client:
        kept = digest(client.cookies["thoracle"])

        def seen_after(**headers: str) -> str:
            with site.database.begin() as connection:
                people.set_session(connection, kept, {"seen_at": long_ago})
            client.get("/account", headers=headers)
            with site.database.connect() as connection:
                row = people.session_row(connection, kept)
            assert row is not None
            return str(row.seen_at)

        assert seen_after(**{"X-Automatic": "1"}) == long_ago
        assert seen_after(Accept="text/event-stream") == long_ago
        assert seen_after() > long_ago


@pytest.mark.parametrize("change", ["roles", "disable", "password", "sessions"])
def test_a_change_of_the_account_ends_its_sessions(site: Site, change: str) -> None:
    with site.database.begin() as connection:
        add_person(connection, f"ends-{change}", ["reader"])
    path = f"/people/ends-{change}"
    with site.client(f"ends-{change}") as theirs, site.client("administrator") as boss:
        if change == "roles":
            answer = boss.post(path, data={"display_name": "x", "roles": ["auditor"]})
        else:
            answer = boss.post(f"{path}/{change}")
        assert answer.status_code in (200, 303)
        assert theirs.get("/api/whoami").status_code == 401
    event = site.events("person changed")[-1]
    assert (event.user_id, event.detail["person"]) == ("administrator", f"ends-{change}")
    assert event.detail["sessions_ended"] == 1


def test_another_name_ends_no_session(site: Site) -> None:
    with site.client("changing") as theirs, site.client("administrator") as boss:
        form = {"display_name": HOSTILE, "roles": ["reader"]}
        assert boss.post("/people/changing", data=form).status_code == 303
        assert theirs.get("/api/whoami").status_code == 200


# Forms.


def test_no_route_takes_what_another_site_could_send(site: Site) -> None:
    """Without the token of the page, with that of somebody else, and from another site."""
    changing = [(m, path) for m, path in routes(site) if m not in ("GET", "HEAD", "OPTIONS")]
    assert len(changing) >= 14
    with site.client("administrator") as client, site.client("reader") as other:
        token = client.headers.pop("X-CSRF-Token")
        wrong = other.headers["X-CSRF-Token"]
        for method, path in changing:
            for headers, data in [
                ({}, {}),
                ({"X-CSRF-Token": ""}, {"csrf_token": token}),
                ({"X-CSRF-Token": wrong}, {}),
                ({}, {"csrf_token": wrong}),
                ({"X-CSRF-Token": "ü"}, {}),
                ({"X-CSRF-Token": token, "Sec-Fetch-Site": "cross-site"}, {}),
                ({"X-CSRF-Token": token, "Sec-Fetch-Site": "same-site"}, {}),
            ]:
                encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
                answer = client.request(method, path, headers=encoded, data=data)
                assert answer.status_code == 403, (method, path, headers, data)
        assert client.get("/api/whoami").status_code == 200  # nothing of it has logged us out


def test_a_form_without_a_cookie_is_refused(site: Site) -> None:
    with site.visitor() as client:
        token = csrf_token(client)
        client.cookies.clear()
        form = {"csrf_token": token, "name": "reader", "password": PASSWORD}
        assert client.post("/login", data=form).status_code == 403


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "chunked"])
def test_a_body_larger_than_any_form_is_refused(site: Site, stated: bool) -> None:
    body = b"name=" + b"x" * 70_000
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    with site.visitor() as client:
        content = body if stated else (body[at : at + 10_000] for at in range(0, len(body), 10_000))
        answer = client.post("/login", content=content, headers=kind)
    assert answer.status_code == 413
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\xff", b"csrf_token=" + b"%00" * 200, b"csrf_token=a&csrf_token=b", b"a=1&" * 3000],
)
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/html"]
)
def test_a_malformed_form_is_a_refusal_and_no_fault(site: Site, body: bytes, kind: str) -> None:
    with site.visitor() as client:
        csrf_token(client)
        answer = client.post("/login", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 403)


# Who may what.


def test_every_route_needs_a_person_but_the_few_that_are_listed(site: Site) -> None:
    found = routes(site)
    assert len(found) > 20
    assert OPEN - {path for _, path in found} <= {"/login/provider", "/login/callback"}
    with site.visitor() as client:
        headers = {"X-CSRF-Token": csrf_token(client)}
        for method, path in found:
            if path in OPEN:
                continue
            answer = client.request(method, path, headers=headers)
            if is_for_programs(path):
                assert answer.status_code == 401, (method, path)
                assert "www-authenticate" in answer.headers
            else:
                assert answer.status_code == 303, (method, path)
                assert answer.headers["location"].startswith("/login"), (method, path)


def test_only_administrators_come_to_the_people(site: Site) -> None:
    theirs = [(method, path) for method, path in routes(site) if path.startswith("/people")]
    assert len(theirs) == 11
    for name in ("reader", "auditor", "both"):
        with site.client(name) as client:
            for method, path in theirs:
                assert client.request(method, path).status_code == 403, (name, method, path)


def test_the_bar_shows_what_one_may_open(site: Site) -> None:
    shown = {}
    for name in PERSONS:
        with site.client(name) as client:
            bar = client.get("/account").text.partition("</nav>")[0]
            shown[name] = re.findall(r'<a href="(/[a-z]*)"', bar)
    assert "/people" in shown["administrator"]
    assert "/people" not in shown["reader"]
    assert "/dashboard" in shown["reader"]
    assert "/" not in shown["auditor"]


# API tokens.


def new_token(client: httpx.Client, *scopes: str, **fields: Any) -> str:
    form = {"label": "a program", "days": 1, "scopes": list(scopes), **fields}
    answer = client.post("/account/tokens", data=form)
    assert answer.status_code == 200, answer.text
    found = re.search(r'<p class="secret mono">(thoracle_[\w-]{43})</p>', answer.text)
    assert found is not None
    return found[1]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_token_is_shown_once_and_only_its_digest_is_kept(site: Site) -> None:
    with site.client("reader") as client, site.visitor() as program:
        token = new_token(client, "fhir:read", "results:read")
        assert token not in client.get("/account").text
        said = program.get("/api/whoami", headers=bearer(token)).json()
        assert said == {
            "name": "reader",
            "roles": ["reader"],
            "scopes": ["fhir:read", "results:read"],
        }
    with site.database.connect() as connection:
        row = people.token_row(connection, digest(token))
    assert row is not None
    assert row.used_at is not None
    event = site.events("person changed")[-1]
    assert event.detail["scopes"] == ["fhir:read", "results:read"]
    assert token not in str(event.detail)
    assert digest(token) not in str(event.detail)


def test_a_token_opens_programs_paths_alone(site: Site) -> None:
    with site.client("administrator") as client, site.visitor() as program:
        token = new_token(client, "admin", "results:read")
        for method, path in routes(site):
            if path in OPEN or is_for_programs(path):
                continue
            answer = program.request(method, path, headers=bearer(token))
            assert answer.status_code == (303 if method == "GET" else 403), (method, path)


def test_a_revoked_an_expired_and_a_disabled_persons_token_open_nothing(site: Site) -> None:
    with site.database.begin() as connection:
        add_person(connection, "tokens", ["reader"])

    def answer(token: str) -> int:
        with site.visitor() as program:
            return program.get("/api/whoami", headers=bearer(token)).status_code

    with site.client("tokens") as client, site.client("administrator") as boss:
        revoked, expired, kept = (new_token(client, "fhir:read") for _ in range(3))
        assert [answer(one) for one in (revoked, expired, kept)] == [200, 200, 200]
        with site.database.begin() as connection:
            row = people.token_row(connection, digest(revoked))
            assert row is not None
            connection.execute(
                update(api_token)
                .where(api_token.c.digest == digest(expired))
                .values(expires_at="2026-01-01T00:00:00.000000Z")
            )
        assert client.post(f"/account/tokens/{row.id}/revoke").status_code == 303
        assert client.post(f"/account/tokens/{row.id}/revoke").status_code == 404
        assert boss.post(f"/account/tokens/{row.id + 2}/revoke").status_code == 404  # not theirs
        assert [answer(one) for one in (revoked, expired, kept)] == [401, 401, 200]
        boss.post("/people/tokens/disable")
        assert answer(kept) == 401
        boss.post("/people/tokens/enable")
        assert answer(kept) == 200
        assert boss.post(f"/people/tokens/tokens/{row.id + 2}/revoke").status_code == 303
        assert answer(kept) == 401


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer " + "x" * 5000, "Basic eDp5", "Bearer ü", "x", ""]
)
def test_a_header_that_is_no_token_opens_nothing_even_with_a_session(
    site: Site, header: str
) -> None:
    with site.client("reader") as client:
        headers = [(b"Authorization", header.encode())]
        assert client.get("/api/whoami", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"scopes": ["admin"]}, "found other scopes"),
        ({"scopes": ["everything"]}, "found other scopes"),
        ({"scopes": ["worklist:read", "audit:read"]}, "found other scopes"),
        ({"scopes": []}, "found other scopes"),
        ({"days": 367}, "found 367 days"),
        ({"days": 0}, "found 0 days"),
        ({"days": "many"}, "found no usable value of days"),
        ({"label": "a\x07b"}, "found a label of 3 characters"),
        ({"label": "x" * 65}, "found a label of 65 characters"),
    ],
)
def test_a_token_beyond_the_persons_roles_or_the_limits_is_refused(
    site: Site, fields: dict[str, Any], fault: str
) -> None:
    form = {"label": "x", "days": 1, "scopes": ["fhir:read"], **fields}
    with site.client("reader") as client:
        answer = client.post("/account/tokens", data=form)
        assert answer.status_code == 422
        assert fault in answer.text


# Passwords.


def test_a_one_time_password_opens_only_the_change_of_it(site: Site) -> None:
    with site.client("administrator") as boss:
        answer = boss.post("/people", data={"name": " New ", "roles": ["reader"]})
        found = re.search(r'<p class="secret mono">([a-z0-9-]{23})</p>', answer.text)
        assert found is not None, answer.text
        assert found[1] not in boss.get("/people/new").text
    with site.visitor() as client:
        answer = log_in(client, "NEW", found[1], next="/account")
        assert (answer.status_code, answer.headers["location"]) == (303, "/account/password")
        client.headers["X-CSRF-Token"] = csrf_token(client, "/account/password")
        for method, path in routes(site):
            if path in OPEN or path == "/account/password":
                continue
            answer = client.request(method, path)
            to_change = answer.headers.get("location") in ("/account/password", "/login")
            assert answer.status_code == 403 or to_change, (method, path)
        form = {"current": found[1], "password": PASSWORD, "again": PASSWORD}
        answer = client.post("/account/password", data=form)
        assert answer.headers["location"] == "/"  # the first time: to work
        client.headers["X-CSRF-Token"] = csrf_token(client, "/account")
        form = {"current": PASSWORD, "password": f"{PASSWORD}!", "again": f"{PASSWORD}!"}
        answer = client.post("/account/password", data=form)
        assert answer.headers["location"] == "/account?said=password"
        assert "Password changed." in client.get(answer.headers["location"]).text
    with site.visitor() as client:
        assert log_in(client, "new", found[1]).status_code == 401
        assert log_in(client, "new", f"{PASSWORD}!").status_code == 303


@pytest.mark.parametrize(
    ("current", "password", "again", "fault"),
    [
        (
            "wrong horse battery",
            "another long password",
            "another long password",
            "current password is wrong",
        ),
        (PASSWORD, "another long password", "another long passwort", "two different"),
        (PASSWORD, PASSWORD, PASSWORD, "required: another"),
        (PASSWORD, "short", "short", "found a password of 5 characters"),
    ],
)
def test_a_password_is_not_changed_without_the_current_one_or_to_a_poor_one(
    site: Site, current: str, password: str, again: str, fault: str
) -> None:
    form = {"current": current, "password": password, "again": again}
    with site.client("both") as client:
        answer = client.post("/account/password", data=form)
        assert answer.status_code == 422
        assert fault in answer.text
        assert password not in answer.text
    with site.client("both"):
        pass


def test_new_passwords_that_are_refused_do_not_lock_the_account(site: Site) -> None:
    with site.database.begin() as connection:
        add_person(connection, "chooser", ["reader"])
    with site.client("chooser") as client:
        form = {"current": PASSWORD, "password": "too short", "again": "too short"}
        for _ in range(site.settings.web.lockout_failures + 1):
            answer = client.post("/account/password", data=form)
            assert answer.status_code == 422
            assert "found a password of 9 characters" in answer.text
        form |= dict.fromkeys(("password", "again"), "a longer one of 26 letters")
        assert client.post("/account/password", data=form).status_code == 303


def test_changing_the_password_ends_the_other_sessions(site: Site) -> None:
    with site.database.begin() as connection:
        add_person(connection, "careful", ["reader"])
    with site.client("careful") as here, site.client("careful") as elsewhere:
        form = {
            "current": PASSWORD,
            "password": "another long password",
            "again": "another long password",
        }
        assert here.post("/account/password", data=form).status_code == 303
        assert here.get("/api/whoami").status_code == 200
        assert elsewhere.get("/api/whoami").status_code == 401


# The first run.


def test_the_first_administrator_is_made_once(tmp_path: Path) -> None:
    with Site(tmp_path, persons={}) as site, site.visitor() as client:
        printed = site.log.read_text()
        token = printed.rpartition("with this token: ")[2].split()[0]
        assert f"http://127.0.0.1:{site.port}/first-run" in printed
        form = {
            "csrf_token": csrf_token(client, "/first-run"),
            "name": "boss",
            "password": PASSWORD,
        }
        assert client.post("/first-run", data={**form, "token": "x"}).status_code == 422
        poor = client.post("/first-run", data={**form, "token": token, "password": "short"})
        assert poor.status_code == 422
        answer = client.post("/first-run", data={**form, "token": token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/people")
        whoami = client.get("/api/whoami").json()
        assert whoami["roles"] == ["administrator", "auditor"]
        form["csrf_token"] = csrf_token(client, "/account")
        again = client.post("/first-run", data={**form, "token": token, "name": "second"})
        assert (again.status_code, client.get("/first-run").status_code) == (404, 404)
        site.stop()
        site.start()
        assert site.log.read_text().count("with this token") == 1
        assert client.get("/first-run").status_code == 404


def test_the_first_run_is_over_when_somebody_was_added_otherwise(tmp_path: Path) -> None:
    with Site(tmp_path, persons={}) as site, site.visitor() as client:
        assert client.get("/first-run").status_code == 200
        with site.database.begin() as connection:
            add_person(connection, "boss", ["administrator"])
        assert client.get("/first-run").status_code == 404


# What every answer has.


def test_a_call_by_another_name_is_refused(site: Site) -> None:
    with site.visitor() as client:
        for name, status in {
            "localhost": 200,
            f"localhost:{site.port}": 200,
            f"LOCALHOST:{site.port}": 200,
            f"[::1]:{site.port}": 200,
            "evil.example": 400,
            "localhost.evil.example": 400,
            f"evil.example:{site.port}": 400,
            "localhost:80@evil.example": 400,
            "": 400,
        }.items():
            answer = client.get("/healthz", headers={"Host": name})
            assert answer.status_code == status, name


def test_every_answer_has_the_headers_that_browsers_keep_to(site: Site) -> None:
    with site.client("reader") as client:
        for path in ("/account", "/nothing", "/api/whoami", "/login", "/healthz", "/people"):
            headers = client.get(path).headers
            assert headers["content-security-policy"].startswith("default-src 'none'; script-src")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers
            assert "strict-transport-security" not in headers
        assert client.get("/static/style.css").headers["cache-control"] == "max-age=300"
        assert client.get("/static/../app.py").status_code == 404
        assert client.get("/static/%2e%2e/app.py").status_code == 404


def test_pages_have_no_script_or_style_of_their_own(site: Site) -> None:
    with site.client("administrator") as client:
        for path in ("/account", "/account/password", "/people", "/people/reader", "/model-card"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            page = answer.text
            assert not re.search(r"<style|style=|\son\w+=|hx-on|javascript:", page), path
            assert re.findall(r"<script(?! src=\"/static/)", page) == [], path
            assert "Research use only, not for diagnosis" in page
            assert 'href="/model-card"' in page


def test_hostile_names_are_text(site: Site) -> None:
    with site.database.begin() as connection:
        add_person(connection, "hostile", ["reader"], display_name=HOSTILE)
    with site.client("administrator") as client, site.client("hostile") as theirs:
        theirs.post("/account/tokens", data={"label": HOSTILE, "days": 1, "scopes": ["fhir:read"]})
        refused = client.post("/people", data={"name": HOSTILE, "display_name": HOSTILE})
        pages = [
            client.get("/people").text,
            client.get("/people/hostile").text,
            theirs.get("/account").text,
            refused.text,
            client.get("/people/" + HOSTILE.replace("/", "%2f")).text,
            client.get("/login", params={"next": HOSTILE}).text,
        ]
    assert all("<script>alert" not in page and "{{191*193}}" in page for page in pages[:4])
    assert all("&lt;script&gt;" in page for page in pages[:4])
    assert all("<script>alert" not in page for page in pages[4:])


HUGE = ("9223372036854775808", "9" * 5000)
"""Beyond 64 bits, and a text that Python takes for no number."""
NUMBERS = ("page", "days", "limit", "_count", "_id", "outcome", "report", "hours", "since")
"""What a query or a form may have a number for."""


@pytest.mark.parametrize("number", HUGE, ids=len)
def test_a_number_beyond_64_bits_is_no_internal_error(site: Site, number: str) -> None:
    cursor = f"2026-11-22T18:45:29.123456Z~{number[:19]}"
    more = {**dict.fromkeys(NUMBERS, number), "cursor": cursor, "before": cursor, "_after": cursor}
    with site.client("everybody") as client:
        for method, path in routes(site, number):
            if path in ("/logout", "/worklist/events"):  # the end of the session; a stream
                continue
            for query in ({}, more):
                form = query if method == "POST" else None
                answer = client.request(method, path, params=query, data=form)
                assert answer.status_code < 500, (method, path, query)
        for path in ("/account/tokens/{}/revoke", "/people/reader/tokens/{}/revoke"):
            assert client.post(path.format(number)).status_code == 422
        assert client.get(f"/audit/event/{number}").status_code == 422
        assert client.get("/audit", params={"before": cursor}).status_code == 422


def test_the_log_holds_no_query_no_password_and_no_name(site: Site) -> None:
    with site.client("reader") as client:
        client.get("/account?patient=Mustermann")
        client.get("/nothing/" + "x" * 5000)
    log = site.log.read_text()
    assert "GET /account 200" in log
    assert "Mustermann" not in log
    assert PASSWORD not in log
    assert "x" * 300 not in log


def test_a_fault_says_nothing_of_itself_and_the_next_page_works(tmp_path: Path) -> None:
    with Site(tmp_path) as site, site.client("reader") as client:
        with site.database.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE api_token RENAME TO elsewhere")
        answer = client.get("/account")
        assert answer.status_code == 500
        assert "api_token" not in answer.text
        assert "no-store" in answer.headers["cache-control"]
        assert client.get("/healthz").json()["status"] == "ok"
        assert "no such table: api_token" in site.log.read_text()


def test_a_port_in_use_ends_the_process_with_a_sentence(site: Site, tmp_path: Path) -> None:
    second = Site(tmp_path)
    second.database.dispose()
    second.config.write_text(f'data_folder = "data"\n[web]\nport = {site.port}\n')
    ended = processes.run("web", "--config", str(second.config))
    assert ended.returncode == 1
    assert f"web.port: found 127.0.0.1:{site.port}: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_sessions_and_tokens_that_have_ended_are_forgotten(site: Site) -> None:
    with site.database.begin() as connection:
        people.add_session(connection, "0" * 64, "reader", None, "2020-01-01T00:00:00.000000Z")
    with site.client("reader"), site.database.connect() as connection:
        kept = {row.digest for row in connection.execute(web_session.select())}
    assert "0" * 64 not in kept


def test_the_files_of_others_are_those_that_the_list_names() -> None:
    listed = dict(
        re.findall(
            r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$",
            (FOLDER / "static" / "README.md").read_text(),
            re.MULTILINE,
        )
    )
    assert {
        name: hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()
        for name in ("htmx.min.js", "sse.min.js")
    } == listed


def test_only_scopes_that_open_something_are_offered(site: Site) -> None:
    for name, scopes in {
        "reader": {"fhir:read", "results:read", "worklist:read", "verdicts:write"},
        "administrator": {"fhir:read", "results:read", "worklist:read", "admin"},
    }.items():
        with site.client(name) as client:
            page = client.get("/account").text
        assert set(re.findall(r'name="scopes" value="([^"]+)"', page)) == scopes
