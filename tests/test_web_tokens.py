"""API tokens: what they open, what they never open, and how they end."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update

from api_tokens import bearer, new_token
from browsing import Site, add_person
from thoracle.accounts import rows as people
from thoracle.store.tables import api_token
from thoracle.web.session.access import is_for_programs
from thoracle.web.session.cookies import digest
from web_routes import OPEN, routes


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as running:
        yield running


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


def test_only_scopes_that_open_something_are_offered(site: Site) -> None:
    for name, scopes in {
        "reader": {"fhir:read", "results:read", "worklist:read", "verdicts:write"},
        "administrator": {"fhir:read", "results:read", "worklist:read", "admin"},
    }.items():
        with site.client(name) as client:
            page = client.get("/account").text
        assert set(re.findall(r'name="scopes" value="([^"]+)"', page)) == scopes
