"""Sentences about a study: how it came, how it was read, what was made of it."""

from collections.abc import Callable

from thoracle.audit.sentences.words import (
    Row,
    Rows,
    caller,
    detail,
    inert,
    kind,
    listed,
    objects,
    of,
    person,
    reason,
    said,
    share,
    short,
)
from thoracle.store.trail import Event
from thoracle.wording import number


def _stored(rows: Rows) -> str:
    return f"{caller(rows[0])} sent {number(len(rows), 'image')}, stored and acknowledged."


def _duplicate(rows: Rows) -> str:
    return (
        f"{caller(rows[0])} sent {number(len(rows), 'image')} again; "
        "the same bytes were here already, so they were acknowledged and not kept twice."
    )


def _corrected(rows: Rows) -> str:
    return (
        f"{caller(rows[0])} sent {number(len(rows), 'image')} again with another header; "
        "kept beside the old one as a new version."
    )


def _refused(rows: Rows) -> str:
    row = rows[0]
    what = number(len(rows), "object")
    status = of(row, "status", "no status")
    return f"{caller(row)} sent {what}, refused with {status}{said(row, 'comment')}."


def _patients(row: Row) -> str:
    """Return the patients that an event names, each with its issuer if it has one."""
    found = detail(row, "patients")
    pairs = found if isinstance(found, list) else []
    names = ["^^^".join(inert(one, 64) for one in pair if one) for pair in pairs if pair]
    return listed([name or "none" for name in names] or ["not stated"])


def _differ(rows: Rows) -> str:
    return (
        f"The study has images of several patients: {_patients(rows[0])}. Each patient gets a "
        "separate report until the study is reconciled."
    )


def _reconciled(rows: Rows) -> str:
    row = rows[0]
    if detail(row, "decision") != "same":
        return f"{person(row)} said that these are different patients: {_patients(row)}."
    pair = detail(row, "patient")
    name = "^^^".join(inert(one, 64) for one in pair if one) if isinstance(pair, list) else "?"
    return f"{person(row)} said that {_patients(row)} are one patient, {name}."


def _complete(rows: Rows) -> str:
    row = rows[0]
    images = detail(row, "images")
    with_them = f" with {number(images, 'image')}" if isinstance(images, int) else ""
    generation = inert(detail(row, "generation"), 8) or "?"
    if of(row, "user_id"):
        return f"{person(row)} requested a new analysis{with_them} (generation {generation})."
    return f"The study was complete{with_them} (generation {generation})."


def _read(rows: Rows) -> str:
    row = rows[0]
    image = of(row, "sop_instance_uid", "without a UID")
    if row.get("outcome") == "rejected":
        why = reason(row.get("reason_code"))
        return f"Image {image} was rejected: {why}{said(row, 'detail')}."
    threshold = detail(row, "threshold")
    against = f", threshold {share(threshold)}" if threshold is not None else ""
    outcome = of(row, "outcome", "nothing")
    # Rows of the first versions do not name the finding.
    about = f"{inert(detail(row, 'finding'), 64)} " if detail(row, "finding") else ""
    return (
        f"Image {image} was selected, and read by {_bundle(row)} as {about}{outcome}: "
        f"probability {share(row.get('probability'))}{against}{_made_with(row)}."
    )


def _bundle(row: Row) -> str:
    return f"{of(row, 'bundle_version', 'a bundle')} (digest {short(row.get('bundle_digest'))})"


def _made_with(row: Row) -> str:
    made = detail(row, "made_with")
    took = row.get("seconds")
    told = [f"{took:.2f} s"] if isinstance(took, int | float) else []
    if isinstance(made, dict) and made:
        told += [f"Thoracle {inert(made.get('version'), 32)}", inert(made.get("runtime"), 32)]
    return f" ({', '.join(told)})" if told else ""


def _replayed(rows: Rows) -> str:
    row = rows[0]
    what = detail(row, "outcome")
    meant = {
        "same": "the result is identical, byte by byte",
        "different": "the result is different",
        "impossible": "not possible",
    }.get(str(what), inert(what))
    return f"{person(row)} replayed the analysis: {meant}{said(row, 'what')}."


def _superseded(rows: Rows) -> str:
    generation = inert(detail(rows[0], "generation"), 8)
    return f"Generation {generation} was not read: later images made a newer one."


def _failed(rows: Rows) -> str:
    return f"The analysis failed; no result was made{said(rows[0], 'detail')}."


def _created(rows: Rows) -> str:
    uids = listed(of(row, "result_sop_instance_uid", "?") for row in rows)
    return f"Made: {objects(rows)}; {uids}."


def _decided(rows: Rows) -> str:
    row = rows[0]
    parts = [_fired(row)]
    sending = detail(row, "sending")
    if sending == "held":
        parts.append(f"held by {_names(row, 'held_by')} until released")
    elif sending == "shadow":
        parts.append(f"in shadow mode by {_names(row, 'shadowed_by')}: nothing is sent")
    kinds = detail(row, "kinds")
    if isinstance(kinds, dict) and kinds:
        sent = (f"{inert(to, 32)}: {_kinds(which)}" for to, which in kinds.items())
        parts.append(f"{'to be sent' if not sending else 'otherwise'} to {'; '.join(sent)}")
    elif not sending:
        parts.append("the result is sent nowhere")
    if detail(row, "notify"):
        parts.append(f"{_names(row, 'notify')} to be notified")
    return f"Rules: {', '.join(parts)}."


def _fired(row: Row) -> str:
    fired = [one for one in detail(row, "fired") or [] if isinstance(one, dict)]
    failed = [one for one in detail(row, "failed") or [] if isinstance(one, dict)]
    told = [f"{inert(one.get('rule'), 64)} fired: {inert(one.get('when'))}" for one in fired]
    told += [
        f"{inert(one.get('rule'), 64)} could not be decided: {inert(one.get('problem'))}"
        for one in failed
    ]
    return "; ".join(told) or "none fired"


def _kinds(which: object) -> str:
    names = which if isinstance(which, list) else [which]
    return listed(kind(one) for one in names) if names else "nothing"


def _names(row: Row, name: str) -> str:
    found = detail(row, name)
    names = found if isinstance(found, list) and found else ["?"]
    return listed(inert(one, 64) for one in names)


def _released(rows: Rows) -> str:
    return f"{person(rows[0])} released the study, which a rule had held."


def _withdrawn(rows: Rows) -> str:
    return f"{person(rows[0])} withdrew the result{said(rows[0], 'reason')}."


def _verdict(rows: Rows) -> str:
    row = rows[0]
    outcome = of(row, "outcome")
    of_it = f" with the result {outcome}" if outcome else ""
    opinion = inert(detail(row, "opinion"), 32)
    verb = {"agree": "agreed", "disagree": "disagreed"}.get(opinion)
    if verb is None:
        return f"{person(row)} gave the verdict {opinion or 'nothing'}{of_it}."
    return f"{person(row)} {verb}{of_it}."


SENTENCES: dict[Event, Callable[[Rows], str]] = {
    Event.INSTANCE_STORED: _stored,
    Event.INSTANCE_DUPLICATE: _duplicate,
    Event.INSTANCE_CORRECTED: _corrected,
    Event.PATIENTS_DIFFER: _differ,
    Event.PATIENTS_RECONCILED: _reconciled,
    Event.INSTANCE_REFUSED: _refused,
    Event.STUDY_COMPLETE: _complete,
    Event.IMAGE_READ: _read,
    Event.ANALYSIS_REPLAYED: _replayed,
    Event.ANALYSIS_SUPERSEDED: _superseded,
    Event.ANALYSIS_FAILED: _failed,
    Event.RESULT_CREATED: _created,
    Event.RULES_DECIDED: _decided,
    Event.STUDY_RELEASED: _released,
    Event.RESULT_WITHDRAWN: _withdrawn,
    Event.VERDICT_GIVEN: _verdict,
}
