"""The story of a study in sentences: what happened, how it stands, and what is waited for.

Pure functions of the rows that :func:`known_of` gathers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from thoracle.audit import query
from thoracle.audit.query import Question
from thoracle.audit.sentences import alike, sentence
from thoracle.audit.sentences.words import Row, detail, inert, kind, listed, person, reason
from thoracle.deliver import proofs as requests
from thoracle.outbox import rows as outbox
from thoracle.outbox.rows import DICOM
from thoracle.store.tables import audit_event, instance, timestamp
from thoracle.store.trail import Event
from thoracle.study import rows as studies
from thoracle.ups import performances
from thoracle.ups import workitem_rows as workitems
from thoracle.wording import number


@dataclass(frozen=True, slots=True)
class Fact:
    """A sentence about one event or several."""

    at: str
    """Of the first event, ISO 8601 in UTC."""
    until: str
    """Of the last one."""
    sentence: str
    events: tuple[int, ...]
    """Numbers of their rows."""


@dataclass(frozen=True)
class Known:
    """What the tables say of a study, as rows of plain values; see the tables of these names."""

    study_instance_uid: str
    study: Row | None
    """``None``: no image of it was ever stored."""
    received: int
    """Images stored."""
    unplanned: int
    """Images stored that no generation covers yet."""
    state: str
    """What the worklist shows: queued, running, failed, withdrawn, or the outcome; or empty."""
    analysis: Row | None
    """The newest that was not superseded."""
    readings: Sequence[Row]
    """Of that analysis."""
    sent: Sequence[Row]
    """Rows of the outbox of the newest generation that has some; each with ``due_at`` of a request
    for proof."""
    workitems: Sequence[Row]
    performances: Sequence[Row]
    events: Sequence[Row]
    """Of the trail, oldest first."""


def facts(events: Iterable[Row]) -> list[Fact]:
    """Return the sentences of events, in their order."""
    return [
        Fact(
            at=str(rows[0].get("recorded_at", "")),
            until=str(rows[-1].get("recorded_at", "")),
            sentence=sentence(rows),
            events=tuple(int(row["id"]) for row in rows),
        )
        for rows in _runs(events)
    ]


def _runs(events: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield events that one sentence tells, together."""
    run: list[Row] = []
    for event in events:
        if run and not alike(run[-1], event):
            yield run
            run = []
        run.append(event)
    if run:
        yield run


# ---- the first line --------------------------------------------------------------------------


def answer(known: Known) -> str:
    """Return in one sentence what became of a study."""
    name = f"Study {inert(known.study_instance_uid, 64)}"
    if known.study is None:
        return f"{name} {_by_the_trail_alone(known)}."
    analysis = known.analysis
    if analysis is None:
        images = number(known.received, "image")
        return f"{name} has no result yet: {images} received, and it is not complete yet."
    match analysis["state"]:
        case "planned":
            doing = "is being read now" if known.state == "running" else "is queued for reading"
            return f"{name} has no result yet: it is complete, and {doing}."
        case "failed":
            return (
                f"{name} has no result: the analysis failed{_last(known, Event.ANALYSIS_FAILED)}."
            )
        case "withdrawn":
            was = _result(known, analysis)
            by = _by(known, Event.RESULT_WITHDRAWN)
            why = _last(known, Event.RESULT_WITHDRAWN, "reason")
            return f"{name} {was}; that result was withdrawn{by}{why}."
        case "done":
            return f"{name} {_result(known, analysis)}, {_sending(known, analysis)}."
    return f"{name}: its analysis is {inert(analysis['state'], 16)}."


def _by_the_trail_alone(known: Known) -> str:
    """Return what became of a study that the tables do not know."""
    if not any(row.get("event") == Event.INSTANCE_STORED.verb for row in known.events):
        return "was never received: no image of it was stored here"
    came = "was received, and its rows are no longer kept: by the audit, "
    read = [row for row in known.events if row.get("event") == Event.IMAGE_READ.verb]
    if not read:
        return f"{came}no image of it was read"
    last = read[-1]
    if last.get("outcome") == "rejected":
        return f"{came}its last image was rejected: {reason(last.get('reason_code'))}"
    return f"{came}its last image was read as {inert(last.get('outcome'), 16)}"


def _last(known: Known, event: Event, *names: str) -> str:
    """Return what the newest event of a kind says."""
    rows = [row for row in known.events if row.get("event") == event.verb]
    told = [inert(detail(row, name)) for row in rows[-1:] for name in (*names, "detail")]
    return next((f": {text}" for text in told if text), "")


def _by(known: Known, event: Event) -> str:
    """Return who did what is the newest event of a kind, and when."""
    rows = [row for row in known.events if row.get("event") == event.verb]
    return f" by {person(rows[-1])} at {rows[-1].get('recorded_at')}" if rows else ""


def _result(known: Known, analysis: Row) -> str:
    outcome, probability = analysis.get("outcome"), analysis.get("probability")
    if outcome != "rejected":
        share = "" if probability is None else f" ({probability:.2f})"
        return f"was read as {inert(outcome, 16)}{share}"
    reasons = sorted({reason(row["reason_code"]) for row in known.readings if row["reason_code"]})
    why = listed(reasons) if reasons else "reason unknown"
    return f"was rejected, none of its images could be analysed: {why}"


def _sending(known: Known, analysis: Row) -> str:
    """Return where the result is, in words that continue a sentence."""
    sending = analysis.get("sending")
    if sending == "shadow":
        return "and not sent: a rule puts it in shadow mode"
    if sending == "held":
        return "and not sent until somebody releases it: a rule holds it"
    if not any(row["kind"] == DICOM for row in known.sent):
        return "and sent nowhere: no destination is configured, or no rule sends it"
    return f"and {'; '.join(_standing(known))}"


def _standing(known: Known) -> Iterator[str]:
    """Yield for each state of objects which destinations it is so in."""
    states: dict[str, list[str]] = {}
    for row in known.sent:
        if row["kind"] == DICOM:
            states.setdefault(row["peer"], []).append(row["state"])
    order = ("refused", "failed", "withdrawn", "held", "waiting", "sent", "delivered")
    worst: dict[str, list[str]] = {}
    for name, found in states.items():
        worst.setdefault(min(found, key=order.index), []).append(inert(name, 32))
    words = {
        "delivered": "proven in {}",
        "sent": "sent to {}, not proven yet",
        "waiting": "waiting to be sent to {}",
        "held": "held back from {}",
        "withdrawn": "taken back before it was sent to {}",
        "failed": "given up for {}",
        "refused": "refused by {}",
    }
    for state in reversed(order):
        if state in worst:
            yield words[state].format(listed(worst[state]))


# ---- what is waited for ----------------------------------------------------------------------


def waiting(known: Known) -> list[str]:
    """Return what has to happen before the study is at its end, a sentence each."""
    found = [*_for_images(known)]
    for row in known.sent:
        found += _for_object(known, row) if row["kind"] == DICOM else _for_message(row)
    for row in known.workitems:
        if row["state"] in ("SCHEDULED", "IN PROGRESS", "HELD"):
            by = f", claimed by {inert(row['claimed_by'], 16)}" if row["claimed_by"] else ""
            uid = inert(row["sop_instance_uid"], 64)
            found.append(f"Workitem {uid} is {row['state']}{by}: a reader has not finished it.")
    for row in known.performances:
        if row["state"] in ("claiming", "claimed", "awaited"):
            why = f": {inert(row['detail'])}" if row["detail"] else ""
            found.append(f"The workitem of {inert(row['manager'], 32)} is {row['state']}{why}.")
    return list(dict.fromkeys(found))


def _for_images(known: Known) -> Iterator[str]:
    if known.study is None:
        return
    if known.unplanned:
        came = number(known.unplanned, "image")
        since = known.study["changed_at"]
        yield (
            f"{came} not analysed yet: the quiet period after the last arrival, {since}, "
            "is not over."
        )
    if known.analysis is not None and known.analysis["state"] == "planned":
        yield "The analysis has not ended; after a restart it resumes."


def _for_object(known: Known, row: Row) -> Iterator[str]:
    to, what = inert(row["peer"], 32), kind(row["object"])
    match row["state"]:
        case "held":
            yield f"{to} gets the {what} when the study is released (`thoracle release`)."
        case "sent":
            due = f"; next check at {row['due_at']}" if row.get("due_at") else ""
            yield f"{to} has accepted the {what}; storage is not confirmed yet{due}."
        case "waiting":
            yield _trouble(known, row, to, what)
        case "failed" | "refused":
            why = f": {inert(row['detail'])}" if row["detail"] else ""
            yield (
                f"The {what} to {to} is {row['state']} and not retried{why}; "
                "`thoracle retry` sends it again."
            )


def _trouble(known: Known, row: Row, to: str, what: str) -> str:
    """Return why a delivery waits, since when, and until when."""
    if not row["attempts"]:
        return f"The {what} has not been sent to {to} yet."
    due = f"; the next attempt is at {row['next_attempt_at']}" if row["next_attempt_at"] else ""
    why = f" ({inert(row['detail'])})" if row["detail"] else ""
    since = _since(known.events, row["peer"])
    began = f" since {since}" if since else ""
    return f"The archive {to} has not accepted the {what}{began}{why}{due}."


def _since(events: Sequence[Row], destination: Any) -> str:
    """Return when the attempts of a destination that failed began, without a success between."""
    since = ""
    for row in events:
        if row.get("destination") != destination:
            continue
        if row.get("event") == Event.DELIVERY_POSTPONED.verb:
            since = since or str(row["recorded_at"])
        elif row.get("event") in (Event.DELIVERY_SENT.verb, Event.DELIVERY_SUCCEEDED.verb):
            since = ""
    return since


def _for_message(row: Row) -> Iterator[str]:
    to = inert(row["peer"], 32)
    why = f" ({inert(row['detail'])})" if row["detail"] else ""
    match row["state"]:
        case "held":
            yield f"{to} is notified when the study is released."
        case "waiting":
            due = f"; the next attempt is at {row['next_attempt_at']}" if row["attempts"] else ""
            yield f"{to} has not been notified yet{why}{due}."
        case "failed" | "refused":
            yield f"The message to {to} is {row['state']} and not retried{why}."


# ---- what is known -------------------------------------------------------------------------------
# What is known of a study, gathered for its story: rows of the tables, and of the trail.

AROUND = timedelta(minutes=10)
"""Before the first and after the last arrival: what its sender had refused then may belong here."""
MOST_AROUND = 10
"""Events around a study that are told, the newest."""
_ARRIVALS = (
    Event.INSTANCE_STORED.verb,
    Event.INSTANCE_DUPLICATE.verb,
    Event.INSTANCE_CORRECTED.verb,
)
_REFUSALS = (Event.INSTANCE_REFUSED.verb, Event.ASSOCIATION_REFUSED.verb)


def of_accession(connection: Connection, accession_number: str) -> list[str]:
    """Return the studies that ever came with an accession number, by the trail."""
    column = audit_event.c
    statement = (
        select(column.study_instance_uid)
        .where(column.accession_number == accession_number, column.study_instance_uid.is_not(None))
        .distinct()
        .order_by(column.study_instance_uid)
    )
    return list(connection.execute(statement).scalars())


def known_of(connection: Connection, study_instance_uid: str) -> Known:
    """Return what the tables and the trail say of a study, one that never came too."""
    events = list(query.events(connection, Question(study_instance_uid)))
    nothing = Known(study_instance_uid, None, 0, 0, "", None, (), (), (), (), events)
    rows = studies.rows(connection, study_instance_uid)
    if rows is None:
        return nothing
    return replace(
        nothing,
        study=_plain(rows.study),
        received=rows.received,
        unplanned=_unplanned(connection, study_instance_uid),
        state=rows.listed.ai_state if rows.listed is not None else "",
        analysis=None if rows.analysis is None else _plain(rows.analysis),
        readings=[_plain(one) for one in rows.readings.values()],
        sent=_sent(connection, study_instance_uid),
        workitems=[_plain(one) for one in workitems.of_study(connection, study_instance_uid)],
        performances=[_plain(one) for one in performances.of_study(connection, study_instance_uid)],
    )


def around(connection: Connection, study: Known) -> list[dict[str, Any]]:
    """Return what was refused, and may have belonged to a study; oldest first.

    Of a study that came, what its senders had refused around that time. Of one that never came,
    the newest refusals of all: nothing tells whose they are.
    """
    named = {event["id"] for event in study.events}
    found: dict[int, dict[str, Any]] = {}
    for question in _around(study.events):
        for event in _REFUSALS:
            wanted = replace(question, event=event)
            for row in query.page(connection, wanted, MOST_AROUND):
                found[row["id"]] = row
    return [row for number, row in sorted(found.items()) if number not in named]


def _around(events: Sequence[Row]) -> list[Question]:
    arrivals = [event for event in events if event["event"] in _ARRIVALS]
    if not arrivals:
        return [Question()]
    moments = sorted(datetime.fromisoformat(event["recorded_at"]) for event in arrivals)
    since, until = timestamp(moments[0] - AROUND), timestamp(moments[-1] + AROUND)
    senders = {str(event.get("calling_ae_title") or "") for event in arrivals} - {""}
    return [Question(since=since, until=until, ae_title=one) for one in sorted(senders)]


def _unplanned(connection: Connection, study_instance_uid: str) -> int:
    statement = (
        select(instance.c.sop_instance_uid)
        .where(instance.c.study_instance_uid == study_instance_uid, instance.c.generation.is_(None))
        .distinct()
    )
    return len(connection.execute(statement).all())


def _sent(connection: Connection, study_instance_uid: str) -> list[dict[str, Any]]:
    """Return what was to be sent of the newest generation of which something was."""
    every = outbox.of_studies(connection, [study_instance_uid])
    newest = max((row.generation for row in every), default=None)
    rows = [_plain(row) for row in every if row.generation == newest]
    for row in rows:
        if row["transaction_uid"]:
            request = requests.row_of(connection, row["transaction_uid"])
            row["due_at"] = request.due_at if request is not None else None
    return rows


def _plain(row: Any) -> dict[str, Any]:
    return dict(row._mapping)
