"""Questions to the trail as an address has them: of the page, of its exports and of the API."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from thoracle.audit.query import Question
from thoracle.store import trail
from thoracle.store.tables import timestamp
from thoracle.web.session.access import Person, record_access


def _moment(text: str) -> str:
    """Return a point in time as the trail keeps it; without a zone it is UTC."""
    found = datetime.fromisoformat(text.replace(" ", "+"))  # "+" in a query is a blank
    return timestamp(found if found.tzinfo else found.replace(tzinfo=UTC))


Moment = Annotated[str | None, AfterValidator(lambda text: text and _moment(text))]


class Asked(BaseModel):
    """A question; a parameter that is not known is refused, because the patient may be in it."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    since: Moment = Field(
        None, max_length=40, description="Not before; ISO 8601, UTC unless it has a zone."
    )
    until: Moment = Field(None, max_length=40, description="Before; as since.")
    event: str | None = Field(
        None, max_length=32, description="What happened, e.g. `image read` (docs/tables.md)."
    )
    action: Literal["C", "R", "U", "D", "E"] | None = Field(
        None, description="Create, read, update, delete or execute (PS3.15 Table A.5.1-1)."
    )
    event_outcome: int | None = Field(
        None, ge=0, le=12, description="0 success, 4 minor, 8 serious, 12 major failure."
    )
    patient_id: str | None = Field(None, max_length=64)
    issuer_of_patient_id: str | None = Field(None, max_length=64)
    study_instance_uid: str | None = Field(None, max_length=64)
    accession_number: str | None = Field(None, max_length=64)
    sop_instance_uid: str | None = Field(
        None, max_length=64, description="Of an image, or of an object that was made."
    )
    ae_title: str | None = Field(None, max_length=16, description="Calling or called AE title.")
    network_address: str | None = Field(None, max_length=64)
    user_id: str | None = Field(None, max_length=64, description="Who did it.")
    bundle: str | None = Field(
        None, max_length=64, description="Digest of a bundle, or its name and version."
    )
    finding: str | None = Field(
        None, max_length=33, description="Scheme and code, e.g. `SCT:233604007`."
    )
    outcome: str | None = Field(None, max_length=16, description="Of the analysis.")
    reason_code: str | None = Field(
        None, max_length=16, description="Why an image was rejected (docs/tables.md)."
    )
    destination: str | None = Field(None, max_length=32)
    proof: str | None = Field(None, max_length=16, description="commitment, query or status.")
    status: str | None = Field(None, max_length=8, description="Of a service, e.g. 0xA700.")
    at_least_seconds: float | None = Field(None, ge=0, description="Minimum duration in seconds.")

    def question(self) -> Question:
        """Return it as the trail takes it."""
        return Question(**{name: getattr(self, name) for name in FIELDS}, shown=True)

    def pairs(self) -> list[tuple[str, str]]:
        """Return what is asked for, as the parameters of an address."""
        return [(name, str(value)) for name in FIELDS if (value := getattr(self, name)) is not None]

    def address(self, path: str, **more: str) -> str:
        """Return the address of an answer to this question."""
        pairs = [*self.pairs(), *more.items()]
        return f"{path}?{urlencode(pairs)}" if pairs else path


FIELDS = tuple(Asked.model_fields)
"""The fields of a question, which are those of ``audit.query.Question``."""
CURSOR = r"^[0-9T:.Z-]{27}~[0-9]{1,18}$"
"""Of 18 digits at most: a number of 64 bits."""


def position(cursor: str | None) -> tuple[str, int] | None:
    """Return where a page begins, as the trail takes it."""
    if cursor is None:
        return None
    moment, _, row_id = cursor.partition("~")
    return moment, int(row_id)


def cursor_of(event: dict[str, Any]) -> str:
    """Return what leads to the page behind an event."""
    return f"{event['recorded_at']}~{event['id']}"


def record(
    connection: Connection,
    request: Request,
    person: Person,
    asked: Asked,
    shown: Sequence[dict[str, Any]] = (),
) -> None:
    """Record that somebody reads the trail, what for, and whose events were shown."""
    question = asked.question()
    columns: trail.Columns = {
        "study_instance_uid": question.study_instance_uid,
        "patient_id": question.patient_id,
        "issuer_of_patient_id": question.issuer_of_patient_id,
        "accession_number": question.accession_number,
        "detail": {"question": question.given(), **studies_of(shown)},
    }
    record_access(connection, request, person, trail.Event.AUDIT_READ, columns)


def studies_of(shown: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return what the detail of a reading says of the events that it showed."""
    uids = {uid for one in shown if (uid := one.get("study_instance_uid"))}
    return {"studies": sorted(uids)} if uids else {}


def record_one(
    connection: Connection,
    request: Request,
    person: Person,
    row_id: int,
    event: dict[str, Any] | None,
) -> None:
    """Record that somebody reads one event, whose patient is named."""
    columns: trail.Columns = {"detail": {"question": {"id": row_id}}}
    if event is None:
        columns["event_outcome"] = trail.MINOR_FAILURE
    else:
        columns["study_instance_uid"] = event.get("study_instance_uid")
        columns["patient_id"] = event.get("patient_id")
        columns["issuer_of_patient_id"] = event.get("issuer_of_patient_id")
        columns["accession_number"] = event.get("accession_number")
    record_access(connection, request, person, trail.Event.AUDIT_READ, columns)


def record_verification(
    connection: Connection, request: Request, person: Person, whole: bool
) -> None:
    """Record that somebody has the trail verified."""
    verified = "whole" if whole else "since the last verification"
    columns: trail.Columns = {"detail": {"question": {"verify": verified}}}
    record_access(connection, request, person, trail.Event.AUDIT_READ, columns)
