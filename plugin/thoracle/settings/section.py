"""What a table of settings is, and the kinds of values that several tables have."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic import model_validator as validator

from thoracle.errors import SettingsError

AETitle = Annotated[
    str,
    StringConstraints(min_length=1, max_length=16, pattern=r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$"),
]
"""PS3.5 Table 6.2-1, VR AE: 1 to 16 printable characters, no backslash, no space at either end."""
Fingerprint = Annotated[
    str,
    BeforeValidator(lambda text: str(text).replace(":", "").lower()),  # as OpenSSL prints it
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
]
"""SHA-256 of a certificate in DER, hexadecimal."""
Secret = Annotated[str, StringConstraints(pattern=r"^(file|env):.+$")]
"""Where a secret is: never the secret itself."""
Illustrated = tuple[Literal["positive", "indeterminate", "negative"], ...]
"""Outcomes of an image for which an object is made."""
Pictured = tuple[Literal["positive", "indeterminate", "negative", "rejected"], ...]
"""Outcomes of an image for which a picture is made."""
HL7Name = Annotated[str, StringConstraints(max_length=227, pattern=r"^[ -%'-9;-\[\]-{}]*$")]
"""A Hierarchic Designator of HL7 v2.5.1: ASCII without separators (and colons), but for ``^``."""
Port = Annotated[int, Field(ge=1, le=65535)]
FORBIDDEN_MODE = 0o027
"""Permissions that a file with a secret must not have: any for others, write for the group. The
group may read, as ``ssl-cert`` does on Debian and as mounted secrets need."""


class Section(BaseModel):
    """A table of the configuration file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class ClientTLS(Section):
    """TLS of a destination (PS3.15 Section B.12: BCP 195)."""

    ca_file: Path | None = Field(
        None, description="Authorities of its certificate, PEM; unset: those of this machine."
    )
    certificate_file: Path | None = Field(
        None, description="Certificate that we show, with its chain, PEM."
    )
    key_file: Path | None = Field(
        None,
        description="Its private key, PEM, without a passphrase, permissions at most 0640. With certificate_file.",
    )
    minimum_version: Literal["1.2", "1.3"] = Field("1.2", description="Oldest TLS version used.")
    fingerprint: Fingerprint | None = Field(
        None,
        description="SHA-256 fingerprint that its certificate must have; then its name is not compared.",
    )

    @validator(mode="after")
    def _certificate_and_key(self) -> "ClientTLS":
        if (self.certificate_file is None) is not (self.key_file is None):
            raise ValueError(
                "found one of certificate_file and key_file, required: both or neither"
            )
        return self


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_private(setting: str, path: Path) -> None:
    """Return when nobody but its owner and group may read a file with a secret.

    Raises
    ------
    SettingsError
        Others may.
    OSError
        There is no such file.
    """
    mode = path.stat().st_mode & 0o777
    if mode & FORBIDDEN_MODE:
        raise SettingsError(
            f"{setting}: found permissions {mode:04o} on {path}, required: at most 0640"
        )
