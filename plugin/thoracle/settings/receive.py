"""Settings of what comes before the model: receiving, completing, selecting, decoding."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from thoracle.settings.section import AETitle, Fingerprint, Port, Section


class ReceiveTLS(Section):
    """TLS of the DICOM listener (PS3.15 Section B.12: BCP 195); set it and plain calls are refused."""

    certificate_file: Path = Field(description="Our certificate and its chain, PEM.")
    key_file: Path = Field(
        description="Its private key, PEM, without a passphrase, permissions at most 0640."
    )
    client_ca_file: Path = Field(
        description="Authorities of callers' certificates, PEM; a caller without one is refused."
    )
    minimum_version: Literal["1.2", "1.3"] = Field(
        "1.2", description="Oldest TLS version accepted."
    )
    fingerprints: dict[AETitle, tuple[Fingerprint, ...]] = Field(
        {},
        description="SHA-256 fingerprints of the certificates with which an AE title may call, as a table of lists. AE titles not named here may use any certificate of the authorities.",
    )


CharacterSet = Literal[
    "ISO_IR 100",
    "ISO_IR 101",
    "ISO_IR 109",
    "ISO_IR 110",
    "ISO_IR 144",
    "ISO_IR 127",
    "ISO_IR 126",
    "ISO_IR 138",
    "ISO_IR 148",
    "ISO_IR 203",
    "ISO_IR 166",
    "ISO_IR 13",
    "ISO 2022 IR 149",
    "ISO 2022 IR 58",
    "GB18030",
    "GBK",
]
"""Defined terms of sets whose bytes from 0x80 on are characters (PS3.3 Section C.12.1.1.2)."""


class Budget(Section):
    """What an object may cost before it is taken: the table [receive.budget]. More is refused with 0xC000."""

    nesting: int = Field(64, ge=1, le=100, description="Depth of sequences within sequences.")
    elements: int = Field(
        20_000, ge=1000, description="Data elements, those in sequences included."
    )
    items: int = Field(10_000, ge=100, description="Items of sequences.")
    fragments: int = Field(20_000, ge=1000, description="Fragments of encapsulated pixel data.")
    header_megabytes: int = Field(
        32, ge=1, description="All values but Pixel Data together, megabytes."
    )
    text_kilobytes: int = Field(64, ge=16, description="One value of text, kilobytes.")
    inflated_megabytes: int = Field(
        64, ge=16, description="What a deflated data set may grow to, megabytes."
    )
    seconds: float = Field(
        10, gt=0, le=60, description="Processor time to check one object, seconds."
    )


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
    store_ae_titles: tuple[AETitle, ...] = Field(
        (),
        description="Those of them that may send images; empty: all. Who may ask for workitems, claim them and subscribe to them is set in [ups] and [[subscriber]].",
    )
    secondary_capture: bool = Field(
        False, description="Accept Secondary Capture too (digitised film, photographs of screens)."
    )
    maximum_associations: int = Field(
        50,
        ge=1,
        le=500,
        description="Associations at the same time, 1 to 500. One address may have nine tenths of them, one AE title at one address four fifths, so that others always find a place.",
    )
    maximum_pdu_bytes: int = Field(
        131072,
        ge=16384,
        le=1048576,
        description="Largest PDU accepted, bytes. Large ones save processor time.",
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
        2048, ge=1, le=4095, description="Largest object accepted, megabytes."
    )
    echo_tells_storage: bool = Field(
        True,
        description="C-ECHO fails while no object could be stored, e.g. because the disk is full; false: it says only that we answer.",
    )
    default_character_set: CharacterSet = Field(
        "ISO_IR 100",
        description="What the text of images is in that declare no Specific Character Set and is no UTF-8: a defined term.",
    )
    budget: Budget = Field(
        Budget(), description="What an object may cost: the table [receive.budget]."
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


OwnWords = tuple[Annotated[str, StringConstraints(min_length=1, max_length=64)], ...]
"""A site's own words and codes; case, accents and what parts words make no difference."""


class Select(Section):
    """Which images are analysed."""

    minimum_rows_columns: int = Field(
        512, ge=64, le=4096, description="Smallest rows and columns, pixels."
    )
    for_processing: bool = Field(
        False, description="Analyse DX For Processing too (raw data without a window)."
    )
    minimum_age_years: int | None = Field(
        None,
        ge=0,
        le=120,
        description="Younger patients are rejected, years; unset: the bundle's least age, 0: none are. Unknown ages are analysed.",
    )
    chest_words: OwnWords = Field(
        (),
        description="What devices of this site write for the chest, beside the words that are known: whole values of Body Part Examined or of a description, or codes as VALUE^SCHEME.",
    )
    other_region_words: OwnWords = Field(
        (),
        description="What they write for other regions, as in chest_words: such images are rejected.",
    )
    frontal_words: OwnWords = Field(
        (),
        description="What they write for a frontal view: whole values of View Position or of a description, or codes as VALUE^SCHEME.",
    )
    other_view_words: OwnWords = Field(
        (), description="What they write for other views, as in frontal_words: rejected."
    )


class Decode(Section):
    """The child process that decodes pixel data."""

    memory_megabytes: int = Field(
        2048, ge=256, description="Address space of the child, megabytes."
    )
    timeout_seconds: float = Field(60, gt=0, le=600, description="Time for one image, seconds.")
