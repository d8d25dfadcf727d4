"""Sentences about people, views, and the service itself."""

from collections.abc import Callable

from thoracle.audit.sentences.words import (
    Row,
    Rows,
    caller,
    detail,
    inert,
    listed,
    of,
    person,
    said,
    short,
    times,
)
from thoracle.store.trail import Event
from thoracle.wording import number

MOST_NAMES = 12
"""Settings that a sentence names."""


def _means(row: Row) -> str:
    means = inert(detail(row, "means"), 64)
    return f" by {means}" if means else ""


def _started(rows: Rows) -> str:
    row = rows[0]
    version = inert(detail(row, "version"), 32)
    named = f"Thoracle {version}" if version else "Thoracle"
    named += _gateway(row)
    return f"{named} started with the bundle of digest {short(row.get('bundle_digest'))}."


def _gateway(row: Row) -> str:
    """Return which of several gateways an event is about."""
    name = inert(detail(row, "gateway"), 64)
    return f", gateway {name}," if name else ""


def _stopped(rows: Rows) -> str:
    row = rows[0]
    heard_at = inert(detail(row, "heard_at"), 32)
    if heard_at:
        return (
            f"Thoracle{_gateway(row)} ended without stopping: it was heard of last at {heard_at}, "
            "and others took up its work."
        )
    return f"Thoracle{_gateway(row)} stopped."


def _configured(rows: Rows) -> str:
    found = detail(rows[0], "changed")
    names = [inert(one, 80) for one in found] if isinstance(found, list) else []
    if not names:
        return "The settings of this start were recorded; there are no earlier ones to compare."
    shown = names[:MOST_NAMES]
    rest = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return f"Settings changed since the last start: {listed([*shown, *rest])}."


def _edited(rows: Rows) -> str:
    found = detail(rows[0], "changed")
    entries = found if isinstance(found, list) else []
    names = [inert(one.get("setting"), 80) for one in entries if isinstance(one, dict)]
    rest = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    what = listed([*names[:MOST_NAMES], *rest]) if names else "nothing"
    return f"{person(rows[0])} changed the configuration file: {what}."


def _bundle_refused(rows: Rows) -> str:
    return f"Thoracle did not start: the bundle is not the required one{said(rows[0], 'reason')}."


def _association_refused(rows: Rows) -> str:
    row = rows[0]
    count = sum(found if isinstance(found := detail(one, "times"), int) else 1 for one in rows)
    called = of(row, "called_ae_title")
    to = f" that called {called}" if called else ""
    refused = "1 association" if count == 1 else f"{count} associations"
    return f"{refused} of {caller(row)}{to} refused{said(row, 'reason')}."


def _association(rows: Rows) -> str:
    row = rows[0]
    parts = [
        f"{count} {name}"
        for name in ("stored", "duplicates", "corrected", "refused")
        if isinstance(count := detail(row, name), int) and count
    ]
    end = "was released" if detail(row, "released") else "ended without release"
    return f"{caller(row)} sent over an association: {', '.join(parts) or 'nothing'}; it {end}."


def _logged_in(rows: Rows) -> str:
    return f"{person(rows[0])} logged in{_means(rows[0])}{times(rows)}."


def _login_refused(rows: Rows) -> str:
    who = person(rows[0])
    return f"A log-in of {who} was refused{times(rows)}{said(rows[0], 'why')}."


def _logged_out(rows: Rows) -> str:
    return f"{person(rows[0])} logged out{times(rows)}."


def _person_changed(rows: Rows) -> str:
    row = rows[0]
    found = row.get("detail")
    names = sorted(set(found) - {"person", "means"}) if isinstance(found, dict) else []
    what = listed(inert(one, 32) for one in names) if names else "something"
    whose = inert(detail(row, "person"), 64) or "somebody"
    return f"{person(row)} changed the account {whose}: {what}."


def _list_viewed(rows: Rows) -> str:
    return f"{person(rows[0])} viewed a list of studies{_means(rows[0])}{times(rows)}."


def _study_viewed(rows: Rows) -> str:
    return f"{person(rows[0])} viewed the study{_means(rows[0])}{times(rows)}."


def _peer_tried(rows: Rows) -> str:
    row = rows[0]
    well = "answered" if not row.get("event_outcome") else "did not answer"
    there = of(row, "destination", "A peer")
    return f"{person(row)} tested {there}: it {well}{said(row, 'detail')}."


def _alarm(rows: Rows) -> str:
    return f"An alarm was raised{said(rows[0], 'sentence', 'subject')}."


def _alarm_ended(rows: Rows) -> str:
    return f"An alarm ended{said(rows[0], 'sentence', 'subject')}."


def _acknowledged(rows: Rows) -> str:
    return f"{_about_alarm(rows[0], 'acknowledged the alarm')}{said(rows[0], 'comment')}."


def _silenced(rows: Rows) -> str:
    until = inert(detail(rows[0], "until"), 16)
    return f"{_about_alarm(rows[0], 'silenced the alarm')} until {until}{said(rows[0], 'comment')}."


def _unsilenced(rows: Rows) -> str:
    return f"{_about_alarm(rows[0], 'ended the silence of the alarm')}."


def _about_alarm(row: Row, did: str) -> str:
    return f"{person(row)} {did} {inert(detail(row, 'subject'), 64)}"


def _behind(rows: Rows) -> str:
    there = of(rows[0], "destination", "A repository")
    return f"{there} does not accept the audit{said(rows[0], 'reason')}."


def _caught_up(rows: Rows) -> str:
    return f"{of(rows[0], 'destination', 'A repository')} has received all of the audit."


def _hold(rows: Rows) -> str:
    return f"{person(rows[0])} placed a legal hold: nothing is deleted{said(rows[0], 'reason')}."


def _hold_released(rows: Rows) -> str:
    return f"{person(rows[0])} released a legal hold."


def _deleted(rows: Rows) -> str:
    row = rows[0]
    files, days = detail(row, "files"), detail(row, "days")
    if isinstance(by_table := detail(row, "rows"), dict):
        found = sum(one for one in by_table.values() if isinstance(one, int))
        return (
            f"{number(found, 'row')} deleted by the rule for {inert(detail(row, 'what'), 32)} "
            f"after {inert(days, 8)} days."
        )
    what, kept = detail(row, "what"), detail(row, "headers_kept")
    unit = "header" if what == "headers" else "file"
    count = number(files, unit) if isinstance(files, int) else "Files"
    rule = f" after {inert(days, 8)} days" if days is not None else ""
    left = ""
    if isinstance(kept, int) and kept:
        left = f" {number(kept, 'header')} kept, so that the result can be withdrawn."
    return f"{count} deleted by the rule for {inert(what, 32) or '?'}{rule}.{left}"


def _key_created(rows: Rows) -> str:
    key = inert(detail(rows[0], "key"), 32)
    return f"Anchors of the audit are signed with the key {key} from here on."


def _timestamped(rows: Rows) -> str:
    row, when = inert(detail(rows[0], "anchor"), 20), inert(detail(rows[0], "time"), 32)
    by = inert(detail(rows[0], "authority"), 200)
    return (
        f"{person(rows[0])} had the audit up to row {row} time-stamped: {when}, certified by {by}."
    )


def _erasure_requested(rows: Rows) -> str:
    return f"{person(rows[0])} requested the erasure of a patient{said(rows[0], 'reason')}."


def _erased(rows: Rows) -> str:
    found = detail(rows[0], "rows")
    count = number(found, "row") if isinstance(found, int) else "Rows"
    return (
        f"{person(rows[0])} erased a patient{said(rows[0], 'reason')}. {count} of the audit "
        "kept a pseudonym."
    )


def _purged(rows: Rows) -> str:
    found = detail(rows[0], "rows")
    count = number(found, "row") if isinstance(found, int) else "Rows"
    return f"{count} at the beginning of the audit purged{said(rows[0], 'reason')}."


def _exported(rows: Rows) -> str:
    return f"{person(rows[0])} exported data{_means(rows[0])}{times(rows)}."


def _audit_read(rows: Rows) -> str:
    return f"{person(rows[0])} read the audit{_means(rows[0])}{times(rows)}."


def _accepted(rows: Rows) -> str:
    row = rows[0]
    return (
        f"{person(row)} accepted a database that does not continue the earlier one"
        f"{said(row, 'found')}: {inert(detail(row, 'reason'), 300)}."
    )


def _moved(rows: Rows) -> str:
    row = rows[0]
    found = detail(row, "rows")
    count = number(found, "row") if isinstance(found, int) else "All rows"
    return (
        f"{person(row)} moved the database to {inert(detail(row, 'to'), 300)}: {count}, "
        "counted and compared."
    )


SENTENCES: dict[Event, Callable[[Rows], str]] = {
    Event.APPLICATION_STARTED: _started,
    Event.APPLICATION_STOPPED: _stopped,
    Event.CONFIGURATION_CHANGED: _configured,
    Event.CONFIGURATION_EDITED: _edited,
    Event.DATABASE_ACCEPTED: _accepted,
    Event.DATABASE_MOVED: _moved,
    Event.BUNDLE_REFUSED: _bundle_refused,
    Event.ASSOCIATION_REFUSED: _association_refused,
    Event.ASSOCIATION_ACCEPTED: _association,
    Event.LOGGED_IN: _logged_in,
    Event.LOGIN_REFUSED: _login_refused,
    Event.LOGGED_OUT: _logged_out,
    Event.PERSON_CHANGED: _person_changed,
    Event.LIST_VIEWED: _list_viewed,
    Event.STUDY_VIEWED: _study_viewed,
    Event.PEER_TRIED: _peer_tried,
    Event.ALARM_RAISED: _alarm,
    Event.ALARM_ENDED: _alarm_ended,
    Event.ALARM_ACKNOWLEDGED: _acknowledged,
    Event.ALARM_SILENCED: _silenced,
    Event.ALARM_UNSILENCED: _unsilenced,
    Event.AUDIT_BEHIND: _behind,
    Event.AUDIT_CAUGHT_UP: _caught_up,
    Event.HOLD_PLACED: _hold,
    Event.HOLD_RELEASED: _hold_released,
    Event.RETENTION_DELETED: _deleted,
    Event.AUDIT_KEY_CREATED: _key_created,
    Event.AUDIT_TIMESTAMPED: _timestamped,
    Event.AUDIT_PURGED: _purged,
    Event.ERASURE_REQUESTED: _erasure_requested,
    Event.PATIENT_ERASED: _erased,
    Event.EXPORTED: _exported,
    Event.AUDIT_READ: _audit_read,
}
