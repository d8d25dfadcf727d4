"""route: who gets what and who is told, as the rules decide; and the release of what they hold."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from dbos import DBOS
from pydicom import Dataset
from sqlalchemy import Connection

from thoracle.errors import ObjectsAway
from thoracle.image.header import header_of
from thoracle.outbox import rows as outbox
from thoracle.outbox.rows import Batch
from thoracle.outbox.senders import ResultNotice
from thoracle.outbox.workflow import enqueue
from thoracle.pipeline.senders import peers
from thoracle.records import Reading, study_outcome
from thoracle.report import sentences
from thoracle.routing import expression, rank, rules
from thoracle.routing.rules import RoutingDecision, StudyResult
from thoracle.store import engine, objects, trail
from thoracle.study import analyses, instances, reading_list, results
from thoracle.study.line import parts
from thoracle.study.results import AnalysisKey
from thoracle.ups import workitems

# ---- rows ----------------------------------------------------------------------------------------
# What the rules decided, and who is told: rows and events written together.

RELEASED = "released"
"""In ``analysis.sending``: a rule held the result, and a person released it."""


def record_decision(
    connection: Connection,
    key: AnalysisKey,
    routing: dict[str, Any],
    sending: str | None,
    columns: trail.Columns,
) -> None:
    """Record what the rules say about a study, and why."""
    results.routed(connection, key, routing, sending)
    trail.record(
        connection,
        trail.Event.RULES_DECIDED,
        {**columns, "detail": {"generation": key.generation, "sending": sending, **routing}},
    )


def forward_originals(
    connection: Connection,
    key: AnalysisKey,
    sop_instance_uids: Iterable[str],
    destinations: Sequence[str],
    state: str,
    priority: int,
) -> None:
    """Record that destinations are to get received images."""
    if not destinations:
        return
    wanted = set(sop_instance_uids)
    for row in instances.sources(connection, key.study_instance_uid, key.generation):
        if row.sop_instance_uid in wanted:
            results.add_original(connection, key, row)
            outbox.add_object(connection, row.sop_instance_uid, destinations, state, priority)


def add_messages(
    connection: Connection, report: str, written: Iterable[Sequence[str]], state: str = "waiting"
) -> None:
    """Record who is to get which message about a report.

    ``written`` holds kind, peer and path of each; an earlier version wrote HL7 alone, without the
    kind. A message without a path could not be written: a person has to see it.
    """
    for one in written:
        kind, peer, path = one if len(one) == 3 else ("hl7", *one)
        outbox.add(
            connection,
            kind,
            peer,
            report,
            sop_instance_uid=report,
            state=state if path else "failed",
            priority=outbox.STAT,  # a message moves the study up the reading list
            path=path or None,
        )


def release_rows(
    connection: Connection, study_instance_uid: str, user_id: str
) -> list[Batch] | None:
    """Release a study that is held, if it is; return what is to be sent now."""
    row = results.held(connection, study_instance_uid)
    if row is None:
        return None
    key = AnalysisKey(study_instance_uid, row.generation, row.bundle_digest)
    results.routed(connection, key, row.routing, RELEASED)
    decision = RoutingDecision.from_json(row.routing)
    analyses.list_result(connection, key, results.reason_code(connection, key))
    if "head_start" in row.routing:  # it is not in those of the first versions
        reading_list.set_head_start(connection, study_instance_uid, *row.routing["head_start"])
    reading_list.set_stat(connection, study_instance_uid, stat_rule(decision))
    trail.record(
        connection,
        trail.Event.STUDY_RELEASED,
        {
            **analyses.of_study(connection, study_instance_uid),
            "bundle_digest": row.bundle_digest,
            "user_id": user_id,
            "detail": {"generation": row.generation},
        },
    )
    return outbox.release(connection, study_instance_uid)


logger = logging.getLogger(__name__)

# ---- workflow ------------------------------------------------------------------------------------

PRIORITIES = {"stat": 1, "routine": 100, "backlog": 1000}


@DBOS.step(name="route")
@objects.patient
def decide(study: str, sources: list[str], readings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the rules say of a study that was read, and its ``head_start`` on the worklist.

    The latter as minutes, and the rank that gives them.
    """
    read = [Reading.from_json(one) for one in readings]
    result = StudyResult.of(read, parts().reader.bundle)
    headers = _headers(sources)
    decided = _decision(study, headers, result).to_json()
    return {**decided, "head_start": _head_start(study, headers, result.values())}


@DBOS.step(name="rank")
@objects.patient
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
    return _head_start(study, _headers(sources), values)


def _headers(sources: list[str]) -> list[Dataset]:
    """Return the headers of images; none where no rule and no rank could ask for anything."""
    settings = parts().settings
    if not settings.rule and not settings.rank:
        return []
    return [rules.header(parts().path(path)) for path in sources]


def _head_start(study: str, headers: list[Dataset], values: dict[str, Any]) -> tuple[int, str]:
    line = parts()
    with line.database.connect() as connection:
        sender = instances.sender(connection, study)
    common = {expression.SENDER: expression.text_of(sender), **values}
    found = rank.head_start(line.settings.rank, headers, common)
    return found.minutes, found.why


@DBOS.step(name="priority")
@objects.patient
def priority_of(study: str, plan: dict[str, Any]) -> int:
    """Return the priority that the rules give a study before it is read, else the planned one."""
    planned = int(plan["priority"])
    if not any(rule.priority for rule in parts().settings.rule):
        return planned
    decision = _decision(study, _headers(plan["sources"]), None)
    if (rule := stat_rule(decision)) is not None:
        with parts().database.begin() as connection:
            reading_list.set_stat(connection, study, rule)
    return planned if decision.priority is None else PRIORITIES[decision.priority]


def stat_rule(decision: RoutingDecision) -> str | None:
    """Return the rule that makes a study STAT; ``None`` when none does."""
    fired = {one.rule for one in decision.fired}
    rules_ = (one for one in parts().settings.rule if one.priority == "stat")
    return next((one.name for one in rules_ if one.name in fired), None)


def _decision(study: str, headers: list[Dataset], result: StudyResult | None) -> RoutingDecision:
    line = parts()
    with line.database.connect() as connection:
        sender = instances.sender(connection, study)
    return rules.decide(
        line.settings.rule,
        line.settings.destination,
        headers,
        sender,
        result,
        rules.receivers(line.settings),
    )


@DBOS.step(name="messages")
@objects.patient
def messages(
    study: str,
    source: str,
    readings: list[dict[str, Any]],
    report: dict[str, Any],
    made: str,
    decision: dict[str, Any],
) -> list[list[str]]:
    """Write the messages that tell a result; return kind, peer and path of each."""
    line = parts()
    read = [Reading.from_json(one) for one in readings]
    bundle = line.reader.bundle
    sentence = sentences.conclusion(read, bundle)
    outcome = study_outcome(read)
    planned = RoutingDecision.from_json(decision).planned.notify
    with line.database.connect() as connection:
        told = outbox.notified_peers(connection, study)
    written = []
    for sender, peer in receivers():
        # Whoever was told of an earlier result is told of this one, whatever it is.
        wanted = peer.name in planned and outcome in peer.outcomes
        if not wanted and peer.name not in told:
            continue
        try:
            path = sender.compose(
                peer,
                ResultNotice(
                    source=header_of(line.path(source)),
                    readings=read,
                    bundle=bundle,
                    report_series_instance_uid=report["series_instance_uid"],
                    report_sop_instance_uid=report["sop_instance_uid"],
                    sentence=sentence,
                    made=datetime.fromisoformat(made).astimezone(),
                    status="corrected" if peer.name in told else "preliminary",
                ),
            )
        except ObjectsAway:
            raise
        except Exception:  # the result is worth more than the message about it
            logger.exception("no message to %s", peer.name)
            path = ""
        written.append([sender.kind, peer.name, path])
    return written


def receivers() -> Iterator[tuple[Any, Any]]:
    """Yield who can be told of a result by a message: sender and table of the settings."""
    for sender, peer in peers(parts().settings):
        if sender.compose is not None:
            yield sender, peer


# ---- release ---------------------------------------------------------------------------------


@DBOS.workflow(name="release", max_recovery_attempts=None)
def release(study_instance_uid: str, user_id: str) -> None:
    """Send what a rule held back."""
    released = engine.transaction(_release, study_instance_uid, user_id)
    if released is None:
        return
    enqueue([*released.get("batches", ()), *released["told"]])


def _release(
    connection: Connection, study_instance_uid: str, user_id: str
) -> dict[str, Any] | None:
    batches = release_rows(connection, study_instance_uid, user_id)
    if batches is None:
        return None
    told = workitems.release(connection, study_instance_uid, str(DBOS.workflow_id))
    return {"batches": [asdict(one) for one in batches], "told": told}
