"""Passwords: one-time ones, changed ones, and that of the first administrator."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from browsing import PASSWORD, PERSONS, Site, add_person, csrf_token, log_in
from web_routes import OPEN, routes


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    persons = {**PERSONS, "both": ["reader", "auditor"]}
    with Site(tmp_path_factory.mktemp("site"), persons=persons) as running:
        yield running


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
