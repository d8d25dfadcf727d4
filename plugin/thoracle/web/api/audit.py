"""``/api/audit``: the trail as JSON, for programs of auditors (docs/audit.md)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field

from thoracle.audit import beginning, query, timestamps
from thoracle.audit.timestamps import Stamp
from thoracle.audit.verification import last_verified
from thoracle.errors import ThoracleError
from thoracle.notify import witness
from thoracle.notify.witness import Witnessed
from thoracle.store.anchors import ANCHORS_FILE, read_anchors
from thoracle.store.tables import timestamp
from thoracle.web.openapi import Refusal
from thoracle.web.pages import asked as asking
from thoracle.web.pages.asked import CURSOR, Asked
from thoracle.web.pages.audit import verifier_of
from thoracle.web.parameters import RowId
from thoracle.web.session.access import Person, Role, scoped
from thoracle.web.site import site_of
from thoracle.web.verifier import Run, State
from thoracle.wording import RESEARCH_USE_ONLY

router = APIRouter(prefix="/api/audit", tags=["audit"])
Auditor = Annotated[Person, Depends(scoped("audit:read", Role.AUDITOR))]
UTC_TIME = "ISO 8601, UTC."


class EventAnswer(BaseModel):
    """A row of the audit; what it does not have is null."""

    id: int = Field(description="Number of the row; there are no gaps.")
    recorded_at: str = Field(description=UTC_TIME)
    event: str = Field(description="What happened, in words, e.g. `image read`.")
    event_id: str = Field(description="EventID of PS3.15 A.5 (DCM), e.g. 110103.")
    event_type_code: str | None = Field(None, description="EventTypeCode: of DCM, or our own.")
    action: str = Field(description="C, R, U, D or E.")
    event_outcome: int = Field(description="0 success, 4 minor, 8 serious, 12 major failure.")
    calling_ae_title: str | None = None
    called_ae_title: str | None = None
    network_address: str | None = None
    user_id: str | None = Field(None, description="User: an account, or a user of the machine.")
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    study_instance_uid: str | None = None
    accession_number: str | None = None
    sop_instance_uid: str | None = Field(None, description="Of an image or a workitem.")
    result_sop_instance_uid: str | None = Field(None, description="Of an object that was made.")
    bundle_version: str | None = Field(None, description="Name and version of the bundle.")
    bundle_digest: str | None = Field(None, description="SHA-256 of the bundle, hexadecimal.")
    finding: str | None = Field(None, description="Scheme and code of what was looked for.")
    outcome: str | None = Field(None, description="Of the analysis; research use only.")
    probability: float | None = Field(None, description="Calibrated, 0 to 1.")
    reason_code: str | None = Field(None, description="Why an image was rejected.")
    destination: str | None = None
    proof: str | None = Field(None, description="commitment, query or status.")
    status: str | None = Field(None, description="Of a service, e.g. 0xA700.")
    correlation_id: str | None = Field(None, description="Workflow or association.")
    seconds: float | None = Field(None, description="How long it took.")
    detail: dict[str, Any] = Field(default_factory=dict, description="What has no column.")
    digest: str | None = Field(None, description="SHA-256 of the row before and of this one.")


class EventsAnswer(BaseModel):
    """A page of the audit, the last event first."""

    research_use_only: str = RESEARCH_USE_ONLY
    events: list[EventAnswer]
    cursor: str | None = Field(description="Give it back as `cursor` for the next page.")


class AnchorAnswer(BaseModel):
    """What the chain was at a row."""

    id: int = Field(description="Number of the row.")
    digest: str = Field(description="SHA-256, hexadecimal.")
    recorded_at: str = Field(description=UTC_TIME)


class EndsAnswer(BaseModel):
    """Where the trail begins and ends."""

    rows: int = Field(description="From the last purge to the end of the chain.")
    first_id: int | None
    first_at: str | None = Field(description=UTC_TIME)
    last_id: int | None
    last_at: str | None = Field(description=UTC_TIME)


class WitnessAnswer(BaseModel):
    """How far the second host is that takes the anchors."""

    where: str = Field(description="Its scheme, host and port.")
    last_id: int | None = Field(description="Row of the last anchor that it took.")
    last_at: str | None = Field(description=f"When it took it. {UTC_TIME}")
    waiting: list[int] = Field(description="Rows of anchors that it has not taken yet.")
    detail: str | None = Field(description="Why it did not take the newest of them.")


class StampAnswer(BaseModel):
    """What a time-stamping authority certified last (RFC 3161)."""

    id: int = Field(description="Number of rows that the log had.")
    digest: str = Field(description="SHA-256 of the last of them, hexadecimal.")
    time: str = Field(description=f"Certified. {UTC_TIME}")
    authority: str = Field(description="Who signed it, as its certificate says.")


class VerificationAnswer(BaseModel):
    """What became of the last verification since the pages were started, and the anchors."""

    state: State = Field(description="never, running, well, broken, or failed (could not be run).")
    by: str | None = Field(None, description="Who asked for it.")
    began_at: str | None = Field(None, description=UTC_TIME)
    ended_at: str | None = Field(None, description=UTC_TIME)
    since_id: int | None = Field(None, description="It checks the chain after this row.")
    rows: int | None = Field(None, description="Rows checked so far.")
    total: int | None = Field(None, description="Rows to check when it began.")
    broken_id: int | None = Field(None, description="First row that was changed.")
    fault: str | None = Field(None, description="What does not match there, or why it failed.")
    faults: list[str] = Field(
        default_factory=list, description="Results, verdicts and files that are not as it says."
    )
    purged_rows: int = Field(description="Deleted by rule at the beginning, in all.")
    purged_by: int | None = Field(description="Row of the event of the last purge.")
    verified: AnchorAnswer | None = Field(description="Last row that a verification found intact.")
    anchors: int = Field(description="Number of anchors beside the database.")
    anchor: AnchorAnswer | None = Field(description="The last of them.")
    witness: WitnessAnswer | None = Field(description="Null: none is set.")
    timestamps: int = Field(description="Number of time stamps beside the database.")
    timestamp: StampAnswer | None = Field(description="The last of them.")
    timestamp_fault: str | None = Field(
        description="Why the last of them, or their file, certifies nothing."
    )
    timestamps_lost: list[str] = Field(
        description="Time stamps that the log has recorded and that are not kept."
    )
    trail: EndsAnswer


_UNREADABLE: dict[int | str, dict[str, Any]] = {
    503: {"model": Refusal, "description": "The anchors cannot be read, or one is running."}
}


class EventFilter(Asked):
    """A question, and the page of its answer."""

    limit: int = Field(50, ge=1, le=200, description="Events on a page.")
    cursor: str | None = Field(None, pattern=CURSOR, description="`cursor` of the previous page.")


@router.get("/events")
def events(
    request: Request, person: Auditor, wanted: Annotated[EventFilter, Query()]
) -> EventsAnswer:
    """Return a page of the events that answer a question, the last first."""
    with site_of(request).database.begin() as connection:
        found = query.page(
            connection, wanted.question(), wanted.limit + 1, asking.position(wanted.cursor)
        )
        asking.record(connection, request, person, wanted, found[: wanted.limit])
    shown = found[: wanted.limit]
    cursor = asking.cursor_of(shown[-1]) if len(found) > wanted.limit else None
    return EventsAnswer(events=[_answer(one) for one in shown], cursor=cursor)


@router.get("/events/{row_id}", responses={404: {"model": Refusal, "description": "No such row."}})
def event(
    request: Request,
    person: Auditor,
    row_id: RowId,
) -> EventAnswer:
    """Return one event."""
    with site_of(request).database.begin() as connection:
        found = query.event_row(connection, row_id)
        asking.record_one(connection, request, person, row_id, found)
    if found is None:
        raise HTTPException(404, "found no row with this number, required: a row of the audit")
    return _answer(found)


@router.get("/verification", responses=_UNREADABLE)
def verification(request: Request, person: Auditor) -> VerificationAnswer:
    """Return what became of the last verification, or how far it is. No event is shown."""
    settings = site_of(request).settings
    with site_of(request).database.connect() as connection:
        ends = query.ends(connection)
        begins = beginning.of_trail(connection)
        witnessed = witness.state(connection, settings)
        stamped = timestamps.state(connection, settings)
    try:
        verified, kept = (
            last_verified(settings.pages_folder),
            read_anchors(settings.data_folder / ANCHORS_FILE),
        )
    except ThoracleError as error:
        raise HTTPException(503, str(error)) from error
    return VerificationAnswer(
        **_run(verifier_of(request).run),
        purged_rows=begins.rows,
        purged_by=begins.last.event_id if begins.last else None,
        verified=_anchor(verified),
        anchors=len(kept),
        anchor=_anchor(kept[-1] if kept else None),
        witness=witnessed and _witness(witnessed),
        timestamps=stamped.number,
        timestamp=stamped.last and _stamp(stamped.last, stamped.authority),
        timestamp_fault=stamped.fault or None,
        timestamps_lost=list(stamped.lost),
        trail=EndsAnswer.model_validate(ends, from_attributes=True),
    )


@router.post("/verification", status_code=202, responses=_UNREADABLE)
def verify(
    request: Request,
    person: Auditor,
    whole: Annotated[
        bool, Query(description="From the beginning, not from where the last one ended.")
    ] = False,
) -> VerificationAnswer:
    """Begin a verification, unless one is running; ask with GET what becomes of it."""
    with site_of(request).database.begin() as connection:
        asking.record_verification(connection, request, person, whole)
    try:
        verifier_of(request).begin(person.name, whole)
    except ThoracleError as error:
        raise HTTPException(503, str(error)) from error
    return verification(request, person)


def _answer(found: dict[str, Any]) -> EventAnswer:
    return EventAnswer.model_validate({"event_outcome": 0, **found})


def _anchor(found: Any) -> AnchorAnswer | None:
    return found and AnchorAnswer.model_validate(found, from_attributes=True)


def _witness(found: Witnessed) -> WitnessAnswer:
    return WitnessAnswer(
        where=found.where,
        last_id=found.last_id,
        last_at=found.last_at or None,
        waiting=list(found.waiting),
        detail=found.detail or None,
    )


def _stamp(found: Stamp, authority: str) -> StampAnswer:
    return StampAnswer(
        id=found.anchor.id,
        digest=found.anchor.digest,
        time=timestamp(found.time),
        authority=authority,
    )


def _run(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"state": "never"}
    names = ("state", "by", "began_at", "ended_at", "since_id", "rows", "total")
    values = {name: getattr(run, name) for name in names}
    if run.result is not None:
        return {
            **values,
            "broken_id": run.result.broken_id,
            "fault": run.result.fault or None,
            "faults": list(run.contents.faults) if run.contents else [],
        }
    return {**values, "fault": run.fault or None}
