"""The page of a study: what was read, said and sent, and where a reader judges it.

Each time it is opened is exactly one row of the audit, ``study viewed``. Its pictures have none of
their own (pictures.py), and what it asks for to keep itself up to date (``/state``) tells nothing
of a patient.
"""

from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from pydicom import Dataset
from sqlalchemy import Connection
from starlette.responses import HTMLResponse, RedirectResponse, Response

from thoracle.errors import ThoracleError
from thoracle.pipeline import overview, requests
from thoracle.store import trail
from thoracle.study import reading_list, reconciliation, results, verdicts
from thoracle.study import rows as studies
from thoracle.study import verdicts as stored
from thoracle.study.reconciliation import Patient
from thoracle.study.rows import StudyRows
from thoracle.study.verdicts import LONGEST_COMMENT, Opinion
from thoracle.web import wording
from thoracle.web.pages import pictures, preparation, report_view, study_sent, study_view
from thoracle.web.pages.worklist import WorklistQuery, query_of, rank_sentence, viewer_address
from thoracle.web.session.access import (
    Person,
    Role,
    administrator,
    anyone,
    record_access,
    sees_kept_back,
)
from thoracle.web.site import Site, address_of, render, site_of

# ---- the verdict ---------------------------------------------------------------------------------
# What a reader says of a result, on the page or by another program.


def give_verdict(
    request: Request, person: Person, study: str, report: str, opinion: Opinion, comment: str
) -> int:
    """Keep a verdict, and return its number.

    Readers judge, whatever else they are: the verdict of an administrator would be nobody's
    reading.

    Raises
    ------
    HTTPException
        403: no reader. 404: no such study. 409: the result that was looked at is not the one that
        stands. 422: the comment is too long.
    """
    if Role.READER not in person.roles:
        raise HTTPException(403, "the role reader is required to give a verdict")
    route = request.scope["route"]
    columns: trail.Columns = {
        "user_id": person.name,
        "network_address": address_of(request),
        "detail": {"means": f"POST {route.path}"},
    }
    if person.scopes is not None:
        columns["detail"]["token"] = True
    try:
        with site_of(request).database.begin() as connection:
            if studies.rows(connection, study) is None:
                raise HTTPException(404, "there is no such study")
            return verdicts.give(
                connection,
                study,
                report,
                opinion,
                comment,
                columns,
                with_kept_back=sees_kept_back(request, person),
            )
    except verdicts.ResultChanged as error:
        text = "The result has changed. Reload the page and review it before you give a verdict."
        raise HTTPException(409, text) from error
    except ThoracleError as error:
        raise HTTPException(422, str(error)) from error


router = APIRouter()

# ---- the page ------------------------------------------------------------------------------------

ASKED = {
    "release": "Release requested: the result will be sent.",
    "retry": "Retry requested: failed deliveries will be sent again.",
    "reanalyse": "Analysis requested: the study will be analysed again.",
    "reconcile": "Decision saved: the patients of this study will be reconciled.",
    "withdraw": "Withdrawal requested: the result will be withdrawn.",
}
"""What the page says after a form."""
AHEAD = 3
"""Studies behind this one of which the pictures are rendered before somebody asks."""


@router.get("/study/{uid}")
def show(
    request: Request,
    uid: str,
    person: Annotated[Person, Depends(anyone)],
    wanted: Annotated[WorklistQuery, Depends(query_of)],
    done: Annotated[str, Query(max_length=16)] = "",
) -> HTMLResponse:
    """Return the page of a study; 404 when it is not known.

    ``wanted`` is the list that it was opened from: the next study is the next of that list.
    """
    site = site_of(request)
    sees = sees_kept_back(request, person)
    _fetch(site, uid, sees)
    with site.database.begin() as connection:
        rows = _known(connection, uid, sees)
        values = _values(site, connection, rows, person, sees)
        ahead, before = _beside(connection, uid, wanted, person)
        record_access(connection, request, person, trail.Event.STUDY_VIEWED, _columns(rows))
    preparation.prepare(request, ahead)
    return render(
        request,
        "study.html",
        said=ASKED.get(done, ""),
        wanted=wanted,
        next_study=ahead[0] if ahead else "",
        previous_study=before[0] if before else "",
        **values,
    )


def _fetch(site: Site, study_instance_uid: str, sees: bool) -> None:
    """Fetch what the page reads, where it may have to be fetched."""
    if site.settings.objects.bucket:
        with site.database.connect() as connection:
            rows = _known(connection, study_instance_uid, sees)
        study_view.fetch(site.settings, rows)


def _beside(
    connection: Connection, uid: str, wanted: WorklistQuery, person: Person
) -> tuple[list[str], list[str]]:
    """Return the studies behind this one on the list it was opened from, and the one before it."""
    if not person.has(Role.READER):
        return [], []
    place = wanted.filter(), wanted.sort, uid
    ahead = reading_list.beside(connection, *place, AHEAD)
    before = reading_list.beside(connection, *place, before=True)
    return [row.study_instance_uid for row in ahead], [row.study_instance_uid for row in before]


@router.get("/study/{uid}/prior/{other}")
def prior(
    request: Request, uid: str, other: str, person: Annotated[Person, Depends(anyone)]
) -> HTMLResponse:
    """Return another study of the same patient, to be shown beside this one.

    It is a view of that study, and a row of the audit.
    """
    site = site_of(request)
    with site.database.begin() as connection:
        sees = sees_kept_back(request, person)
        known = studies.of_patient(connection, _known(connection, uid, sees).study)
        told = next((one for one in known if one["study_instance_uid"] == other), None)
        if told is None:
            raise HTTPException(404, "there is no such study of this patient")
        rows = _known(connection, other, sees)
        record_access(connection, request, person, trail.Event.STUDY_VIEWED, _columns(rows))
    found = study_view.images(site.settings, rows, pictures.pass_for(site, person, other))
    image = next((one for one in found if one.is_first), None)
    title = _title(told)
    return render(request, "_prior.html", image=image, title=title, prior_uid=other)


def _title(study: dict[str, Any]) -> str:
    """Return what a prior is called: its date, modality and description."""
    parts = (study[name] for name in ("study_datetime", "modality", "study_description"))
    moment, *others = (wording.plain(part, 80) for part in parts)
    return " ".join(part for part in (moment[:10] or "no date", *others) if part)


def _prior(uid: str, listed: Any, others: list[dict[str, Any]]) -> dict[str, str] | None:
    """Return title and address of the newest study of the patient that is older than this one."""
    moment = (listed.study_datetime if listed else None) or ""
    older = [one for one in others if (one["study_datetime"] or "") <= moment]
    found = max(older or others, key=lambda one: one["study_datetime"] or "", default=None)
    if found is None:
        return None
    return {"title": _title(found), "address": _address(uid, found["study_instance_uid"])}


def _address(uid: str, other: str) -> str:
    return f"/study/{quote(uid, safe='')}/prior/{quote(other, safe='')}"


@router.get("/study/{uid}/state")
def state(
    request: Request,
    uid: str,
    person: Annotated[Person, Depends(anyone)],
    report: Annotated[str, Query(max_length=64)] = "",
    waiting: Annotated[bool, Query()] = False,
) -> Response:
    """Return what a page of the study that is open shows of its state: no patient is in it.

    ``report`` is the one that the page shows. With a first result the page loads itself; where
    there was one, somebody may be writing, so it only says that there is another.
    """
    with site_of(request).database.connect() as connection:
        found = studies.state(connection, uid, with_kept_back=sees_kept_back(request, person))
    if found is None:
        raise HTTPException(404, "there is no such study")
    now, newest = found
    response = render(
        request,
        "_study_state.html",
        uid=uid,
        state=now,
        report=report,
        is_new=newest != report or (waiting and now == "done"),
        waiting=waiting,
    )
    if waiting and now == "done" and not report:
        response.headers["HX-Refresh"] = "true"
    return response


@router.post("/study/{uid}/verdict")
def judge(
    request: Request,
    uid: str,
    person: Annotated[Person, Depends(anyone)],
    opinion: Annotated[Opinion, Form()],
    report: Annotated[str, Form(max_length=64)],
    comment: Annotated[str, Form(max_length=4 * LONGEST_COMMENT)] = "",
) -> Response:
    """Keep what a reader says of the result that the page showed."""
    if person.scopes is not None:
        raise HTTPException(403, "for programs it is /api/studies/{study_instance_uid}/verdicts")
    give_verdict(request, person, uid, report, opinion, comment)
    if "hx-request" not in request.headers:
        return _back(uid, "verdict")
    with site_of(request).database.connect() as connection:
        values = _verdict(connection, uid, person, sees_kept_back(request, person))
    said = f"Verdict saved: {opinion.value}. Press j for the next study."
    return render(request, "_verdict.html", uid=uid, **{**values, "verdict_said": said})


def _verdict(connection: Connection, uid: str, person: Person, sees: bool) -> dict[str, Any]:
    """Return what is shown of the verdict on a study, and of the form."""
    judged = stored.result_to_judge(connection, uid, with_kept_back=sees)
    return {
        "judged": judged,
        "opinions": list(Opinion),
        "longest_comment": LONGEST_COMMENT,
        "may_judge": judged is not None and Role.READER in person.roles,
        "verdicts": stored.of_study(connection, uid, with_kept_back=sees),
        "verdict_said": "",
    }


@router.post("/study/{uid}/release")
def release(
    request: Request, uid: str, person: Annotated[Person, Depends(administrator)]
) -> Response:
    """Have the result sent that a rule holds."""
    return _asked(request, uid, "release", person)


@router.post("/study/{uid}/retry")
def retry(
    request: Request, uid: str, person: Annotated[Person, Depends(administrator)]
) -> Response:
    """Have sent again what was refused or given up."""
    return _asked(request, uid, "retry", person)


@router.post("/study/{uid}/reanalyse")
def reanalyse(
    request: Request, uid: str, person: Annotated[Person, Depends(administrator)]
) -> Response:
    """Have the study read again."""
    return _asked(request, uid, "reanalyse", person)


@router.post("/study/{uid}/reconcile")
def reconcile(
    request: Request,
    uid: str,
    person: Annotated[Person, Depends(administrator)],
    decision: Annotated[Literal["same", "different"], Form()],
    patient_id: Annotated[str, Form(max_length=64)] = "",
    issuer: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Settle whose images a study with several patients has."""
    survivor = Patient(patient_id, issuer) if decision == "same" else None
    try:
        requests.reconcile(site_of(request).database, uid, survivor, person.name)
    except ThoracleError as error:
        raise HTTPException(409, str(error)) from error
    return _back(uid, "reconcile")


@router.post("/study/{uid}/withdraw")
def withdraw(
    request: Request,
    uid: str,
    person: Annotated[Person, Depends(administrator)],
    reason: Annotated[str, Form(max_length=4 * requests.LONGEST_REASON)],
) -> Response:
    """Have the newest result withdrawn."""
    try:
        requests.withdraw(site_of(request).database, uid, reason, person.name)
    except ThoracleError as error:
        raise HTTPException(409, str(error)) from error
    return _back(uid, "withdraw")


def _asked(request: Request, uid: str, what: str, person: Person) -> Response:
    """Have something done that needs no more than the study; the gateway records it."""
    asks = {
        "release": requests.release,
        "retry": requests.retry,
        "reanalyse": requests.reanalyse,
    }
    try:
        asks[what](site_of(request).database, uid, person.name)
    except ThoracleError as error:
        raise HTTPException(409, str(error)) from error
    return _back(uid, what)


def _back(uid: str, done: str) -> RedirectResponse:
    return RedirectResponse(f"/study/{quote(uid, safe='')}?done={done}", 303)


def _known(connection: Connection, uid: str, sees: bool) -> StudyRows:
    """Return the rows of a study; ``sees``: also of what a rule keeps back."""
    rows = studies.rows(connection, uid, with_kept_back=sees)
    if rows is None:
        raise HTTPException(404, "there is no such study")
    return rows


def _columns(rows: StudyRows) -> trail.Columns:
    columns: trail.Columns = {
        "study_instance_uid": rows.study.study_instance_uid,
        "patient_id": rows.study.patient_id,
        "issuer_of_patient_id": rows.study.issuer_of_patient_id,
        "accession_number": rows.study.accession_number,
    }
    if rows.shown is not None:
        columns["bundle_digest"] = rows.shown.bundle_digest
        columns["finding"] = rows.shown.finding
        columns["outcome"] = rows.shown.outcome
        columns["probability"] = rows.shown.probability
    return columns


def _values(
    site: Site, connection: Connection, rows: StudyRows, person: Person, sees: bool
) -> dict[str, Any]:
    """Return what the template shows; ``sees``: also of what a rule keeps back."""
    uid, settings = rows.study.study_instance_uid, site.settings
    pass_ = pictures.pass_for(site, person, uid)
    now, newest_report = studies.state(connection, uid, with_kept_back=sees) or ("queued", "")
    report = study_view.report(settings, rows)
    others = studies.of_patient(connection, rows.study)
    header = pictures.header(settings, rows.images[0]) if rows.images else Dataset()
    return {
        "uid": uid,
        "rows": rows,
        "patient": study_view.person_of(rows, header),
        "state": study_view.ai_state(rows, now),
        "waiting": now != "done",
        "newest_report": newest_report,
        "rank": "" if rows.listed is None else rank_sentence(rows.listed),
        "result": study_view.result(rows),
        "images": study_view.images(settings, rows, pass_),
        "illustrated": study_view.illustrated(settings),
        "map_caution": study_view.map_caution(rows),
        "report": report,
        "limitations": [] if report is None else report_view.limitations(report),
        "withdrawal_reason": study_view.withdrawal_reason(connection, rows),
        "failure": study_view.failure(connection, rows) if now == "done" else None,
        **_verdict(connection, uid, person, sees),
        "sent": study_sent.sent(connection, uid, sees),
        "trail": study_view.trail(connection, uid, person, sees),
        "longest_trail": study_view.LONGEST_TRAIL,
        "previous": others,
        "prior": _prior(uid, rows.listed, others),
        "compare": partial(_address, uid),
        "viewer": viewer_address(settings.web.viewer_url, _named(rows)),
        "actions": _actions(connection, uid) if person.has(Role.ADMINISTRATOR) else (),
        "longest_reason": requests.LONGEST_REASON,
        "patients": _to_settle(connection, uid),
        "percent": wording.percent,
        "plain": wording.plain,
    }


def _to_settle(connection: Connection, uid: str) -> list[Patient]:
    """Return the patients of whom somebody has to say whether they are one."""
    row = reconciliation.row_of(connection, uid)
    if row is None or row.state != reconciliation.OPEN:
        return []
    return reconciliation.patients(connection, uid)


def _named(rows: StudyRows) -> dict[str, str]:
    names = ("study_instance_uid", "accession_number", "patient_id")
    return {name: rows.study._mapping[name] or "" for name in names}


def _actions(connection: Connection, uid: str) -> tuple[str, ...]:
    """Return what an administrator may ask for now."""
    found = ["reanalyse"]
    if results.held(connection, uid) is not None:
        found.append("release")
    if overview.dead(connection, uid):
        found.append("retry")
    if overview.standing_report(connection, uid) is not None:
        found.append("withdraw")
    return tuple(found)
