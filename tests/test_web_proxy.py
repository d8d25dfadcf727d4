"""The example for nginx in docs/people.md, run as it stands there."""

import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from browsing import PASSWORD, Site, csrf_token
from certificates import Authority
from documents import DOCS
from pacs import free_port
from peers import require

NAME = "thoracle.hospital.example"


@dataclass(frozen=True)
class Proxy:
    """nginx, while it runs in front of pages."""

    site: Site
    url: str
    log: Path
    trust: ssl.SSLContext

    def client(self) -> httpx.Client:
        """Return a browser that calls the pages by their name, from another address."""
        transport = httpx.HTTPTransport(verify=self.trust, local_address="127.0.0.3")
        return httpx.Client(
            base_url=self.url, transport=transport, headers={"Host": NAME}, timeout=30
        )


def example(kind: str, containing: str) -> str:
    """Return the block of the page that has a text in it."""
    page = (DOCS / "people.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if containing in block)
    return str(found)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    nginx = require("nginx", "nginx-light")
    folder = tmp_path_factory.mktemp("proxy")
    authority = Authority(folder)
    ours = authority.issue("proxy", NAME, "127.0.0.1")
    settings = example("toml", "proxy_addresses").removeprefix("[web]\n")
    with Site(folder, settings) as site:
        port = free_port()
        text = example("nginx", "server_name")
        for written, here in {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/nginx/thoracle.pem": str(ours.certificate_file),
            "/etc/nginx/thoracle.key": str(ours.key_file),
            "/var/log/nginx/thoracle.log": str(folder / "access.log"),
            "http://127.0.0.1:8080": site.url,
        }.items():
            assert text.count(written) == 1, written
            text = text.replace(written, here)
        temporary = "".join(
            f"{name}_temp_path {folder / name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = folder / "nginx.conf"
        config.write_text(
            f"daemon off;\nmaster_process off;\npid {folder / 'pid'};\n"
            f"error_log {folder / 'error.log'};\nevents {{}}\nhttp {{\n{temporary}{text}}}\n"
        )
        process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(config)])
        trust = ssl.create_default_context(cafile=authority.ca_file)
        found = Proxy(site, f"https://127.0.0.1:{port}", folder / "access.log", trust)
        try:
            _wait(found, process, folder)
            yield found
        finally:
            process.terminate()
            process.wait()


def _wait(proxy: Proxy, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 20
    with proxy.client() as client:
        while True:
            try:
                client.get("/healthz").raise_for_status()
                return
            except httpx.HTTPError:
                ended = process.poll() is not None or time.monotonic() > deadline
                assert not ended, (folder / "error.log").read_text()
                time.sleep(0.05)


def enter(client: httpx.Client) -> None:
    token = csrf_token(client)
    form = {"csrf_token": token, "name": "reader", "password": PASSWORD, "next": "/account"}
    answer = client.post("/login", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")


def test_the_audit_has_the_address_of_the_browser_whatever_it_says_of_itself(
    proxy: Proxy,
) -> None:
    with proxy.client() as client:
        client.headers["X-Forwarded-For"] = "192.0.2.99"
        enter(client)
        assert client.get("/api/whoami").json()["name"] == "reader"
        assert [cookie.name for cookie in client.cookies.jar] == ["__Host-thoracle"]
    assert proxy.site.events("logged in")[-1].network_address == "127.0.0.3"


def test_the_list_is_told_of_changes_at_once(proxy: Proxy) -> None:
    with proxy.client() as client:
        enter(client)
        began = time.monotonic()
        with client.stream("GET", "/worklist/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            first = next(line for line in stream.iter_lines() if line)
        assert first == "event: changed"
        assert time.monotonic() - began < 5  # a buffer would keep it until the stream ends


def test_a_large_body_and_another_name_are_refused(proxy: Proxy) -> None:
    with proxy.client() as client:
        assert client.post("/login", content=b"x" * 70_000).status_code == 413
        assert client.get("/login", headers={"Host": "evil.example"}).status_code == 400


def test_no_log_has_what_somebody_looked_for(proxy: Proxy) -> None:
    with proxy.client() as client:
        enter(client)
        client.get("/?text=Mustermann")
    assert '"GET /" 200' in proxy.log.read_text()
    assert "Mustermann" not in proxy.log.read_text()
    assert "Mustermann" not in proxy.site.log.read_text()
