"""TLS to archives: who they are is known before anything is sent, and said when it is wrong."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from certificates import Identity
from ledger import eventually
from pacs import free_port
from peers import require
from radiographs import saved
from sender import small
from thoracle.deliver import storescu
from tls_peers import VERSIONS, Names, archive, peer, said_by, server_context, theirs


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Names:
    return Names.issued(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_an_archive_gets_our_certificate_and_says_what_it_has_against_it(
    names: Names, version: ssl.TLSVersion
) -> None:
    shown: dict[Identity | None, str] = {
        names.stranger: "refuses our certificate: not of an authority that it trusts",
        names.expired: "refuses our certificate: expired",
        None: "requires a certificate of ours",
    }
    with archive(server_context(names.server, names.ca, version)) as port:
        storescu.echo(peer(port, theirs(names, names.client)))
        for identity, words in shown.items():
            for _ in range(3):  # with TLS 1.3 it says so only after we have sent
                assert words in said_by(lambda: storescu.echo(peer(port, theirs(names, identity))))  # noqa: B023 - called at once


def test_an_archive_whose_certificate_is_not_good_is_told_from_the_others(names: Names) -> None:
    shown = {
        names.stranger: "its certificate is not trusted",
        names.expired: "its certificate has expired",
        names.future: "its certificate is not valid yet",
        names.elsewhere: "its certificate is another host's: IP address mismatch, certificate is "
        "not valid for '127.0.0.1'",
    }
    for identity, words in shown.items():
        with archive(server_context(identity)) as port:
            assert words in said_by(lambda: storescu.echo(peer(port, theirs(names))))


def test_an_older_tls_is_not_used(names: Names) -> None:
    with archive(server_context(names.server, version=ssl.TLSVersion.TLSv1_1)) as port:
        said = said_by(lambda: storescu.echo(peer(port, theirs(names))))
    assert said.endswith("has no TLS version and cipher suite in common with us")
    with archive(server_context(names.server, version=ssl.TLSVersion.TLSv1_2)) as port:
        said = said_by(lambda: storescu.echo(peer(port, theirs(names, minimum_version="1.3"))))
    assert said.endswith("has no TLS version and cipher suite in common with us")


def test_a_fingerprint_stands_for_the_name_and_must_be_right_before_anything_is_sent(
    names: Names,
) -> None:
    right = theirs(names, fingerprint=names.elsewhere.fingerprint)
    with archive(server_context(names.elsewhere)) as port:
        storescu.echo(peer(port, right))
    with Raw(server_context(names.server)) as raw:
        said = said_by(lambda: storescu.echo(peer(raw.port, right)))
    assert f"SHA-256 {names.server.fingerprint}, required: {names.elsewhere.fingerprint}" in said
    assert raw.received == b""


class Raw:
    """A server that does the handshake, keeps what comes next and never answers."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self._thread = threading.Thread(target=self._serve)
        self.port = self._listener.getsockname()[1]
        self.received = b""

    def __enter__(self) -> "Raw":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join(30)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):
            if self._context is not None:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    while more := secured.recv(65536):
                        self.received += more
            while connection.recv(65536):
                pass


def test_an_archive_that_falls_silent_is_left_in_time(names: Names) -> None:
    """Tickets of TLS 1.3 wake select() although no PDU has come; that read must have an end."""
    for context, words in (
        (None, "does not go on with the TLS handshake, as if it spoke plain DICOM"),
        (server_context(names.server), "it took the connection but no association"),
    ):
        with Raw(context) as raw:
            started = time.monotonic()
            call = peer(raw.port, theirs(names), seconds=2)
            assert words in said_by(lambda: storescu.echo(call))  # noqa: B023 - called at once
            assert time.monotonic() - started < 10


def test_an_archive_of_plain_dicom_is_said_not_to_speak_tls(names: Names) -> None:
    with archive(None) as port:
        said = said_by(lambda: storescu.echo(peer(port, theirs(names))))
    assert said.endswith("does not speak TLS")


def test_storescp_of_dcmtk_takes_an_object_by_tls_and_refuses_strangers(
    names: Names, tmp_path: Path
) -> None:
    port, ds = free_port(), small()
    own = ["+tls", str(names.server.key_file), str(names.server.certificate_file)]
    command = [require("storescp", "dcmtk"), *own, "+cf", str(names.ca.ca_file), "-od"]
    process = subprocess.Popen([*command, str(tmp_path), str(port)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _connects(port), 20)
        path = saved(ds, tmp_path / "sent.dcm")
        sent = storescu.send(peer(port, theirs(names, names.client)), [path])
        assert list(sent) == [(path, "sent: 0x0000")]
        assert len(list(tmp_path.glob(f"*{ds.SOPInstanceUID}*"))) == 1
        said = said_by(lambda: storescu.echo(peer(port, theirs(names, names.stranger))))
        assert "refuses our certificate" in said
    finally:
        process.kill()
        process.wait()


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
