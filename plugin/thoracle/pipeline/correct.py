"""withdraw, reanalyse, retry: what a person asks for when things should not stay as they are."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbos import DBOS
from sqlalchemy import Connection

from thoracle.outbox import rows as outbox
from thoracle.outbox.rows import ARRIVED, DICOM, Batch
from thoracle.outbox.senders import ResultNotice
from thoracle.outbox.workflow import enqueue
from thoracle.pipeline import route
from thoracle.pipeline.analyse import enqueue_plans
from thoracle.receive.inbox import file_name
from thoracle.records import BundleIdentity, Kind
from thoracle.report import keyobject, sentences, sr
from thoracle.report.header import Instance
from thoracle.report.result_set import encoded
from thoracle.store import bundles, engine, objects, trail
from thoracle.store.tables import now
from thoracle.study import analyses, headers, instances, reading_list, reconciliation, results
from thoracle.study.line import parts, write_result
from thoracle.study.reconciliation import Patient
from thoracle.study.results import AnalysisKey, ResultObject
from thoracle.ups import review

# ---- rows ----------------------------------------------------------------------------------------
# Withdrawals: rows and events written together, each in one transaction.


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
    rows = outbox.of_studies(connection, [study_instance_uid], DICOM)
    kept: dict[str, list[list[str]]] = {}
    for row in rows:
        if row.state in ARRIVED and row.object not in (Kind.REJECTION, Kind.ORIGINAL):
            kept.setdefault(row.peer, []).append(
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
            row.peer
            for row in rows
            if row.sop_instance_uid == report.sop_instance_uid
            and row.state in ("waiting", *ARRIVED)
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
    reading_list.withdraw(connection, key.study_instance_uid)
    outbox.withdraw(connection, key.study_instance_uid)
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
        analyses.add_result(connection, key, result, columns)
        uid = result.sop_instance_uid
        outbox.add_object(connection, uid, destinations, priority=outbox.STAT)


def retry_rows(
    connection: Connection, study_instance_uid: str, user_id: str, workflow_id: str
) -> list[Batch]:
    """Take up again what is dead of a study, and record who asked for it."""
    batches, kinds = outbox.retry(connection, study_instance_uid)
    columns: trail.Columns = {}
    if study_instance_uid != outbox.NO_STUDY:
        columns = analyses.of_study(connection, study_instance_uid)
    trail.record(
        connection,
        trail.Event.DELIVERY_RETRIED,
        {
            **columns,
            "user_id": user_id,
            "correlation_id": workflow_id,
            "detail": kinds,
        },
    )
    return batches


# ---- workflows -----------------------------------------------------------------------------------


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
    enqueue([*waiting.get("batches", ()), *waiting["told"]])


@DBOS.step(name="correct")
@objects.patient
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
    made = [(asdict(write_result(encoded(Kind.SR, report))), list(begun["report_to"]))]
    notes: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for name, had in begun["kept"].items():
        destination = line.destinations.get(name)
        if destination is None or not destination.rejection_note:
            continue
        named = [Instance(*one) for one in had]
        note = keyobject.rejection(named, sources, bundle, **common)
        # Archives that have the same objects get the same note.
        uid = str(note.SOPInstanceUID)
        if uid not in notes:
            notes[uid] = (asdict(write_result(encoded(Kind.REJECTION, note))), [])
        notes[uid][1].append(name)
    return [*made, *notes.values()]


@DBOS.step(name="withdrawal messages")
@objects.patient
def _messages(
    study_instance_uid: str, reason: str, begun: dict[str, Any], report: dict[str, Any]
) -> list[list[str]]:
    """Write messages for those who were told of the result; return kind, peer and path of each."""
    line = parts()
    with line.database.connect() as connection:
        told = outbox.notified_peers(connection, study_instance_uid)
    sources = [line.header(study_instance_uid, path) for path in begun["sources"]]
    bundle = _bundle_of(begun["digest"])
    withdrawal = ResultNotice(
        source=sources[0],
        readings=sr.withdrawn(sources),
        bundle=bundle,
        report_series_instance_uid=report["series_instance_uid"],
        report_sop_instance_uid=report["sop_instance_uid"],
        sentence=sentences.withdrawal(reason, _moment(begun["made_at"]), bundle.finding),
        made=_moment(begun["content_datetime"]),
        status="withdrawn",
    )
    return [
        [sender.kind, peer.name, sender.compose(peer, withdrawal)]
        for sender, peer in route.receivers()
        if peer.name in told
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
    written: list[list[str]],
    reason: str,
    user_id: str,
) -> dict[str, list[Any]]:
    objects = [
        (ResultObject(**{**values, "kind": Kind(values["kind"])}), names) for values, names in made
    ]
    key = AnalysisKey(study, generation, digest)
    withdrawn(connection, key, objects, reason, user_id, str(DBOS.workflow_id))
    route.add_messages(connection, objects[0][0].sop_instance_uid, written)
    return {
        "batches": [asdict(one) for one in outbox.begin(connection, study)],
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
    enqueue_plans(study_instance_uid, bundle.digest, plans)


@DBOS.workflow(name="retry", max_recovery_attempts=None)
def retry(study_instance_uid: str, user_id: str) -> None:
    """Send again what was refused, or given up."""
    enqueue(engine.transaction(retried, study_instance_uid, user_id))


def retried(connection: Connection, study_instance_uid: str, user_id: str) -> list[dict[str, Any]]:
    """Record a retry; the name of the transaction is in the databases of hospitals."""
    batches = retry_rows(connection, study_instance_uid, user_id, str(DBOS.workflow_id))
    return [asdict(one) for one in batches]


# ---- reconcile -----------------------------------------------------------------------------------
# A person says whether the patients in one study are the same one.
#
# ``same``: images that came under another identifier become a new version with what the surviving
# patient's images say of the patient, as if the archive had corrected them; then the study is read
# again, and its report replaces what was said before. ``different``: the reports stand as they are,
# and versions that came under another patient are refused.


@DBOS.workflow(name="reconcile", max_recovery_attempts=5)
def reconcile(
    study_instance_uid: str, decision: str, patient_id: str, issuer: str, user_id: str
) -> None:
    """Settle whose images a study has: all those of one patient, or of several."""
    survivor = [patient_id, issuer] if decision == reconciliation.SAME else None
    begun = engine.transaction(_begin, study_instance_uid, survivor)
    if begun is None:
        return
    corrected = [_correct_patient(path, begun["model"]) for path in begun["others"]]
    versions = list(zip(begun["others"], corrected, strict=True))
    _fetch([one for one in (begun["model"], *(made["path"] for made in corrected)) if one])
    plans = engine.transaction(
        _settle, study_instance_uid, survivor, versions, user_id, str(DBOS.workflow_id)
    )
    enqueue_plans(study_instance_uid, parts().reader.bundle.digest, plans)


def _begin(connection: Connection, study: str, survivor: list[str] | None) -> dict[str, Any] | None:
    """Return the path of an image of the survivor and those of the others; ``None``: settled."""
    row = reconciliation.row_of(connection, study)
    if row is None or row.state != reconciliation.OPEN:
        return None
    if survivor is None:
        return {"model": "", "others": []}
    patient = Patient(*survivor)
    rows = reconciliation.newest(connection, study)
    mine = [one for one in rows if Patient.of(one).is_same(patient)]
    if not mine:
        return None
    uids = {one.sop_instance_uid for one in mine}
    others = [one.path for one in rows if one.sop_instance_uid not in uids]
    return {"model": mine[-1].path, "others": others}


@objects.patient
def _fetch(paths: list[str]) -> None:
    """Have local copies of what the transaction reads, in which nobody waits for a bucket."""
    for one in paths:
        parts().path(one)


@DBOS.step(name="correct patient")
@objects.patient
def _correct_patient(path: str, model: str) -> dict[str, Any]:
    """Return path, size and digest of an image's new version, with the patient of another image."""
    line = parts()
    begins = line.corrector(line.path(path), line.path(model), datetime.now(UTC))
    name = file_name(engine.owner())
    below = f"images/{name[:2]}/{name}"
    line.objects.write(below, begins.content, behind=(line.path(path), begins.offset))
    made = line.path(below)
    at = 144 + int.from_bytes(begins.content[140:144], "little")
    return {"path": below, "size": made.stat().st_size - at, "sha256": _digest(made, at)}


def _digest(path: Path, at: int) -> str:
    """Return the SHA-256 of a data set that begins at this byte of its file."""
    with path.open("rb") as file:
        file.seek(at)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settle(
    connection: Connection,
    study: str,
    survivor: list[str] | None,
    versions: list[tuple[str, dict[str, Any]]],
    user_id: str,
    workflow_id: str,
) -> list[dict[str, Any]]:
    """Record what a person said, and return the generations that are to be read."""
    patient = None if survivor is None else Patient(*survivor)
    state = reconciliation.DIFFERENT if patient is None else reconciliation.SAME
    columns = analyses.of_study(connection, study)
    detail = {"decision": state, "patients": reconciliation.named(connection, study)}
    reconciliation.settle(connection, study, state, user_id)
    reconciliation.settle_versions(connection, study, patient)
    if patient is not None:
        for path, made in versions:
            instances.add_corrected(connection, path, made, patient)
        instances.set_patient(connection, study, patient)
        results.supersede(connection, study)
        detail["patient"] = [patient.patient_id, patient.issuer]
        detail["sha256"] = [made["sha256"] for _, made in versions]
        columns = analyses.of_study(connection, study)
    told: trail.Columns = {**columns, "user_id": user_id, "correlation_id": workflow_id}
    trail.record(connection, trail.Event.PATIENTS_RECONCILED, {**told, "detail": detail})
    if patient is None:
        return []
    newest = reconciliation.newest(connection, study)[-1]
    header = parts().header(study, newest.path)
    reading_list.set_patient(
        connection, study, patient.patient_id, str(header.get("PatientName") or "")
    )
    bundle = parts().reader.bundle
    return analyses.plan(connection, study, bundle.digest, bundle.finding.key, workflow_id, user_id)
