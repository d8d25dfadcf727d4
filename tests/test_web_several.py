"""Two processes of pages on one PostgreSQL database: what is known to one is known to the other."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from browsing import PASSWORD, Site, csrf_token, log_in
from gateway import Gateway
from ledger import concluded, eventually
from openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIDProvider
from pacs import Pacs, free_port
from postgres import Server
from radiographs import chest
from sender import send
from test_web_oidc import ROLES

PERSONS = {"reader": ["reader"]}


def second(site: Site) -> Site:
    """Return other pages of the same configuration, on another port."""
    config = site.folder / "second.toml"
    text = site.config.read_text()
    assert str(site.port) in text
    config.write_text(text.replace(str(site.port), str(free_port())))
    return Site(site.folder, config=config, persons={})


@dataclass
class Two:
    """A gateway, and two processes of its pages."""

    gateway: Gateway
    one: Site
    other: Site
    provider: OpenIDProvider


@pytest.fixture(scope="module")
def two(documented_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "client-secret").write_text(CLIENT_SECRET + "\n")
    with OpenIDProvider() as provider, Pacs() as pacs:
        url = documented_server.documented()
        gateway = Gateway(folder, pacs, database={"url": url}, web={"port": free_port()})
        with gateway.config.open("a") as file:
            file.write(
                f'[web.oidc]\nissuer = "{provider.issuer}"\nclient_id = "{CLIENT_ID}"\n'
                f'client_secret = "file:client-secret"{ROLES}\n'
            )
        site = Site(folder, config=gateway.config, persons=PERSONS)
        with gateway, site, second(site) as other:
            provider.callbacks.append(f"{site.url}/login/callback")
            yield Two(gateway, site, other, provider)


def moved_on(client: httpx.Client, site: Site) -> httpx.Client:
    """Return the same browser at other pages."""
    cookies = {one.name: one.value or "" for one in client.cookies.jar}
    return httpx.Client(base_url=site.url, cookies=cookies, timeout=30)


def test_who_logs_in_at_one_is_known_at_the_other_until_the_log_out(two: Two) -> None:
    with two.one.client("reader") as client, moved_on(client, two.other) as same:
        assert same.get("/api/whoami").json()["name"] == "reader"
        form = {"csrf_token": csrf_token(same, "/account")}
        assert same.post("/logout", data=form).status_code == 303
        assert client.get("/api/whoami").status_code == 401


def test_the_pictures_of_a_page_come_from_the_other_process(two: Two) -> None:
    image = chest()
    assert send(two.gateway.port, image).status == 0x0000
    uid = str(image.StudyInstanceUID)
    concluded(two.gateway, uid)
    with two.one.client("reader") as client, moved_on(client, two.other) as same:
        page = client.get(f"/study/{uid}").text
        found = re.search(r'"(/study/[0-9.]+/radiograph/1\.png\?view=[^"]+)"', page)
        assert found is not None
        picture = same.get(found[1].replace("&amp;", "&"))
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        assert same.get(f"/study/{uid}/radiograph/1.png?view=1-2").status_code == 403


def test_pages_of_both_hear_of_a_new_study(two: Two) -> None:
    heard: list[int] = []

    def listen(number: int, site: Site) -> None:
        with (
            site.client("reader") as client,
            client.stream("GET", "/worklist/events", timeout=120) as stream,
        ):
            events = (line for line in stream.iter_lines() if line.startswith("data:"))
            next(events)  # how it is now
            heard.append(number)
            next(events)
            heard.append(number + 10)

    threads = [
        threading.Thread(target=listen, args=(number, site), daemon=True)
        for number, site in enumerate((two.one, two.other))
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: sorted(heard) == [0, 1])
    assert send(two.gateway.port, chest()).status == 0x0000
    for thread in threads:
        thread.join(120)
    assert sorted(heard) == [0, 1, 10, 11]


def test_log_ins_that_fail_are_counted_together(two: Two) -> None:
    transports = [httpx.HTTPTransport(local_address="127.0.7.7") for _ in range(2)]
    with (
        two.one.visitor(transport=transports[0]) as here,
        two.other.visitor(transport=transports[1]) as there,
    ):
        for number in range(10):
            for client in (here, there):
                assert log_in(client, f"nobody{number}", PASSWORD).status_code == 401
        for client in (here, there):
            assert log_in(client, "reader", PASSWORD).status_code == 429
    with two.other.client("reader") as client:  # from another address
        assert client.get("/api/whoami").status_code == 200


def test_the_provider_may_answer_to_the_other_process_once(two: Two) -> None:
    two.provider.behave(sub="u-1", roles=["chest-read"], preferred_username="ann")
    with two.one.visitor() as client:
        out = client.get("/login/provider", params={"next": "/account"})
        there = httpx.get(out.headers["location"])
        answer = there.headers["location"].removeprefix(two.one.url)
        with moved_on(client, two.other) as same:
            back = same.get(answer)
            assert (back.status_code, back.headers["location"]) == (303, "/account")
            assert same.get("/api/whoami").json()["name"] == "ann"
        again = client.get(answer)
        assert again.status_code == 401
        assert "no log-in is waiting" in str(two.one.events("log-in refused")[-1].detail["why"])


def test_the_token_of_one_makes_the_first_administrator_at_the_other(
    documented_server: Server, tmp_path: Path
) -> None:
    text = f'[database]\nurl = "{documented_server.documented()}"'
    with Site(tmp_path, text, persons={}) as site:
        token = site.log.read_text().rpartition("with this token: ")[2].split()[0]
        with second(site) as other:
            with other.visitor() as client:
                form = {
                    "csrf_token": csrf_token(client, "/first-run"),
                    "name": "boss",
                    "password": PASSWORD,
                    "token": token,
                }
                assert client.post("/first-run", data=form).status_code == 303
            for one in (site, other):
                with one.visitor() as client:
                    assert client.get("/first-run").status_code == 404
