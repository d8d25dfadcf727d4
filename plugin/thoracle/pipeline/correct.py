"""withdraw and reanalyse: what a person asks for when a result should not stand as it is."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from dbos import DBOS
from sqlalchemy import Connection

from thoracle import engine
from thoracle.audit import commits, corrections
from thoracle.pipeline.analyse import enqueue_analyse
from thoracle.pipeline.deliver import enqueue_deliver
from thoracle.pipeline.line import keep, parts
from thoracle.reader import header_of
from thoracle.records import Kind
from thoracle.report import keyobject, sr
from thoracle.report.header import Instance
from thoracle.store.results import AnalysisKey, Result

STAT = 1
"""Queue priority: an answer that is wrong should not stand for long."""


@DBOS.workflow(name="withdraw", max_recovery_attempts=5)
def withdraw(study_instance_uid: str, reason: str, user_id: str) -> None:
    """Withdraw a study's result: a correcting report, and a rejection note where one is allowed."""
    begun = engine.transaction(corrections.begin, study_instance_uid)
    if begun is None:
        return
    made = _correct(study_instance_uid, reason, begun)
    key = (study_instance_uid, begun["generation"], begun["digest"])
    for destination, uid in engine.transaction(_withdrawn, *key, made, reason, user_id):
        enqueue_deliver(destination, uid, 1, STAT, None)


@DBOS.step(name="correct")
def _correct(
    study_instance_uid: str, reason: str, begun: dict[str, Any]
) -> list[tuple[dict[str, Any], list[str]]]:
    """Return the objects that were made, each with its destinations."""
    line = parts()
    sources = [header_of(line.path(path)) for path in begun["sources"]]
    content_datetime = datetime.fromisoformat(begun["content_datetime"]).astimezone()
    common: dict[str, Any] = {
        "content_datetime": content_datetime,
        "settings": line.settings.report,
    }
    report = sr.withdrawal(
        sources,
        Instance(*begun["predecessor"]),
        reason,
        line.reader.bundle,
        made=datetime.fromisoformat(begun["made_at"]).astimezone(),
        **common,
    )
    made = [(asdict(keep(Kind.SR, report)), list(begun["report_to"]))]
    notes: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for name, objects in begun["kept"].items():
        destination = line.destinations.get(name)
        if destination is None or not destination.rejection_note:
            continue
        named = [Instance(*one) for one in objects]
        note = keyobject.rejection(named, sources, line.reader.bundle, **common)
        # Archives that have the same objects get the same note.
        uid = str(note.SOPInstanceUID)
        if uid not in notes:
            notes[uid] = (asdict(keep(Kind.REJECTION, note)), [])
        notes[uid][1].append(name)
    return [*made, *notes.values()]


def _withdrawn(
    connection: Connection,
    study: str,
    generation: int,
    digest: str,
    made: list[tuple[dict[str, Any], list[str]]],
    reason: str,
    user_id: str,
) -> list[tuple[str, str]]:
    objects = [
        (Result(**{**values, "kind": Kind(values["kind"])}), names) for values, names in made
    ]
    key = AnalysisKey(study, generation, digest)
    corrections.withdrawn(connection, key, objects, reason, user_id, str(DBOS.workflow_id))
    return [(name, one.sop_instance_uid) for one, names in objects for name in names]


@DBOS.workflow(name="reanalyse", max_recovery_attempts=None)
def reanalyse(study_instance_uid: str, user_id: str) -> None:
    """Read a study again with the bundle of now; its report names the earlier one."""
    digest = parts().reader.bundle.digest
    plan = engine.transaction(
        commits.plan, study_instance_uid, digest, str(DBOS.workflow_id), user_id
    )
    if plan is not None:
        enqueue_analyse(study_instance_uid, digest, plan["generation"], plan["priority"])
