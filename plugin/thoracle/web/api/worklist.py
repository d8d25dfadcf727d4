"""``/api/worklist`` and verdicts: the reading worklist for programs that have one of their own.

A list in another system can show what the AI said of its studies and why they stand where they
stand, and give back what the reader says. What a rule holds or shadows is not on the list, and so
not here.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from thoracle.records import Outcome
from thoracle.study import reading_list
from thoracle.study.reading_list import QUEUED, RUNNING, STAT
from thoracle.study.verdicts import LONGEST_COMMENT, Opinion
from thoracle.web.api.results import Uid
from thoracle.web.openapi import MALFORMED, Refusal
from thoracle.web.pages import study
from thoracle.web.pages.worklist import (
    PAGE,
    WorklistQuery,
    query_of,
    rank_sentence,
    reason,
    record_view,
)
from thoracle.web.session.access import Person, Role, scoped
from thoracle.web.site import site_of
from thoracle.wording import RESEARCH_USE_ONLY

router = APIRouter(prefix="/api", tags=["worklist"])
OUTCOMES = {one.value for one in Outcome}
Lister = Annotated[Person, Depends(scoped("worklist:read", Role.READER))]
Judge = Annotated[Person, Depends(scoped("verdicts:write", Role.READER))]


class ReasonAnswer(BaseModel):
    """Why no image of a study was analysed."""

    code: str
    meaning: str


class RowAnswer(BaseModel):
    """A study on the list."""

    study_instance_uid: str
    accession_number: str | None
    patient_id: str | None
    patient_name: str | None
    modality: str | None
    study_description: str | None
    study_datetime: str | None = Field(description="Local to the modality, without a zone.")
    received_at: str = Field(description="ISO 8601, UTC.")
    changed_at: str = Field(description="ISO 8601, UTC.")
    ai_state: str = Field(
        description="queued, running, failed, withdrawn, held, shadow, or the outcome: positive, "
        "negative, indeterminate, rejected. Rejected and failed are not negative."
    )
    finding: str | None = Field(
        description="Scheme and code of what state and probability are about."
    )
    finding_name: str | None
    probability: float | None = Field(description="Calibrated, 0 to 1.")
    threshold: float | None = Field(description="Decision threshold, 0 to 1.")
    reason: ReasonAnswer | None = Field(description="Of a rejection.")
    bundle: str | None = Field(description="Name and version of the model.")
    stat: bool = Field(description="STAT: before all others.")
    head_start_minutes: int = Field(description="By how many minutes the study was moved up.")
    why: str = Field(description="Reason for its place on the list.")
    reviewed_at: str | None = Field(description="Of the first verdict; ISO 8601, UTC.")
    verdict: Opinion | None = Field(description="The newest one.")


class ListAnswer(BaseModel):
    """A page of the list, in the order that was asked for."""

    research_use_only: str = RESEARCH_USE_ONLY
    number: int = Field(description="Studies that match, on all pages.")
    page: int
    pages: int
    studies: list[RowAnswer]


class VerdictGiven(BaseModel):
    """What a reader says of a result."""

    model_config = ConfigDict(extra="forbid")

    opinion: Opinion
    report_sop_instance_uid: str = Field(
        pattern=r"^[0-9.]{1,64}$", description="Of the report that the reader saw."
    )
    comment: str = Field("", max_length=LONGEST_COMMENT)


class VerdictAnswer(BaseModel):
    """A verdict that is kept."""

    verdict: int = Field(description="Its number.")


@router.get("/worklist")
def show(
    request: Request, person: Lister, wanted: Annotated[WorklistQuery, Depends(query_of)]
) -> ListAnswer:
    """Return a page of the reading worklist, as its page shows it to the person of the token."""
    unknown = sorted(set(request.query_params) - set(WorklistQuery.__slots__))
    if unknown:
        raise HTTPException(
            422, f"found {unknown[0][:32]!r}, required: {', '.join(WorklistQuery.__slots__)}"
        )
    within = wanted.filter()
    with site_of(request).database.begin() as connection:
        number = reading_list.count(connection, within)
        rows = reading_list.page(connection, within, wanted.sort, PAGE, (wanted.page - 1) * PAGE)
        uids = [row.study_instance_uid for row in rows]
        record_view(connection, request, person, wanted, uids)
    return ListAnswer(
        number=number,
        page=wanted.page,
        pages=max(1, -(-number // PAGE)),
        studies=[_row(row) for row in rows],
    )


@router.post(
    "/studies/{study_instance_uid}/verdicts",
    status_code=201,
    responses={
        **MALFORMED,
        404: {"model": Refusal, "description": "No such study."},
        409: {
            "model": Refusal,
            "description": "The result that the reader saw is no longer current.",
        },
    },
)
def judge(
    request: Request, person: Judge, study_instance_uid: Uid, given: Annotated[VerdictGiven, Body()]
) -> VerdictAnswer:
    """Keep the verdict of the person whose token it is."""
    number = study.give_verdict(
        request,
        person,
        study_instance_uid,
        given.report_sop_instance_uid,
        given.opinion,
        given.comment,
    )
    return VerdictAnswer(verdict=number)


def _row(row: Row[Any]) -> RowAnswer:
    values = dict(row._mapping)
    # Between two readings the row has what the first one said.
    if row.ai_state not in OUTCOMES:
        values |= dict.fromkeys(
            ("finding", "finding_name", "probability", "threshold", "reason_code")
        )
    between = row.ai_state in (QUEUED, RUNNING)
    if between:
        values["head_start_minutes"] = 0
    why = "not read yet" if between else rank_sentence(row)
    code = values["reason_code"]
    return RowAnswer.model_validate(
        {
            **values,
            "reason": {"code": code, "meaning": reason(code)} if code else None,
            "bundle": row.bundle_version,
            "stat": row.urgency == STAT,
            "why": why,
        }
    )
