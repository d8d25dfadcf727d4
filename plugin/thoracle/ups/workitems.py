"""Workitems: rows, what subscribers are told, and events of the trail, written together.

Functions take an open connection. Those that change something return the event reports that are
to be sent once the transaction is committed.
"""

from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from sqlalchemy import Connection, Row

from thoracle.store import trail
from thoracle.study import analyses, reading_list
from thoracle.ups import workitem_rows as workitems
from thoracle.ups.attributes import check_values, from_json, unmet
from thoracle.ups.states import (
    ALREADY_CANCELED,
    CANNOT_CANCEL_COMPLETED,
    COERCED,
    FINAL_STATE_UNMET,
    GLOBAL_SUBSCRIPTION,
    PERFORMER_UNREACHABLE,
    SUCCESS,
    EventType,
    Refused,
    State,
    UPSStatus,
    change,
    check_settable,
)
from thoracle.ups.subscriptions import (
    EventReports,
    add_reports,
    assigned,
    dataset,
    moment,
    require_row,
    state_report,
)

DISCONTINUED = ("110513", "DCM", "Discontinued for unspecified reason")
"""Procedure Step Discontinuation Reason (CID 9300) where a request names none."""


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


# ---- created and ended by us -----------------------------------------------------------------


def offer(
    connection: Connection, values: dict[str, Any], *, held: bool, workflow_id: str
) -> EventReports:
    """Add a workitem about a result, unless there is one; one that is held is told to nobody.

    ``values`` holds columns of ``workitem``. Those about earlier results of the study that nobody
    has begun are canceled; the new one names those that somebody is at.
    """
    uid = values["sop_instance_uid"]
    if workitems.exists(connection, uid):
        return []
    going_on = [
        row.sop_instance_uid
        for row in workitems.of_study(connection, values["study_instance_uid"])
        if row.state == State.IN_PROGRESS
    ]
    ds = from_json(values["attributes"])
    ds.ReplacedProcedureStepSequence = [_reference(one) for one in going_on]
    ds.ScheduledProcedureStepModificationDateTime = moment()
    state = workitems.HELD if held else State.SCHEDULED.value
    workitems.add(connection, {**values, "state": state, "attributes": ds.to_json_dict()})
    return [] if held else _appeared(connection, uid, workflow_id)


def _reference(sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = UID("1.2.840.10008.5.1.4.34.6.1")
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def release(connection: Connection, study_instance_uid: str, workflow_id: str) -> EventReports:
    """Offer the workitems of a study that are held."""
    reports: EventReports = []
    for row in workitems.lock_study(connection, study_instance_uid):
        if row.state == workitems.HELD:
            workitems.set_row(connection, row.sop_instance_uid, {"state": State.SCHEDULED.value})
            reports += _appeared(connection, row.sop_instance_uid, workflow_id)
    return reports


def _appeared(connection: Connection, sop_instance_uid: str, workflow_id: str) -> EventReports:
    row = workitems.row_of(connection, sop_instance_uid)
    assert row is not None
    for ae_title, lock in workitems.subscriptions(connection, GLOBAL_SUBSCRIPTION).items():
        workitems.subscribe(connection, ae_title, sop_instance_uid, lock)
    event = trail.Event.WORKITEM_CREATED
    _record(connection, row, event, None, row.state, {"correlation_id": workflow_id})
    ds = dataset(row)
    return [
        *add_reports(connection, sop_instance_uid, EventType.STATE_REPORT, state_report(ds)),
        *add_reports(connection, sop_instance_uid, EventType.ASSIGNED, assigned(ds)),
    ]


def supersede(
    connection: Connection, study_instance_uid: str, text: str, reason: Dataset, workflow_id: str
) -> EventReports:
    """Cancel what nobody has begun for a study's earlier results; ask those who have to end it."""
    reports: EventReports = []
    for row in workitems.lock_study(connection, study_instance_uid):
        if row.state == workitems.HELD:  # nobody knows of it; canceled, everybody could see it
            workitems.remove(connection, row.sop_instance_uid)
        elif row.state == State.SCHEDULED:
            reports += _cancel(connection, row, text, [reason], {"correlation_id": workflow_id})
        elif row.state == State.IN_PROGRESS:
            request = Dataset()
            request.ReasonForCancellation = text
            request.ProcedureStepDiscontinuationReasonCodeSequence = [reason]
            reports += _ask_to_cancel(connection, row, request)
    return reports


def _cancel(
    connection: Connection,
    row: Row[Any],
    text: str,
    reasons: Sequence[Dataset],
    columns: trail.Columns,
) -> EventReports:
    """Move what is SCHEDULED through IN PROGRESS to CANCELED (PS3.4 Section CC.2.2.3)."""
    ds = dataset(row)
    progress = Dataset()
    progress.ProcedureStepCancellationDateTime = moment()
    progress.ReasonForCancellation = text[:10240]
    progress.ProcedureStepDiscontinuationReasonCodeSequence = list(reasons) or [code(*DISCONTINUED)]
    ds.ProcedureStepProgressInformationSequence = [progress]
    uid, reports = row.sop_instance_uid, []
    for state in (State.IN_PROGRESS, State.CANCELED):
        ds.ProcedureStepState = state.value
        reports += add_reports(connection, uid, EventType.STATE_REPORT, state_report(ds))
    _keep(connection, uid, ds, {"state": State.CANCELED.value})
    event = trail.Event.WORKITEM_CHANGED
    _record(connection, row, event, row.state, State.CANCELED, columns)
    return reports


# ---- changed by others -----------------------------------------------------------------------


def change_state(
    connection: Connection,
    sop_instance_uid: str,
    wanted: str,
    transaction_uid: str,
    caller: trail.Columns,
) -> tuple[UPSStatus, EventReports]:
    """Change the state of a workitem for its performer (PS3.4 Section CC.2.1).

    Raises
    ------
    Refused
        The state of the workitem, or the performer's Transaction UID, does not allow it.
    """
    row = require_row(connection, sop_instance_uid, lock=True)
    status = change(State(row.state), row.transaction_uid, wanted, transaction_uid)
    if status is not SUCCESS:
        return status, []
    ds = dataset(row)
    lacking = unmet(ds, State(wanted))
    if lacking is not None:
        raise Refused(FINAL_STATE_UNMET, lacking[:64])
    ds.ProcedureStepState = wanted
    values: dict[str, Any] = {"state": wanted}
    if wanted == State.IN_PROGRESS:
        claimed_by = caller.get("calling_ae_title")
        values |= {"transaction_uid": transaction_uid, "claimed_by": claimed_by}
    _keep(connection, sop_instance_uid, ds, values)
    _record(connection, row, trail.Event.WORKITEM_CHANGED, row.state, wanted, caller)
    if wanted == State.COMPLETED:
        # Somebody looked at it, and said no more than that: the study is reviewed, without verdict.
        reading_list.review(connection, row.study_instance_uid)
    return status, add_reports(
        connection, sop_instance_uid, EventType.STATE_REPORT, state_report(ds)
    )


def set_attributes(
    connection: Connection, sop_instance_uid: str, modification: Dataset, caller: trail.Columns
) -> tuple[UPSStatus, EventReports]:
    """Set attributes of a workitem for its performer (PS3.4 Section CC.2.6).

    Raises
    ------
    Refused
        As for :func:`change_state`, or an attribute or value that may not be set.
    """
    row = require_row(connection, sop_instance_uid, lock=True)
    transaction_uid = str(modification.get("TransactionUID") or "")
    check_settable(State(row.state), row.transaction_uid, transaction_uid)
    given = Dataset()
    given.update({element.tag: element for element in modification})
    coerced = "ScheduledProcedureStepModificationDateTime" in given
    for keyword in (
        "SpecificCharacterSet",
        "TransactionUID",
        "ScheduledProcedureStepModificationDateTime",
    ):
        if keyword in given:
            delattr(given, keyword)
    check_values(given)
    ds = dataset(row)
    ds.update({element.tag: element for element in given})
    _keep(connection, sop_instance_uid, ds, {})
    keywords = sorted(element.keyword for element in given)
    columns: trail.Columns = {**caller, "detail": {"set": keywords}}
    _record(connection, row, trail.Event.WORKITEM_CHANGED, row.state, row.state, columns)
    reports: EventReports = []
    if "ProcedureStepProgressInformationSequence" in given:
        progress = Dataset()
        progress.ProcedureStepProgressInformationSequence = (
            given.ProcedureStepProgressInformationSequence
        )
        reports += add_reports(connection, sop_instance_uid, EventType.PROGRESS_REPORT, progress)
    if {"ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence"} & set(keywords):
        reports += add_reports(connection, sop_instance_uid, EventType.ASSIGNED, assigned(ds))
    return COERCED if coerced else SUCCESS, reports


def request_cancel(
    connection: Connection, sop_instance_uid: str, request: Dataset, caller: trail.Columns
) -> tuple[UPSStatus, EventReports]:
    """Cancel a workitem that nobody has begun, or tell of the wish to (PS3.4 Section CC.2.2).

    Raises
    ------
    Refused
        It is COMPLETED, or nobody subscribes who could learn of the wish.
    """
    row = require_row(connection, sop_instance_uid, lock=True)
    match State(row.state):
        case State.COMPLETED:
            raise Refused(CANNOT_CANCEL_COMPLETED)
        case State.CANCELED:
            return ALREADY_CANCELED, []
        case State.SCHEDULED:
            text = str(request.get("ReasonForCancellation") or "Canceled on request.")
            reasons = request.get("ProcedureStepDiscontinuationReasonCodeSequence") or []
            return SUCCESS, _cancel(connection, row, text, reasons, caller)
        case State.IN_PROGRESS:
            reports = _ask_to_cancel(connection, row, request, caller)
            if not reports:
                raise Refused(PERFORMER_UNREACHABLE)
            return SUCCESS, reports


def _ask_to_cancel(
    connection: Connection, row: Row[Any], request: Dataset, caller: trail.Columns | None = None
) -> EventReports:
    information = Dataset()
    for keyword in (
        "ReasonForCancellation",
        "ProcedureStepDiscontinuationReasonCodeSequence",
        "ContactURI",
        "ContactDisplayName",
    ):
        if request.get(keyword):
            information[keyword] = request[keyword]
    who = (caller or {}).get("calling_ae_title")
    if who:
        information.RequestingAE = who
    reports = add_reports(connection, row.sop_instance_uid, EventType.CANCEL_REQUESTED, information)
    if reports:
        columns: trail.Columns = {**(caller or {}), "detail": {"cancel requested": True}}
        _record(connection, row, trail.Event.WORKITEM_CHANGED, row.state, row.state, columns)
    return reports


# ---- the trail -------------------------------------------------------------------------------


def _keep(
    connection: Connection, sop_instance_uid: str, ds: Dataset, values: dict[str, Any]
) -> None:
    ds.ScheduledProcedureStepModificationDateTime = moment()
    content = ds.to_json_dict()
    workitems.set_row(connection, sop_instance_uid, {**values, "attributes": content})


def _record(
    connection: Connection,
    row: Row[Any],
    event: trail.Event,
    before: str | None,
    after: str,
    columns: trail.Columns,
) -> None:
    detail = {"from": before, "to": str(after), **columns.get("detail", {})}
    trail.record(
        connection,
        event,
        {
            **analyses.of_study(connection, row.study_instance_uid),
            "bundle_digest": row.bundle_digest,
            **columns,
            "sop_instance_uid": row.sop_instance_uid,
            "detail": detail,
        },
    )
