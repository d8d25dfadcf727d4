"""Settings of the pages: who may open them, how they are ordered, and what is watched."""

from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from pydantic import model_validator as validator

from thoracle.settings.section import Port, Secret, Section, is_loopback

Roles = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class OIDC(Section):
    """Log-in by an OpenID Connect provider, beside local accounts."""

    issuer: str = Field(
        pattern=r"^https?://[^\s?#@]+$",
        description="URL of the provider; https, except on this machine. /.well-known/openid-configuration is added.",
    )
    client_id: str = Field(
        min_length=1, description="Name under which the provider knows Thoracle."
    )
    client_secret: Secret = Field(
        description="Where the client secret is: `file:PATH` or `env:NAME`."
    )
    roles_claim: str = Field(
        "roles",
        min_length=1,
        description="Claim of the ID token that lists the roles of a person; dots lead into objects, e.g. realm_access.roles.",
    )
    reader: Roles = Field("reader", description="Value of that claim for readers.")
    administrator: Roles = Field(
        "administrator", description="Value of that claim for administrators."
    )
    auditor: Roles = Field("auditor", description="Value of that claim for auditors.")
    ca_file: Path | None = Field(
        None,
        description="Authorities of the provider's certificate, PEM; unset: those of this machine.",
    )

    @validator(mode="after")
    def _encrypted(self) -> "OIDC":
        host = self.issuer.partition("://")[2].partition("/")[0].partition(":")[0]
        if self.issuer.startswith("http:") and not is_loopback(host):
            raise ValueError(f"found issuer {self.issuer}, required: an https url")
        return self


class Web(Section):
    """The pages of `thoracle web`: worklist, study, dashboard, and the interfaces for programs."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on. The default is this machine only."
    )
    port: Port = Field(8080, description="TCP port to listen on, 1 to 65535.")
    certificate_file: Path | None = Field(
        None, description="Our certificate and its chain, PEM, for https."
    )
    key_file: Path | None = Field(
        None,
        description="Its private key, PEM, without a passphrase, permissions at most 0640. With certificate_file.",
    )
    proxy_addresses: tuple[str, ...] = Field(
        (),
        description="Addresses of a reverse proxy that ends TLS; what it says of the caller (X-Forwarded-For, -Proto) is believed.",
    )
    trusted_hosts: tuple[str, ...] = Field(
        (),
        description="Names by which browsers may call the pages, as in their address. Required once host is not a loopback address.",
    )
    site_name: str = Field("", max_length=64, description="Shown at the top of every page.")
    viewer_url: str = Field(
        "",
        pattern=r"^(https?://[^\s]*)?$",
        description="The site's viewer, e.g. https://viewer.example/?study={StudyInstanceUID}; {StudyInstanceUID}, {AccessionNumber} and {PatientID} are filled in. Empty: no link.",
    )
    connections_per_address: int = Field(
        100,
        ge=10,
        le=400,
        description="Connections that one address may have, 10 to 400; beyond them the oldest that waits is closed. Addresses of a proxy may have all.",
    )
    readers_see_kept_back: bool = Field(
        False,
        description="Readers see on the pages what a [[rule]] holds or shadows, marked so; false: that a result is held or shadow, and no more. Administrators and auditors always see it, programs never.",
    )
    session_hours: float = Field(
        12, gt=0, le=168, description="A session ends after this many hours."
    )
    idle_minutes: float = Field(
        60, gt=0, le=1440, description="A session ends after this many minutes without a click."
    )
    lockout_failures: int = Field(
        5, ge=1, le=100, description="Failed log-ins in a row that lock an account."
    )
    lockout_minutes: float = Field(
        15, gt=0, le=1440, description="How long an account is locked, minutes."
    )
    second_factor: Literal["optional", "required"] = Field(
        "optional",
        description="`required`: whoever has a password here sets up an authenticator app at the next log-in, and can do nothing before (docs/people.md).",
    )
    oidc: OIDC | None = Field(
        None, description="OpenID Connect: the table [web.oidc]; unset: local accounts alone."
    )

    @validator(mode="after")
    def _names_can_be_compared(self) -> "Web":
        for name in self.trusted_hosts:
            if "/" in name or name.rpartition(":")[2].isdecimal():
                raise ValueError(
                    f"found {name!r} in trusted_hosts, required: a name or [IPv6 address] alone, "
                    "without a scheme and a port"
                )
        for address in self.proxy_addresses:
            try:
                ip_address(address)
            except ValueError as error:
                raise ValueError(
                    f"found {address!r} in proxy_addresses, required: an IP address, e.g. 192.0.2.1"
                ) from error
        return self

    @validator(mode="after")
    def _reached_safely(self) -> "Web":
        if (self.certificate_file is None) is not (self.key_file is None):
            raise ValueError(
                "found one of certificate_file and key_file, required: both or neither"
            )
        if is_loopback(self.host):
            return self
        if self.certificate_file is None and not self.proxy_addresses:
            raise ValueError(
                f"found host {self.host} without certificate_file and proxy_addresses, required: "
                "https, by one or the other, when other machines can connect"
            )
        if not self.trusted_hosts:
            raise ValueError(
                f"found host {self.host} without trusted_hosts, required: at least one name when "
                "other machines can connect"
            )
        return self


class Rank(Section):
    """A reason to read a study sooner (docs/worklist.md). Of those that hold, the largest counts."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        description="Short name in `why this rank`: a-z, 0-9, - and _.",
    )
    when: str = Field(
        "true",
        description="Condition in CEL, as of a [[rule]]: over DICOM keywords, CallingAETitle and the result.",
    )
    head_start_minutes: int = Field(
        ge=0,
        le=10080,
        description="Minutes by which the study is moved up, 0 to 10080 (a week).",
    )


AGREEMENT_DAYS = 28
"""Over which the watch counts verdicts: they are fewer than studies."""


class Watch(Section):
    """What the dashboard compares, and when an alarm is raised (docs/dashboard.md)."""

    window_days: int = Field(
        7, ge=1, le=90, description="The days up to now that are compared with the reference."
    )
    reference_from: str = Field(
        "",
        pattern=r"^(\d{4}-\d{2}-\d{2})?$",
        description="First day of the reference, e.g. 2026-11-01; empty: the first with results.",
    )
    reference_days: int = Field(28, ge=1, le=366, description="Days that the reference has.")
    minimum_studies: int = Field(
        50, ge=10, le=10000, description="Fewer studies in either span are not compared."
    )
    alarm_index: float = Field(
        0.25,
        gt=0,
        le=5,
        description="Population stability index of scores or of an input feature from which on an alarm is shown, once it is more than chance; 0.1 is a slight shift, 0.25 a strong one.",
    )
    alarm_shift: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Change of the share of positive, indeterminate, rejected or failed studies, 0 to 1, from which on an alarm is shown, once it is more than chance.",
    )
    alarm_agreement: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Share of verdicts that agree, 0 to 1, below which an alarm is shown.",
    )

    unreachable_minutes: float = Field(
        10,
        gt=0,
        le=10080,
        description="A destination or receiver that accepts nothing for this many minutes while something is waiting for it raises an alarm.",
    )
    answer_minutes: float = Field(
        60,
        gt=0,
        le=10080,
        description="A complete study with no answer after this many minutes raises an alarm.",
    )
    refused_images: int = Field(
        10,
        ge=1,
        le=100000,
        description="A device raises an alarm when all its images of the last 24 hours were refused, if there were at least this many.",
    )

    @validator(mode="after")
    def _begins_on_a_day(self) -> "Watch":
        try:
            date.fromisoformat(self.reference_from or "2026-11-01")
        except ValueError as error:
            raise ValueError(
                f"found reference_from {self.reference_from!r}, required: a day of the calendar"
            ) from error
        return self
