"""Settings of a gateway among others: what it does, and how long it counts as alive unheard."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from thoracle.settings.section import Section

GatewayName = Annotated[
    str, StringConstraints(max_length=32, pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$")
]
"""Letters, digits, dots and hyphens, as names of hosts have them."""


class Gateway(Section):
    """The gateway, alone or one of several on a database (docs/several-machines.md)."""

    one_of_several: bool = Field(
        False,
        description="Other gateways work on the same PostgreSQL database and the same data folder or bucket; true in the configuration of each. false: this is the only one, and a second is refused.",
    )
    role: Literal["all", "receive", "read"] = Field(
        "all",
        description="all; receive: it listens and completes studies, and loads no network; read: it analyses and delivers, and does not listen. Needs one_of_several.",
    )
    name: GatewayName = Field(
        "",
        description="What it is called in alarms and `thoracle status`; empty: the name of the machine, with the port if it listens.",
    )
    lease_seconds: float = Field(
        60,
        ge=2,
        le=3600,
        description="A gateway that has not renewed its lease for this long stops, and others take over its work, seconds. Longer than the database takes for a failover.",
    )
