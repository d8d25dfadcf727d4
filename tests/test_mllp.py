"""MLLP: hl7apy's server answers, and listeners that do what a server should not."""

import contextlib
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hl7apy.mllp import AbstractHandler, MLLPServer  # type: ignore[import-untyped]  # no annotations

from certificates import DAY, NOW, Authority, Identity
from documents import DOCS
from sources import cr
from test_hl7 import message
from thoracle.cli import machine
from thoracle.errors import ArchiveRefused, ArchiveUnavailable, DeliveryError
from thoracle.hl7.mllp import (
    ACCEPTED,
    FINAL_CODES,
    LARGEST_ANSWER,
    PASSING_CODES,
    Acknowledgement,
    reach,
    send,
)
from thoracle.settings import HL7, ClientTLS, Settings

CONTROL_ID = "0123456789abcdef.1_-"
MESSAGE = message(cr(PatientName="Müller^Jürgen"))
SECOND = 1.0


def receiver(port: int, **changes: Any) -> HL7:
    given = {"name": "ris", "host": "127.0.0.1", "port": port, "timeout_seconds": 5 * SECOND}
    return HL7.model_validate({**given, **changes})


def answer(code: str, control_id: str = CONTROL_ID, text: str = "", error: str = "") -> str:
    acknowledgement = (
        "MSH|^~\\&|RIS|SITE|THORACLE|SITE|20260102120000||ACK^R01^ACK|1|P|2.5.1\r"
        f"MSA|{code}|{control_id}|{text}\r"
    )
    return acknowledgement + (f"ERR||PID^1^3|{error}^x^HL70357|E\r" if error else "")


def framed(text: str) -> bytes:
    return b"\x0b" + text.encode() + b"\x1c\r"


# ---- A server of another library ---------------------------------------------------------------


class Accepting(AbstractHandler):  # type: ignore[misc]  # hl7apy has no annotations
    """Keeps what came, and accepts it."""

    def __init__(self, incoming: str, kept: list[str]) -> None:
        super().__init__(incoming)
        kept.append(incoming)

    def reply(self) -> str:
        return framed(answer("AA", self.incoming_message.split("|")[9])).decode()


class Server(MLLPServer):  # type: ignore[misc]  # hl7apy has no annotations
    """hl7apy's server, with TLS where a context is given; it has none itself."""

    daemon_threads = True
    context: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.context is not None:
            connection = self.context.wrap_socket(connection, server_side=True)
        return connection, address

    def handle_error(self, *_: object) -> None:
        """Say nothing: some callers leave within the handshake, as the tests want."""


@contextmanager
def serving(
    context: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Run the server; yields its port and the messages that came."""
    kept: list[str] = []
    with Server("127.0.0.1", port, {"ORU^R01^ORU_R01": (Accepting, kept)}) as server:
        server.context = context
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1], kept
        finally:
            server.shutdown()
            thread.join()


def test_a_message_arrives_as_it_was_made_and_is_acknowledged() -> None:
    with serving() as (port, kept):
        assert send(receiver(port), MESSAGE) == Acknowledgement("AA", CONTROL_ID, "")
        assert [one.encode() for one in kept] == [MESSAGE]


def test_a_message_can_be_sent_again() -> None:
    with serving() as (port, kept):
        send(receiver(port), MESSAGE)
        send(receiver(port), MESSAGE)
        assert kept[0] == kept[1]


def test_a_large_message_arrives_whole() -> None:
    large = MESSAGE + b"NTE|1|L|" + b"x" * 300_000 + b"\r"
    with serving() as (port, kept):
        send(receiver(port, timeout_seconds=30), large)
        assert kept[0].encode() == large


def test_reaching_a_server_sends_nothing() -> None:
    with serving() as (port, kept):
        reach(receiver(port))
    assert kept == []


def test_the_receiver_of_the_documentation_prints_a_message() -> None:
    page = (DOCS / "hl7.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = [sys.executable, "-c", program.replace("2575", str(port))]
    with subprocess.Popen(started, stdout=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 20 * SECOND
            while time.monotonic() < deadline:
                with contextlib.suppress(ArchiveUnavailable):
                    send(receiver(port), MESSAGE)
                    break
                time.sleep(0.05)
        finally:
            process.terminate()
        assert process.stdout is not None
        assert process.stdout.read().rstrip().replace(b"\n", b"\r") == MESSAGE.rstrip()


# ---- TLS ---------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_context(own: Identity, callers: Authority | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate_file, own.key_file)
    if callers is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(callers.ca_file)
    return context


def test_both_sides_show_a_certificate(authority: Authority) -> None:
    ours = authority.issue("thoracle")
    tls = ClientTLS(
        ca_file=authority.ca_file, certificate_file=ours.certificate_file, key_file=ours.key_file
    )
    with serving(server_context(authority.issue("ris"), authority)) as (port, kept):
        assert send(receiver(port, tls=tls), MESSAGE).code == "AA"
        assert kept[0].encode() == MESSAGE


def test_a_fingerprint_stands_for_the_name(authority: Authority) -> None:
    theirs = authority.issue("ris", "ris.example")
    tls = ClientTLS(ca_file=authority.ca_file, fingerprint=theirs.fingerprint)
    with serving(server_context(theirs)) as (port, _):
        assert send(receiver(port, tls=tls), MESSAGE).code == "AA"


@pytest.mark.parametrize(
    ("names", "validity", "changes", "expected"),
    [
        (["ris.example"], {}, {}, "its certificate is another host's"),
        ([], {"not_after": NOW - DAY}, {}, "its certificate has expired"),
        ([], {}, {"fingerprint": "0" * 64}, "required: 0000"),
        ([], {}, {"ca_file": Path("nowhere.pem")}, "TLS files cannot be used: "),
    ],
)
def test_nothing_is_sent_to_a_server_that_is_not_the_one_meant(
    authority: Authority, names: list[str], validity: Any, changes: Any, expected: str
) -> None:
    theirs = authority.issue("ris", *names, **validity)
    tls = ClientTLS(**{"ca_file": authority.ca_file, **changes})
    with serving(server_context(theirs)) as (port, kept):
        for call in (reach, lambda to: send(to, MESSAGE)):
            with pytest.raises(ArchiveUnavailable, match=expected):
                call(receiver(port, tls=tls))
    assert kept == []


def test_a_server_of_another_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    theirs = Authority(tmp_path, "other").issue("ris")
    tls = ClientTLS(ca_file=authority.ca_file)
    with (
        serving(server_context(theirs)) as (port, kept),
        pytest.raises(ArchiveUnavailable, match="its certificate is not trusted"),
    ):
        send(receiver(port, tls=tls), MESSAGE)
    assert kept == []


def test_a_server_that_requires_our_certificate_says_so(authority: Authority) -> None:
    tls = ClientTLS(ca_file=authority.ca_file)
    with (
        serving(server_context(authority.issue("ris"), authority)) as (port, kept),
        pytest.raises(ArchiveUnavailable, match=r"requires a certificate of ours|ended the"),
    ):
        send(receiver(port, tls=tls), MESSAGE)
    assert kept == []


def test_a_server_without_tls_is_told_from_one_with(authority: Authority) -> None:
    tls = ClientTLS(ca_file=authority.ca_file)
    with (
        serving() as (port, kept),
        pytest.raises(ArchiveUnavailable, match="as if it spoke plain MLLP"),
    ):
        send(receiver(port, tls=tls), MESSAGE)
    assert kept == []


# ---- Listeners that answer as they like --------------------------------------------------------

Behaviour = Callable[[socket.socket], None]


@contextmanager
def listening(behave: Behaviour) -> Iterator[int]:
    """Take one connection and do with it as the test says; yields the port."""

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            try:
                behave(connection)
            except OSError:  # the caller left, as some tests want
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def receive(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\x1c\r"):
        part = connection.recv(65536)
        if not part:
            break
        received += part
    return received


def replying(*parts: bytes) -> Behaviour:
    """Read the message, answer in these packets, and close."""

    def behave(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        receive(connection)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)

    return behave


def sent_to(behave: Behaviour, **changes: Any) -> Acknowledgement:
    with listening(behave) as port:
        return send(receiver(port, **changes), MESSAGE)


ACCEPTS = framed(answer("AA"))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([ACCEPTS], id="at once"),
        pytest.param([ACCEPTS[at : at + 40] for at in range(0, len(ACCEPTS), 40)], id="split"),
        pytest.param([ACCEPTS[:-2], ACCEPTS[-2:-1], ACCEPTS[-1:]], id="split at the end"),
        pytest.param([ACCEPTS[:-1]], id="no CR after FS"),
        pytest.param([b"\r\n noise " + ACCEPTS], id="noise before"),
        pytest.param([b"\x0bMSH|half", ACCEPTS], id="half a frame before"),
        pytest.param([framed(answer("AE", "another")) + ACCEPTS], id="another message's before"),
        pytest.param([ACCEPTS + framed(answer("AE"))], id="the first of two counts"),
        pytest.param([framed(answer("AA").replace("\r", "\n"))], id="LF for CR"),
        pytest.param([framed(answer("AA").replace("|", "!"))], id="other separators"),
    ],
)
def test_an_acknowledgement_is_found_however_it_comes(parts: list[bytes]) -> None:
    assert sent_to(replying(*parts)).code == "AA"


@pytest.mark.parametrize("code", ACCEPTED)
def test_accepted_is_accepted(code: str) -> None:
    found = sent_to(replying(framed(answer(code, text="stored"))))
    assert found == Acknowledgement(code, CONTROL_ID, "stored")


@pytest.mark.parametrize(
    ("code", "condition", "error"),
    [
        *[("AE", condition, ArchiveRefused) for condition in FINAL_CODES],
        *[("AR", condition, ArchiveRefused) for condition in FINAL_CODES],
        *[("AE", condition, ArchiveUnavailable) for condition in PASSING_CODES],
        *[("AR", condition, ArchiveUnavailable) for condition in PASSING_CODES],
        ("AE", "", ArchiveUnavailable),
        ("AR", "", ArchiveUnavailable),
        ("CE", "", ArchiveUnavailable),
        ("CR", "", ArchiveRefused),
        ("CR", "207", ArchiveUnavailable),
        ("AE", "999", ArchiveUnavailable),
        ("XX", "", ArchiveUnavailable),
        ("", "", ArchiveUnavailable),
    ],
)
def test_what_time_may_heal_is_tried_again(
    code: str, condition: str, error: type[DeliveryError]
) -> None:
    with pytest.raises(error) as caught:
        sent_to(replying(framed(answer(code, error=condition))))
    assert type(caught.value) is error
    assert condition == "999" or condition in str(caught.value)


def test_a_reason_in_the_segment_of_older_versions_counts() -> None:
    old = answer("AR").replace(f"{CONTROL_ID}|", f"{CONTROL_ID}||||203^Unsupported version id")
    with pytest.raises(ArchiveRefused, match="answered AR, 203 unsupported version id"):
        sent_to(replying(framed(old)))


def test_an_error_has_no_words_of_the_receiver() -> None:
    """They may name the patient."""
    said = answer("AE", text="patient Müller unknown", error="Müller")
    with pytest.raises(ArchiveUnavailable) as caught:
        sent_to(replying(framed(said)))
    assert "ller" not in str(caught.value)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(framed(answer("AA", "another")), id="of another message"),
        pytest.param(framed(answer("AA", "")), id="of no message"),
        pytest.param(framed("MSH|^~\\&|RIS\rPID|1\r"), id="no MSA"),
        pytest.param(framed("MSA|AA|" + CONTROL_ID), id="no MSH"),
        pytest.param(framed("MSH"), id="a beginning"),
        pytest.param(framed(""), id="nothing"),
        pytest.param(b"\x0b\xff\xfe\x00\x1c\r", id="no text"),
    ],
)
def test_what_is_no_acknowledgement_of_this_message_accepts_nothing(part: bytes) -> None:
    with pytest.raises(ArchiveUnavailable, match="with no acknowledgement of this message"):
        sent_to(replying(part))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="nothing"),
        pytest.param([ACCEPTS[:-2]], id="half a frame"),
        pytest.param([ACCEPTS[1:]], id="a frame without start"),
        pytest.param([b"HTTP/1.1 400 Bad Request\r\n\r\n"], id="another protocol"),
    ],
)
def test_a_connection_closed_too_early_accepts_nothing(parts: list[bytes]) -> None:
    with pytest.raises(ArchiveUnavailable, match="closed the connection without an ack"):
        sent_to(replying(*parts))


def test_a_receiver_that_breaks_off_mid_message_has_not_accepted_it() -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with listening(behave) as port:
        large = MESSAGE + b"NTE|1|L|" + b"x" * 20_000_000 + b"\r"
        with pytest.raises(ArchiveUnavailable, match="ended the connection without an ack"):
            send(receiver(port), large)


def test_a_receiver_that_stops_reading_is_given_up_in_time() -> None:
    release = threading.Event()

    def behave(_connection: socket.socket) -> None:
        release.wait(10)

    with listening(behave) as port:
        large = MESSAGE + b"NTE|1|L|" + b"x" * 20_000_000 + b"\r"
        started = time.monotonic()
        with pytest.raises(ArchiveUnavailable, match=r"did not acknowledge in 0\.3 s"):
            send(receiver(port, timeout_seconds=0.3), large)
        assert time.monotonic() - started < 8 * SECOND
        release.set()


@pytest.mark.parametrize("part", [b"", b"\x0b", b"x", framed(answer("AA", "another"))])
def test_a_receiver_that_says_nothing_useful_is_given_up_in_time(part: bytes) -> None:
    def behave(connection: socket.socket) -> None:
        receive(connection)
        while True:  # until the caller leaves
            connection.sendall(part)
            connection.settimeout(0.1)
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    started = time.monotonic()
    with pytest.raises(ArchiveUnavailable, match=r"did not acknowledge in 0\.5 s"):
        sent_to(behave, timeout_seconds=0.5)
    assert time.monotonic() - started < 8 * SECOND


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    sent = []

    def behave(connection: socket.socket) -> None:
        receive(connection)
        while True:
            sent.append(connection.send(b"x" * 65536))

    with pytest.raises(ArchiveUnavailable, match="without an acknowledgement"):
        sent_to(behave)
    assert sum(sent) < 100 * LARGEST_ANSWER


def test_a_receiver_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for call in (reach, lambda to: send(to, MESSAGE)):
        with pytest.raises(ArchiveUnavailable, match=f"127.0.0.1:{port} not reached: Connection"):
            call(receiver(port))
    for host in ("nowhere.invalid", "a" * 70 + ".example"):
        with pytest.raises(ArchiveUnavailable, match="not reached: "):
            reach(receiver(port, host=host))


# ---- thoracle check ----------------------------------------------------------------------------


def test_check_says_whether_a_receiver_takes_connections(
    authority: Authority, tmp_path: Path
) -> None:
    tls = ClientTLS(ca_file=authority.ca_file)
    with serving(server_context(authority.issue("ris"))) as (port, kept):
        settings = Settings(
            data_folder=tmp_path / "data",
            hl7=(
                receiver(port, tls=tls),
                receiver(port, name="wrong", host="localhost", tls=ClientTLS()),
            ),
        )
        found = {one.subject: one for one in machine.check(settings)}
    assert found["hl7 ris"].text == "takes connections, with TLS; nothing was sent"
    assert found["hl7 ris"].well
    assert found["hl7 ris tls"].well
    assert "its certificate is not trusted" in found["hl7 wrong"].text
    assert not found["hl7 wrong"].well
    assert kept == []
