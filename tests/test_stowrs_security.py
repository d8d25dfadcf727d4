"""Credentials and TLS of STOW-RS: no secret and no object goes to anybody else."""

import base64
import hashlib
import logging
import ssl
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trustme

from dicomweb_server import Answer, Server, Stored, response, stored_report
from thoracle.deliver.stowrs import WebPeer, reachable, store
from thoracle.errors import ArchiveUnavailable, DeliveryError
from thoracle.settings import ClientTLS

TOKEN = "a-token-that-nobody-may-see"


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return stored_report(tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


# ---- Credentials -------------------------------------------------------------------------------


def test_the_token_is_read_anew_for_each_call(
    server: Server, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers["POST"] = response(200, (stored.uid,))
    file = tmp_path / "token"
    for text in ("one", "two\n"):
        file.write_text(text)
        store(WebPeer(server.url, 5, f"file:{file}"), stored.path)
    monkeypatch.setenv("ARCHIVE_TOKEN", "three")
    stored.found(WebPeer(server.url, 5, "env:ARCHIVE_TOKEN"))
    sent = [request.headers["Authorization"] for request in server.requests[:3]]
    assert sent == ["Bearer one", "Bearer two", "Bearer three"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: FileNotFoundError"),
        ("", "found nothing, required: a bearer token"),
        (f"{TOKEN}\nX-Other: 1\n", "found something else, required: a bearer token"),
        (f"{TOKEN}ł", "found something else, required: a bearer token"),
    ],
    ids=["missing", "empty", "two lines", "not ASCII"],
)
def test_a_token_that_cannot_be_used_is_named_by_its_place_alone(
    server: Server, stored: Stored, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ArchiveUnavailable, match=message) as caught:
        store(WebPeer(server.url, 5, f"file:{file}"), stored.path)
    assert str(file) in str(caught.value)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert server.requests == []


def test_a_redirection_takes_the_credentials_nowhere(
    server: Server, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_TOKEN", TOKEN)
    with Server() as elsewhere:
        elsewhere.answers["POST"] = elsewhere.answers["GET"] = response(200, (stored.uid,))
        peer = WebPeer(server.url, 5, "env:ARCHIVE_TOKEN")
        for status in (301, 302, 307, 308):
            redirection = Answer(status, headers={"Location": f"{elsewhere.url}/studies"})
            server.answers = {"POST": redirection, "GET": redirection}
            with pytest.raises(ArchiveUnavailable, match="no redirection is followed"):
                store(peer, stored.path)
            with pytest.raises(ArchiveUnavailable, match="no redirection is followed"):
                reachable(peer)
        assert elsewhere.requests == []


@pytest.mark.parametrize("answer", [200, 401, 409, 503, "redirect", "garbage", "nobody"])
def test_no_log_and_no_error_has_the_secret(
    server: Server,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: int | str,
) -> None:
    monkeypatch.setenv("ARCHIVE_SECRET", TOKEN)
    caplog.set_level(logging.DEBUG)
    url = server.url.replace("//", f"//somebody:{TOKEN}@")  # no one should, and some will
    if answer == "redirect":
        server.answers["POST"] = Answer(302, headers={"Location": url})
    elif answer == "garbage":
        server.answers["POST"] = Answer(200, TOKEN.encode())
    elif answer == "nobody":
        url = "http://127.0.0.1:1"
    else:
        server.answers["POST"] = Answer(int(answer))
    said = []
    for peer in (
        WebPeer(server.url if answer != "nobody" else url, 5, "env:ARCHIVE_SECRET"),
        WebPeer(url, 5, None, "gateway", "env:ARCHIVE_SECRET"),
    ):
        for call in (partial(store, peer, stored.path), partial(reachable, peer)):
            try:
                call()
            except DeliveryError as error:
                said += [repr(error), *traceback.format_exception(error)]
    assert said
    assert TOKEN not in "".join(said)
    assert base64.b64encode(f"gateway:{TOKEN}".encode()).decode() not in "".join(said)
    assert TOKEN not in caplog.text.replace(url, "")


# ---- TLS ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A certification authority, and its certificate as a file."""

    ca: trustme.CA
    file: Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return Authority(ca, file)


@pytest.fixture
def safe(server: Server, stored: Stored) -> Server:
    server.answers["POST"] = response(200, (stored.uid,))
    return server


def test_a_verified_server_gets_the_object(
    safe: Server, stored: Stored, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe.secure(authority.ca.issue_cert("127.0.0.1"))
    peer = WebPeer(safe.url, 5, tls=ClientTLS(ca_file=authority.file, minimum_version="1.3"))
    assert store(peer, stored.path) == stored.receipt("200")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))  # the authorities of the machine
    assert store(WebPeer(safe.url, 5), stored.path) == stored.receipt("200")


def test_a_server_of_another_authority_gets_nothing(
    safe: Server, stored: Stored, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(authority.file))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    safe.secure(authority.ca.issue_cert("127.0.0.1"))
    other = authority.file.with_name("other.pem")
    trustme.CA().cert_pem.write_to_path(str(other))
    for tls in (None, ClientTLS(ca_file=other)):
        with pytest.raises(ArchiveUnavailable, match=r"certificate was not accepted: .*issuer"):
            store(WebPeer(safe.url, 5, tls=tls), stored.path)
    assert safe.requests == []


def test_a_certificate_for_another_name_or_of_another_day_is_refused(
    stored: Stored, authority: Authority
) -> None:
    past = datetime(2026, 1, 1, tzinfo=UTC)
    for certificate, message in (
        (authority.ca.issue_cert("elsewhere.example"), "IP address mismatch"),
        (authority.ca.issue_cert("127.0.0.1", not_after=past), "certificate has expired"),
    ):
        with Server() as server:
            server.secure(certificate)
            peer = WebPeer(server.url, 5, tls=ClientTLS(ca_file=authority.file))
            with pytest.raises(ArchiveUnavailable, match=f"not accepted: .*{message}"):
                store(peer, stored.path)
            assert server.requests == []


def test_a_fingerprint_stands_for_the_name_and_another_is_refused(
    safe: Server, stored: Stored, authority: Authority
) -> None:
    certificate = authority.ca.issue_cert("elsewhere.example")
    safe.secure(certificate)
    pem = certificate.cert_chain_pems[0].bytes().decode()
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    for mark, message in ((fingerprint, None), ("0" * 64, "Fingerprints did not match")):
        tls = ClientTLS(ca_file=authority.file, fingerprint=mark)
        peer = WebPeer(safe.url, 5, tls=tls)
        if message is None:
            assert store(peer, stored.path) == stored.receipt("200")
        else:
            with pytest.raises(ArchiveUnavailable, match=message):
                store(peer, stored.path)
    assert len(safe.requests) == 1
    with pytest.raises(ArchiveUnavailable, match="issuer"):  # the chain is still verified
        store(WebPeer(safe.url, 5, tls=ClientTLS(fingerprint=fingerprint)), stored.path)


def test_a_server_that_wants_a_certificate_gets_ours(
    safe: Server, stored: Stored, authority: Authority, tmp_path: Path
) -> None:
    clients = trustme.CA()
    own = clients.issue_cert("gateway.example")
    chain, key = tmp_path / "own.pem", tmp_path / "own.key"
    own.cert_chain_pems[0].write_to_path(str(chain))
    own.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    safe.secure(authority.ca.issue_cert("127.0.0.1"), clients)
    with pytest.raises(ArchiveUnavailable, match="not reached"):
        store(WebPeer(safe.url, 5, tls=ClientTLS(ca_file=authority.file)), stored.path)
    tls = ClientTLS(ca_file=authority.file, certificate_file=chain, key_file=key)
    assert store(WebPeer(safe.url, 5, tls=tls), stored.path) == stored.receipt("200")


def test_plain_text_from_a_tls_port_and_tls_to_a_plain_port_are_unavailable(
    server: Server, stored: Stored, authority: Authority
) -> None:
    tls = ClientTLS(ca_file=authority.file)
    with pytest.raises(ArchiveUnavailable, match=r"not reached: .*SSL"):
        store(WebPeer(server.url.replace("http:", "https:"), 5, tls=tls), stored.path)
    server.secure(authority.ca.issue_cert("127.0.0.1"))
    with pytest.raises(ArchiveUnavailable, match="not reached"):
        store(WebPeer(server.url.replace("https:", "http:"), 5), stored.path)


def test_a_missing_tls_file_is_named(server: Server, stored: Stored, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    tls = ClientTLS(ca_file=absent)
    with pytest.raises(ArchiveUnavailable, match=r"TLS files cannot be used: .*No such file"):
        store(WebPeer(server.url, 5, tls=tls), stored.path)
