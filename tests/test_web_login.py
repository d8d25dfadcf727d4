"""The log-in and the sessions after it: attacks come to nothing, and each session ends."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from starlette.requests import Request

from browsing import PASSWORD, PERSONS, Site, add_person, csrf_token, log_in
from thoracle.accounts import rows as people
from thoracle.store.tables import timestamp, web_session
from thoracle.web.session import login
from thoracle.web.session.cookies import digest

HOSTILE = "<script>alert('x')</script>\"'--{{191*193}}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    more = {"victim": ["reader"], "changing": ["reader"], "both": ["reader", "auditor"]}
    text = "lockout_failures = 3\nlockout_minutes = 0.1"
    with Site(tmp_path_factory.mktemp("site"), text, persons={**PERSONS, **more}) as running:
        yield running


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


def test_sessions_and_tokens_that_have_ended_are_forgotten(site: Site) -> None:
    with site.database.begin() as connection:
        people.add_session(connection, "0" * 64, "reader", None, "2020-01-01T00:00:00.000000Z")
    with site.client("reader"), site.database.connect() as connection:
        kept = {row.digest for row in connection.execute(web_session.select())}
    assert "0" * 64 not in kept
