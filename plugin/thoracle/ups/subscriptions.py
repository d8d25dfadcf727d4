"""Who subscribes to workitems, and what they are told (PS3.4 Sections CC.2.3 and CC.2.4).

Functions take an open connection. What is to be told is a row in the transaction of what it tells;
these rows are returned, to be sent once it is committed.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from pydicom import Dataset
from sqlalchemy import Connection, Row

from thoracle.deliver import attempts
from thoracle.deliver.association import Peer
from thoracle.deliver.line import parts, peer_of_subscriber
from thoracle.errors import ArchiveRefused, ArchiveUnavailable
from thoracle.settings import Deliver
from thoracle.store import engine
from thoracle.ups import scu
from thoracle.ups import workitem_rows as workitems
from thoracle.ups.attributes import from_json
from thoracle.ups.scu import EventReport
from thoracle.ups.states import GLOBAL_SUBSCRIPTION, NO_SUCH_WORKITEM, EventType, Refused

EventReports = list[tuple[str, int]]
"""Event reports that wait to be sent: AE title of who is told, and number of the row."""


def moment() -> str:
    """Return this moment as DT, in UTC and saying so."""
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def dataset(row: Row[Any]) -> Dataset:
    """Return the attributes of a workitem but for its inputs; the lock is not among them."""
    ds = from_json(row.attributes)
    ds.ProcedureStepState = row.state
    return ds


def require_row(connection: Connection, sop_instance_uid: str, *, lock: bool = False) -> Row[Any]:
    """Return a workitem; ``Refused`` when there is none. With ``lock`` it is held."""
    row = (workitems.lock if lock else workitems.row_of)(connection, sop_instance_uid)
    if row is None:
        raise Refused(NO_SUCH_WORKITEM)
    return row


# ---- subscriptions ---------------------------------------------------------------------------


def subscribe(
    connection: Connection, sop_instance_uid: str, ae_title: str, deletion_lock: int
) -> EventReports:
    """Subscribe to one workitem, or to all (PS3.4 Table CC.2.3-2); ``Refused`` when none."""
    if sop_instance_uid != GLOBAL_SUBSCRIPTION:
        ds = dataset(require_row(connection, sop_instance_uid, lock=True))
        workitems.subscribe(connection, ae_title, sop_instance_uid, deletion_lock)
        report = state_report(ds)
        return add_reports(connection, sop_instance_uid, EventType.STATE_REPORT, report, [ae_title])
    workitems.subscribe(connection, ae_title, GLOBAL_SUBSCRIPTION, deletion_lock)
    told: EventReports = []
    for row in workitems.not_subscribed(connection, ae_title):
        workitems.subscribe(connection, ae_title, row.sop_instance_uid, deletion_lock)
        if deletion_lock:
            report = state_report(dataset(row))
            uid = row.sop_instance_uid
            told += add_reports(connection, uid, EventType.STATE_REPORT, report, [ae_title])
    return told


def unsubscribe(connection: Connection, sop_instance_uid: str, ae_title: str) -> None:
    """End a subscription to one workitem, or all of an AE title's; ``Refused`` when none."""
    if sop_instance_uid == GLOBAL_SUBSCRIPTION:
        workitems.unsubscribe(connection, ae_title)
        return
    require_row(connection, sop_instance_uid, lock=True)
    workitems.unsubscribe(connection, ae_title, sop_instance_uid)


def suspend(connection: Connection, ae_title: str) -> None:
    """End the subscription to new workitems; those to the present ones stay."""
    workitems.unsubscribe(connection, ae_title, GLOBAL_SUBSCRIPTION)


def add_restart_reports(connection: Connection) -> EventReports:
    """Tell all subscribers that the listener is back, with all that it had."""
    information = Dataset()
    information.SCPStatus = "RESTARTED"
    information.SubscriptionListStatus = "WARM START"
    information.UnifiedProcedureStepListStatus = "WARM START"
    names = workitems.subscribers(connection)
    return add_reports(
        connection, GLOBAL_SUBSCRIPTION, EventType.SCP_STATUS_CHANGE, information, names
    )


# ---- event reports ---------------------------------------------------------------------------


def add_reports(
    connection: Connection,
    sop_instance_uid: str,
    event_type: EventType,
    information: Dataset | None,
    ae_titles: Iterable[str] | None = None,
) -> EventReports:
    """Have subscribers, or some AE titles, told of an event; without information nobody is."""
    if information is None:
        return []
    if ae_titles is None:
        ae_titles = sorted(workitems.subscriptions(connection, sop_instance_uid))
    content = information.to_json_dict()
    return [
        (
            ae_title,
            workitems.add_event(connection, sop_instance_uid, ae_title, int(event_type), content),
        )
        for ae_title in ae_titles
    ]


def state_report(ds: Dataset) -> Dataset:
    """Return the Event Information of a UPS State Report (PS3.4 Table CC.2.4-1)."""
    report = Dataset()
    report.ProcedureStepState = ds.ProcedureStepState
    report.InputReadinessState = ds.InputReadinessState
    progress = ds.get("ProcedureStepProgressInformationSequence") or []
    for keyword in ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence"):
        if progress and progress[0].get(keyword):
            report[keyword] = progress[0][keyword]
    return report


def assigned(ds: Dataset) -> Dataset | None:
    """Return the Event Information of UPS Assigned, when a station or a person is named."""
    report = Dataset()
    if ds.get("ScheduledStationNameCodeSequence"):
        report["ScheduledStationNameCodeSequence"] = ds["ScheduledStationNameCodeSequence"]
    for person in (ds.get("ScheduledHumanPerformersSequence") or [])[:1]:
        for keyword in ("HumanPerformerCodeSequence", "HumanPerformerOrganization"):
            if person.get(keyword):
                report[keyword] = person[keyword]
    return report if len(report) else None


def record_answer(
    connection: Connection, number: int, attempt: int, answer: dict[str, Any], settings: Deliver
) -> float | None:
    """Record what an attempt to send a report came to; return the seconds until the next, if any.

    ``answer`` holds columns of ``workitem_event``.
    """
    row = workitems.event_row(connection, number)
    values, delay = dict(answer), None
    if values["state"] == "waiting":
        values, delay = attempts.postponed(row, attempt, values, settings)
    workitems.set_event(connection, number, {**values, "attempts": attempt})
    return delay


logger = logging.getLogger(__name__)

# ---- sending event reports -----------------------------------------------------------------------
# tell: event reports about our workitems, to who subscribes, each until it is taken.

PRIORITY = 1


def enqueue_reports(reports: Iterable[tuple[str, int]]) -> None:
    """Have event reports sent, each an AE title and the number of a row that is committed."""
    for ae_title, number in reports:
        enqueue_report(ae_title, number, 1, None)


def enqueue_pending_reports() -> None:
    """Send the reports of which the sending was not queued, e.g. for a crash."""
    with parts().database.connect() as connection:
        reports = workitems.untold(connection)
    enqueue_reports(reports)


def report_restart() -> None:
    """Tell all subscribers that the listener is back, and what they were not told before."""
    if not parts().settings.ups.offer:
        return
    with parts().database.begin() as connection:
        add_restart_reports(connection)
    enqueue_pending_reports()


def enqueue_report(ae_title: str, number: int, attempt: int, delay: float | None) -> None:
    """Have a report sent, after so many seconds; the same attempt again changes nothing."""
    with (
        SetWorkflowID(f"tell:{number}:{attempt}"),
        SetEnqueueOptions(priority=PRIORITY, queue_partition_key=ae_title, delay_seconds=delay),
    ):
        DBOS.enqueue_workflow(engine.TELL, send_report, ae_title, number, attempt)


@DBOS.workflow(name="tell", max_recovery_attempts=None)
def send_report(ae_title: str, number: int, attempt: int) -> None:
    """Send a report, and before it what waits for the same station: it hears things in order."""
    answers = _send(ae_title, number)
    delay = engine.transaction(_told, number, attempt, answers)
    if delay is not None:
        enqueue_report(ae_title, number, attempt + 1, delay)


@DBOS.step(name="report event")
def _send(ae_title: str, number: int) -> list[tuple[int, dict[str, Any]]]:
    """Return number and columns of each report of which something is to be recorded."""
    with parts().database.connect() as connection:
        rows = workitems.waiting(connection, number)
    if not rows:
        return []
    peer = _peer(ae_title)
    if peer is None:
        detail = f"{ae_title} is no longer in the settings"
        return [(number, {"state": "failed", "detail": detail})]
    reports = [
        EventReport(row.sop_instance_uid, row.event_type_id, from_json(row.information))
        for row in rows
    ]
    answers: list[tuple[int, dict[str, Any]]] = []
    try:
        for row, refusal in zip(rows, scu.send_reports(peer, reports), strict=True):
            state = "told" if refusal is None else "refused"
            answers.append((row.id, {"state": state, "detail": refusal}))
    except (ArchiveUnavailable, OSError) as error:
        answers.append((number, {"state": "waiting", "detail": str(error)}))
    except ArchiveRefused as error:
        answers.append((number, {"state": "refused", "detail": str(error)}))
    except Exception as error:
        # A fault of ours: without an end here it would wait for ever, unseen.
        logger.exception("event not reported")
        answers.append((number, {"state": "failed", "detail": type(error).__name__}))
    return answers


def _peer(ae_title: str) -> Peer | None:
    settings = parts().settings
    found = next((one for one in settings.subscriber if one.ae_title == ae_title), None)
    return None if found is None else peer_of_subscriber(found, settings)


def _told(
    connection: Connection, number: int, attempt: int, answers: list[tuple[int, dict[str, Any]]]
) -> float | None:
    """Record what came of it; return the seconds until the next attempt at ``number``, if any."""
    delay = None
    for told, values in answers:
        row = workitems.event_row(connection, told)
        made = attempt if told == number else row.attempts + 1
        after = record_answer(connection, told, made, values, parts().settings.deliver)
        delay = after if told == number else delay
    return delay
