"""Who subscribes to workitems, and what they are told (PS3.4 Sections CC.2.3 and CC.2.4).

Functions take an open connection. What is to be told is a row in the transaction of what it tells;
these rows are returned, to be sent once it is committed.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pydicom import Dataset
from sqlalchemy import Connection, Row

from thoracle.deliver import attempts
from thoracle.settings import Deliver
from thoracle.ups import workitem_rows as workitems
from thoracle.ups.attributes import from_json
from thoracle.ups.states import GLOBAL_SUBSCRIPTION, EventType
from thoracle.ups.statuses import NO_SUCH_WORKITEM, Refused

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
