"""Conditions of the service that somebody has to know of: each that holds is an alarm.

What is acknowledged ends in a result, a coded refusal or an alarm here that names it; the last
condition, studies without an answer in time, holds whatever the cause is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, case, func, or_, select, true

from thoracle.audit import forwarding
from thoracle.monitoring import operations, statistics
from thoracle.monitoring.comparison import Comparison, Level, shown
from thoracle.outbox.rows import ARRIVED, NO_STUDY
from thoracle.records import Reason
from thoracle.settings import Settings
from thoracle.store import lease, trail, workflows
from thoracle.store.tables import (
    analysis,
    audit_event,
    instance,
    outbox,
    reading,
    study,
    timestamp,
    worklist,
)
from thoracle.study import reconciliation
from thoracle.study.published import is_of_published

FAILED_DAYS = 7
"""A failed analysis that nobody took up is an alarm so long."""
NAMED = 3
"""Studies that an alarm names; the others are counted."""
DEVICE_HOURS = 24
GIVEN_UP_HOURS = 24
"""So long an alarm tells of what ended in an error."""
ANALYSE = "analyse"
"""The workflow whose failures have alarms of their own, which name the studies."""
PARKED = (Reason.RESULT_LIMITS.code.value,)
"""Reasons of studies that are put aside: reading them again costs the same again."""
OURS = (Reason.OWN_OUTPUT.code.value, Reason.SOFTWARE_FAILURE.code.value)
"""Reasons that say nothing about the device."""


@dataclass(frozen=True, slots=True)
class _Study:
    """A study that an alarm names."""

    uid: str
    why: str


SUBJECTS = (
    "analysis ",
    "audit repository ",
    "certificate ",
    "clock",
    "database",
    "dead letters",
    "destination ",
    "device ",
    "gateway ",
    "housekeeping ",
    "patients",
    "storage",
    "unanswered",
    "work given up",
    "workitems",
)
"""How the subjects of the alarms of the service begin; all others are figures that are compared."""


def of_service(subject: str) -> bool:
    """Return whether an alarm is about the service, not about a figure of the watch."""
    return subject.startswith(SUBJECTS)


def tells_results(subject: str) -> bool:
    """Return whether an alarm says what results are, those too that a rule keeps back."""
    return subject.startswith("device ") or not of_service(subject)


def check(connection: Connection, settings: Settings, now: datetime) -> list[Comparison]:
    """Return an alarm for each condition that holds now."""
    return [
        *_failed(connection, now),
        *_unanswered(connection, settings, now),
        *_unreachable(connection, settings, now),
        *_dead(connection),
        *refused_devices(connection, settings, now),
        *_repositories(connection),
        *_patients(connection),
        *_workitems(connection, now),
        *_given_up(connection, now),
        *_gateways(connection),
    ]


def of_process(
    storage: str, database: str, retention: str, refused: str = "", clock: str = ""
) -> Iterator[Comparison]:
    """Yield alarms for what the gateway finds itself; each text is empty when all is well.

    Parameters
    ----------
    storage
        Why no object could be stored now.
    database
        The newest error that the database has answered lately.
    retention
        The kind of error with which the newest run ended early.
    refused
        Why an image was refused lately, for want of room or another resource.
    clock
        How the clock of the machine was set lately.
    """
    if storage or refused:
        said = f"No image is taken: {storage}."
        if not storage:
            said = f"Images were refused in the last minutes: {refused}."
        advice = "What to do: make room, or restore what is missing; senders keep their images."
        yield alarm("storage", "Images are refused", said, advice)
    if database:
        sentence = f"The database answered an error in the last minutes: {database}."
        advice = "What to do: look at its disk and its log; work is tried again by itself."
        yield alarm("database", "Errors of the database", sentence, advice)
    if retention:
        sentence = f"The newest run of the retention ended early: {retention}."
        advice = "What to do: look for it in the log of the gateway; the next run goes on."
        yield alarm("housekeeping retention", "Retention", sentence, advice)
    if clock:
        sentence = f"The clock of this machine was set {clock} in the last minutes."
        advice = (
            "What to do: have it kept by NTP. Times in the audit and in reports of these minutes "
            "are those of the clock; the order of the audit is that of its rows."
        )
        yield alarm("clock", "Clock", sentence, advice)


def alarm(subject: str, name: str, sentence: str, advice: str = "") -> Comparison:
    """Return an alarm; its subject is at most 64 characters."""
    return Comparison(subject[:64], name, Level.ALARM, sentence, advice)


def _of_studies(
    subject: str, name: str, what: str, studies: Sequence[_Study], advice: str
) -> Comparison:
    """Return an alarm that names some studies and counts all."""
    told = [f"{one.uid} ({one.why})" if one.why else one.uid for one in studies[:NAMED]]
    more = f" and {len(studies) - NAMED} more" if len(studies) > NAMED else ""
    number = "1 study" if len(studies) == 1 else f"{len(studies)} studies"
    sentence = f"{what}: {number}, {', '.join(told)}{more}."
    return replace(
        alarm(subject, name, sentence, advice),
        study_instance_uid=studies[0].uid,
        outside=f"{what}: {number}.",
    )


def _patients(connection: Connection) -> Iterator[Comparison]:
    """Yield an alarm while a study waits for somebody to settle whose images it has."""
    rows = reconciliation.open_studies(connection)
    if rows:
        studies = [_Study(row.study_instance_uid, "") for row in rows]
        name = "Several patients in one study"
        advice = "What to do: `thoracle reconcile STUDY`, or the page of the study."
        yield _of_studies("patients", name, "Images of several patients", studies, advice)


def _workitems(connection: Connection, now: datetime) -> Iterator[Comparison]:
    """Yield an alarm for results about which no workitem could be offered."""
    since = timestamp(now - timedelta(hours=GIVEN_UP_HOURS))
    table = audit_event.c
    uids = connection.execute(
        select(table.study_instance_uid)
        .where(
            table.event == trail.Event.WORKITEM_CREATED.verb,
            table.recorded_at >= since,
            table.event_outcome == trail.SERIOUS_FAILURE,
        )
        .order_by(table.recorded_at.desc())
    ).scalars()
    studies = [_Study(uid, "") for uid in dict.fromkeys(uids)]
    if studies:
        advice = "What to do: see the page of the study; no reader was told by a workitem."
        yield _of_studies("workitems", "Workitems", "No workitem offered", studies, advice)


def _given_up(connection: Connection, now: datetime) -> Iterator[Comparison]:
    """Yield an alarm for other work that ended in an error, whatever it was."""
    since = (now - timedelta(hours=GIVEN_UP_HOURS)).timestamp()
    found = workflows.given_up(connection, since)
    told = [f"{number} x {name}" for name, number in found.items() if name != ANALYSE]
    if told:
        sentence = f"Ended in an error in the last {GIVEN_UP_HOURS} hours: {', '.join(told)}."
        advice = "What to do: the log says why; fix the cause, then request it again."
        yield alarm("work given up", "Work given up", sentence, advice)


def _failed(connection: Connection, now: datetime) -> Iterator[Comparison]:
    """Yield alarms for studies of which the newest analysis failed, until somebody took them up."""
    since = timestamp(now - timedelta(days=FAILED_DAYS))
    rows = connection.execute(
        select(analysis.c.study_instance_uid, worklist.c.reason_code)
        .join(study, study.c.study_instance_uid == analysis.c.study_instance_uid)
        .join(worklist, worklist.c.study_instance_uid == analysis.c.study_instance_uid)
        .where(
            analysis.c.state == "failed",
            analysis.c.generation == study.c.generation,
            analysis.c.finished_at >= since,
            worklist.c.ai_state == "failed",
            worklist.c.reviewed_at.is_(None),
        )
        .order_by(analysis.c.finished_at.desc())
    ).all()
    parked = [_Study(uid, _meaning(code)) for uid, code in rows if code in PARKED]
    failed = [_Study(uid, _meaning(code)) for uid, code in rows if code not in PARKED]
    advice = "What to do: fix the cause, then `thoracle reanalyse STUDY`."
    if failed:
        yield _of_studies("analysis failed", "Failed analysis", "Analysis failed", failed, advice)
    if parked:
        what = "Put aside, because the result broke the limits"
        advice = "What to do: look at its images with the sender; it is not tried again by itself."
        yield _of_studies("analysis parked", "Parked study", what, parked, advice)


def _unanswered(connection: Connection, settings: Settings, now: datetime) -> Iterator[Comparison]:
    """Yield an alarm for studies that have waited for an answer longer than the settings allow."""
    patience = timedelta(minutes=settings.watch.answer_minutes)
    before = timestamp(now - patience)
    cap = timestamp(now - patience - timedelta(seconds=settings.complete.cap_seconds))
    incomplete = select(instance.c.study_instance_uid).where(
        instance.c.generation.is_(None), instance.c.received_at < cap
    )
    planned = select(analysis.c.study_instance_uid).where(
        analysis.c.state == "planned", analysis.c.content_datetime < before
    )
    uids = list(connection.execute(incomplete.union(planned)).scalars())
    if uids:
        studies = [_Study(uid, "") for uid in uids]
        advice = (
            f"Required is an answer within {settings.watch.answer_minutes:g} minutes. "
            "What to do: `thoracle audit why STUDY` says how far it came."
        )
        name = "Studies without an answer"
        yield _of_studies("unanswered", name, "No answer yet", studies, advice)


def _unreachable(connection: Connection, settings: Settings, now: datetime) -> Iterator[Comparison]:
    """Yield an alarm for each peer to which nothing has gone for too long."""
    limit = timestamp(now - timedelta(minutes=settings.watch.unreachable_minutes))
    table = outbox.c
    waiting = connection.execute(
        select(table.peer, func.min(table.created_at), func.count(), func.max(table.detail))
        .where(table.state == "waiting", table.attempts > 0, table.detail.is_not(None))
        .group_by(table.peer)
        .order_by(table.peer)
    ).all()
    for name, first, number, detail in waiting:
        taken = (table.peer == name) & table.state.in_(ARRIVED)
        last = connection.execute(select(func.max(table.changed_at)).where(taken)).scalar()
        since = max(first, last or first)
        if since < limit:
            sentence = (
                f"{name} has taken nothing since {since[:19]} UTC: {number} wait. "
                f"Last answer: {operations.plain(detail)}"
            )
            advice = "What to do: test it on the dashboard; what waits is sent once it answers."
            yield alarm(f"destination {name}", f"{name} out of reach", sentence, advice)


def _dead(connection: Connection) -> Iterator[Comparison]:
    """Yield an alarm while there are dead letters that can be sent again."""
    number, newest = operations.dead_letters(connection, 1)
    if number:
        row = newest[0]
        cause = f"to {row.peer}, {row.state}: {operations.plain(row.detail)}."
        study = None if row.study_instance_uid == NO_STUDY else row.study_instance_uid
        newest_one = f"the newest: {row.kind}{f' of study {study}' if study else ''} {cause}"
        advice = "What to do: fix the cause, then `thoracle retry STUDY` or *Send again*."
        found = alarm(
            "dead letters", "Dead letters", f"{number} dead letters; {newest_one}", advice
        )
        yield replace(
            found,
            study_instance_uid=study,
            outside=f"{number} dead letters; the newest {cause}",
        )


def refused_devices(
    connection: Connection, settings: Settings, now: datetime, *, with_kept_back: bool = True
) -> Iterator[Comparison]:
    """Yield an alarm for each device of which no image of a day could be read.

    Without ``with_kept_back``, of images alone whose result may be told.
    """
    since = timestamp(now - timedelta(hours=DEVICE_HOURS))
    refused = func.sum(case((reading.c.reason_code.is_not(None), 1), else_=0))
    rows = connection.execute(
        select(
            worklist.c.device,
            func.count().label("number"),
            func.max(reading.c.reason_code).label("code"),
        )
        .select_from(worklist)
        .join(study, study.c.study_instance_uid == worklist.c.study_instance_uid)
        .join(
            reading,
            and_(
                reading.c.study_instance_uid == study.c.study_instance_uid,
                reading.c.generation == study.c.generation,
            ),
        )
        .where(
            worklist.c.received_at >= since,
            or_(reading.c.reason_code.is_(None), reading.c.reason_code.not_in(OURS)),
            true() if with_kept_back else is_of_published(reading),
        )
        .group_by(worklist.c.device)
        .having(func.count() >= settings.watch.refused_images, refused == func.count())
        .order_by(worklist.c.device)
    ).all()
    until = timestamp(now + timedelta(days=1))  # what came this moment, too
    details = {
        row.device: row.detail
        for row in reversed(
            statistics.refusals(connection, since, until, with_kept_back=with_kept_back)
        )
        if row.reason_code is not None
    }
    for row in rows:
        name, detail = shown(row.device), details.get(row.device)
        most = f"; most of them: {shown(detail)}" if detail else ""
        sentence = (
            f"All {row.number} images of {name} in the last {DEVICE_HOURS} hours were refused, "
            f"e.g. as: {_meaning(row.code)}{most}."
        )
        advice = (
            "What to do: compare what the device writes into its headers with [select]; words of "
            "its own for chest and views go into chest_words and frontal_words."
        )
        yield alarm(f"device {name}", f"{name} refused wholesale", sentence, advice)


def _repositories(connection: Connection) -> Iterator[Comparison]:
    for one in forwarding.repositories(connection):
        if one["state"] == forwarding.BEHIND:
            name = one["repository"]
            sentence = f"Audit repository {name} is behind: {one['waiting']} events wait."
            advice = "What to do: `thoracle status` has its last error; nothing is lost."
            yield alarm(f"audit repository {name}", f"Audit repository {name}", sentence, advice)


def _gateways(connection: Connection) -> Iterator[Comparison]:
    """Yield alarms for gateways, of several, that are gone, can store nothing, or differ."""
    for row in lease.gone(connection):
        sentence = (
            f"Gateway {row.name} on {row.host} is gone: heard of last at {row.renewed_at[:19]} "
            f"UTC, its work was taken over at {(row.taken_at or '')[:19]} UTC."
        )
        advice = "What to do: look at its machine; start it, and stop it in order if it goes away."
        yield alarm(f"gateway {row.name}", f"Gateway {row.name}", sentence, advice)
    at_work = [row for row in lease.known(connection) if not row.is_gone]
    for row in at_work[1:]:  # the first one leads, and tells of its own
        if row.fault:
            sentence = f"Gateway {row.name}: {row.fault}"
            advice = "What to do: look at its machine, its data folder and its connections."
            yield alarm(f"gateway {row.name} fault", f"Gateway {row.name}", sentence, advice)
    names = [row.name for row in at_work if row.settings_digest != at_work[0].settings_digest]
    if names:
        sentence = f"Settings of {', '.join(names)} differ from those of {at_work[0].name}."
        advice = "What to do: make them alike (docs/several-machines.md), and start them again."
        yield alarm("gateway settings", "Settings of gateways", sentence, advice)


def _meaning(code: Any) -> str:
    """Return what a Code Value of a reason means."""
    try:
        return Reason.from_code_value(str(code)).code.meaning
    except KeyError:
        return "see the study"
