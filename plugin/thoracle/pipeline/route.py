"""route: who gets what and who is told, as the rules decide; and the release of what they hold."""

import logging
from datetime import datetime
from typing import Any

from dbos import DBOS
from pydicom import Dataset
from sqlalchemy import Connection

from thoracle.deliver.line import parts
from thoracle.deliver.workflows import enqueue_deliver
from thoracle.errors import NotAnalysable
from thoracle.hl7 import rows as notifications
from thoracle.hl7.oru import ReportReference, Status
from thoracle.hl7.workflow import enqueue_notify, message
from thoracle.image.header import header_of
from thoracle.pipeline import routes
from thoracle.records import Reading, study_outcome
from thoracle.report import sentences
from thoracle.routing import expression, rank, route
from thoracle.routing.decision import Decision, Result
from thoracle.store import engine
from thoracle.study import instances, reading_list
from thoracle.ups import workitems
from thoracle.ups.subscriptions import enqueue_reports

logger = logging.getLogger(__name__)

PRIORITIES = {"stat": 1, "routine": 100, "backlog": 1000}


@DBOS.step(name="route")
def decide(study: str, sources: list[str], readings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the rules say of a study that was read, and its ``head_start`` on the worklist.

    The latter as minutes, and the rank that gives them.
    """
    read = [Reading.from_json(one) for one in readings]
    result = Result.of(read, parts().reader.bundle)
    decided = _decision(study, sources, result).to_json()
    return {**decided, "head_start": _head_start(study, sources, result.values())}


@DBOS.step(name="rank")
def head_start_of_failed(study: str, sources: list[str]) -> tuple[int, str]:
    """Return the head start of a study that could not be read, and the rank that gives it."""
    return failed_head_start(study, sources)


def failed_head_start(study: str, sources: list[str]) -> tuple[int, str]:
    """Return the same outside of a workflow."""
    bundle = parts().reader.bundle
    values = {
        "result.outcome": reading_list.FAILED,
        "result.reason": "",
        "result.bundle.name": bundle.name,
        "result.bundle.version": bundle.version,
    }
    return _head_start(study, sources, values)


def _head_start(study: str, sources: list[str], values: dict[str, Any]) -> tuple[int, str]:
    line = parts()
    with line.database.connect() as connection:
        sender = instances.sender(connection, study)
    common = {expression.SENDER: expression.text_of(sender), **values}
    headers = [_header(path) for path in sources]
    found = rank.head_start(line.settings.rank, headers, common)
    return found.minutes, found.why


@DBOS.step(name="priority")
def priority_of(study: str, plan: dict[str, Any]) -> int:
    """Return the priority that the rules give a study before it is read, else the planned one."""
    planned = int(plan["priority"])
    if not any(rule.priority for rule in parts().settings.rule):
        return planned
    said = _decision(study, plan["sources"], None).priority
    return planned if said is None else PRIORITIES[said]


def _decision(study: str, sources: list[str], result: Result | None) -> Decision:
    line = parts()
    with line.database.connect() as connection:
        sender = instances.sender(connection, study)
    return route.decide(
        line.settings.rule,
        line.settings.destination,
        [_header(path) for path in sources],
        sender,
        result,
        route.receivers(line.settings),
    )


def _header(path: str) -> Dataset:
    try:
        return header_of(parts().path(path))
    except NotAnalysable:  # its report says so; to a rule it is an image that says nothing
        return Dataset()


@DBOS.step(name="messages")
def messages(
    study: str,
    source: str,
    readings: list[dict[str, Any]],
    report: dict[str, Any],
    made: str,
    decision: dict[str, Any],
) -> list[tuple[str, str]]:
    """Return the receivers that are to be told of a result, each with the path of its message."""
    line = parts()
    read = [Reading.from_json(one) for one in readings]
    reference = ReportReference(report["series_instance_uid"], report["sop_instance_uid"])
    sentence = sentences.conclusion(read, line.reader.bundle.decision)
    moment = datetime.fromisoformat(made).astimezone()
    outcome = study_outcome(read)
    planned = Decision.from_json(decision).planned.notify
    with line.database.connect() as connection:
        told = notifications.told(connection, study)
    written = []
    for receiver in line.settings.hl7:
        # Whoever was told of an earlier result is told of this one, whatever it is.
        wanted = receiver.name in planned and outcome in receiver.outcomes
        if not wanted and receiver.name not in told:
            continue
        status: Status = "corrected" if receiver.name in told else "preliminary"
        try:
            header = header_of(line.path(source))
            path = message(receiver, header, read, reference, sentence, moment, status)
        except Exception:  # the result is worth more than the message about it
            logger.exception("no message to %s", receiver.name)
            path = ""
        written.append((receiver.name, path))
    return written


# ---- release ---------------------------------------------------------------------------------


@DBOS.workflow(name="release", max_recovery_attempts=None)
def release(study_instance_uid: str, user_id: str) -> None:
    """Send what a rule held back."""
    released = engine.transaction(_release, study_instance_uid, user_id)
    if released is None:
        return
    for destination, uid in released["deliveries"]:
        enqueue_deliver(destination, uid, 1, PRIORITIES["routine"], None)
    for receiver, uid in released["notifications"]:
        enqueue_notify(receiver, uid, 1, None)
    enqueue_reports(released["told"])


def _release(
    connection: Connection, study_instance_uid: str, user_id: str
) -> dict[str, Any] | None:
    released = routes.release_rows(connection, study_instance_uid, user_id)
    if released is None:
        return None
    told = workitems.release(connection, study_instance_uid, str(DBOS.workflow_id))
    return {**released, "told": told}
