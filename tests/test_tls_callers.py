"""TLS of those who call us: without a good certificate they are refused, and it is audited."""

import contextlib
import dataclasses
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from certificates import Identity
from gateway import AE_TITLE, Gateway
from ledger import events, eventually, rows
from peers import require
from radiographs import gradient, radiograph, saved
from sender import encoded, small
from thoracle.deliver import storescu
from thoracle.errors import ArchiveUnavailable
from thoracle.receive import associations
from thoracle.receive.associations import Refusal, Refusals
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.tables import audit_event
from tls_peers import VERSIONS, Names, only, peer, said_by, theirs

ACSE_SECONDS = 3
C_ECHO_RSP = b"\0\0\0\x01\x02\0\0\0\x30\x80"
"""Command Field (0000,0100) of 0x8030, as it is sent."""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Names:
    return Names.issued(tmp_path_factory.mktemp("certificates"))


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
        only(context, version)
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
