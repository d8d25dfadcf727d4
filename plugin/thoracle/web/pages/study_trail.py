"""What was done with a study: what was sent where, how it is known, and the trail."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from thoracle.audit import query
from thoracle.deliver import rows as deliveries
from thoracle.hl7 import rows as notifications
from thoracle.records import Kind
from thoracle.store.trail import Event
from thoracle.web.pages.worklist import reason
from thoracle.web.session.access import Person, Role
from thoracle.web.wording import KINDS, PROOFS, plain

LONGEST_TRAIL = 200
"""Events that are shown, the newest."""
VIEWS = frozenset(
    one.verb for one in (Event.STUDY_VIEWED, Event.LIST_VIEWED, Event.AUDIT_READ, Event.EXPORTED)
)
"""Who looked at what: for auditors alone."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An object or a message, and what became of it at one destination."""

    destination: str
    what: str
    state: str
    proof: str
    detail: str
    at: str
    next_at: str
    generation: int


@dataclass(frozen=True, slots=True)
class TrailLine:
    """An event of the audit."""

    at: str
    event: str
    who: str
    what: str
    address: str
    """Network address: for auditors alone."""


def sent(connection: Connection, study_instance_uid: str) -> list[Sent]:
    """Return what was to be sent where, and what became of it; the newest generation first."""
    found = [
        Sent(
            destination=row.destination,
            what=KINDS.get(Kind(row.kind), row.kind),
            state=row.state,
            proof=PROOFS.get(row.proof or "", ""),
            detail=plain(row.detail),
            at=row.changed_at,
            next_at=row.next_attempt_at or "",
            generation=row.generation,
        )
        for row in deliveries.of_study(connection, study_instance_uid)
    ]
    found += [
        Sent(
            destination=row.receiver,
            what="message (HL7 ORU)",
            state=row.state,
            proof="it acknowledged the message" if row.state == "told" else "",
            detail=plain(row.detail),
            at=row.changed_at,
            next_at=row.next_attempt_at or "",
            generation=row.generation,
        )
        for row in notifications.of_study(connection, study_instance_uid)
    ]
    return sorted(found, key=lambda one: (-one.generation, one.destination, one.what))


def trail(connection: Connection, study_instance_uid: str, person: Person) -> Sequence[TrailLine]:
    """Return what happened to the study, oldest first.

    Everybody sees what was done and by whom; who looked, and from which address, auditors alone.
    """
    auditor = Role.AUDITOR in person.roles
    events = query.events(connection, query.Question(study_instance_uid))
    return deque(_lines(events, auditor), LONGEST_TRAIL)


def _lines(events: Iterable[dict[str, Any]], auditor: bool) -> Iterator[TrailLine]:
    for event in events:
        if auditor or event["event"] not in VIEWS:
            yield TrailLine(
                at=event["recorded_at"],
                event=event["event"],
                who=plain(event.get("user_id") or event.get("calling_ae_title")),
                what=", ".join(_told(event)),
                address=plain(event.get("network_address")) if auditor else "",
            )


def _told(event: dict[str, Any]) -> Iterator[str]:
    """Yield what is worth saying of an event, in a few words each."""
    if outcome := event.get("outcome"):
        share = event.get("probability")
        yield outcome if share is None else f"{outcome} {100 * share:.1f} %"
    if code := event.get("reason_code"):
        yield reason(code)
    if destination := event.get("destination"):
        yield f"to {plain(destination)}"
    if proof := event.get("proof"):
        yield f"proof: {proof}"
    if status := event.get("status"):
        yield f"status {plain(status)}"
    detail = event.get("detail") or {}
    for name in ("kind", "opinion", "reason", "images", "generation", "deliveries", "means"):
        if detail.get(name) not in (None, "", []):
            yield f"{name} {plain(detail[name])}"
