"""The settings: one frozen tree read from TOML. Every field says its unit, range and default.

``thoracle init`` writes the descriptions as comments of a new configuration, and
``thoracle check`` reports each fault with setting, value found and value required.
"""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from pydantic import model_validator as validator

from thoracle.errors import SettingsError
from thoracle.settings import faults
from thoracle.settings.audit import Audit, AuditRepository, Witness
from thoracle.settings.deliver import HL7, Deliver, Destination, Email, Rule, Webhook
from thoracle.settings.fleet import Gateway
from thoracle.settings.receive import Budget, Complete, Decode, Receive, ReceiveTLS, Select
from thoracle.settings.result import Classify, Report
from thoracle.settings.section import ClientTLS, Section, is_loopback
from thoracle.settings.storage import Database, Erasure, ObjectStore, Retention
from thoracle.settings.ups import UPS, Subscriber, WorkflowManager
from thoracle.settings.web import AGREEMENT_DAYS, OIDC, Rank, Watch, Web

__all__ = [
    "HL7",
    "OIDC",
    "UPS",
    "Audit",
    "AuditRepository",
    "Budget",
    "Classify",
    "ClientTLS",
    "Complete",
    "Database",
    "Decode",
    "Deliver",
    "Destination",
    "Email",
    "Erasure",
    "Gateway",
    "ObjectStore",
    "Rank",
    "Receive",
    "ReceiveTLS",
    "Report",
    "Retention",
    "Rule",
    "Section",
    "Select",
    "Settings",
    "Subscriber",
    "Watch",
    "Web",
    "Webhook",
    "Witness",
    "WorkflowManager",
    "anchored",
    "is_loopback",
    "load",
    "parse",
]

S = TypeVar("S", bound=Section)

PAGES_FOLDER = "pages"
"""Below the data folder."""


class Settings(Section):
    """The whole configuration."""

    data_folder: Path = Field(
        Path("thoracle-data"),
        description="Everything that Thoracle keeps is below this folder, except rows in PostgreSQL and objects in a bucket. On a network disk only where several gateways share it (docs/several-machines.md).",
    )
    data_folder_group: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?$",
        description="Group, by name or number, of two users: that of the gateway, who owns the data folder, and that of the pages (docs/two-users.md). Empty: both run as one user, and nobody else can enter the folder.",
    )
    log_level: str = Field(
        "INFO",
        pattern=r"^(DEBUG|INFO|WARNING|ERROR)$",
        description="DEBUG, INFO, WARNING or ERROR.",
    )
    database: Database = Database()
    objects: ObjectStore = ObjectStore()
    gateway: Gateway = Gateway()
    receive: Receive = Receive()
    complete: Complete = Complete()
    select: Select = Select()
    decode: Decode = Decode()
    classify: Classify = Classify()
    report: Report = Report()
    deliver: Deliver = Deliver()
    ups: UPS = UPS()
    web: Web = Web()
    watch: Watch = Watch()
    retention: Retention = Retention()
    erasure: Erasure = Erasure()
    audit: Audit = Audit()
    destination: tuple[Destination, ...] = Field(
        (), description="One [[destination]] table for each archive."
    )
    hl7: tuple[HL7, ...] = Field(
        (), description="One [[hl7]] table for each system that receives results."
    )
    webhook: tuple[Webhook, ...] = Field(
        (), description="One [[webhook]] table for each program that receives results or alarms."
    )
    email: tuple[Email, ...] = Field(
        (), description="One [[email]] table for each group of people who get e-mail."
    )
    rule: tuple[Rule, ...] = Field(
        (), description="One [[rule]] table for each routing rule; none: everybody gets everything."
    )
    rank: tuple[Rank, ...] = Field(
        (),
        description="One [[rank]] table for each reason to read a study sooner; none: those of docs/worklist.md.",
    )
    subscriber: tuple[Subscriber, ...] = Field(
        (), description="One [[subscriber]] table for each station that may subscribe to workitems."
    )
    workflow_manager: tuple[WorkflowManager, ...] = Field(
        (), description="One [[workflow_manager]] table for each whose workitems we perform."
    )
    audit_repository: tuple[AuditRepository, ...] = Field(
        (), description="One [[audit_repository]] table for each that gets the audit."
    )

    @property
    def pages_folder(self) -> Path:
        """Where the pages keep what is theirs, beside pictures: with two users, a folder of its own."""
        return self.data_folder / PAGES_FOLDER if self.data_folder_group else self.data_folder

    @property
    def receivers(self) -> tuple[HL7 | Webhook | Email, ...]:
        """Who can be told of a result by a message."""
        return (*self.hl7, *self.webhook, *self.email)

    @validator(mode="after")
    def _several_share_a_database(self) -> "Settings":
        if self.gateway.one_of_several and not self.database.url:
            raise ValueError(
                "gateway.one_of_several: found true without database.url, required: a PostgreSQL "
                "database, which several gateways can share"
            )
        if self.gateway.role != "all" and not self.gateway.one_of_several:
            raise ValueError(
                f"gateway.role: found {self.gateway.role} without gateway.one_of_several, "
                "required: all, for one gateway alone has to do everything"
            )
        return self

    @validator(mode="after")
    def _pages_have_no_key_of_a_bucket(self) -> "Settings":
        if self.objects.bucket and self.data_folder_group:
            raise ValueError(
                "objects.bucket: found one with data_folder_group, required: one of them: with the "
                "key of a bucket, pages could delete what they may not delete in the data folder"
            )
        return self

    @validator(mode="after")
    def _callers_are_named(self) -> "Settings":
        if not is_loopback(self.receive.host) and not self.receive.calling_ae_titles:
            raise ValueError(
                f"receive.calling_ae_titles: found none while receive.host is {self.receive.host}, "
                "required: at least one AE title when other machines can connect"
            )
        return self

    @validator(mode="after")
    def _who_may_ask_is_named(self) -> "Settings":
        if is_loopback(self.receive.host) or not self.ups.offer:
            return self
        for name in ("query_ae_titles", "claim_ae_titles"):
            if not getattr(self.ups, name):
                raise ValueError(
                    f"ups.{name}: found none while receive.host is {self.receive.host}, required: "
                    "at least one AE title when other machines can ask for workitems"
                )
        return self

    @validator(mode="after")
    def _statistics_keep_their_rows(self) -> "Settings":
        compared = self.watch.window_days + self.watch.reference_days
        for name, least, of in (
            ("studies_days", compared, "watch.window_days and watch.reference_days together"),
            ("readings_days", compared, "watch.window_days and watch.reference_days together"),
            ("verdicts_days", AGREEMENT_DAYS, "what the watch on agreement looks at"),
        ):
            found = getattr(self.retention, name)
            if 0 < found < least:
                raise ValueError(
                    f"retention.{name}: found {found}, required: 0 or at least {least} days, {of}"
                )
        return self

    @validator(mode="after")
    def _repositories_are_unique(self) -> "Settings":
        names = [one.name for one in self.audit_repository]
        if len(set(names)) < len(names):
            raise ValueError(
                f"audit_repository.name: found {', '.join(names)}, required: different names"
            )
        return self

    @validator(mode="after")
    def _names_are_unique(self) -> "Settings":
        if any(one.name == "ups" for one in self.receivers):
            raise ValueError(
                "name: found ups among the receivers, required: another name: in a rule's notify it is a workitem"
            )
        names = [one.name for one in self.destination] + [one.name for one in self.receivers]
        names += [one.name for one in self.workflow_manager]
        names += [self.audit.witness.name] if self.audit.witness else []
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"destination.name, hl7.name, webhook.name, email.name, workflow_manager.name, audit.witness: found {', '.join(twice)} twice, required: different names"
            )
        return self


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
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{path}: {reason}; required: a configuration file that can be read"
        raise SettingsError(message) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
        found = [faults.sentence(one, values, Settings) for one in error.errors()]
        raise SettingsError("\n".join(found)) from error
