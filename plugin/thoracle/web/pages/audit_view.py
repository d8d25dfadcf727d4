"""What the page of the audit says of an event; nothing here is HTML."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from thoracle.web.pages.worklist import reason
from thoracle.web.wording import plain

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
