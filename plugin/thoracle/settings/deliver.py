"""Settings of who gets results and who is told of them: destinations, HL7, rules."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from pydantic import model_validator as validator

from thoracle.records import Outcome
from thoracle.settings.section import (
    AETitle,
    ClientTLS,
    HL7Name,
    Port,
    Secret,
    Section,
    is_loopback,
)

Mailbox = Annotated[str, StringConstraints(pattern=r"^[^\s@<>,;:\"]{1,64}@[A-Za-z0-9.-]{1,255}$")]
"""An address of RFC 5321 without quotes or display name."""


class Deliver(Section):
    """Attempts to send, for every destination and receiver alike."""

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
        2, ge=1, le=20, description="Associations or requests at the same time to one peer."
    )
    rate_per_second: int = Field(
        10,
        ge=1,
        le=1000,
        description="Associations or requests per second to one peer; each carries what a study has for it.",
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for each answer, seconds."
    )
    commitment_seconds: float = Field(
        3600,
        gt=0,
        description="How long an archive may take to report on a Storage Commitment, seconds; then it is requested again.",
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
        examples=["pacs"],
        description="Short name in status and audit: a-z, 0-9, - and _.",
    )
    ae_title: AETitle | None = Field(
        None, examples=["PACS"], description="AE title of the archive."
    )
    host: str | None = Field(
        None, min_length=1, examples=["192.0.2.10"], description="Host name or address."
    )
    port: Port | None = Field(None, examples=[11112], description="TCP port, 1 to 65535.")
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
        description="With an https url: where the bearer token is, `file:PATH` or `env:NAME`; re-read for each delivery.",
    )
    username: str | None = Field(
        None, description="With an https url: user name of HTTP basic authentication."
    )
    password: Secret | None = Field(
        None, description="With username: where the password is, `file:PATH` or `env:NAME`."
    )
    kinds: tuple[Literal["sr", "sc", "pr", "ko"], ...] = Field(
        ("sr", "sc", "pr", "ko"), description="Which of the objects made it gets."
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
            raise ValueError(f"found {found}, required: ae_title, host and port, or url alone")
        return self

    @validator(mode="after")
    def _credentials(self) -> "Destination":
        secret = self.token or self.username or self.password
        if secret and self.token and (self.username or self.password):
            raise ValueError("found token and username, required: one of them")
        if (self.username is None) is not (self.password is None):
            raise ValueError("found one of username and password, required: both")
        if (secret or (self.url and self.tls)) and not (self.url or "").startswith("https:"):
            raise ValueError(f"found credentials or tls with {self.url}, required: an https url")
        return self


class HL7(Section):
    """Who receives results by HL7 v2.5.1 (ORU^R01 over MLLP), e.g. the RIS; see docs/hl7.md."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        examples=["ris"],
        description="Short name in status and audit: a-z, 0-9, - and _; none of a destination.",
    )
    host: str = Field(min_length=1, examples=["192.0.2.20"], description="Host name or address.")
    port: Port = Field(
        examples=[2575], description="TCP port, 1 to 65535; 2575 is registered for HL7."
    )
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
        description="Outcomes of a study that are sent to it. Whoever got one also gets its correction.",
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for the acknowledgement, seconds."
    )


class Webhook(Section):
    """Who gets a small JSON document for each result or alarm, by HTTP POST (docs/webhook.md)."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        examples=["chat"],
        description="Short name in status and audit: a-z, 0-9, - and _; none of another peer.",
    )
    url: str = Field(
        pattern=r"^https?://[^\s#@]+$",
        examples=["https://hooks.hospital.example/thoracle"],
        description="Where it is posted; http only without patient_data. Redirections are not followed.",
    )
    secret: Secret = Field(
        examples=["file:webhook.secret"],
        description="Where the secret of the signature is, `file:PATH` or `env:NAME`: 16 or more characters, or whsec_ and base64.",
    )
    outcomes: tuple[Outcome, ...] = Field(
        tuple(Outcome), description="Outcomes of a study that are sent to it; [] for none."
    )
    alarms: bool = Field(True, description="Send it alarms too.")
    patient_data: bool = Field(
        False,
        description="Include patient data: identifiers of patient, order and study, name, birth date, and text that a person typed.",
    )
    tls: ClientTLS | None = Field(None, description="With https: the table [webhook.tls].")
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for the answer, seconds."
    )

    @validator(mode="after")
    def _https(self) -> "Webhook":
        if (self.patient_data or self.tls) and not self.url.startswith("https:"):
            raise ValueError("found patient_data or tls with http, required: an https url")
        return self


class Email(Section):
    """Who gets an e-mail for each result or alarm, over SMTP (docs/email.md)."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        examples=["duty"],
        description="Short name in status and audit: a-z, 0-9, - and _; none of another peer.",
    )
    host: str = Field(
        min_length=1,
        examples=["mail.hospital.example"],
        description="Mail server: name or address.",
    )
    port: Port = Field(587, description="TCP port, 1 to 65535: 587 with starttls, 465 with tls.")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="starttls, tls or none; none only on this machine."
    )
    tls: ClientTLS | None = Field(
        None, description="The table [email.tls]; unset: authorities of this machine."
    )
    username: str | None = Field(None, description="To log in; unset: no log-in.")
    password: Secret | None = Field(
        None, description="With username: where the password is, `file:PATH` or `env:NAME`."
    )
    sender: Mailbox = Field(examples=["thoracle@hospital.example"], description="Sender address.")
    to: tuple[Mailbox, ...] = Field(
        min_length=1,
        examples=[("radiology@hospital.example",)],
        description="Recipient addresses.",
    )
    outcomes: tuple[Outcome, ...] = Field(
        (), description="Outcomes of a study that are mailed; none by default."
    )
    alarms: bool = Field(True, description="Mail alarms.")
    patient_data: bool = Field(
        False,
        description="Include patient data, as for [[webhook]]. E-mail is rarely encrypted all the way.",
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for each answer, seconds."
    )

    @validator(mode="after")
    def _secured(self) -> "Email":
        if (self.username is None) is not (self.password is None):
            raise ValueError("found one of username and password, required: both")
        if self.security == "none" and (self.username or self.tls or not is_loopback(self.host)):
            raise ValueError(
                "found security none with a log-in, tls or another machine, required: starttls or tls"
            )
        return self


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
    kinds: tuple[Literal["sr", "sc", "pr", "ko"], ...] = Field(
        ("sr", "sc", "pr", "ko"),
        description="Which of the objects made are sent, of those in the destination's own kinds.",
    )
    originals: bool = Field(False, description="Send the received images too.")
    priority: Literal["stat", "routine", "backlog"] | None = Field(
        None, description="stat, routine or backlog; of several rules the most urgent counts."
    )
    notify: tuple[str, ...] = Field(
        (),
        description="Names of [[hl7]], [[webhook]] and [[email]] tables. One that a rule names gets only studies for which such a rule fires.",
    )
    hold: bool = Field(False, description="Send nothing until somebody releases the study.")
    shadow: bool = Field(False, description="Analyse and audit, and send nothing.")
