"""Log-in by an OpenID provider that runs here: whom it lets in, and what is not believed."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey

from browsing import Site, csrf_token, log_in
from openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIDProvider
from thoracle.accounts import openid
from thoracle.accounts import rows as people
from thoracle.accounts.openid import roles_of
from thoracle.settings import OIDC

ROLES = '\nroles_claim = "roles"\nreader = "chest-read"\nadministrator = "chest-admin"'


NUMBER = itertools.count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, OpenIDProvider]]:
    """Yield a provider, and pages that know it."""
    with OpenIDProvider() as provider, started(tmp_path_factory.mktemp("site"), provider) as site:
        yield site, provider


def started(folder: Path, provider: OpenIDProvider, text: str = "") -> Site:
    """Return pages that know a provider, to be started; ``text`` is more of ``[web]``."""
    (folder / "client-secret").write_text(CLIENT_SECRET + "\n")
    site = Site(
        folder,
        f'{text}[web.oidc]\nissuer = "{provider.issuer}"\nclient_id = "{CLIENT_ID}"\n'
        f'client_secret = "file:client-secret"{ROLES}',
    )
    provider.callbacks.append(f"{site.url}/login/callback")
    return site


@pytest.fixture
def provider(running: tuple[Site, OpenIDProvider]) -> OpenIDProvider:
    """Return the provider, which behaves; with another person for each test."""
    running[1].behave(sub=f"u-{next(NUMBER)}", roles=["chest-read", "other"])
    return running[1]


@pytest.fixture
def site(running: tuple[Site, OpenIDProvider], provider: OpenIDProvider) -> Site:
    return running[0]


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    """Yield a browser at an address of its own: many tests fail to log in."""
    address = f"127.0.1.{next(NUMBER)}"
    with site.visitor(transport=httpx.HTTPTransport(local_address=address)) as browser:
        yield browser


def through(client: httpx.Client, back: str = "/account") -> httpx.Response:
    """Return the answer of the callback to a browser that went to the provider and back."""
    out = client.get("/login/provider", params={"next": back})
    assert out.status_code == 303, out.text
    there = httpx.get(out.headers["location"])
    assert there.status_code == 302, there.text
    return client.get(there.headers["location"])


def why(site: Site) -> str:
    return str(site.events("log-in refused")[-1].detail["why"])


def test_a_person_comes_in_by_the_provider_and_is_kept(
    site: Site, provider: OpenIDProvider, client: httpx.Client
) -> None:
    provider.person |= {"preferred_username": "A.Reader", "name": "Ann <b>Reader</b>"}
    assert "Log in through your institution" in client.get("/login").text
    answer = through(client, "/account?said=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?said=x")
    assert client.get("/api/whoami").json()["name"] == "a.reader"
    page = client.get("/account").text
    assert "Ann &lt;b&gt;Reader&lt;/b&gt;" in page
    assert "there is no password here" in page
    with site.database.connect() as connection:
        row = people.row_of(connection, "a.reader")
    assert row is not None
    assert (row.roles, row.password_hash) == (["reader"], None)
    assert row.subject == f"{provider.issuer} {provider.person['sub']}"
    changed, came = site.events("person changed", "logged in")[-2:]
    assert (changed.user_id, changed.detail["person"]) == ("a.reader", "a.reader")
    assert (came.user_id, came.detail) == ("a.reader", {"means": "OpenID Connect"})
    with site.visitor() as other:
        assert log_in(other, "a.reader", "").status_code == 401


def test_the_providers_word_on_roles_counts_at_each_log_in(
    site: Site, provider: OpenIDProvider, client: httpx.Client
) -> None:
    provider.person |= {"preferred_username": "bob"}
    with site.visitor() as second:
        through(client)
        provider.person["roles"] = ["chest-admin"]
        through(second)
        assert client.get("/api/whoami").status_code == 401
        assert second.get("/api/whoami").json()["roles"] == ["administrator"]
        provider.person["roles"] = ["other"]
        assert through(second).status_code == 401
        assert why(site) == "found no Thoracle role in the claim roles"


def test_a_local_account_is_not_taken_over_by_its_name(
    provider: OpenIDProvider, client: httpx.Client
) -> None:
    provider.person |= {"preferred_username": "administrator"}
    through(client)
    said = client.get("/api/whoami").json()
    assert said["name"].startswith("oidc-")
    assert said["roles"] == ["reader"]


@pytest.mark.parametrize("name", ["<b>", "x" * 65, "", "a/../b", "A\x00b"])
def test_a_name_that_is_none_becomes_one_of_the_subject(
    provider: OpenIDProvider, client: httpx.Client, name: str
) -> None:
    provider.person |= {"preferred_username": name, "name": "a\x1bb"}
    through(client)
    assert client.get("/api/whoami").json()["name"].startswith("oidc-")


def test_a_disabled_person_stays_out(
    site: Site, provider: OpenIDProvider, client: httpx.Client
) -> None:
    provider.person |= {"preferred_username": "cyd"}
    with site.client("administrator") as boss:
        through(client)
        assert boss.post("/people/cyd/disable").status_code == 303
        assert through(client).status_code == 401
        assert why(site) == "the account cyd is disabled"
        assert boss.post("/people/cyd/password").status_code == 422
        boss.post("/people/cyd/enable")
        assert through(client).status_code == 303


NOW = int(time.time())


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"aud": "another-client"}, "aud"),
        ({"aud": ["another-client"]}, "aud"),
        ({"aud": [CLIENT_ID, "another-client"]}, "azp"),
        ({"aud": None}, "aud"),
        ({"exp": NOW - 3600}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": NOW + 86400}, "issued in the future"),
        ({"nbf": NOW + 86400}, "not yet valid"),
        ({"sub": None}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "x" * 600}, "found a subject of"),
        ({"at_hash": "wrong"}, "at_hash"),
    ],
)
def test_an_id_token_with_a_wrong_claim_is_not_believed(
    site: Site, provider: OpenIDProvider, client: httpx.Client, claims: dict[str, Any], said: str
) -> None:
    provider.person |= {"preferred_username": "evil"}
    provider.claims = claims
    assert through(client).status_code == 401
    assert client.get("/api/whoami").status_code == 401
    assert said in why(site)
    with site.database.connect() as connection:
        assert people.row_of(connection, "evil") is None


@pytest.mark.parametrize("kind", ["none", "secret", "stranger"])
def test_an_id_token_that_the_provider_did_not_sign_is_not_believed(
    site: Site, provider: OpenIDProvider, client: httpx.Client, kind: str
) -> None:
    if kind == "none":
        provider.algorithm = "none"
    elif kind == "secret":
        provider.sign_with_the_secret()
    else:
        provider.key = RSAKey.generate_key(2048, {"kid": "first"})
    assert through(client).status_code == 401
    assert "its ID token is not believed" in why(site)


def test_a_new_key_of_the_provider_is_looked_for_but_not_at_each_log_in(
    site: Site, provider: OpenIDProvider, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = openid.Provider(settings_of(provider, site.folder))

    def subject() -> object:
        begun = known.begin(provider.callbacks[0])
        there = httpx.get(begun.url).headers["location"]
        return known.end(begun, parse_qs(urlsplit(there).query)["code"][0])["sub"]

    assert subject() == subject() == provider.person["sub"]
    looked = provider.read_keys
    provider.rotate()
    with pytest.raises(openid.OpenIDError, match="is not believed"):
        subject()  # looked at less than a minute ago
    assert provider.read_keys == looked
    monkeypatch.setattr(openid, "AGAIN_SECONDS", 0)
    assert subject() == provider.person["sub"]
    assert provider.read_keys == looked + 1


def settings_of(provider: OpenIDProvider, folder: Path, **more: Any) -> OIDC:
    return OIDC(
        issuer=provider.issuer,
        client_id=CLIENT_ID,
        client_secret=f"file:{folder / 'client-secret'}",
        **more,
    )


def test_an_answer_counts_once_and_in_the_browser_that_asked(
    site: Site, client: httpx.Client
) -> None:
    with site.visitor() as other:
        out = client.get("/login/provider")
        back = httpx.get(out.headers["location"]).headers["location"]
        other.get("/login")
        assert other.get(back).status_code == 401  # an attacker's answer sent to a victim
        assert why(site) == "this log-in was started in another browser"
        assert client.get(back).status_code == 401
        assert why(site) == "no log-in is waiting for this answer"
        out = client.get("/login/provider")
        back = httpx.get(out.headers["location"]).headers["location"]
        before = client.cookies["thoracle"]
        assert client.get(back).status_code == 303
        assert client.cookies["thoracle"] != before
        assert client.get(back).status_code == 401


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("error=access_denied", "the provider answers 'access_denied'"),
        ("error=" + "<script>" * 40, "the provider answers '<script>"),
        ("code=guessed", "the provider gave no token: 'invalid_grant'"),
        ("", "the provider answers ''"),
        ("code=x&iss=https://evil.example", "another provider answers"),
    ],
)
def test_a_wrong_answer_is_refused(site: Site, client: httpx.Client, query: str, said: str) -> None:
    out = client.get("/login/provider")
    state = parse_qs(urlsplit(out.headers["location"]).query)["state"][0]
    answer = client.get(f"/login/callback?state={state}&{query}")
    assert answer.status_code == 401
    assert "<script>" not in answer.text
    assert client.get("/login/callback?code=x").status_code == 401
    assert said in str(site.events("log-in refused")[-2].detail["why"])
    log = site.log.read_text()
    assert CLIENT_SECRET not in log
    assert state not in log


def test_a_provider_that_takes_the_secret_in_the_form_gets_it_there(
    site: Site, provider: OpenIDProvider
) -> None:
    provider.methods = ["client_secret_post"]
    known = openid.Provider(settings_of(provider, site.folder))
    begun = known.begin(provider.callbacks[0])
    there = httpx.get(begun.url).headers["location"]
    code = parse_qs(urlsplit(there).query)["code"][0]
    assert known.end(begun, code)["sub"] == provider.person["sub"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"issuer": "https://evil.example"}, "required: the same in the settings"),
        ({"token_endpoint": "ftp://127.0.0.1/"}, "found no token_endpoint of https"),
        ({"jwks_uri": None}, "found no jwks_uri of https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "found no authorization_endpoint"),
    ],
)
def test_a_configuration_that_is_not_the_providers_is_refused(
    site: Site, provider: OpenIDProvider, document: dict[str, Any], said: str
) -> None:
    provider.document = document
    with pytest.raises(openid.OpenIDError, match=said):
        openid.Provider(settings_of(provider, site.folder)).read()


def test_without_its_provider_people_with_passwords_come_in(tmp_path: Path) -> None:
    with OpenIDProvider() as gone:
        pages = started(tmp_path, gone)
    with pages as site, site.visitor() as client:
        answer = client.get("/login/provider")
        assert answer.status_code == 401
        assert "Log-in through your institution failed" in answer.text
        assert "not read: ConnectionError" in why(site)
        with site.client("reader"):
            pass


def test_a_required_second_factor_is_not_asked_of_whom_the_provider_lets_in(tmp_path: Path) -> None:
    with OpenIDProvider() as provider:
        provider.behave(sub="u", roles=["chest-read"])
        required = started(tmp_path, provider, 'second_factor = "required"\n')
        with required as site, site.visitor() as client:
            assert through(client).headers["location"] == "/account"
            assert client.get("/account").status_code == 200
            assert "through your institution" in client.get("/account/second-factor").text
            client.headers["X-CSRF-Token"] = csrf_token(client, "/account")
            answer = client.post("/account/second-factor", data={"password": ""})
            assert answer.status_code == 422


def test_without_a_provider_there_is_no_way_to_it(tmp_path: Path) -> None:
    with Site(tmp_path) as site, site.visitor() as client:
        assert "institution" not in client.get("/login").text
        assert client.get("/login/provider").status_code == 404
        assert client.get("/login/callback?state=x&code=y").status_code == 404


@pytest.mark.parametrize(
    ("claim", "claims", "expected"),
    [
        ("roles", {"roles": ["reader", "auditor", "x"]}, ["reader", "auditor"]),
        ("roles", {"roles": "administrator"}, ["administrator"]),
        ("roles", {"roles": "x reader"}, ["reader"]),
        ("realm_access.roles", {"realm_access": {"roles": ["reader"]}}, ["reader"]),
        ("https://x.example/roles", {"https://x.example/roles": ["reader"]}, ["reader"]),
        ("roles", {}, []),
        ("roles", {"roles": [["reader"]]}, []),
        ("roles", {"roles": {"reader": True}}, []),
        ("realm_access.roles", {"realm_access": "reader"}, []),
        ("roles", {"roles": ["READER", "readers"]}, []),
    ],
)
def test_roles_are_those_that_the_claim_names(
    provider: OpenIDProvider, tmp_path: Path, claim: str, claims: Any, expected: list[str]
) -> None:
    assert roles_of(claims, settings_of(provider, tmp_path, roles_claim=claim)) == expected
