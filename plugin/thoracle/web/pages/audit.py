"""``/audit``: the trail as a page, for auditors: asked, exported and verified.

What is asked stands in the address. Each reading is one row of the trail itself.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from pydantic import Field
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from thoracle import spreadsheet
from thoracle.audit import beginning, query, timestamps
from thoracle.audit.verification import last_verified
from thoracle.errors import ThoracleError
from thoracle.notify import witness
from thoracle.records import Outcome, Reason
from thoracle.store import signing
from thoracle.store.anchors import ANCHORS_FILE, Anchor, read_anchors
from thoracle.store.chain import COLUMNS
from thoracle.store.trail import Event
from thoracle.web.pages import asked as asking
from thoracle.web.pages.asked import CURSOR, Asked
from thoracle.web.pages.worklist import reason, waited
from thoracle.web.parameters import RowId
from thoracle.web.session.access import Person, auditor, auditor_or_administrator
from thoracle.web.site import Site, render, site_of
from thoracle.web.verifier import Verifier
from thoracle.web.wording import plain
from thoracle.wording import PROOFS

# ---- an event ------------------------------------------------------------------------------------
# What the page of the audit says of an event; nothing here is HTML.

LONGEST_DETAIL = 4000
"""Characters of a detail that are shown; exports have it whole."""
NAMES = {
    "id": "Row",
    "recorded_at": "Recorded at (UTC)",
    "event": "Event",
    "event_id": "EventID (DCM)",
    "event_type_code": "EventTypeCode",
    "action": "Action",
    "event_outcome": "Outcome of the event",
    "calling_ae_title": "Calling AE title",
    "called_ae_title": "Called AE title",
    "network_address": "Network address",
    "user_id": "User",
    "patient_id": "Patient ID",
    "issuer_of_patient_id": "Issuer of Patient ID",
    "study_instance_uid": "Study Instance UID",
    "accession_number": "Accession Number",
    "sop_instance_uid": "SOP Instance UID",
    "result_sop_instance_uid": "SOP Instance UID of the result",
    "bundle_version": "Bundle",
    "bundle_digest": "Digest of the bundle",
    "finding": "Finding",
    "outcome": "Outcome of the analysis",
    "probability": "Probability",
    "reason_code": "Reason",
    "destination": "Destination",
    "proof": "Proof",
    "status": "Status",
    "correlation_id": "Workflow or association",
    "seconds": "Seconds",
    "digest": "Digest of the row",
}
"""Column -> what it is called on the page; the detail is no line of its own."""
OUTCOMES = {0: "success", 4: "minor failure", 8: "serious failure", 12: "major failure"}
ACTIONS = {"C": "create", "R": "read", "U": "update", "D": "delete", "E": "execute"}


@dataclass(frozen=True, slots=True)
class Shown:
    """An event, ready to be shown."""

    id: int
    at: str
    """Date and time in UTC, to the second."""
    event: str
    failure: str
    """In words; empty: success."""
    who: str
    patient: str
    said: str
    """The most telling of the rest, in a few words."""
    study: str
    facts: tuple[tuple[str, str], ...]
    """Every column that has something, but for the detail."""
    detail: str
    """As JSON in which only ASCII stands."""


def shown(event: dict[str, Any]) -> Shown:
    """Return what is shown of an event without its empty columns."""
    patient, issuer = (plain(event.get(f"{name}patient_id")) for name in ("", "issuer_of_"))
    return Shown(
        id=event["id"],
        at=event["recorded_at"][:19].replace("T", " "),
        event=plain(event["event"]),
        failure=_failure(event.get("event_outcome", 0)),
        who=plain(event.get("user_id") or event.get("calling_ae_title")),
        patient=f"{patient} ({issuer})" if issuer else patient,
        said=", ".join(_said(event)),
        study=plain(event.get("study_instance_uid")),
        facts=tuple(_facts(event)),
        detail=_detail(event.get("detail")),
    )


def _failure(code: int) -> str:
    return OUTCOMES.get(code, f"failure {code}") if code else ""


def _facts(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in NAMES:
        value = event.get(name)
        if value is None:
            continue
        text = plain(str(value))
        if name == "event_outcome":
            text = f"{text} ({OUTCOMES.get(value, 'unknown')})"
        elif name == "action":
            text = f"{text} ({ACTIONS.get(value, 'unknown')})"
        elif name == "reason_code" and (meaning := reason(text)) != text:
            text = f"{text} ({meaning})"
        yield NAMES[name], text


def _detail(detail: Any) -> str:
    if not detail:
        return ""
    text = json.dumps(detail, indent=1)
    if len(text) <= LONGEST_DETAIL:
        return text
    return f"{text[:LONGEST_DETAIL]}\n... {len(text)} characters; the export has them all"


def _said(event: dict[str, Any]) -> Iterator[str]:
    if outcome := event.get("outcome"):
        share = event.get("probability")
        yield plain(outcome) if share is None else f"{plain(outcome)} {100 * share:.1f} %"
    if code := event.get("reason_code"):
        yield reason(plain(code))
    if destination := event.get("destination"):
        yield f"to {plain(destination)}"
    if proof := event.get("proof"):
        yield f"proof: {plain(proof)}"
    if status := event.get("status"):
        yield f"status {plain(status)}"
    detail = event.get("detail") or {}
    for name in ("reason", "why", "means"):
        if isinstance(detail, dict) and isinstance(detail.get(name), str):
            yield plain(detail[name], 80)


router = APIRouter(include_in_schema=False)
# ---- the page ------------------------------------------------------------------------------------

Auditor = Annotated[Person, Depends(auditor)]

PAGE = 50
"""Events on a page."""
PATIENCE_SECONDS = 3.0
"""A verification that is done so soon is answered at once."""
EXPORTED = (*COLUMNS, "digest")
LINES = 500
"""Lines of an export that are sent at a time."""
FIRST = ("since", "until", "event", "patient_id", "study_instance_uid", "user_id")
"""Fields that the form always shows."""


_CHOICES: dict[str, Any] = {
    "events": [(one.verb, one.verb) for one in Event],
    "outcomes": list(OUTCOMES.items()),
    "actions": list(ACTIONS.items()),
    "results": [(one.value, one.value) for one in Outcome],
    "reasons": [(one.code.value, one.code.meaning) for one in Reason],
    "proofs": [(one, one) for one in PROOFS],
}
"""What fields of the form offer: value and text."""


class Page(Asked):
    """A question, and where its page begins."""

    before: str | None = Field(None, pattern=CURSOR)


def _without_empty(request: Request) -> None:
    """Send on to the address without what is empty: a form sends all its fields."""
    pairs = request.query_params.multi_items()
    given = [(name, value) for name, value in pairs if value]
    if len(given) < len(pairs):
        path = request.url.path
        raise HTTPException(303, headers={"Location": f"{path}?{urlencode(given)}"})


@router.get("/audit", dependencies=[Depends(_without_empty)])
def show(request: Request, person: Auditor, wanted: Annotated[Page, Query()]) -> HTMLResponse:
    """Return the events that answer a question, the last first."""
    site = site_of(request)
    with site.database.begin() as connection:
        events = query.page(connection, wanted.question(), PAGE + 1, asking.position(wanted.before))
        asking.record(connection, request, person, wanted, events[:PAGE])
        ends = query.ends(connection)
    rows = events[:PAGE]
    more = asking.cursor_of(rows[-1]) if len(events) > PAGE else None
    return render(
        request,
        "audit.html",
        wanted=wanted,
        open=any(getattr(wanted, name) is not None for name in asking.FIELDS if name not in FIRST),
        rows=[shown(event) for event in rows],
        older=more and wanted.address("/audit", before=more),
        ends=ends,
        **_CHOICES,
        **_proof(request, site),
    )


@router.get("/audit/event/{row_id}")
def show_one(request: Request, person: Auditor, row_id: RowId) -> HTMLResponse:
    """Return one event."""
    with site_of(request).database.begin() as connection:
        event = query.event_row(connection, row_id)
        asking.record_one(connection, request, person, row_id, event)
    found = event and shown(event)
    return render(request, "audit_event.html", 200 if event else 404, row=found, row_id=row_id)


# ---- Exports -----------------------------------------------------------------------------------


@router.get("/audit/export.csv")
def export_csv(request: Request, person: Auditor, wanted: Annotated[Asked, Query()]) -> Response:
    """Return all events that answer a question as CSV, oldest first, safe for spreadsheets."""
    events = _exported(request, person, wanted)
    rows = ([_cell(event.get(name)) for name in EXPORTED] for event in events)
    return _file(spreadsheet.lines(EXPORTED, rows), "text/csv; charset=utf-8", "audit.csv")


@router.get("/audit/export.jsonl")
def export_json(request: Request, person: Auditor, wanted: Annotated[Asked, Query()]) -> Response:
    """Return all events that answer a question as JSON, one object a line, oldest first."""
    events = _exported(request, person, wanted)
    lines = (f"{json.dumps(event)}\n" for event in events)
    return _file(lines, "application/jsonl", "audit.jsonl")


def _exported(request: Request, person: Person, wanted: Asked) -> Iterator[dict[str, Any]]:
    """Record the reading, and return what is read while it is sent."""
    database = site_of(request).database
    with database.begin() as connection:
        asking.record(connection, request, person, wanted)

    def events() -> Iterator[dict[str, Any]]:
        with database.connect() as connection:
            yield from query.events(connection, wanted.question())

    return events()


def _file(lines: Iterable[str], media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_chunks(iter(lines)), headers=headers, media_type=media_type)


def _chunks(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield "".join(chain([line], islice(lines, LINES - 1)))


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return "" if value is None else str(value)


# ---- Verification ------------------------------------------------------------------------------


LAST = 5
"""Anchors and purges that the page names, the newest."""
Verifying = Annotated[Person, Depends(auditor_or_administrator)]


@router.get("/audit/verification")
def verification(request: Request, person: Verifying) -> HTMLResponse:
    """Return the state of the log, and what became of the last verification; no event is shown."""
    site = site_of(request)
    with site.database.connect() as connection:
        ends = query.ends(connection)
        begins = beginning.of_trail(connection)
        keys = signing.known(connection).keys
        witnessed = witness.state(connection, site.settings)
        stamped = timestamps.state(connection, site.settings)
    proof = _proof(request, site)
    return render(
        request,
        "audit_verification.html",
        ends=ends,
        begins=begins,
        purges=begins.purges[: -LAST - 1 : -1],
        last=[(one, signature(one, keys)) for one in proof["kept"][: -LAST - 1 : -1]],
        witnessed=witnessed,
        stamped=stamped,
        **proof,
    )


def signature(anchor: Anchor, keys: Mapping[str, bytes]) -> str:
    """Return what its signature is worth: valid, invalid, of an unknown key, or none."""
    if not anchor.key:
        return "none"
    if anchor.key not in keys:
        return "unknown key"
    return "valid" if anchor.is_signed_by(keys[anchor.key]) else "invalid"


@router.post("/audit/verification")
def verify(request: Request, person: Verifying, whole: Annotated[bool, Form()] = False) -> Response:
    """Begin a verification, and show how far it is."""
    verifier = verifier_of(request)
    with site_of(request).database.begin() as connection:
        asking.record_verification(connection, request, person, whole)
    try:
        verifier.begin(person.name, whole)
        verifier.wait(PATIENCE_SECONDS)
    except ThoracleError:
        pass  # a damaged file, which the page names
    return RedirectResponse("/audit/verification", 303)


def verifier_of(request: Request) -> Verifier:
    """Return what verifies the trail."""
    found = request.app.state.verifier
    assert isinstance(found, Verifier)
    return found


def _proof(request: Request, site: Site) -> dict[str, Any]:
    """Return what is known of the trail being whole: the last verification, and the anchors."""
    values: dict[str, Any] = {"run": verifier_of(request).run, "verified": None, "kept": []}
    values["damage"] = ""
    try:
        values["verified"] = last_verified(site.settings.pages_folder)
        values["kept"] = read_anchors(site.settings.data_folder / ANCHORS_FILE)
    except ThoracleError as error:
        values["damage"] = str(error)
    values["age"] = age(values["kept"][-1].recorded_at) if values["kept"] else ""
    return values


def age(recorded_at: str) -> str:
    """Return how long ago something was, e.g. ``12 min``."""
    return waited((datetime.now(UTC) - datetime.fromisoformat(recorded_at)).total_seconds())
