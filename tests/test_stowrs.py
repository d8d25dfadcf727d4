"""STOW-RS and QIDO-RS: Orthanc's DICOMweb, and a server for what Orthanc does not answer."""

import base64
import contextlib
import hashlib
import json
import logging
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, generate_uid

from orthanc import Orthanc
from pacs import smallest_report
from thoracle.deliver.storescu import Receipt
from thoracle.deliver.stowrs import WebPeer, found, reachable, store
from thoracle.errors import ArchiveRefused, ArchiveUnavailable, DeliveryError
from thoracle.settings import ClientTLS

TOKEN = "a-token-that-nobody-may-see"


@dataclass
class Stored:
    """An object of ours as a file."""

    path: Path
    ds: Dataset

    @property
    def uid(self) -> str:
        return str(self.ds.SOPInstanceUID)

    def receipt(self, status: str) -> Receipt:
        return Receipt(Comprehensive3DSRStorage, self.uid, status)

    def found(self, peer: WebPeer, *others: str) -> set[str] | None:
        return found(peer, self.ds.StudyInstanceUID, self.ds.SeriesInstanceUID, [self.uid, *others])


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    ds = smallest_report()
    ds.save_as(tmp_path / "stored.dcm", enforce_file_format=True)
    return Stored(tmp_path / "stored.dcm", ds)


# ---- Orthanc -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def test_orthanc_takes_the_file_byte_for_byte_and_finds_it(
    orthanc: Orthanc, stored: Stored
) -> None:
    peer = WebPeer(orthanc.dicomweb, 10)
    before = set(orthanc.instances())
    assert stored.found(peer) == set()
    assert store(peer, stored.path) == stored.receipt("200")
    (identifier,) = set(orthanc.instances()) - before
    assert orthanc.get(f"/instances/{identifier}/file") == stored.path.read_bytes()
    assert stored.found(peer, generate_uid()) == {stored.uid}
    assert found(peer, generate_uid(), stored.ds.SeriesInstanceUID, [stored.uid]) == set()
    assert found(peer, stored.ds.StudyInstanceUID, generate_uid(), [stored.uid]) == set()


def test_orthanc_takes_it_again_and_keeps_one(orthanc: Orthanc, stored: Stored) -> None:
    peer = WebPeer(f"{orthanc.dicomweb}/", 10)
    assert [store(peer, stored.path), store(peer, stored.path)] == 2 * [stored.receipt("200")]
    assert orthanc.sop_instance_uids().count(stored.uid) == 1


def test_orthanc_can_be_reached_and_a_wrong_root_is_no_archive(orthanc: Orthanc) -> None:
    assert reachable(WebPeer(orthanc.dicomweb, 10))
    assert not reachable(WebPeer(f"{orthanc.dicomweb}/elsewhere", 10))


def test_a_killed_orthanc_is_unavailable_until_it_is_back(tmp_path: Path, stored: Stored) -> None:
    with Orthanc(tmp_path) as mortal:
        peer = WebPeer(mortal.dicomweb, 10)
        mortal.kill()
        with pytest.raises(ArchiveUnavailable, match=r"not reached: .*refused"):
            store(peer, stored.path)
        mortal.start()
        assert store(peer, stored.path) == stored.receipt("200")


def test_orthanc_asks_for_a_password_which_is_read_from_file_or_environment(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("pass:wörd\n")
    wrong.write_text("other")
    monkeypatch.setenv("ARCHIVE_PASSWORD", "pass:wörd")
    with Orthanc(tmp_path, users={"gateway": "pass:wörd"}) as guarded:
        url = guarded.dicomweb
        for peer in (WebPeer(url, 10), WebPeer(url, 10, None, "gateway", f"file:{wrong}")):
            with pytest.raises(ArchiveUnavailable, match=r"401: it does not accept our cred"):
                store(peer, stored.path)
            with pytest.raises(ArchiveUnavailable, match=r"401: it does not accept our cred"):
                reachable(peer)
        for place in (f"file:{right}", "env:ARCHIVE_PASSWORD"):
            peer = WebPeer(url, 10, None, "gateway", place)
            assert store(peer, stored.path) == stored.receipt("200")


# ---- A server for the rest ---------------------------------------------------------------------


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """An HTTP server that answers each method as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers = {"POST": Answer(), "GET": Answer(404)}
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/dicom-web"

    def secure(self, certificate: trustme.LeafCert, *clients: trustme.CA) -> None:
        """Speak TLS; with authorities of clients, demand their certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        for authority in clients:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.scheme = "https"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # a client that did not like us, or did not wait
                    super().handle()

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.requests.append(
                    Request(self.command, self.path, dict(self.headers.items()), body)
                )
                answer = outer.answers[self.command]
                time.sleep(answer.delay)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def response(
    status: int,
    stored: tuple[str, ...] = (),
    failed: dict[str, int] | None = None,
    warning: int | None = None,
) -> Answer:
    """Return a Store Instances Response Module (PS3.18 Annex I)."""
    ds = Dataset()
    ds.ReferencedSOPSequence = [_item(uid, WarningReason=warning) for uid in stored]
    ds.FailedSOPSequence = [
        _item(uid, FailureReason=reason) for uid, reason in (failed or {}).items()
    ]
    media_type = "application/dicom+json; charset=utf-8"  # a parameter is allowed
    return Answer(status, ds.to_json().encode(), {"Content-Type": media_type})


def _item(uid: str, **codes: int | None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = Comprehensive3DSRStorage
    item.ReferencedSOPInstanceUID = uid
    for keyword, code in codes.items():
        if code is not None:
            setattr(item, keyword, code)
    return item


def matches(*found: dict[str, str]) -> Answer:
    """Return the answer to a search: UIDs by keyword."""
    tags = {
        "StudyInstanceUID": "0020000D",
        "SeriesInstanceUID": "0020000E",
        "SOPInstanceUID": "00080018",
    }
    content = [
        {tags[keyword]: {"vr": "UI", "Value": [uid]} for keyword, uid in one.items()}
        for one in found
    ]
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/dicom+json"})


def all_uids(ds: Dataset) -> dict[str, str]:
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return {keyword: str(ds[keyword].value) for keyword in keywords}


OTHER = "2.25.99"


@pytest.mark.parametrize(
    ("status", "where", "code", "text"),
    [
        (200, "stored", None, "200"),
        (202, "stored", 0xB000, "202 0xB000"),  # coercion of data elements
        (202, "stored", 0xB007, "202 0xB007"),  # does not match SOP Class
        (409, "failed", 0x0111, "409 0x0111"),  # duplicate: our bytes are always the same
    ],
)
def test_what_the_archive_says_it_has_gets_a_receipt(
    server: Server, stored: Stored, status: int, where: str, code: int | None, text: str
) -> None:
    said: dict[str, Any] = (
        {"stored": (stored.uid, OTHER), "warning": code}
        if where == "stored"
        else {"failed": {OTHER: 0x0110, stored.uid: code}}
    )
    server.answers["POST"] = response(status, **said)
    assert store(WebPeer(server.url, 5), stored.path) == stored.receipt(text)


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (409, 0xA700, ArchiveUnavailable),  # out of resources
        (409, 0x0213, ArchiveUnavailable),  # resource limitation
        (202, 0xA7FF, ArchiveUnavailable),
        (409, 0x0110, ArchiveUnavailable),  # processing failure, as by C-STORE
        (409, 0x0124, ArchiveUnavailable),  # not authorized, as 401 and 403
        (409, 0x0122, ArchiveRefused),  # SOP Class not supported
        (409, 0xA900, ArchiveRefused),  # does not match SOP Class
        (409, 0xC122, ArchiveRefused),  # transfer syntax not supported
        (202, 0xC000, ArchiveRefused),  # cannot understand
    ],
)
def test_a_failure_of_the_instance_says_whether_sending_again_helps(
    server: Server, stored: Stored, status: int, reason: int, error: type[Exception]
) -> None:
    # An archive that names it both ways has not stored it.
    server.answers["POST"] = response(status, (stored.uid,), {stored.uid: reason})
    with pytest.raises(error, match=f"127.0.0.1:{server.port} answered {status} 0x{reason:04X}"):
        store(WebPeer(server.url, 5), stored.path)


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 413, 415])
def test_another_refusal_is_final(server: Server, stored: Stored, status: int) -> None:
    server.answers["POST"] = Answer(status, b"no")
    with pytest.raises(ArchiveRefused, match=f"answered {status}"):
        store(WebPeer(server.url, 5), stored.path)


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503, 507])
def test_what_the_operator_or_time_may_heal_is_tried_again_later_and_not_at_once(
    server: Server, stored: Stored, status: int
) -> None:
    server.answers["POST"] = Answer(status, headers={"Retry-After": "0"})
    with pytest.raises(ArchiveUnavailable, match=f"answered {status}"):
        store(WebPeer(server.url, 5), stored.path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Sign in</html>", b"[]", b"7", b'{"00081199": {"vr": "UI", "Value": ["x"]}}'],
    ids=["empty", "html", "no module", "number", "no sequence"],
)
def test_success_that_does_not_name_the_object_is_no_receipt(
    server: Server, stored: Stored, body: bytes
) -> None:
    server.answers["POST"] = Answer(200, body, {"Content-Type": "text/html"})
    with pytest.raises(ArchiveUnavailable, match="answered 200 without naming the object"):
        store(WebPeer(server.url, 5), stored.path)
    server.answers["POST"] = response(200, (OTHER,))
    with pytest.raises(ArchiveUnavailable, match="answered 200 without naming the object"):
        store(WebPeer(server.url, 5), stored.path)


@pytest.mark.parametrize(
    ("answer", "text"),
    [(Answer(200), "200"), (Answer(409, b"exists"), "409"), (None, "409 0xB00E")],
    ids=["200 without a body", "409 without a body", "409 with a reason of its own"],
)
def test_what_a_search_finds_after_an_unclear_answer_has_been_stored(
    server: Server, stored: Stored, answer: Answer | None, text: str
) -> None:
    server.answers["POST"] = answer or response(409, failed={stored.uid: 0xB00E})
    server.answers["GET"] = matches(all_uids(stored.ds))
    receipt = store(WebPeer(server.url, 5), stored.path)
    assert receipt == stored.receipt(f"{text}, found by query")


def test_one_part_is_posted_with_the_bytes_of_the_file(server: Server, stored: Stored) -> None:
    server.answers["POST"] = response(200, (stored.uid,))
    store(WebPeer(server.url, 5), stored.path)
    (request,) = server.requests
    media_type, boundary = request.headers["Content-Type"].split("; boundary=")
    assert media_type == 'multipart/related; type="application/dicom"'
    before, part, after = request.body.split(f"--{boundary}".encode())
    assert (before, after) == (b"", b"--\r\n")
    assert part == b"\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % stored.path.read_bytes()
    assert request.path == "/dicom-web/studies"
    assert request.headers["Accept"] == "application/dicom+json"
    assert request.headers["Host"] == f"127.0.0.1:{server.port}"


def test_silence_ends_with_the_timeout(server: Server, stored: Stored) -> None:
    server.answers["POST"] = Answer(delay=6)
    started = time.monotonic()
    with pytest.raises(ArchiveUnavailable, match="not reached"):
        store(WebPeer(server.url, 0.5), stored.path)
    assert time.monotonic() - started < 5


# ---- Searching ---------------------------------------------------------------------------------


def test_matches_for_what_was_not_asked_are_no_proof(server: Server, stored: Stored) -> None:
    uids = all_uids(stored.ds)
    server.answers["GET"] = matches(
        {**uids, "SOPInstanceUID": OTHER}, {**uids, "StudyInstanceUID": OTHER}, {}
    )
    assert stored.found(WebPeer(server.url, 5)) == set()
    server.answers["GET"] = matches({**uids, "SOPInstanceUID": OTHER}, uids)
    assert stored.found(WebPeer(server.url, 5), "2.25.5") == {stored.uid}
    request = server.requests[-1]
    assert request.path.endswith("/instances?SOPInstanceUID=2.25.5")
    assert request.headers["Host"] == f"127.0.0.1:{server.port}"


def test_no_content_is_no_match(server: Server, stored: Stored) -> None:
    server.answers["GET"] = Answer(204)
    assert stored.found(WebPeer(server.url, 5)) == set()


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_archive_that_only_stores_gives_no_answer(
    server: Server, stored: Stored, status: int
) -> None:
    server.answers["GET"] = Answer(status)
    assert stored.found(WebPeer(server.url, 5)) is None
    assert reachable(WebPeer(server.url, 5)) is False


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(401), ArchiveUnavailable),
        (Answer(503), ArchiveUnavailable),
        (Answer(200, b"<html>Sign in</html>"), ArchiveUnavailable),
        (Answer(400), ArchiveRefused),
    ],
)
def test_a_search_that_fails_is_no_answer_of_no(
    server: Server, stored: Stored, answer: Answer, error: type[Exception]
) -> None:
    server.answers["GET"] = answer
    peer = WebPeer(server.url, 5)
    with pytest.raises(error):
        stored.found(peer)
    with pytest.raises(error):
        reachable(peer)
    assert len(server.requests) == 2  # one each: nothing is retried


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
