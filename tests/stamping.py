"""A time-stamping authority (RFC 3161): `openssl ts` behind HTTP on this machine."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CONFIG = """
[tsa]
default_tsa = this
[this]
serial = {folder}/serial
default_policy = 1.2.3.4.1
digests = {digests}
signer_digest = sha256
ess_cert_id_alg = sha256
"""


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class StampingAuthority:
    """Answers queries with a key and a certificate of its own.

    Parameters
    ----------
    folder
        Its files are there.
    name
        In its certificates.
    digests
        Which it stamps; any other is rejected.
    """

    def __init__(self, folder: Path, name: str = "stamper", digests: str = "sha256") -> None:
        folder.mkdir()
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = self._certificate(f"{name} root", f"{name} root", root_key, root_key, stamps=False)
        own = self._certificate(name, f"{name} root", key, root_key, stamps=True)
        self.ca_file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
        (folder / "own.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        (folder / "own.key").write_bytes(key.private_bytes(*form, serialization.NoEncryption()))
        (folder / "serial").write_text("01\n")
        (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder, digests=digests))

    @staticmethod
    def _certificate(
        subject: str,
        issuer: str,
        key: ec.EllipticCurvePrivateKey,
        signing_key: ec.EllipticCurvePrivateKey,
        *,
        stamps: bool,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(subject))
            .issuer_name(_named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=not stamps, path_length=None), critical=True)
        )
        if stamps:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(signing_key, hashes.SHA256())

    def answer(self, query: bytes) -> bytes:
        """Return what `openssl ts` answers to a query."""
        path = self._folder / "query"
        path.write_bytes(query)
        command = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query"]
        command += ["-signer", "own.pem", "-inkey", "own.key", "-out", "answer"]
        subprocess.run(command, cwd=self._folder, capture_output=True, check=True)
        return (self._folder / "answer").read_bytes()


@dataclass
class Asked:
    """A server of time stamps, and what was asked of it."""

    url: str
    queries: list[tuple[str, bytes]] = field(default_factory=list)
    """Content type and body."""


@contextmanager
def stamping(answer: Callable[[bytes], bytes], status: int = 200) -> Iterator[Asked]:
    """Answer on this machine what a function makes of a query."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            asked.queries.append((self.headers["Content-Type"], query))
            said = answer(query)
            self.send_response(status)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    asked = Asked(f"http://127.0.0.1:{server.server_address[1]}/tsa")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
