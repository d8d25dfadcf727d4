"""The settings: one frozen tree read from TOML. Every field says its unit, range and default.

``thoracle init`` writes the descriptions below as comments of a new configuration, and
``thoracle check`` reports each fault with setting, value found and value required.
"""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import model_validator as validator

from thoracle.errors import SettingsError

AETitle = Annotated[
    str,
    StringConstraints(min_length=1, max_length=16, pattern=r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$"),
]
"""PS3.5 Table 6.2-1, VR AE: 1 to 16 printable characters, no backslash, no space at either end."""
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A table of the configuration file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


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
        0, ge=0, le=256, description="Processor threads of the network; 0 takes one per core."
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
    """What the reports say about their origin."""

    institution_name: str = Field(
        "",
        max_length=64,
        description="Institution Name (0008,0080) of our objects; empty leaves it out.",
    )
    series_number: int = Field(
        9001, ge=1, le=99999, description="Series Number of the report, high so that it sorts last."
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


class Destination(Section):
    """An archive that gets the results."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        description="Short name in status and audit: a-z, 0-9, - and _.",
    )
    ae_title: AETitle = Field(description="AE title of the archive.")
    host: str = Field(min_length=1, description="Host name or address.")
    port: Port = Field(description="TCP port, 1 to 65535.")
    calling_ae_title: AETitle | None = Field(
        None, description="AE title that we call with; unset: receive.ae_title."
    )


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
        names = [destination.name for destination in self.destination]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"destination.name: found {', '.join(twice)} twice, required are different names"
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

    A relative ``data_folder`` or ``classify.bundle`` is taken from the folder of the file.

    Raises
    ------
    SettingsError
        With one line for each fault: setting, value found, value required.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    settings = parse(values)
    folder = path.resolve().parent
    bundle = settings.classify.bundle
    return settings.model_copy(
        update={
            "data_folder": folder / settings.data_folder,
            "classify": settings.classify.model_copy(update={"bundle": bundle and folder / bundle}),
        }
    )


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
        case _:
            return f"{setting}: found {fault['input']!r}, required: {fault['msg']}"
