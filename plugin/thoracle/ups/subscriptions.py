"""Who subscribes to workitems, and what they are told (PS3.4 Sections CC.2.3 and CC.2.4).

Functions take an open connection. What is to be told is a row in the transaction of what it tells;
these rows are returned, to be sent once it is committed.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from pydicom import Dataset
from sqlalchemy import Connection, Row

from thoracle.deliver import storescu
from thoracle.deliver.peers import peer_of_subscriber
from thoracle.outbox import rows as stored
from thoracle.outbox import workflow as outbox
from thoracle.outbox.senders import OutboxItem, SendAnswer, Sender
from thoracle.settings import Settings, Subscriber
from thoracle.study.line import parts
from thoracle.ups import scu
from thoracle.ups import workitem_rows as workitems
from thoracle.ups.attributes import from_json
from thoracle.ups.scu import EventReport
from thoracle.ups.states import GLOBAL_SUBSCRIPTION, NO_SUCH_WORKITEM, EventType, Refused

EventReports = list[dict[str, Any]]
"""Event reports that wait to be sent: batches, as ``outbox.workflow.enqueue`` takes them."""


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
    content = {
        "workitem": sop_instance_uid,
        "event_type_id": int(event_type),
        "information": information.to_json_dict(),
    }
    numbers = [
        stored.add(connection, "ups", name, uuid.uuid4().hex, priority=stored.STAT, content=content)
        for name in ae_titles
    ]
    rows = stored.numbered(connection, [one for one in numbers if one is not None])
    return [asdict(one) for one in stored.batched(connection, rows)]


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


def report_restart() -> None:
    """Tell all subscribers that the listener is back, and what they were not told before."""
    if not parts().settings.ups.offer:
        return
    with parts().database.begin() as connection:
        reports = add_restart_reports(connection)
    outbox.enqueue(reports)


# ---- the sender ------------------------------------------------------------------------------


def send(subscriber: Subscriber, items: Sequence[OutboxItem]) -> Iterator[SendAnswer]:
    """Send reports on one association; yield what was answered to each."""
    peer = peer_of_subscriber(subscriber, parts().settings)
    reports = [
        EventReport(
            item.content["workitem"],
            item.content["event_type_id"],
            from_json(item.content["information"]),
        )
        for item in items
    ]
    for refusal in scu.send_reports(peer, reports):
        if refusal is None:
            yield SendAnswer("delivered", proof="acknowledgement")
        else:
            yield SendAnswer("refused", refusal)


def where(subscriber: Subscriber) -> str:
    """Return where a subscriber is."""
    return f"UPS {subscriber.ae_title}@{subscriber.host}:{subscriber.port}"


def reach(subscriber: Subscriber, settings: Settings, seconds: float | None = None) -> str:
    """Return how a subscriber answers a C-ECHO."""
    peer = peer_of_subscriber(subscriber, settings)
    patience = min(seconds or peer.timeout_seconds, peer.timeout_seconds)
    storescu.echo(replace(peer, timeout_seconds=patience))
    return "answers C-ECHO"


SENDER = Sender(
    kind="ups",
    table="subscriber",
    peers=lambda settings: settings.subscriber,
    where=where,
    reach=reach,
    send=send,
    in_order=True,
    audited=False,  # what it is told of is an event already
)
