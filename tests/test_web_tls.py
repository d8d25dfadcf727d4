"""The pages by https, behind a proxy, and what slow callers and `thoracle check` get."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn

from browsing import PASSWORD, Site, csrf_token, log_in
from certificates import DAY, NOW, Authority
from openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIDProvider
from pacs import free_port
from thoracle import settings
from thoracle.cli.machine import CheckResult, check
from thoracle.errors import SettingsError
from thoracle.settings import Settings, Web
from thoracle.web import connections, serve
from thoracle.web.app import create_app
from thoracle.web.session import guard


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def https(folder: Path, authority: Authority) -> Site:
    """Return pages by https, to be started."""
    ours = authority.issue("pages")
    return Site(
        folder,
        f'certificate_file = "{ours.certificate_file}"\nkey_file = "{ours.key_file}"',
        verify=ssl.create_default_context(cafile=authority.ca_file),
    )


def test_by_https_the_cookie_never_leaves_it(tmp_path: Path, authority: Authority) -> None:
    with https(tmp_path, authority) as site:
        with site.visitor() as client:
            answer = log_in(client, "reader", PASSWORD)
            flags = answer.headers["set-cookie"].lower().split("; ")
            assert answer.headers["set-cookie"].startswith("__Host-thoracle=")
            assert {"secure", "httponly", "samesite=lax", "path=/"} <= set(flags)
            assert not any(flag.startswith("domain") for flag in flags)
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
            assert client.get("/api/whoami").json()["name"] == "reader"
            cookie = client.cookies["__Host-thoracle"]
        with site.visitor(
            cookies={"thoracle": cookie}
        ) as client:  # a site without https could set it
            assert client.get("/api/whoami").status_code == 401
        with httpx.Client() as plain, pytest.raises(httpx.RemoteProtocolError):
            plain.get(f"http://127.0.0.1:{site.port}/healthz")
        old = ssl.create_default_context(cafile=authority.ca_file)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers("AES256-SHA:ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA384")
        with (
            socket.create_connection(("127.0.0.1", site.port)) as plain_socket,
            pytest.raises(ssl.SSLError),
        ):
            old.wrap_socket(plain_socket, server_hostname="127.0.0.1")


def test_a_key_that_others_can_read_ends_the_start(tmp_path: Path, authority: Authority) -> None:
    site = https(tmp_path, authority)
    site.database.dispose()
    assert site.settings.web.key_file is not None
    site.settings.web.key_file.chmod(0o644)
    with pytest.raises(SettingsError, match=r"web\.key_file: found permissions 0644"):
        serve.serve(site.settings)


def test_a_proxy_is_believed_and_nobody_else(tmp_path: Path) -> None:
    """What a stranger says of himself must not be written into the audit."""
    said = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    with Site(
        tmp_path, 'proxy_addresses = ["127.0.0.1"]\ntrusted_hosts = ["pages.example"]'
    ) as site:

        def came_from(local_address: str) -> str:
            transport = httpx.HTTPTransport(local_address=local_address)
            with site.visitor(transport=transport, headers=said) as client:
                page = client.get("/login", headers={"Host": "pages.example"})
                # The cookie is for https alone, which this client does not see: it is sent by hand.
                cookie = page.headers["set-cookie"].partition(";")[0]
                assert cookie.startswith("__Host-thoracle=")
                found = page.text.partition('name="csrf_token" value="')[2][:64]
                form = {"csrf_token": found, "name": "reader", "password": PASSWORD}
                answer = client.post("/login", data=form, headers={"Cookie": cookie})
                assert answer.status_code == 303
                assert "strict-transport-security" in answer.headers
            return str(site.events("logged in")[-1].network_address)

        assert came_from("127.0.0.1") == "192.0.2.7"
        assert came_from("127.0.0.5") == "127.0.0.5"


def test_behind_a_proxy_the_provider_is_told_the_name_that_browsers_use(tmp_path: Path) -> None:
    with OpenIDProvider() as provider:
        (tmp_path / "secret").write_text(CLIENT_SECRET)
        text = (
            'proxy_addresses = ["127.0.0.1"]\ntrusted_hosts = ["pages.example"]\n'
            f'[web.oidc]\nissuer = "{provider.issuer}"\nclient_id = "{CLIENT_ID}"\n'
            'client_secret = "file:secret"'
        )
        with Site(tmp_path, text) as site, site.visitor() as client:
            out = client.get("/login/provider", headers={"Host": "pages.example"})
        asked = parse_qs(urlsplit(out.headers["location"]).query)
        assert asked["redirect_uri"] == ["https://pages.example/login/callback"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("pages.example", 200),
        ("PAGES.example:8443", 200),
        ("localhost", 400),
        ("127.0.0.1", 400),
        ("pages.example.evil.example", 400),
        ("xpages.example", 400),
    ],
)
def test_when_others_can_connect_only_the_trusted_names_count(
    tmp_path: Path, host: str, status: int
) -> None:
    web = Web(host="0.0.0.0", proxy_addresses=("192.0.2.1",), trusted_hosts=("Pages.example",))
    site = Site(tmp_path)
    app = create_app(Settings(web=web), site.database)

    async def answer() -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://x") as client:
            return (await client.get("/healthz", headers={"Host": host})).status_code

    assert asyncio.run(answer()) == status
    site.database.dispose()


# Slow callers.


@pytest.fixture
def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Yield the port of pages that wait a second for a request, and as long for a body."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 1)
    monkeypatch.setattr(guard, "BODY_SECONDS", 1)
    site = Site(tmp_path)
    server = uvicorn.Server(
        serve._config(create_app(site.settings, site.database), site.settings.web)
    )
    listener = serve._listener(site.settings.web)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield site.port
    server.should_exit = True
    thread.join()
    listener.close()
    site.database.dispose()


def drip(connection: socket.socket, data: bytes) -> float:
    """Send a byte each 0.2 s; return the seconds until the other side ends the connection."""
    began = time.monotonic()
    connection.settimeout(0.2)
    for at in range(len(data)):
        try:
            connection.sendall(data[at : at + 1])
            if connection.recv(4096) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began


def test_a_request_that_does_not_come_ends_its_connection(hurried: int) -> None:
    with socket.create_connection(("127.0.0.1", hurried)) as connection:
        assert 0.8 < drip(connection, b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"x" * 100) < 5


def test_a_second_request_that_does_not_come_ends_its_connection(hurried: int) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", hurried)) as connection:
        connection.sendall(whole)
        assert b"200 OK" in connection.recv(4096)
        assert 0.8 < drip(connection, whole[:20] + b"x" * 100) < 5


def test_a_body_that_does_not_come_is_answered_with_a_time_out(hurried: int) -> None:
    with socket.create_connection(("127.0.0.1", hurried), timeout=10) as connection:
        connection.sendall(
            b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\nname="
        )
        assert b"408 Request Timeout" in connection.recv(4096)


def test_quick_requests_go_on_over_one_connection(hurried: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{hurried}") as client:
        for _ in range(4):
            assert client.get("/healthz").status_code == 200
            time.sleep(0.4)


# `thoracle check`.


def findings(folder: Path, text: str) -> dict[str, CheckResult]:
    config = folder / "check.toml"
    config.write_text(f'data_folder = "data"\n[web]\n{text}\n')
    return {one.subject: one for one in check(settings.load(config)) if one.subject[:3] == "web"}


def test_check_says_whether_the_port_is_free(tmp_path: Path) -> None:
    port = free_port()
    free = findings(tmp_path, f"port = {port}")["web.port"]
    assert (free.well, free.text) == (True, f"127.0.0.1:{port} is free, this machine only")
    with socket.create_server(("127.0.0.1", port)):
        busy = findings(tmp_path, f"port = {port}")["web.port"]
    assert not busy.well
    assert "Address already in use" in busy.text


def test_check_reads_the_certificate(tmp_path: Path, authority: Authority) -> None:
    ours = authority.issue("pages", not_after=NOW + 10 * DAY)
    files = f'certificate_file = "{ours.certificate_file}"\nkey_file = "{ours.key_file}"'
    found = findings(tmp_path, f"port = {free_port()}\n{files}")
    assert found["web"].well
    assert "in 9 days; renew it" in found["web certificate_file"].text
    ours.key_file.chmod(0o666)
    assert "found permissions 0666" in findings(tmp_path, files)["web"].text


def test_check_asks_the_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenIDProvider() as provider:
        text = (
            f'port = {free_port()}\n[web.oidc]\nissuer = "{provider.issuer}"\n'
            f'client_id = "{CLIENT_ID}"\nclient_secret = "env:OIDC_SECRET"'
        )
        missing = findings(tmp_path, text)["web.oidc"]
        assert not missing.well
        assert "web.oidc.client_secret: env:OIDC_SECRET: found nothing" in missing.text
        monkeypatch.setenv("OIDC_SECRET", CLIENT_SECRET)
        assert findings(tmp_path, text)["web.oidc"].text.startswith(f"{provider.issuer} answers")
    gone = findings(tmp_path, text)["web.oidc"]
    assert not gone.well
    assert "not read: ConnectionError" in gone.text


def test_the_client_secret_itself_is_not_taken_for_a_setting(tmp_path: Path) -> None:
    config = tmp_path / "thoracle.toml"
    config.write_text(
        '[web.oidc]\nissuer = "https://x.example"\nclient_id = "x"\nclient_secret = "S3CRET"\n'
    )
    with pytest.raises(SettingsError) as caught:
        settings.load(config)
    assert "web.oidc.client_secret: found a text that is not shown" in str(caught.value)
    assert "S3CRET" not in str(caught.value)


def test_the_token_of_a_form_can_be_read_by_https(tmp_path: Path, authority: Authority) -> None:
    with https(tmp_path, authority) as site, site.client("administrator") as client:
        assert len(csrf_token(client, "/account")) == 64
        assert client.post("/people", data={"name": "new", "roles": ["reader"]}).status_code == 200
