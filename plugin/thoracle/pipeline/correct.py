"""withdraw, reanalyse, retry: what a person asks for when things should not stay as they are."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from dbos import DBOS
from sqlalchemy import Connection

from thoracle.deliver import attempts
from thoracle.deliver import rows as stored
from thoracle.deliver.line import keep, parts
from thoracle.deliver.workflows import enqueue_deliver
from thoracle.hl7 import rows as notifications
from thoracle.hl7.oru import ReportReference
from thoracle.hl7.workflow import enqueue_notify, message
from thoracle.pipeline import route
from thoracle.pipeline.analyse import enqueue_analyse
from thoracle.records import BundleIdentity, Kind
from thoracle.report import keyobject, sentences, sr
from thoracle.report.header import Instance
from thoracle.report.result_set import encoded
from thoracle.store import bundles, engine, trail
from thoracle.store.tables import now
from thoracle.study import analyses, headers, instances, reading_list, results
from thoracle.study.results import AnalysisKey, ResultObject
from thoracle.ups import review
from thoracle.ups.subscriptions import enqueue_reports

# ---- rows ----------------------------------------------------------------------------------------
# Withdrawals: rows and events written together, each in one transaction.

AT_ARCHIVE = ("sent", "delivered")
"""States of a delivery whose object the archive has."""
NOT_ARRIVED = ("waiting", "held", "refused", "failed")
"""States of what a withdrawal takes back, so that no retry sends it later."""


def begin(connection: Connection, study_instance_uid: str) -> dict[str, Any] | None:
    """Return what a withdrawal of a study's newest result needs.

    ``None`` when the study has none, it is withdrawn already, or of an image not even the header
    is kept.
    Else: ``generation`` and ``digest`` of the analysis; ``predecessor``, the report, as class,
    instance and series;
    ``made_at``; ``content_datetime`` of the withdrawal, fixed here once; ``sources``, paths;
    ``report_to``, the destinations of the report; ``kept``, for each destination the objects of
    the study that it has, as class, instance and series.
    """
    report = results.standing(connection, study_instance_uid)
    if report is None:
        return None
    key = AnalysisKey(study_instance_uid, report.generation, report.bundle_digest)
    if headers.missing(connection, study_instance_uid):
        return None  # gone since it was asked for: requests.py has seen to the rest
    rows = stored.of_study(connection, study_instance_uid)
    kept: dict[str, list[list[str]]] = {}
    for row in rows:
        if row.state in AT_ARCHIVE and row.kind not in (Kind.REJECTION, Kind.ORIGINAL):
            kept.setdefault(row.destination, []).append(
                [
                    # Rows of the first schema do not say it.
                    row.delivered_sop_class_uid or row.sop_class_uid,
                    row.delivered_sop_instance_uid,
                    row.series_instance_uid,
                ]
            )
    return {
        "generation": key.generation,
        "digest": key.bundle_digest,
        "predecessor": [report.sop_class_uid, report.sop_instance_uid, report.series_instance_uid],
        "made_at": report.created_at,
        "content_datetime": now(),
        "sources": [
            row.path for row in instances.sources(connection, study_instance_uid, key.generation)
        ],
        "report_to": [
            row.destination
            for row in rows
            if row.sop_instance_uid == report.sop_instance_uid
            and row.state in ("waiting", *AT_ARCHIVE)
        ],
        "kept": kept,
    }


def withdrawn(
    connection: Connection,
    key: AnalysisKey,
    made: Sequence[tuple[ResultObject, Sequence[str]]],
    reason: str,
    user_id: str,
    workflow_id: str,
) -> None:
    """Record that a result is withdrawn, and by which objects; take back what was not yet sent."""
    results.withdraw(connection, key)
    reading_list.set_state(connection, key.study_instance_uid, reading_list.WITHDRAWN)
    for row in stored.of_study(connection, key.study_instance_uid):
        if row.state in NOT_ARRIVED and row.kind != Kind.ORIGINAL:
            attempts.withdrawn(connection, row)
    for row in notifications.of_study(connection, key.study_instance_uid):
        if row.state in NOT_ARRIVED:
            values = {"state": "withdrawn", "next_attempt_at": None}
            notifications.set_row(connection, row.sop_instance_uid, row.receiver, values)
    columns: trail.Columns = {
        **analyses.of_study(connection, key.study_instance_uid),
        "bundle_digest": key.bundle_digest,
        "finding": results.analysis_row(connection, key).finding,
        "user_id": user_id,
        "correlation_id": workflow_id,
    }
    detail = {"generation": key.generation, "reason": reason}
    trail.record(connection, trail.Event.RESULT_WITHDRAWN, {**columns, "detail": detail})
    for result, destinations in made:
        analyses.add_result(connection, key, result, destinations, columns)


def retried(
    connection: Connection, study_instance_uid: str, user_id: str, workflow_id: str
) -> dict[str, Any]:
    """Take up a study's dead deliveries and notifications again, and record who asked for it.

    Returns a dictionary: ``deliveries``, each destination, object and attempt, and
    ``notifications``, each receiver, report and attempt.
    """
    taken = {
        "deliveries": stored.retry(connection, study_instance_uid),
        "notifications": notifications.retry(connection, study_instance_uid),
    }
    trail.record(
        connection,
        trail.Event.DELIVERY_RETRIED,
        {
            **analyses.of_study(connection, study_instance_uid),
            "user_id": user_id,
            "correlation_id": workflow_id,
            "detail": {name: len(found) for name, found in taken.items()},
        },
    )
    return taken


# ---- workflows -----------------------------------------------------------------------------------

STAT = 1
"""Queue priority: an answer that is wrong should not stand for long."""


@DBOS.workflow(name="withdraw", max_recovery_attempts=5)
def withdraw(study_instance_uid: str, reason: str, user_id: str) -> None:
    """Withdraw a study's result: a correcting report, and a rejection note where one is allowed."""
    begun = engine.transaction(begin, study_instance_uid)
    if begun is None:
        return
    made = _correct(study_instance_uid, reason, begun)
    key = (study_instance_uid, begun["generation"], begun["digest"])
    written = _messages(study_instance_uid, reason, begun, made[0][0])
    waiting = engine.transaction(_withdrawn, *key, made, written, reason, user_id)
    for destination, uid in waiting["deliveries"]:
        enqueue_deliver(destination, uid, 1, STAT, None)
    for receiver, uid in waiting["notifications"]:
        enqueue_notify(receiver, uid, 1, None)
    enqueue_reports(waiting["told"])


@DBOS.step(name="correct")
def _correct(
    study_instance_uid: str, reason: str, begun: dict[str, Any]
) -> list[tuple[dict[str, Any], list[str]]]:
    """Return the objects that were made, each with its destinations."""
    line = parts()
    sources = [line.header(study_instance_uid, path) for path in begun["sources"]]
    bundle = _bundle_of(begun["digest"])
    content_datetime = _moment(begun["content_datetime"])
    common: dict[str, Any] = {
        "content_datetime": content_datetime,
        "settings": line.settings.report,
    }
    report = sr.withdrawal(
        sources,
        Instance(*begun["predecessor"]),
        reason,
        bundle,
        made=_moment(begun["made_at"]),
        **common,
    )
    made = [(asdict(keep(encoded(Kind.SR, report))), list(begun["report_to"]))]
    notes: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for name, objects in begun["kept"].items():
        destination = line.destinations.get(name)
        if destination is None or not destination.rejection_note:
            continue
        named = [Instance(*one) for one in objects]
        note = keyobject.rejection(named, sources, bundle, **common)
        # Archives that have the same objects get the same note.
        uid = str(note.SOPInstanceUID)
        if uid not in notes:
            notes[uid] = (asdict(keep(encoded(Kind.REJECTION, note))), [])
        notes[uid][1].append(name)
    return [*made, *notes.values()]


@DBOS.step(name="withdrawal messages")
def _messages(
    study_instance_uid: str, reason: str, begun: dict[str, Any], report: dict[str, Any]
) -> list[tuple[str, str]]:
    """Return the receivers that were told of the result, each with the path of its message."""
    line = parts()
    with line.database.connect() as connection:
        told = notifications.told(connection, study_instance_uid)
    sources = [line.header(study_instance_uid, path) for path in begun["sources"]]
    bundle = _bundle_of(begun["digest"])
    return [
        (
            receiver.name,
            message(
                receiver,
                sources[0],
                sr.withdrawn(sources),
                bundle,
                ReportReference(report["series_instance_uid"], report["sop_instance_uid"]),
                sentences.withdrawal(reason, _moment(begun["made_at"]), bundle.finding),
                _moment(begun["content_datetime"]),
                "withdrawn",
            ),
        )
        for receiver in line.settings.hl7
        if receiver.name in told
    ]


def _bundle_of(digest: str) -> BundleIdentity:
    """Return the bundle that made a result, which may not be the one that reads now."""
    line = parts()
    with line.database.connect() as connection:
        known = bundles.known(connection, [digest]).get(digest)
    if known is None:
        return line.reader.bundle
    # Of the first versions' bundles the rule is not kept; what they found is.
    return known.identity or replace(line.reader.bundle, finding=known.finding)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone()


def _withdrawn(
    connection: Connection,
    study: str,
    generation: int,
    digest: str,
    made: list[tuple[dict[str, Any], list[str]]],
    written: list[tuple[str, str]],
    reason: str,
    user_id: str,
) -> dict[str, list[Any]]:
    objects = [
        (ResultObject(**{**values, "kind": Kind(values["kind"])}), names) for values, names in made
    ]
    key = AnalysisKey(study, generation, digest)
    withdrawn(connection, key, objects, reason, user_id, str(DBOS.workflow_id))
    report = objects[0][0].sop_instance_uid
    for receiver, path in written:
        notifications.add(connection, report, receiver, path, "waiting")
    return {
        "deliveries": [(name, one.sop_instance_uid) for one, names in objects for name in names],
        "notifications": [(receiver, report) for receiver, _ in written],
        "told": review.withdraw(connection, study),
    }


@DBOS.workflow(name="reanalyse", max_recovery_attempts=None)
def reanalyse(study_instance_uid: str, user_id: str) -> None:
    """Read a study again with the bundle of now; its report names the earlier one."""
    bundle = parts().reader.bundle
    plans = engine.transaction(
        analyses.plan,
        study_instance_uid,
        bundle.digest,
        bundle.finding.key,
        str(DBOS.workflow_id),
        user_id,
    )
    for plan in plans:
        priority = route.priority_of(study_instance_uid, plan)
        enqueue_analyse(study_instance_uid, bundle.digest, plan["generation"], priority)


@DBOS.workflow(name="retry", max_recovery_attempts=None)
def retry(study_instance_uid: str, user_id: str) -> None:
    """Send again what was refused, or given up."""
    taken = engine.transaction(retried, study_instance_uid, user_id, str(DBOS.workflow_id))
    for destination, uid, attempt in taken["deliveries"]:
        enqueue_deliver(destination, uid, attempt, STAT, None)
    for receiver, uid, attempt in taken["notifications"]:
        enqueue_notify(receiver, uid, attempt, None)
