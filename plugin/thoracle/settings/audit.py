"""Settings of who gets the audit, and of who vouches for it: repositories, witness, time stamps."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field
from pydantic import model_validator as validator

from thoracle.settings.section import ClientTLS, Port, Secret, Section, is_loopback

LARGEST_DATAGRAM = 65507
"""Bytes of data that UDP over IPv4 holds."""


class Witness(Section):
    """A second host that keeps the anchors of the audit (docs/audit-witness.md)."""

    url: str = Field(
        pattern=r"^https?://[^\s#@]+$",
        examples=["https://witness.hospital.example/thoracle"],
        description="Where each anchor is posted; http only to this machine. Redirections are not followed.",
    )
    token: Secret | None = Field(
        None,
        description="Where the bearer token is, `file:PATH` or `env:NAME`; re-read for each anchor.",
    )
    tls: ClientTLS | None = Field(
        None, description="The table [audit.witness.tls]; unset: authorities of this machine."
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for the answer, seconds."
    )

    @property
    def name(self) -> str:
        """What it is called in status and audit: there is one."""
        return "witness"

    @validator(mode="after")
    def _https(self) -> "Witness":
        host = urlsplit(self.url).hostname or ""
        secured = self.url.startswith("https:")
        if not secured and (self.token or self.tls or not is_loopback(host)):
            raise ValueError(
                "found http with token, tls or another machine, required: an https url"
            )
        return self


class Audit(Section):
    """Who outside vouches for the audit: a witness of its anchors, and time stamps (docs/audit-witness.md)."""

    witness: Witness | None = Field(
        None, description="The table [audit.witness]; unset: anchors stay on this machine."
    )
    timestamp_url: str = Field(
        "",
        pattern=r"^(https?://[^\s]*)?$",
        description="Time-stamping authority (RFC 3161) that `thoracle audit timestamp` asks; http will do: its answer is signed.",
    )
    timestamp_ca_file: Path | None = Field(
        None,
        description="Root certificates of that authority, and those between, PEM; required for `thoracle audit timestamp`.",
    )


class AuditRepository(Section):
    """An Audit Record Repository that gets every event of the audit (docs/audit-forwarding.md)."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        examples=["repository"],
        description="Short name in status and audit: a-z, 0-9, - and _. Another name is another repository: it gets everything again.",
    )
    host: str = Field(min_length=1, examples=["192.0.2.50"], description="Host name or address.")
    port: Port = Field(6514, description="Port, 1 to 65535; of TLS 6514, of UDP 514.")
    transport: Literal["tls", "udp", "tcp"] = Field(
        "tls",
        description="tls (RFC 5425), udp (RFC 5426, messages may be lost) or tcp (to this machine only).",
    )
    tls: ClientTLS | None = Field(
        None,
        description="With tls: the table [audit_repository.tls]; unset: authorities of this machine, no certificate of ours.",
    )
    enterprise_site_id: str = Field(
        "", max_length=64, description="AuditEnterpriseSiteID of each message; empty leaves it out."
    )
    source_id: str = Field(
        "", max_length=64, description="AuditSourceID of each message; empty: receive.ae_title."
    )
    msgid: Literal["IHE+RFC-3881", "DICOM+RFC3881"] = Field(
        "IHE+RFC-3881", description="MSGID: IHE+RFC-3881 (ITI-20) or DICOM+RFC3881 (PS3.15 A.6)."
    )
    backlog: bool = Field(
        True, description="Also send events from before it was configured; else only new ones."
    )
    largest_bytes: int = Field(
        32768,
        ge=2048,
        le=1048576,
        description="Largest message, bytes; of a larger one the longest texts are replaced by their length and SHA-256.",
    )
    resend_seconds: float = Field(
        5,
        ge=0.1,
        le=3600,
        description="What was sent this many seconds before a connection broke is sent again.",
    )
    alert_seconds: float = Field(
        60, ge=0, le=86400, description="Unreachable for this long, it raises an alert, seconds."
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for it to take what was sent, seconds."
    )

    @validator(mode="after")
    def _transport_fits(self) -> "AuditRepository":
        if self.transport != "tls" and self.tls is not None:
            raise ValueError(f"found tls with transport {self.transport}, required: transport tls")
        if self.transport == "tcp" and not is_loopback(self.host):
            raise ValueError(
                f"found transport tcp to {self.host}, required: tls when it is another machine"
            )
        if self.transport == "udp" and self.largest_bytes > LARGEST_DATAGRAM:
            raise ValueError(
                f"found largest_bytes {self.largest_bytes} with udp, required: at most {LARGEST_DATAGRAM}"
            )
        return self
