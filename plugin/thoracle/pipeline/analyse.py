"""study_complete -> analyse: the images present become a result."""

import logging
import traceback
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dbos import DBOS, Debouncer, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError

from thoracle.errors import FileMissing, ReportLimits, ThoracleError
from thoracle.outbox import rows as outbox
from thoracle.outbox.workflow import enqueue
from thoracle.pipeline import route
from thoracle.records import Kind, Reading, Reason
from thoracle.report.header import Instance
from thoracle.routing.rules import NOTHING, RoutingDecision
from thoracle.store import engine, objects
from thoracle.store.object_files import Digest
from thoracle.store.tables import timestamp
from thoracle.study import analyses, instances, reading_list, results
from thoracle.study.line import parts, write_result
from thoracle.study.published import HELD, SHADOW
from thoracle.study.results import AnalysisKey, ResultObject
from thoracle.ups import review

logger = logging.getLogger(__name__)

_REASONS = {FileMissing: Reason.FILE_MISSING, ReportLimits: Reason.RESULT_LIMITS}
"""Why a study gets no answer, where it is more than a fault of the program."""
DATABASE_ATTEMPTS = 10
"""Times that an analysis is begun, a minute apart, which the database kept from its end."""
_DATABASE_AWAY = (OperationalError, InterfaceError)

# ---- complete --------------------------------------------------------------------------------


def start_quiet_period(study_instance_uid: str, released: bool) -> None:
    """Start or push back the quiet period after which a study counts as complete."""
    engine.poll_often()
    settings = parts().settings.complete
    debouncer = Debouncer.create(
        study_complete, queue=engine.INTAKE, debounce_timeout_sec=settings.cap_seconds
    )
    quiet = settings.quiet_after_release_seconds if released else settings.quiet_otherwise_seconds
    debouncer.debounce(study_instance_uid, quiet, study_instance_uid)
    engine.announce_delay(quiet)


def recover_unplanned_studies(untouched_seconds: float) -> None:
    """Complete studies whose arrival was not queued, e.g. for a crash."""
    before = timestamp(datetime.now(UTC) - timedelta(seconds=untouched_seconds))
    with parts().database.connect() as connection:
        studies = instances.unplanned_studies(connection, before)
    for study_instance_uid in studies:
        start_quiet_period(study_instance_uid, released=True)


def fail_abandoned_analyses() -> None:
    """Record as failed the analyses that the engine gave up, e.g. for killing the process.

    Those that ended because the database could do no work are begun again.

    Raises
    ------
    ThoracleError
        Some could not be recorded; the others are.
    """
    given_up = DBOS.list_workflows(
        name="analyse",
        status=["MAX_RECOVERY_ATTEMPTS_EXCEEDED", "ERROR"],
        load_input=False,
        load_output=False,
    )
    with parts().database.connect() as connection:
        unfinished = results.planned(connection)
    faults = 0
    for workflow in given_up:
        key, attempt = _attempt_of(workflow.workflow_id)
        if key not in unfinished:
            continue
        try:
            if not _begun_again(workflow.workflow_id, key, attempt):
                _abandon(key, f"the engine gave up: {workflow.status}", workflow.workflow_id)
        except Exception as error:  # noqa: BLE001 - the other analyses must not wait for this one
            # Without the text, which may quote what a header says.
            study = key.study_instance_uid
            logger.error("analysis of %s not recorded as failed: %s", study, type(error).__name__)
            faults += 1
    if faults:
        raise ThoracleError(f"found {faults} analyses that could not be recorded as failed")


def _attempt_of(workflow_id: str) -> tuple[AnalysisKey, int]:
    """Return which analysis a workflow is, and which attempt at it."""
    _, study, digest, generation, *attempt = workflow_id.split(":")
    return AnalysisKey(study, int(generation), digest), int(attempt[0]) if attempt else 1


def _begun_again(workflow_id: str, key: AnalysisKey, attempt: int) -> bool:
    """Return whether there is a later attempt; of what the database ended, one is begun."""
    later = _workflow_id(key.study_instance_uid, key.bundle_digest, key.generation, attempt + 1)
    if DBOS.list_workflows(workflow_ids=[later], load_input=False, load_output=False):
        return True
    (workflow,) = DBOS.list_workflows(workflow_ids=[workflow_id])
    if attempt >= DATABASE_ATTEMPTS or not _is_of_database(workflow.error):
        return False
    logger.warning("analysis of %s begins again: %s", key.study_instance_uid, workflow.error)
    asked: Any = workflow.input
    *_, priority = asked["args"]
    enqueue_analyse(
        key.study_instance_uid, key.bundle_digest, key.generation, priority, attempt + 1
    )
    return True


def _is_of_database(error: Any) -> bool:
    """Return whether an error says that the database can do no work now.

    One that was recorded has the name of its class alone.
    """
    names = [kind.__name__ for kind in _DATABASE_AWAY]
    return isinstance(error, _DATABASE_AWAY) or getattr(error, "name", None) in names


def _abandon(key: AnalysisKey, detail: str, workflow_id: str) -> None:
    study = key.study_instance_uid
    with parts().database.connect() as connection:
        rows = instances.sources(connection, study, key.generation)
    rank = route.failed_head_start(study, [row.path for row in rows])
    with parts().database.begin() as connection:
        analyses.fail(connection, key, Reason.SOFTWARE_FAILURE, detail, workflow_id)
        reading_list.set_head_start(connection, study, *rank)


def _fail(
    connection: Connection,
    study: str,
    generation: int,
    digest: str,
    cause: tuple[str, str],
    workflow_id: str,
    rank: tuple[int, str],
) -> None:
    reason, detail = Reason.from_code_value(cause[0]), cause[1]
    analyses.fail(connection, AnalysisKey(study, generation, digest), reason, detail, workflow_id)
    reading_list.set_head_start(connection, study, *rank)


def _cause(error: Exception) -> tuple[str, str]:
    """Return the Code Value and the text of why a study gets no answer."""
    if not isinstance(error, ThoracleError):  # its text may quote what a header says
        logger.error("analysis failed: %s", traceback.format_tb(error.__traceback__))
        return Reason.SOFTWARE_FAILURE.code.value, f"{type(error).__name__}, see log"
    reason = next((one for kind, one in _REASONS.items() if isinstance(error, kind)), None)
    return (reason or Reason.SOFTWARE_FAILURE).code.value, str(error)


@DBOS.workflow(name="study_complete", max_recovery_attempts=None)
def study_complete(study_instance_uid: str) -> None:
    """Make the images present now a generation of the study, and have it analysed."""
    bundle = parts().reader.bundle
    plans = engine.transaction(
        analyses.plan,
        study_instance_uid,
        bundle.digest,
        bundle.finding.key,
        str(DBOS.workflow_id),
    )
    enqueue_plans(study_instance_uid, bundle.digest, plans)


# ---- analyse ---------------------------------------------------------------------------------


def enqueue_plans(study: str, digest: str, plans: Any) -> None:
    """Have the generations analysed that a transaction planned.

    They are a list; a workflow that an earlier version began may have one, or ``None``, instead.
    """
    for plan in plans if isinstance(plans, list) else filter(None, [plans]):
        enqueue_analyse(study, digest, plan["generation"], route.priority_of(study, plan))


def enqueue_analyse(
    study: str, digest: str, generation: int, priority: int, attempt: int = 1
) -> None:
    """Have a generation of a study analysed."""
    engine.poll_often()
    with (
        SetWorkflowID(_workflow_id(study, digest, generation, attempt)),
        SetEnqueueOptions(priority=priority),
    ):
        DBOS.enqueue_workflow(engine.ANALYSE, analyse, study, digest, generation, priority)


def _workflow_id(study: str, digest: str, generation: int, attempt: int) -> str:
    again = f":{attempt}" if attempt > 1 else ""
    return f"analyse:{study}:{digest}:{generation}{again}"


@DBOS.workflow(name="analyse", max_recovery_attempts=5)
def analyse(study_instance_uid: str, digest: str, generation: int, priority: int) -> None:
    """Read each image of a generation, report, and have the report delivered."""
    key = (study_instance_uid, generation, digest)
    begin = engine.transaction(_begin, *key)
    if begin["digest"] != digest:  # the bundle was exchanged while this waited
        enqueue_analyse(study_instance_uid, begin["digest"], generation, priority)
        return
    if not begin["sources"]:
        return
    try:
        waiting = _result(key, begin, priority)
    except Exception as error:
        if _is_of_database(error):
            raise  # nothing about the study is known by that: fail_abandoned_analyses() goes on
        rank = route.head_start_of_failed(study_instance_uid, begin["sources"])
        engine.transaction(_fail, *key, _cause(error), str(DBOS.workflow_id), rank)
        return
    enqueue([*waiting.get("batches", ()), *waiting["told"]])


def _result(
    key: tuple[str, int, str], begin: dict[str, Any], priority: int
) -> dict[str, list[Any]]:
    """Read and report; return what is to be sent now, as :func:`_conclude` does."""
    sources, moment = begin["sources"], begin["content_datetime"]
    readings = [_read(*key[:2], path) for path in sources]
    made = _report(*key, sources, readings, begin["predecessor"])
    decision = route.decide(key[0], sources, readings)
    written = route.messages(key[0], sources[0], readings, made[0], moment, decision)
    proposed = review.propose(sources, readings, made[0], moment, decision)
    return engine.transaction(
        _conclude, *key, readings, made, decision, written, proposed, priority
    )


def _begin(connection: Connection, study: str, generation: int, digest: str) -> dict[str, Any]:
    key = AnalysisKey(study, generation, digest)
    bundle = parts().reader.bundle
    workflow_id = str(DBOS.workflow_id)
    return analyses.begin(connection, key, bundle.digest, bundle.finding.key, workflow_id)


@DBOS.step(name="read")
@objects.patient
def _read(study: str, generation: int, path: str) -> dict[str, Any]:
    line = parts()

    def known() -> Digest | None:
        with line.database.connect() as connection:
            return instances.digest(connection, study, path)

    file = line.path(path, known)
    if not file.exists():
        raise FileMissing(f"the stored file is missing: {path}")
    reading = line.reader.read(file)
    if not reading.sop_instance_uid:  # its header cannot be read
        with line.database.connect() as connection:
            recorded = instances.recorded(connection, study, generation)[path]
        reading = replace(
            reading,
            sop_class_uid=recorded["SOPClassUID"],
            sop_instance_uid=recorded["SOPInstanceUID"],
        )
    return reading.to_json()


@DBOS.step(name="report")
@objects.patient
def _report(
    study: str,
    generation: int,
    digest: str,
    sources: list[str],
    readings: list[dict[str, Any]],
    predecessor: list[str] | None,
) -> list[dict[str, Any]]:
    line = parts()
    with line.database.connect() as connection:
        row = results.analysis_row(connection, AnalysisKey(study, generation, digest))
        recorded = instances.recorded(connection, study, generation)
    made = line.reader.report(
        [line.path(path) for path in sources],
        [Reading.from_json(values) for values in readings],
        content_datetime=datetime.fromisoformat(row.content_datetime).astimezone(),
        predecessor=Instance(*predecessor) if predecessor else None,
        recorded=[recorded[path] for path in sources],
    )
    return [asdict(write_result(one)) for one in made]


def _conclude(
    connection: Connection,
    study: str,
    generation: int,
    digest: str,
    readings: list[dict[str, Any]],
    made: list[dict[str, Any]],
    routing: dict[str, Any],
    written: list[list[str]],
    proposed: dict[str, Any] | None,
    priority: int,
) -> dict[str, list[Any]]:
    """Record the result; return the ``batches`` that are to be sent now.

    Beside it ``told``: event reports about workitems.
    """
    line = parts()
    key = AnalysisKey(study, generation, digest)
    decision = RoutingDecision.from_json(routing)
    sending = SHADOW if decision.shadow else HELD if decision.held else None
    state = "held" if sending == HELD else "waiting"
    sends = NOTHING if decision.shadow else decision.planned
    objects = [ResultObject(**{**values, "kind": Kind(values["kind"])}) for values in made]
    columns = analyses.conclude(
        connection,
        key,
        line.reader.bundle,
        [Reading.from_json(values) for values in readings],
        objects,
        str(DBOS.workflow_id),
        sending,
    )
    if sending is None:  # what a rule keeps back is told by no order
        reading_list.set_head_start(connection, study, *routing["head_start"])
        reading_list.set_stat(connection, study, route.stat_rule(decision))
    if line.settings.rule:
        route.record_decision(connection, key, routing, sending, columns)
    for one in objects:
        names = [name for name, kinds in sends.kinds.items() if one.kind in kinds]
        outbox.add_object(connection, one.sop_instance_uid, names, state, priority)
    route.forward_originals(connection, key, decision.images, sends.originals, state, priority)
    if not decision.shadow:
        route.add_messages(connection, objects[0].sop_instance_uid, written, state)
    batches = outbox.begin(connection, study)
    held = state == "held"
    told = review.conclude(connection, study, generation, digest, proposed, held=held)
    return {"batches": [asdict(one) for one in batches], "told": told}
