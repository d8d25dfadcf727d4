"""A test authority and the files that it issues; trustme makes all of it anew for each run."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import trustme

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, as files."""

    certificate_file: Path
    key_file: Path
    fingerprint: str


class Authority:
    """An authority whose certificate is ``ca_file``."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA(organization_name=f"Test authority {name}")
        self._folder = folder
        self.ca_file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(
        self,
        name: str,
        *hosts: str,
        not_before: datetime = NOW - 2 * DAY,
        not_after: datetime = NOW + 365 * DAY,
    ) -> Identity:
        """Return a new identity for ``hosts``, by default this machine's loopback."""
        made = self._ca.issue_cert(
            *(hosts or ("127.0.0.1", "localhost")),
            common_name=name,
            not_before=not_before,
            not_after=not_after,
        )
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        der = ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())
        return Identity(certificate, key, sha256(der).hexdigest())
