"""TLS in and out: certificates right, wrong, expired and missing, and those who speak none."""

import contextlib
import dataclasses
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from certificates import DAY, NOW, Authority, Identity
from gateway import AE_TITLE, Gateway
from ledger import events, eventually, rows
from pacs import free_port
from peers import require
from radiographs import gradient, radiograph, saved
from sender import encoded, small
from thoracle.cli import machine
from thoracle.deliver import storescu
from thoracle.deliver.association import Peer
from thoracle.errors import ArchiveUnavailable, SettingsError
from thoracle.receive import associations
from thoracle.receive.associations import Refusal, Refusals
from thoracle.settings import ClientTLS, ReceiveTLS, parse, tls
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.tables import audit_event

ACSE_SECONDS = 3
C_ECHO_RSP = b"\0\0\0\x01\x02\0\0\0\x30\x80"
"""Command Field (0000,0100) of 0x8030, as it is sent."""
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclasses.dataclass(frozen=True)
class Names:
    """Everybody who has a certificate here."""

    ca: Authority
    other: Authority
    server: Identity
    client: Identity
    second: Identity
    expired: Identity
    future: Identity
    elsewhere: Identity
    stranger: Identity


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Names:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other = Authority(folder), Authority(folder, "other")
    return Names(
        ca,
        other,
        ca.issue("server"),
        ca.issue("client"),
        ca.issue("second"),
        ca.issue("expired", not_after=NOW - DAY),
        ca.issue("future", not_before=NOW + DAY),
        ca.issue("elsewhere", "pacs.example"),
        other.issue("stranger"),
    )


def ours(names: Names, **settings: Any) -> ReceiveTLS:
    return ReceiveTLS(
        **{
            "certificate_file": names.server.certificate_file,
            "key_file": names.server.key_file,
            "client_ca_file": names.ca.ca_file,
            **settings,
        }
    )


def theirs(names: Names, shown: Identity | None = None, **settings: Any) -> ClientTLS:
    if shown is not None:
        settings |= {"certificate_file": shown.certificate_file, "key_file": shown.key_file}
    return ClientTLS(**{"ca_file": names.ca.ca_file, **settings})


def peer(
    port: int, settings: ClientTLS | None, calling: str = "SENDER", seconds: float = 10
) -> Peer:
    return Peer(AE_TITLE, "127.0.0.1", port, calling, seconds, settings)


def said_by(call: Callable[[], object]) -> str:
    """Return the words of the ``ArchiveUnavailable`` that is raised."""
    with pytest.raises(ArchiveUnavailable) as raised:
        call()
    return str(raised.value)


# ---- settings ----------------------------------------------------------------------------------


def test_only_suites_with_forward_secrecy_and_authenticated_encryption_are_offered(
    names: Names,
) -> None:
    suites = {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
    }
    for context in (tls.server_context(ours(names)), tls.client_context(theirs(names))):
        offered = {one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.2"}
        assert offered == suites
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED


def _damaged(names: Names, folder: Path, what: str) -> tuple[dict[str, Path], str]:
    made, key = folder / "made.pem", names.server.key_file
    match what:
        case "missing":
            return {"key_file": made}, "receive.tls.key_file: found .*made.pem: No such file"
        case "no PEM":
            made.write_bytes(b"\x30\x82")
            return {"certificate_file": made}, "receive.tls.certificate_file: found no CERTIFICATE"
        case "a damaged authority":
            made.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            return {"client_ca_file": made}, "receive.tls.client_ca_file: found .*required:"
        case "another's key":
            return {"key_file": names.client.key_file}, "found the key of another certificate"
        case "a readable key":
            made.write_bytes(key.read_bytes())
            made.chmod(0o644)
            return {"key_file": made}, "found permissions 0644 on .*at most 0640"
        case _:
            locked = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", str(key)]
            require("openssl", "openssl")
            subprocess.run([*locked, "-out", str(made)], check=True, timeout=60)
            made.chmod(0o600)
            return {"key_file": made}, "found a key with a passphrase in .*required: one without"


@pytest.mark.parametrize(
    "what",
    ["missing", "no PEM", "a damaged authority", "another's key", "a readable key", "a locked key"],
)
def test_files_that_cannot_be_used_are_named_with_what_is_required(
    names: Names, tmp_path: Path, what: str
) -> None:
    files, words = _damaged(names, tmp_path, what)
    with pytest.raises(SettingsError, match=words) as raised:
        tls.server_context(ours(names, **files))
    assert "secret" not in str(raised.value)


def findings(settings: dict[str, Any]) -> list[machine.CheckResult]:
    checked = machine.check(parse(settings))
    return [one for one in checked if "tls" in one.subject or one.subject.startswith("dest")]


def test_check_says_when_each_certificate_expires_and_calls_archives_by_tls(
    names: Names, tmp_path: Path
) -> None:
    soon = names.ca.issue("soon", not_after=NOW + 20 * DAY + timedelta(hours=1))
    with archive(server_context(names.server)) as port:
        table = {
            "data_folder": str(tmp_path),
            "receive": {"tls": ours(names).model_dump()},
            "destination": [
                {
                    "name": "pacs",
                    "ae_title": "PACS",
                    "host": "127.0.0.1",
                    "port": port,
                    "tls": theirs(names, soon).model_dump(),
                },
            ],
        }
        found = {one.subject: one for one in findings(table)}
    assert found["receive.tls"].well
    own = found["receive.tls certificate_file"]
    assert own.well
    assert names.server.fingerprint in own.text
    assert f"expires on {NOW + 365 * DAY:%Y-%m-%d}, in 36" in own.text
    late = found["destination pacs tls certificate_file"]
    assert late.well
    assert late.text.endswith("in 20 days; renew it")
    assert found["destination pacs"] == machine.CheckResult(
        "destination pacs", True, "answers C-ECHO"
    )


def test_check_calls_an_expired_certificate_and_one_of_tomorrow_faults(names: Names) -> None:
    for identity, words in ((names.expired, "expired on"), (names.future, "to be valid from")):
        files = {"certificate_file": identity.certificate_file, "key_file": identity.key_file}
        settings = {"receive": {"tls": ours(names, **files).model_dump()}}
        found = {one.subject: one for one in findings(settings)}
        assert not found["receive.tls certificate_file"].well
        assert words in found["receive.tls certificate_file"].text
    broken = {"receive": {"tls": ours(names, key_file=names.client.key_file).model_dump()}}
    (fault,) = findings(broken)[:1]
    assert not fault.well
    assert "another certificate" in fault.text


# ---- out ---------------------------------------------------------------------------------------


def server_context(
    shown: Identity, ca: Authority | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """Return the context of an archive; with ``ca`` it requires certificates of that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate_file, shown.key_file)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca.ca_file)
    if version is not None:
        _only(context, version)
    return context


def _only(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    if version is ssl.TLSVersion.TLSv1_1:
        context.set_ciphers("ALL:@SECLEVEL=0")


@contextlib.contextmanager
def archive(context: ssl.SSLContext | None) -> Iterator[int]:
    """An archive that answers C-ECHO; yields its port."""
    ae = AE(ae_title=AE_TITLE)
    ae.add_supported_context(Verification)
    port = free_port()
    server: Any = ae.start_server(("127.0.0.1", port), block=False, ssl_context=context)
    try:
        yield port
    finally:
        server.shutdown()


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


# ---- in ----------------------------------------------------------------------------------------


class SecureGateway(Gateway):
    """A gateway that speaks TLS alone, and binds SENDER to the certificate of ``client``."""

    def __init__(self, folder: Path, names: Names) -> None:
        files = {
            "tls.certificate_file": str(names.server.certificate_file),
            "tls.key_file": str(names.server.key_file),
            "tls.client_ca_file": str(names.ca.ca_file),
        }
        bound = {"tls.fingerprints.SENDER": [names.client.fingerprint]}
        more = {"acse_timeout_seconds": ACSE_SECONDS, "maximum_associations": 10}
        self._echo = theirs(names, names.client)
        super().__init__(folder, receive={**files, **bound, **more})

    def answers(self) -> bool:
        try:
            storescu.echo(peer(self.port, self._echo, "ECHO"))
        except ArchiveUnavailable:
            return False
        return True


@pytest.fixture(scope="module")
def secure(names: Names, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureGateway]:
    with SecureGateway(tmp_path_factory.mktemp("secure"), names) as running:
        yield running
        assert running.terminate() == 0
        assert "Traceback" not in running.log.read_text()


def refused(gateway: Gateway, reason: str) -> list[dict[str, Any]]:
    """Return the rows of the audit about a refusal, once there is one."""
    statement = (
        "SELECT * FROM audit_event WHERE event = 'association refused' "
        "AND json_extract(detail, '$.reason') LIKE ?"
    )
    return eventually(lambda: rows(gateway, statement, f"{reason}%"), 20)


def client_context(
    names: Names, shown: Identity | None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=names.ca.ca_file)
    if shown is not None:
        context.load_cert_chain(shown.certificate_file, shown.key_file)
    if version is not None:
        _only(context, version)
    return context


def knock(port: int, context: ssl.SSLContext) -> bytes:
    """Connect by TLS and return what comes; raises what goes wrong."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return secured.recv(1)


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (None, "shows no certificate"),
        ("stranger", "its certificate is not trusted: unable to get local issuer certificate"),
        ("expired", "its certificate has expired"),
        ("future", "its certificate is not valid yet"),
    ],
)
def test_a_caller_without_a_good_certificate_is_refused_logged_and_audited_once_a_minute(
    secure: SecureGateway, names: Names, who: str | None, reason: str
) -> None:
    shown: Identity | None = getattr(names, who) if who else None
    for version in VERSIONS:
        with pytest.raises(OSError, match=r"(?i)alert|reset|eof"):
            knock(secure.port, client_context(names, shown, version))
    (row,) = refused(secure, reason)
    assert (row["network_address"], row["event_outcome"]) == ("127.0.0.1", 4)
    assert row["calling_ae_title"] is None
    assert f"from 127.0.0.1, {reason} (1 times)" in secure.log.read_text()
    assert secure.answers()
    assert refused(secure, reason) == [row]


def test_an_older_tls_is_refused_and_audited(secure: SecureGateway, names: Names) -> None:
    context = client_context(names, names.client, ssl.TLSVersion.TLSv1_1)
    with pytest.raises(OSError, match=r"(?i)alert|reset|eof"):
        knock(secure.port, context)
    assert len(refused(secure, "has no TLS version and cipher suite in common")) == 1


def test_plain_dicom_on_the_tls_port_is_refused_and_audited(secure: SecureGateway) -> None:
    assert not Gateway.answers(secure)
    assert len(refused(secure, "does not speak TLS")) == 1


def test_tls_on_the_plain_port_is_refused_and_audited(gateway: Gateway, names: Names) -> None:
    with pytest.raises(OSError, match=r"(?i)alert|reset|eof"):
        knock(gateway.port, client_context(names, names.client))
    assert len(refused(gateway, "speaks TLS where receive.tls is not set")) == 1


def test_those_who_connect_and_say_nothing_keep_nobody_out(secure: SecureGateway) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(15):  # more than the limit of associations
            stack.enter_context(socket.create_connection(("127.0.0.1", secure.port), timeout=20))
        started = time.monotonic()
        assert secure.answers()
        assert time.monotonic() - started < ACSE_SECONDS / 2
        last = stack.enter_context(socket.create_connection(("127.0.0.1", secure.port), timeout=20))
        assert last.recv(1) == b""  # closed when the ACSE timeout is over
    assert len(refused(secure, "does not go on with the TLS handshake")) == 1


def test_connections_that_close_at_once_leave_no_row(secure: SecureGateway) -> None:
    for _ in range(30):
        socket.create_connection(("127.0.0.1", secure.port), timeout=10).close()
    assert secure.answers()
    ended = "SELECT * FROM audit_event WHERE detail LIKE '%ended the connection%'"
    assert rows(secure, ended) == []


def test_an_ae_title_may_only_call_with_its_certificate(
    secure: SecureGateway, names: Names
) -> None:
    storescu.echo(peer(secure.port, theirs(names, names.client), "SENDER"))
    storescu.echo(peer(secure.port, theirs(names, names.second), "ANYBODY"))
    said = said_by(lambda: storescu.echo(peer(secure.port, theirs(names, names.second), "SENDER")))
    assert said.endswith("rejected the association")
    (row,) = refused(secure, "its certificate is not one that receive.tls.fingerprints has")
    assert (row["calling_ae_title"], row["called_ae_title"]) == ("SENDER", AE_TITLE)
    assert secure.answers()


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_large_and_many_objects_arrive_whole(
    secure: SecureGateway, names: Names, version: ssl.TLSVersion
) -> None:
    large = radiograph(gradient(3000, 2500))
    with associated(secure.port, client_context(names, names.client, version)) as assoc:
        for ds in [large, *(small() for _ in range(50)), large]:
            assert assoc.send_c_store(ds).Status == 0x0000
    (row,) = events(secure, "instance stored", large.SOPInstanceUID)
    digest = sha256(encoded(large, ExplicitVRLittleEndian)).hexdigest()
    assert digest in row["detail"]
    assert len(events(secure, "instance duplicate", large.SOPInstanceUID)) == 1


@contextlib.contextmanager
def associated(
    port: int, context: ssl.SSLContext, handlers: list[Any] | None = None
) -> Iterator[Association]:
    ae = AE(ae_title="SENDER")
    ae.maximum_pdu_size = 0
    ae.add_requested_context(Verification)
    ae.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
    assoc = ae.associate(
        "127.0.0.1",
        port,
        ae_title=AE_TITLE,
        tls_args=(context, "127.0.0.1"),
        evt_handlers=handlers or [],
    )
    assert assoc.is_established
    yield assoc
    assoc.release()


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_messages_that_come_in_one_record_are_all_answered(
    secure: SecureGateway, names: Names, version: ssl.TLSVersion
) -> None:
    """The first read takes the record from the socket: select() does not show the others."""
    context = client_context(names, names.client, version)
    sent: list[bytes] = []
    listening = [(evt.EVT_DATA_SENT, lambda event: sent.append(event.data))]
    with associated(secure.port, context, listening) as assoc:
        for _ in range(5):
            assert assoc.send_c_echo().Status == 0x0000
    request, *messages, release = sent
    with (
        socket.create_connection(("127.0.0.1", secure.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(request)
        answers = secured.recv(65536)
        assert answers.startswith(b"\x02")  # A-ASSOCIATE-AC
        secured.sendall(b"".join(messages))
        while answers.count(C_ECHO_RSP) < len(messages) == 5:
            answers += secured.recv(65536)
        secured.sendall(release)
        assert secured.recv(65536).startswith(b"\x06")  # A-RELEASE-RP


def test_storescu_of_dcmtk_sends_by_tls(
    secure: SecureGateway, names: Names, tmp_path: Path
) -> None:
    ds = radiograph(gradient(2000, 2000))
    path = saved(ds, tmp_path / "sent.dcm")
    own = ["+tls", str(names.client.key_file), str(names.client.certificate_file)]
    command = [require("storescu", "dcmtk"), *own, "+cf", str(names.ca.ca_file), "-R"]
    where = ["-aet", "SENDER", "-aec", AE_TITLE, "127.0.0.1", str(secure.port), str(path)]
    done = subprocess.run([*command, *where], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert len(events(secure, "instance stored", ds.SOPInstanceUID)) == 1


def test_the_gateway_does_not_start_with_a_key_that_everybody_can_read(
    names: Names, tmp_path: Path
) -> None:
    identity = names.ca.issue("careless")
    identity.key_file.chmod(0o644)
    careless = dataclasses.replace(names, server=identity)
    with pytest.raises(RuntimeError, match="found permissions 0644"):
        SecureGateway(tmp_path, careless).start()


# ---- refusals ----------------------------------------------------------------------------------


def test_refusals_of_a_minute_are_few_rows_and_none_is_uncounted(tmp_path: Path) -> None:
    database = open_database(sqlite_url(tmp_path))
    told = Refusals(database)
    for _ in range(3):
        for number in range(associations.MOST_REFUSALS + 50):
            told.add(Refusal("192.0.2.1", "does not speak TLS", f"AE{number}"))
    told.flush()
    told.add(Refusal("192.0.2.1", "does not speak TLS", "AE0"))  # a new minute: a row at once
    told.flush()
    with database.connect() as connection:
        details = [row.detail for row in connection.execute(audit_event.select())]
    database.dispose()
    assert len(details) == 2 * (associations.MOST_REFUSALS + 1) + 1
    assert sum(detail["times"] for detail in details) == 3 * (associations.MOST_REFUSALS + 50) + 1
