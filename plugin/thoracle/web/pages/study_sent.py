"""What of a study was to be sent where, as its page says it; nothing here is HTML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from thoracle.outbox import rows as outbox
from thoracle.outbox.rows import DICOM
from thoracle.records import Kind
from thoracle.web.wording import plain
from thoracle.wording import KINDS, MESSAGES

PROOFS = {
    "commitment": "storage commitment",
    "query": "found by query",
    "status": "accepted, storage not confirmed",
    "acknowledgement": "acknowledged",
}
"""What showed that a peer has what was sent."""


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


def sent(connection: Connection, study_instance_uid: str, sees: bool) -> list[Sent]:
    """Return what was to be sent where, and what became of it; the newest generation first.

    ``sees``: also what a rule keeps back.
    """
    rows = outbox.of_studies(connection, [study_instance_uid], with_kept_back=sees)
    first: dict[int, str] = {}
    """The report of each generation. A later one of the same generation withdraws it."""
    for row in rows:
        if row.kind == DICOM and row.object == Kind.SR:
            first.setdefault(row.generation, row.sop_instance_uid)
    found = [
        Sent(
            destination=row.peer,
            what=_what(row, first),
            state=row.state,
            proof=PROOFS.get(row.proof or "", ""),
            detail=plain(row.detail),
            at=row.changed_at,
            next_at=row.next_attempt_at or "",
            generation=row.generation,
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: (-one.generation, one.destination, one.what))


def _what(row: Any, first: Mapping[int, str]) -> str:
    """Return what is sent, in words."""
    if row.kind != DICOM:
        return MESSAGES.get(row.kind, str(row.kind))
    if row.object == Kind.SR and row.sop_instance_uid != first[row.generation]:
        return "withdrawal (structured report)"
    return KINDS.get(Kind(row.object), str(row.object))
