"""Settings of workitems (PS3.4 Annex CC): those that we offer, and those that we perform."""

from typing import Annotated

from pydantic import Field, StringConstraints

from thoracle.records import Outcome
from thoracle.settings.section import AETitle, ClientTLS, Port, Section

CodeValue = Annotated[str, StringConstraints(min_length=1, max_length=16)]


class UPS(Section):
    """The workitems "review AI result" that Thoracle's own listener offers (docs/ups.md)."""

    offer: bool = Field(
        False,
        description="Offer them: the listener then accepts UPS Pull, Watch, Event and Query too.",
    )
    query_ae_titles: tuple[AETitle, ...] = Field(
        (),
        description="AE titles that may ask for workitems (C-FIND, N-GET). Required with offer once receive.host is not a loopback address; empty accepts any caller.",
    )
    claim_ae_titles: tuple[AETitle, ...] = Field(
        (),
        description="AE titles that may claim and change workitems (N-ACTION, N-SET); otherwise as query_ae_titles. Who may subscribe to them is a [[subscriber]].",
    )
    outcomes: tuple[Outcome, ...] = Field(
        (Outcome.POSITIVE, Outcome.REJECTED),
        description="Outcomes of a study for which one is offered.",
    )
    worklist_label: str = Field(
        "THORACLE", min_length=1, max_length=64, description="Worklist Label (0074,1202) of each."
    )


class Subscriber(Section):
    """Where event reports about workitems go: a station that may subscribe (PS3.4 Section CC.2.3)."""

    ae_title: AETitle = Field(
        examples=["WORKSTATION"], description="AE title with which it subscribes."
    )
    host: str = Field(min_length=1, examples=["192.0.2.30"], description="Host name or address.")
    port: Port = Field(examples=[11112], description="TCP port, 1 to 65535.")
    tls: ClientTLS | None = Field(
        None, description="TLS: the table [subscriber.tls]; unset: plain DICOM."
    )

    @property
    def name(self) -> str:
        """Its AE title: it subscribes with it."""
        return self.ae_title


class WorkflowManager(Section):
    """A workflow manager whose workitems Thoracle performs (IHE AIW-I, by pulling)."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        examples=["workflow"],
        description="Short name in status and audit: a-z, 0-9, - and _.",
    )
    ae_title: AETitle = Field(examples=["WORKFLOW"], description="AE title of its worklist.")
    host: str = Field(min_length=1, examples=["192.0.2.40"], description="Host name or address.")
    port: Port = Field(examples=[11112], description="TCP port, 1 to 65535.")
    calling_ae_title: AETitle | None = Field(
        None, description="AE title that we call with; unset: receive.ae_title."
    )
    tls: ClientTLS | None = Field(
        None, description="TLS: the table [workflow_manager.tls]; unset: plain DICOM."
    )
    poll_seconds: float = Field(
        10, ge=1, le=3600, description="Time between two looks into its list, seconds."
    )
    workitem_code: CodeValue = Field(
        "110003",
        description="Code Value (DCM) of workitems that are ours; 110003 is Computer Aided Diagnosis.",
    )
    station_code: str = Field(
        "",
        max_length=16,
        description="Code Value of the Scheduled Station Name that is ours; empty: any.",
    )
    retrieve: bool = Field(
        True,
        description="Ask the archive that a workitem names (one of the destinations) for images that are not here, by C-MOVE.",
    )
    patience_seconds: float = Field(
        900,
        gt=0,
        le=86400,
        description="A workitem whose images have not arrived after this many seconds is canceled.",
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="Time to connect, and for each answer, seconds."
    )
