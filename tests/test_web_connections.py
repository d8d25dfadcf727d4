"""Connections that somebody keeps open take the pages from nobody else; over real sockets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from browsing import PASSWORD, Site, csrf_token, log_in
from thoracle.web.connections import MOST

IDLE = 405
PER_ADDRESS = 60
STREAM = b"GET /worklist/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
COMPLETE = b"\r\n\r\n"
HALF = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nname=" + b"x" * 200


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    text = f"connections_per_address = {PER_ADDRESS}"
    with Site(tmp_path_factory.mktemp("connections"), text) as running:
        yield running


@contextmanager
def opened(site: Site, number: int, *addresses: str, sent: bytes = b"") -> Iterator[None]:
    """Keep so many connections from each of these addresses of this machine, and say no more."""
    with ExitStack() as stack:
        for address in addresses:
            for _ in range(number):
                one = socket.create_connection(
                    ("127.0.0.1", site.port), timeout=30, source_address=(address, 0)
                )
                stack.enter_context(one)
                if sent:
                    one.sendall(sent)
                if sent.endswith(COMPLETE):
                    assert one.recv(12) == b"HTTP/1.1 200"
        yield


def addresses(number: int) -> list[str]:
    return [f"127.0.1.{last}" for last in range(1, number + 1)]


@contextmanager
def reader_from(site: Site, address: str) -> Iterator[httpx.Client]:
    """Yield the client of a reader at another address who is signed in, on one connection."""
    with site.visitor(transport=httpx.HTTPTransport(local_address=address)) as client:
        assert log_in(client, "reader", PASSWORD).status_code == 303
        client.headers["X-CSRF-Token"] = csrf_token(client, "/account")
        yield client


def is_served(client: httpx.Client) -> bool:
    """Return whether a page is answered, and not by a new connection."""
    before = client._transport._pool.connections  # type: ignore[attr-defined]
    well = client.get("/account").status_code == 200
    return well and client._transport._pool.connections == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HALF], ids=["silent", "header", "body"])
def test_idle_connections_of_one_address_close_those_of_no_other(site: Site, sent: bytes) -> None:
    with (
        reader_from(site, "127.0.0.2") as client,
        opened(site, IDLE, "127.0.0.1", sent=sent),
        site.visitor() as stranger,  # of the address that has so many
    ):
        assert is_served(client)
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/login").status_code == 200


@pytest.mark.parametrize("sent", [b"", HALF], ids=["silent", "body"])
def test_idle_connections_of_many_addresses_close_none_of_a_person(site: Site, sent: bytes) -> None:
    with (
        reader_from(site, "127.0.0.2") as client,
        opened(site, PER_ADDRESS - 1, *addresses(12), sent=sent),
        site.visitor() as stranger,
    ):
        assert is_served(client)
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/login").status_code == 200


def test_an_address_at_work_has_no_more_than_its_places(site: Site) -> None:
    with site.client("reader") as mine:
        cookies = "; ".join(f"{name}={value}" for name, value in mine.cookies.items())
        stream = STREAM + f"Cookie: {cookies}\r\n\r\n".encode()
        with opened(site, PER_ADDRESS, "127.0.0.3", sent=stream), site.visitor() as other:
            assert other.get("/healthz").status_code == 200
            with (
                site.visitor(transport=httpx.HTTPTransport(local_address="127.0.0.3")) as same,
                pytest.raises(httpx.TransportError),
            ):
                same.get("/healthz")


def test_when_all_are_at_work_the_reserve_is_for_persons_and_for_healthz(site: Site) -> None:
    with site.client("reader") as mine:
        cookies = "; ".join(f"{name}={value}" for name, value in mine.cookies.items())
        stream = STREAM + f"Cookie: {cookies}\r\n\r\n".encode()
        places = addresses(MOST // 50)
        with opened(site, 50, *places, sent=stream), site.visitor() as stranger:
            assert stranger.get("/healthz").status_code == 200
            assert stranger.get("/login").status_code == 503
            assert mine.get("/account").status_code == 200
    with site.visitor() as stranger:
        assert stranger.get("/login").status_code == 200
