"""The pages let in whom they should, and no form, header or name does harm."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import processes
from browsing import PASSWORD, PERSONS, Site, add_person, csrf_token
from thoracle.web.session.access import is_for_programs
from thoracle.web.site import FOLDER
from web_routes import OPEN, routes

HOSTILE = "<script>alert('x')</script>\"'--{{191*193}}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    both = ["reader", "auditor"]
    persons = {**PERSONS, "both": both, "everybody": [*both, "administrator"]}
    with Site(tmp_path_factory.mktemp("site"), persons=persons) as running:
        yield running


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
