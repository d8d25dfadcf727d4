"""The settings: one frozen tree read from TOML. Every field says its unit, range and default.

``thoracle init`` writes the descriptions below as comments of a new configuration, and
``thoracle check`` reports each fault with setting, value found and value required.
"""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic import model_validator as validator

from thoracle.errors import SettingsError
from thoracle.records import Outcome

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
HL7Name = Annotated[str, StringConstraints(max_length=227, pattern=r"^[ -%'-9;-\[\]-{}]*$")]
"""A Hierarchic Designator of HL7 v2.5.1: ASCII without separators (and colons), but for ``^``."""
Port = Annotated[int, Field(ge=1, le=65535)]


S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """A table of the configuration file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class ReceiveTLS(Section):
    """TLS of the DICOM listener (PS3.15 Section B.12: BCP 195); set it and plain calls are refused."""

    certificate_file: Path = Field(description="Our certificate and its chain, PEM.")
    key_file: Path = Field(
        description="Its private key, PEM, without a passphrase, permissions at most 0640."
    )
    client_ca_file: Path = Field(
        description="Authorities of callers' certificates, PEM; a caller without one is refused."
    )
    minimum_version: Literal["1.2", "1.3"] = Field("1.2", description="Oldest TLS version taken.")
    fingerprints: dict[AETitle, tuple[Fingerprint, ...]] = Field(
        {},
        description="SHA-256 fingerprints of the certificates with which an AE title may call, as a table of lists. AE titles not named here may use any certificate of the authorities.",
    )


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
                "found one of certificate_file and key_file, required are both or neither"
            )
        return self


class Receive(Section):
    """The DICOM listener."""

    ae_title: AETitle = Field("THORACLE", description="Our AE title; callers must use it exactly.")
    host: str = Field(
        "127.0.0.1", description="Address to listen on. The default is this machine only."
    )
    port: Port = Field(11112, description="TCP port to listen on, 1 to 65535.")
    calling_ae_titles: tuple[AETitle, ...] = Field(
        (),
        description="AE titles that may send. Required once host is not a loopback address; empty accepts any.",
    )
    secondary_capture: bool = Field(
        False, description="Accept Secondary Capture too (digitised film, photographs of screens)."
    )
    maximum_associations: int = Field(
        50,
        ge=1,
        le=500,
        description="Associations at the same time, 1 to 500. A PACS opens several per route.",
    )
    maximum_pdu_bytes: int = Field(
        131072,
        ge=16384,
        le=1048576,
        description="Largest PDU that we take, bytes. Large ones save processor time.",
    )
    acse_timeout_seconds: float = Field(
        10,
        gt=0,
        le=60,
        description="Time for the association request, seconds; cuts port scans and health probes.",
    )
    dimse_timeout_seconds: float = Field(
        60, gt=0, le=600, description="Time for the rest of a begun message, seconds."
    )
    network_timeout_seconds: float = Field(
        300,
        gt=0,
        le=3600,
        description="Idle time until we end an association, seconds. A PACS pauses between series.",
    )
    reserve_megabytes: int = Field(
        1024,
        ge=1,
        description="Below this free space, megabytes, objects are refused with 0xA700 so that the sender keeps them.",
    )
    maximum_object_megabytes: int = Field(
        2048, ge=1, le=4095, description="Largest object that is taken, megabytes."
    )
    tls: ReceiveTLS | None = Field(
        None, description="TLS: the table [receive.tls]; unset: plain DICOM."
    )


class Complete(Section):
    """When a study counts as complete."""

    quiet_after_release_seconds: float = Field(
        2,
        ge=0.1,
        le=600,
        description="Quiet time after the sender released its association, seconds.",
    )
    quiet_otherwise_seconds: float = Field(
        30,
        ge=0.1,
        le=3600,
        description="Quiet time while an association is open or was broken off, seconds.",
    )
    cap_seconds: float = Field(
        600,
        ge=1,
        le=86400,
        description="A study is analysed at the latest this long after its first image, seconds.",
    )


class Select(Section):
    """Which images are analysed."""

    minimum_rows_columns: int = Field(
        512, ge=64, le=4096, description="Smallest rows and columns, pixels."
    )
    for_processing: bool = Field(
        False, description="Analyse DX For Processing too (raw data without a window)."
    )
    minimum_age_years: int = Field(
        0,
        ge=0,
        le=120,
        description="Younger patients are rejected, years; 0 accepts all ages. Unknown ages are analysed.",
    )


class Decode(Section):
    """The child process that decodes pixel data."""

    memory_megabytes: int = Field(
        2048, ge=256, description="Address space of the child, megabytes."
    )
    timeout_seconds: float = Field(60, gt=0, le=600, description="Time for one image, seconds.")


class Classify(Section):
    """The model."""

    bundle: Path | None = Field(
        None,
        description="Folder of a MONAI bundle. A bundle is code: only ever name a folder that you trust. Unset: the shipped one.",
    )
    digest: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest the bundle must have (`thoracle check` prints it). Required with bundle.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Processor threads of the networks; 0 takes one per core. 1 reads more images a second in all, each one slower.",
    )
    runtime: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description="What runs the networks: torch, the reference; openvino, faster; auto takes openvino where it is installed (`pip install thoracle[openvino]`).",
    )

    @validator(mode="after")
    def _bundle_needs_digest(self) -> "Classify":
        if self.bundle is not None and self.digest is None:
            raise ValueError(
                "found a bundle without a digest, required is `digest` beside `bundle`"
            )
        return self


class Report(Section):
    """What is made of a result. The structured report (sr) always is."""

    institution_name: str = Field(
        "",
        max_length=64,
        description="Institution Name (0008,0080) of our objects; empty leaves it out.",
    )
    series_number: int = Field(
        9001,
        ge=1,
        le=99990,
        description="Series Number of the report, high so that it sorts last; sc, pr, ko and seg have the next ones.",
    )
    sc: Illustrated = Field(
        ("positive",),
        description="Outcomes (positive, indeterminate, negative) of images that get a Secondary Capture with a heat map.",
    )
    pr: Illustrated = Field(
        ("positive",),
        description="Outcomes of images that get a presentation state, which outlines the salient region.",
    )
    ko: Illustrated = Field(
        ("positive",), description="Outcomes of images that a Key Object Selection names."
    )
    seg: Illustrated = Field(
        (), description="Outcomes of images that get a fractional segmentation of the saliency."
    )


class Deliver(Section):
    """Attempts to deliver, for every destination alike."""

    first_delay_seconds: float = Field(
        60, gt=0, description="Delay after the first failed attempt, seconds; doubles each time."
    )
    longest_delay_seconds: float = Field(
        3600, gt=0, description="Longest delay between two attempts, seconds."
    )
    jitter: float = Field(
        0.1, ge=0, le=0.5, description="Random part of each delay, 0 to 0.5 of it."
    )
    give_up_days: float = Field(
        7, gt=0, le=365, description="After this many days a result counts as failed."
    )
    concurrency: int = Field(
        2, ge=1, le=20, description="Associations at the same time to one destination."
    )
    rate_per_second: int = Field(
        10, ge=1, le=1000, description="Objects per second to one destination."
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for each answer, seconds."
    )
    commitment_seconds: float = Field(
        3600,
        gt=0,
        description="How long an archive may take to report on a Storage Commitment, seconds; then it is asked again.",
    )
    commitment_requests: int = Field(
        2,
        ge=1,
        le=10,
        description="How often it is asked before a query has to prove the delivery.",
    )


class Destination(Section):
    """Who gets the results: an archive by C-STORE (ae_title, host, port) or by STOW-RS (url)."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        description="Short name in status and audit: a-z, 0-9, - and _.",
    )
    ae_title: AETitle | None = Field(None, description="AE title of the archive.")
    host: str | None = Field(None, min_length=1, description="Host name or address.")
    port: Port | None = Field(None, description="TCP port, 1 to 65535.")
    calling_ae_title: AETitle | None = Field(
        None, description="AE title that we call with; unset: receive.ae_title."
    )
    tls: ClientTLS | None = Field(
        None,
        description="TLS: the table [destination.tls]; unset: plain DICOM. Only https may set it for a url.",
    )
    url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#@]+$",
        description="DICOMweb root in place of ae_title, host and port; /studies is added.",
    )
    token: Secret | None = Field(
        None,
        description="With an https url: where the bearer token is, `file:PATH` or `env:NAME`; read anew for each delivery.",
    )
    username: str | None = Field(
        None, description="With an https url: user name of HTTP basic authentication."
    )
    password: Secret | None = Field(
        None, description="With username: where the password is, `file:PATH` or `env:NAME`."
    )
    kinds: tuple[Literal["sr", "sc", "pr", "ko", "seg"], ...] = Field(
        ("sr", "sc", "pr", "ko", "seg"), description="Which of the objects made it gets."
    )
    proof: Literal["commitment", "query", "status"] = Field(
        "commitment",
        description="Best proof of keeping to ask for: commitment (Storage Commitment), else query (C-FIND or QIDO-RS), else status (of the C-STORE or STOW-RS). What it does not offer is left out.",
    )
    rejection_note: bool = Field(
        False,
        description="On `thoracle withdraw`, send an IOCM rejection note too (docs/corrections.md). Some archives then hide objects: try it on a test archive first.",
    )

    @validator(mode="after")
    def _one_address(self) -> "Destination":
        dimse = {"ae_title": self.ae_title, "host": self.host, "port": self.port}
        given = [name for name, value in dimse.items() if value is not None]
        if (self.url is None) is (not given) or (given and len(given) < len(dimse)):
            found = ", ".join([*given, *(["url"] if self.url else [])]) or "none of them"
            raise ValueError(f"found {found}, required are ae_title, host and port, or url alone")
        return self

    @validator(mode="after")
    def _credentials(self) -> "Destination":
        secret = self.token or self.username or self.password
        if secret and self.token and (self.username or self.password):
            raise ValueError("found token and username, required is one of them")
        if (self.username is None) is not (self.password is None):
            raise ValueError("found one of username and password, required are both")
        if (secret or (self.url and self.tls)) and not (self.url or "").startswith("https:"):
            raise ValueError(f"found credentials or tls with {self.url}, required is an https url")
        return self


class HL7(Section):
    """Who is told of results by HL7 v2.5.1 (ORU^R01 over MLLP), e.g. the RIS; see docs/hl7.md."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        description="Short name in status and audit: a-z, 0-9, - and _; none of a destination.",
    )
    host: str = Field(min_length=1, description="Host name or address.")
    port: Port = Field(description="TCP port, 1 to 65535; 2575 is registered for HL7.")
    tls: ClientTLS | None = Field(None, description="TLS: the table [hl7.tls]; unset: plain MLLP.")
    sending_application: HL7Name = Field(
        "THORACLE", description="MSH-3: our name, or name^OID^ISO."
    )
    sending_facility: HL7Name = Field("", description="MSH-4, alike; empty leaves it out.")
    receiving_application: HL7Name = Field("", description="MSH-5, alike; empty leaves it out.")
    receiving_facility: HL7Name = Field("", description="MSH-6, alike; empty leaves it out.")
    processing_id: Literal["P", "T", "D"] = Field(
        "P", description="MSH-11: P production, T training, D debugging."
    )
    character_set: Literal["UNICODE UTF-8", "8859/1", "ASCII"] = Field(
        "UNICODE UTF-8",
        description="MSH-18: UNICODE UTF-8, 8859/1 or ASCII. What the last two do not hold is sent as ?.",
    )
    outcomes: tuple[Outcome, ...] = Field(
        tuple(Outcome),
        description="Outcomes of a study that it is told of. Whoever was told of one is told of its correction too.",
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for the acknowledgement, seconds."
    )


class Rule(Section):
    """What becomes of the studies for which a condition holds (docs/routing.md)."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        description="Short name in explanations and audit: a-z, 0-9, - and _.",
    )
    when: str = Field(
        "true",
        description="Condition in CEL over DICOM keywords, CallingAETitle and the result; true: every study.",
    )
    send: tuple[str, ...] = Field(
        (),
        description="Names of destinations. A destination that a rule names gets only what rules that fire send it.",
    )
    kinds: tuple[Literal["sr", "sc", "pr", "ko", "seg"], ...] = Field(
        ("sr", "sc", "pr", "ko", "seg"),
        description="Which of the objects made are sent, of those in the destination's own kinds.",
    )
    originals: bool = Field(False, description="Send the received images too.")
    priority: Literal["stat", "routine", "backlog"] | None = Field(
        None, description="stat, routine or backlog; of several rules the most urgent counts."
    )
    notify: tuple[str, ...] = Field(
        (),
        description="Names of [[hl7]] receivers. One that a rule names is told only of studies for which such a rule fires.",
    )
    hold: bool = Field(False, description="Send nothing until somebody releases the study.")
    shadow: bool = Field(False, description="Analyse and audit, and send nothing.")


class Settings(Section):
    """The whole configuration."""

    data_folder: Path = Field(
        Path("thoracle-data"),
        description="Everything that Thoracle keeps is below this folder. Not on a network disk.",
    )
    log_level: str = Field(
        "INFO",
        pattern=r"^(DEBUG|INFO|WARNING|ERROR)$",
        description="DEBUG, INFO, WARNING or ERROR.",
    )
    receive: Receive = Receive()
    complete: Complete = Complete()
    select: Select = Select()
    decode: Decode = Decode()
    classify: Classify = Classify()
    report: Report = Report()
    deliver: Deliver = Deliver()
    destination: tuple[Destination, ...] = Field(
        (), description="One [[destination]] table for each archive."
    )
    hl7: tuple[HL7, ...] = Field(
        (), description="One [[hl7]] table for each system that is told of results."
    )
    rule: tuple[Rule, ...] = Field(
        (), description="One [[rule]] table for each routing rule; none: everybody gets everything."
    )

    @validator(mode="after")
    def _callers_are_named(self) -> "Settings":
        if not is_loopback(self.receive.host) and not self.receive.calling_ae_titles:
            raise ValueError(
                f"receive.calling_ae_titles: found none while receive.host is {self.receive.host}, "
                "required is at least one AE title when other machines can connect"
            )
        return self

    @validator(mode="after")
    def _names_are_unique(self) -> "Settings":
        names = [one.name for one in self.destination] + [one.name for one in self.hl7]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"destination.name, hl7.name: found {', '.join(twice)} twice, required are different names"
            )
        return self


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load(path: Path) -> Settings:
    """Return the settings in a TOML file.

    Relative paths are taken from the folder of the file.

    Raises
    ------
    SettingsError
        With one line for each fault: setting, value found, value required.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return anchored(parse(values), path.resolve().parent)


def anchored(section: S, folder: Path) -> S:
    """Return a section of which relative paths, in its tables too, start at ``folder``."""
    changed: dict[str, Any] = {}
    for name in type(section).model_fields:
        match getattr(section, name):
            case Path() as path:
                changed[name] = folder / path
            case Section() as table:
                changed[name] = anchored(table, folder)
            case tuple() as tables if tables and isinstance(tables[0], Section):
                changed[name] = tuple(anchored(table, folder) for table in tables)
            case str() as text if text.startswith("file:"):  # a Secret; no other text has a colon
                changed[name] = f"file:{folder / text.removeprefix('file:')}"
    return section.model_copy(update=changed)


def parse(values: dict[str, Any]) -> Settings:
    """Return the settings in a tree of plain values.

    Raises
    ------
    SettingsError
        With one line for each fault: setting, value found, value required.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(fault) for fault in error.errors())) from error


def _sentence(fault: Any) -> str:
    setting = ".".join(str(part) for part in fault["loc"])
    match fault["type"]:
        case "extra_forbidden":
            return f"{setting}: unknown setting, found {fault['input']!r}; `thoracle init` lists all settings"
        case "missing":
            return f"{setting}: found nothing, required is a value"
        case "value_error":
            message = str(fault["ctx"]["error"])
            return f"{setting}: {message}" if setting else message
        case _ if fault["loc"][-1] in ("token", "password"):  # it may be the secret itself
            return f"{setting}: found a text that is not shown, required: {fault['msg']}"
        case _:
            return f"{setting}: found {fault['input']!r}, required: {fault['msg']}"
