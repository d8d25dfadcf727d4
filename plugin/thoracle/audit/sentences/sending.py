"""Sentences about what was sent where, how it is known, and what others do with workitems."""

from collections.abc import Callable

from thoracle.audit.sentences.words import (
    Row,
    Rows,
    caller,
    detail,
    inert,
    objects,
    of,
    person,
    said,
)
from thoracle.store.trail import Event
from thoracle.wording import PROOFS, number


def _there(row: Row) -> str:
    return of(row, "destination", "a destination")


def _attempt(row: Row) -> str:
    found = detail(row, "attempt")
    return f", attempt {found}" if isinstance(found, int) and found > 1 else ""


def _status(row: Row) -> str:
    status = of(row, "status")
    return f" with {status}" if status else ""


def _sent(rows: Rows) -> str:
    row = rows[0]
    return (
        f"{_there(row)} accepted the {objects(rows)}{_status(row)}{_attempt(row)}; not proven yet."
    )


def _asked(rows: Rows) -> str:
    row = rows[0]
    found = detail(row, "objects")
    what = number(found, "object") if isinstance(found, int) else "what was sent"
    again = detail(row, "request")
    times = f" (request {again})" if isinstance(again, int) and again > 1 else ""
    return f"{_there(row)} was asked whether it keeps {what}{times}."


def _answered(rows: Rows) -> str:
    row = rows[0]
    committed, failed = detail(row, "committed"), detail(row, "failed")
    if isinstance(committed, int):
        parts = [f"it keeps {number(committed, 'object')}"]
        if isinstance(failed, dict) and failed:
            why = ", ".join(sorted({inert(one, 8) for one in failed.values()}))
            parts.append(f"not {len(failed)} ({why})")
        return f"{of(row, 'destination') or caller(row)} answered: {', '.join(parts)}."
    outcome = inert(detail(row, "outcome"), 32)
    if outcome:
        return f"{_there(row)} gave no commitment: {outcome}{said(row, 'detail')}."
    return f"{caller(row)} reported on a commitment{said(row, 'detail')}."


def _queried(rows: Rows) -> str:
    row = rows[0]
    asked, found = detail(row, "asked"), detail(row, "found")
    sought = sum(map(len, asked.values())) if isinstance(asked, dict) else 0
    means = inert(detail(row, "means"), 16)
    query = f"{_there(row)} was asked by {means} for {number(sought, 'object')}"
    if not isinstance(found, int):
        return f"{query}; the query failed{_attempt(row)}{said(row, 'detail')}."
    return f"{query}; it has {found}{_attempt(row)}."


def _worklist(rows: Rows) -> str:
    found = detail(rows[0], "found")
    items = number(found, "workitem") if isinstance(found, int) else "some"
    return f"{_there(rows[0])} was asked for workitems; it returned {items}."


def _proven(rows: Rows) -> str:
    row = rows[0]
    by = PROOFS.get(str(row.get("proof")), of(row, "proof", "nothing"))
    return f"{_there(row)} has the {objects(rows)}, proven by {by}{_attempt(row)}."


def _postponed(rows: Rows) -> str:
    row = rows[-1]
    attempts = f" after {number(len(rows), 'attempt')}" if len(rows) > 1 else ""
    what, why = objects([row]), said(row, "detail")
    return f"{_there(row)} did not receive the {what}{attempts}; will be retried{why}."


def _lost(rows: Rows) -> str:
    row = rows[0]
    return (
        f"{_there(row)} will not receive the {objects(rows)}: refused or given up"
        f"{_status(row)}{_attempt(row)}{said(row, 'detail')}."
    )


def _retried(rows: Rows) -> str:
    row = rows[0]
    kinds = row.get("detail")
    found = kinds.values() if isinstance(kinds, dict) else ()
    count = sum(one for one in found if isinstance(one, int))
    failed = number(count, "failed delivery", "failed deliveries")
    return f"{person(row)} requested a retry of {failed}."


def _notified(rows: Rows) -> str:
    row = rows[0]
    kind = of(row, "event_type_code", "HL7")
    by = MESSAGES.get(kind, f"a message ({kind.lower()})")
    return f"{_there(row)} was notified by {by} and acknowledged it{_attempt(row)}."


def _not_notified(rows: Rows) -> str:
    row = rows[-1]
    attempts = f" after {number(len(rows), 'attempt')}" if len(rows) > 1 else ""
    return f"{_there(row)} could not be notified{attempts}; will be retried{said(row, 'detail')}."


def _notification_failed(rows: Rows) -> str:
    row = rows[0]
    attempt, why = _attempt(row), said(row, "detail")
    return f"{_there(row)} will not be notified: refused or given up{attempt}{why}."


def _workitem(rows: Rows) -> str:
    return f"Workitem {of(rows[0], 'sop_instance_uid', '?')} was offered for review."


def _workitem_changed(rows: Rows) -> str:
    row = rows[0]
    item = f"Workitem {of(row, 'sop_instance_uid', '?')}"
    if of(row, "destination"):
        item += f" of {of(row, 'destination')}"
    before, after = inert(detail(row, "from"), 16), inert(detail(row, "to"), 16)
    by = f" by {person(row)}" if row.get("user_id") or row.get("calling_ae_title") else ""
    if detail(row, "cancel requested"):
        return f"{item} has a cancellation request{by}."
    if before == after:
        return f"{item} got new attributes{by}."
    return (
        f"{item} went from {before or 'nothing'} to {after or 'nothing'}{by}{said(row, 'detail')}."
    )


MESSAGES = {"HL7": "an HL7 message", "EMAIL": "an e-mail"}

SENTENCES: dict[Event, Callable[[Rows], str]] = {
    Event.DELIVERY_SENT: _sent,
    Event.PROOF_REQUESTED: _asked,
    Event.PROOF_ANSWERED: _answered,
    Event.ARCHIVE_QUERIED: _queried,
    Event.DELIVERY_SUCCEEDED: _proven,
    Event.DELIVERY_POSTPONED: _postponed,
    Event.DELIVERY_FAILED: _lost,
    Event.DELIVERY_RETRIED: _retried,
    Event.NOTIFICATION_SENT: _notified,
    Event.NOTIFICATION_POSTPONED: _not_notified,
    Event.NOTIFICATION_FAILED: _notification_failed,
    Event.WORKLIST_QUERIED: _worklist,
    Event.WORKITEM_CREATED: _workitem,
    Event.WORKITEM_CHANGED: _workitem_changed,
}
