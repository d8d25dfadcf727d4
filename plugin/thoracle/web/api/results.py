"""``/api/studies``: results as plain JSON, for scripts and engines that do not speak FHIR.

It tells what ``/fhir`` tells, and where objects went. What a rule holds or shadows has neither a
result nor deliveries here: it is told to nobody outside.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from thoracle.fhir import elements
from thoracle.fhir import rows as fhir_rows
from thoracle.fhir.rows import Search, Study, Token
from thoracle.outbox import rows as outbox
from thoracle.outbox.rows import DICOM
from thoracle.records import Finding, Outcome
from thoracle.store import trail
from thoracle.study.published import KEPT_BACK
from thoracle.web.openapi import MALFORMED, Refusal
from thoracle.web.session.access import Person, Role, record_access, scoped
from thoracle.web.site import site_of
from thoracle.wording import RESEARCH_USE_ONLY

router = APIRouter(prefix="/api", tags=["results"])
Reader = Annotated[Person, Depends(scoped("results:read", Role.READER))]
Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="Study Instance UID.")]

TYPE = "Task"
"""The resource of FHIR that every study has: what finds it, finds the study."""


class CodedReason(BaseModel):
    """Why an image was rejected."""

    code: str
    scheme: str = Field(description="Coding Scheme Designator: DCM or 99THORACLE.")
    meaning: str


class CodedFinding(BaseModel):
    """What the result is about, as the bundle's metadata says."""

    code: str
    scheme: str = Field(description="Coding Scheme Designator.")
    meaning: str
    name: str


class Model(BaseModel):
    """Which model said it."""

    name: str | None
    digest: str = Field(description="SHA-256 of code, weights and calibration, hexadecimal.")


class ResultAnswer(BaseModel):
    """The result that stands; not verified by a physician."""

    finding: CodedFinding | None = Field(
        description="What the outcome is about; null if nothing is known of the model."
    )
    outcome: Outcome
    probability: float | None = Field(description="Calibrated, 0 to 1; none when rejected.")
    threshold: float | None = Field(description="Decision threshold, 0 to 1.")
    reasons: list[CodedReason] = Field(description="Of rejected images, each once.")
    bundle: Model
    report_sop_instance_uid: str | None = Field(description="Of the structured report.")
    finished_at: str = Field(description="ISO 8601, UTC.")


class DeliveryAnswer(BaseModel):
    """One object on its way to one destination."""

    sop_instance_uid: str
    kind: str = Field(description="sr, sc, pr, ko, rejection or original.")
    destination: str
    state: str = Field(description="waiting, sent, delivered, refused, failed or withdrawn.")
    proof: str | None = Field(description="commitment, query or status, once it is delivered.")
    attempts: int
    changed_at: str = Field(description="ISO 8601, UTC.")


class StudyAnswer(BaseModel):
    """A study, and what became of it."""

    research_use_only: str = RESEARCH_USE_ONLY
    study_instance_uid: str
    accession_number: str | None
    patient_id: str | None
    issuer_of_patient_id: str | None
    received_at: str = Field(description="Of the first image; ISO 8601, UTC.")
    changed_at: str = Field(description="ISO 8601, UTC.")
    state: Literal["waiting", "done", "failed", "withdrawn", "held", "shadow"] = Field(
        description="Of the newest analysis; the result may be that of an earlier one."
    )
    result: ResultAnswer | None
    deliveries: list[DeliveryAnswer]


class StudiesAnswer(BaseModel):
    """A page of studies, the last to arrive first."""

    studies: list[StudyAnswer]
    after: str | None = Field(description="Give it back as `after` for the next page.")


class StudySearch(BaseModel):
    """The parameters; one that is not known is refused, because the patient may be in it."""

    model_config = ConfigDict(extra="forbid")

    accession: str | None = Field(None, min_length=1, max_length=64)
    patient_id: str | None = Field(None, min_length=1, max_length=64)
    issuer_of_patient_id: str | None = Field(None, max_length=64)
    limit: int = Field(50, ge=1, le=200)
    after: str | None = Field(None, pattern=r"^[0-9T:.Z-]{27}~[0-9.]{1,64}$")


@router.get(
    "/studies/{study_instance_uid}",
    responses={404: {"model": Refusal, "description": "No such study."}},
)
def study(request: Request, person: Reader, study_instance_uid: Uid) -> StudyAnswer:
    """Return one study."""
    with site_of(request).database.begin() as connection:
        found = fhir_rows.page(connection, Search(TYPE, ids=((study_instance_uid,),)), 1)
        answers = _answers(connection, found)
        record_access(connection, request, person, trail.Event.STUDY_VIEWED, _seen(found))
    if not answers:
        raise HTTPException(404, "found no study with this UID, required: a received study")
    return answers[0]


@router.get("/studies", responses=MALFORMED)
def studies(
    request: Request, person: Reader, wanted: Annotated[StudySearch, Query()]
) -> StudiesAnswer:
    """Return the studies of an order or a patient."""
    search = _search(wanted)
    with site_of(request).database.begin() as connection:
        found = fhir_rows.page(connection, search, wanted.limit + 1)
        shown = found[: wanted.limit]
        answers = _answers(connection, shown)
        record_access(connection, request, person, trail.Event.LIST_VIEWED, _asked(wanted, shown))
    last = shown[-1].row if len(found) > wanted.limit else None
    after = f"{last.first_received_at}~{last.study_instance_uid}" if last else None
    return StudiesAnswer(studies=answers, after=after)


def _search(wanted: StudySearch) -> Search:
    if wanted.accession is None and wanted.patient_id is None:
        raise HTTPException(400, "found neither accession nor patient_id, required: one of them")
    after = tuple(wanted.after.split("~")) if wanted.after else None
    patient = wanted.patient_id and Token(wanted.issuer_of_patient_id, wanted.patient_id)
    return Search(
        TYPE,
        accessions=((Token(None, wanted.accession),),) if wanted.accession else (),
        patients=((patient,),) if patient else (),
        after=(after[0], after[1]) if after else None,
    )


# ---- Answers -----------------------------------------------------------------------------------


def _answers(connection: Connection, found: Sequence[Study]) -> list[StudyAnswer]:
    sent: dict[str, list[Any]] = {}
    uids = [one.row.study_instance_uid for one in found]
    for one in outbox.of_studies(connection, uids, DICOM, with_kept_back=False):
        sent.setdefault(one.study_instance_uid, []).append(one)
    return [_answer(one, sent.get(one.row.study_instance_uid, [])) for one in found]


def _answer(found: Study, sent: Sequence[Any]) -> StudyAnswer:
    row = found.row
    return StudyAnswer(
        study_instance_uid=row.study_instance_uid,
        accession_number=row.accession_number,
        patient_id=row.patient_id,
        issuer_of_patient_id=row.issuer_of_patient_id,
        received_at=row.first_received_at,
        changed_at=row.updated,
        state=_state(row),
        result=_result(found) if row.state == "done" else None,
        deliveries=[_delivery(one) for one in sent],
    )


def _delivery(row: Any) -> DeliveryAnswer:
    return DeliveryAnswer(
        sop_instance_uid=row.sop_instance_uid,
        kind=row.object,
        destination=row.peer,
        state=row.state,
        proof=row.proof,
        attempts=row.attempts,
        changed_at=row.changed_at,
    )


def _state(row: Any) -> Any:
    if row.newest_state == "done" and row.newest_sending in KEPT_BACK:
        return row.newest_sending
    ended = row.newest_state in ("done", "failed", "withdrawn")
    return row.newest_state if ended else "waiting"


def _result(found: Study) -> ResultAnswer:
    row = found.row
    reports = [one for one in found.reports if one.generation == row.generation]
    coded = {one.reason_code: one.reason_scheme for one in found.readings if one.reason_code}
    thresholds = [one.threshold for one in found.readings if one.threshold is not None]
    model = found.model
    return ResultAnswer(
        finding=_finding(model.finding) if model else None,
        outcome=row.outcome,
        probability=row.probability,
        threshold=next(iter(thresholds), None),
        reasons=[
            CodedReason(code=code, scheme=scheme, meaning=elements.meaning(code))
            for code, scheme in coded.items()
        ],
        bundle=Model(
            name=f"{model.name} {model.version}" if model else None, digest=row.bundle_digest
        ),
        report_sop_instance_uid=reports[-1].sop_instance_uid if reports else None,
        finished_at=row.finished_at,
    )


def _finding(found: Finding) -> CodedFinding:
    code = found.code
    return CodedFinding(code=code.value, scheme=code.scheme, meaning=code.meaning, name=found.name)


# ---- Audit -------------------------------------------------------------------------------------


def _seen(found: Sequence[Study]) -> trail.Columns:
    if not found:
        return {"event_outcome": trail.MINOR_FAILURE}
    row = found[0].row
    return {
        "study_instance_uid": row.study_instance_uid,
        "patient_id": row.patient_id,
        "issuer_of_patient_id": row.issuer_of_patient_id,
        "accession_number": row.accession_number,
    }


def _asked(wanted: StudySearch, shown: Sequence[Study]) -> trail.Columns:
    return {
        "patient_id": wanted.patient_id,
        "accession_number": wanted.accession,
        "detail": {"studies": [one.row.study_instance_uid for one in shown]},
    }
