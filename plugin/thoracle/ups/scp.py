"""SCP of Unified Procedure Steps: Pull, Watch and Query, below the listener (PS3.4 Annex CC).

Each request is one transaction; what it answers is durable. The class that messages name is always
Push, whatever was negotiated (PS3.4 Section CC.3.1). Push itself, by which others would put
workitems here, is not offered.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from thoracle.settings import Settings
from thoracle.store import trail, views
from thoracle.study import analyses
from thoracle.ups import matching, review, states, subscriptions
from thoracle.ups import workitem_rows as stored
from thoracle.ups import workitems as audited
from thoracle.ups.attributes import from_json
from thoracle.ups.states import GLOBAL_SUBSCRIPTION, Action, Refused, State, UPSStatus
from thoracle.ups.subscriptions import EventReports

logger = logging.getLogger(__name__)

LARGEST = 1_048_576
"""Bytes of a data set that is looked at."""
SOP_CLASSES = (UnifiedProcedureStepPull, UnifiedProcedureStepWatch, UnifiedProcedureStepQuery)

Begin = Callable[[], AbstractContextManager[Any]]
"""Begins a transaction; its value is the connection."""
Answer = tuple[Dataset, Dataset | None]


class Workitems:
    """The services, as handlers for the listener.

    Parameters
    ----------
    settings
        Of the gateway.
    begin
        Begins a transaction, e.g. ``Engine.begin``.
    on_reports
        Told of event reports that are to be sent, once they are committed.
    """

    def __init__(
        self, settings: Settings, begin: Begin, on_reports: Callable[[EventReports], None]
    ) -> None:
        self._settings = settings
        self._begin = begin
        self._on_reports = on_reports
        self._receivers = {one.ae_title for one in settings.subscriber}

    def support(self, ae: AE) -> list[evt.EventHandlerType]:
        """Let others negotiate the services; return what is to be bound to their events."""
        for sop_class in SOP_CLASSES:
            ae.add_supported_context(sop_class)
        return [
            (evt.EVT_C_FIND, self._on_c_find),
            (evt.EVT_N_GET, self._on_n_get),
            (evt.EVT_N_SET, self._on_n_set),
            (evt.EVT_N_ACTION, self._on_n_action),
        ]

    # ---- C-FIND --------------------------------------------------------------------------------

    def _on_c_find(self, event: evt.Event) -> Iterator[tuple[Dataset, Dataset | None]]:
        """Yield each match; every Status that can come is in ``ups/states.py``."""
        request: Any = event.request
        if not _may(event, self._settings.ups.query_ae_titles):
            yield _status(states.NOT_AUTHORIZED, "not in ups.query_ae_titles"), None
            return
        try:
            identifier = _read(
                request.Identifier, lambda: event.identifier, states.IDENTIFIER_UNREADABLE
            )
        except Refused as error:
            yield _status(error.status, error.comment), None
            return
        shown: list[str] = []
        try:
            for match, study in self._found(identifier):
                if event.is_cancelled:
                    yield _status(states.CANCELLED), None
                    return
                shown.append(study)
                yield _status(states.MATCH), match
        except Exception:
            logger.exception("workitems not read")
            yield _status(states.PROCESSING_FAILURE), None
        finally:
            self._viewed(event, shown)

    def _found(self, identifier: Dataset) -> Iterator[tuple[Dataset, str]]:
        """Yield each match, and of which study it is."""
        wanted = str(identifier.get("ProcedureStepState") or "")
        wanted_states = [wanted] if wanted in list(State) else [one.value for one in State]
        uids: Any = identifier.get("SOPInstanceUID") or None
        if isinstance(uids, str):
            uids = [uids]
        with self._begin() as connection:
            for rows in stored.pages(
                connection, wanted_states, uids and [str(uid) for uid in uids]
            ):
                for row in rows:
                    item = subscriptions.dataset(row)
                    if "InputInformationSequence" in identifier:
                        item.InputInformationSequence = self._inputs(connection, row)
                    if matching.matches(identifier, item):
                        answer = _answered(matching.answer(identifier, item), item)
                        yield answer, row.study_instance_uid

    def _inputs(self, connection: Any, row: Any) -> list[Dataset]:
        references = stored.named(connection, row)
        return review.inputs(row.study_instance_uid, references, self._settings.destination)

    # ---- N-GET ---------------------------------------------------------------------------------

    def _on_n_get(self, event: evt.Event) -> Answer:
        return self._answer(event, self._settings.ups.query_ae_titles, lambda: self._get(event))

    def _get(self, event: evt.Event) -> tuple[UPSStatus, Dataset]:
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID)
        wanted = request.AttributeIdentifierList or []
        if isinstance(wanted, int):  # pynetdicom has a list of one tag as the tag itself
            wanted = [wanted]
        with self._begin() as connection:
            row = subscriptions.require_row(connection, uid)
            item = subscriptions.dataset(row)
            item.InputInformationSequence = self._inputs(connection, row)
            columns: trail.Columns = {
                **analyses.of_study(connection, row.study_instance_uid),
                "sop_instance_uid": uid,
            }
            trail.record(connection, trail.Event.STUDY_VIEWED, {**columns, **_caller(event)})
        if not wanted:
            return states.SUCCESS, _in_utf8(item)
        found = Dataset()
        found.update({tag: item[tag] for tag in wanted if tag in item})
        return states.SUCCESS, _in_utf8(found)

    # ---- N-SET ---------------------------------------------------------------------------------

    def _on_n_set(self, event: evt.Event) -> Answer:
        return self._answer(event, self._settings.ups.claim_ae_titles, lambda: self._set(event))

    def _set(self, event: evt.Event) -> tuple[UPSStatus, None]:
        request: Any = event.request
        modification = _read(
            request.ModificationList,
            lambda: event.modification_list,
            states.INVALID_ATTRIBUTE_VALUE,
        )
        uid = str(request.RequestedSOPInstanceUID)
        if uid == GLOBAL_SUBSCRIPTION:
            raise Refused(states.NOT_APPROPRIATE)
        with self._begin() as connection:
            status, reports = audited.set_attributes(connection, uid, modification, _caller(event))
        self._queue_reports(reports)
        return status, None

    # ---- N-ACTION ------------------------------------------------------------------------------

    def _on_n_action(self, event: evt.Event) -> Answer:
        # Whoever may ask may subscribe: where the reports go is in the settings.
        changes = event.action_type in (Action.CHANGE_STATE, Action.REQUEST_CANCEL)
        ups = self._settings.ups
        allowed = ups.claim_ae_titles if changes else ups.query_ae_titles
        return self._answer(event, allowed, lambda: self._act(event))

    def _act(self, event: evt.Event) -> tuple[UPSStatus, None]:
        request: Any = event.request
        if event.action_type not in list(Action):
            raise Refused(states.NO_SUCH_ACTION)
        information = _read(
            request.ActionInformation,
            lambda: event.action_information,
            states.INVALID_ARGUMENT_VALUE,
        )
        uid, action = str(request.RequestedSOPInstanceUID), Action(event.action_type)
        changes = action in (Action.CHANGE_STATE, Action.REQUEST_CANCEL)
        if changes and uid == GLOBAL_SUBSCRIPTION:
            raise Refused(states.NOT_APPROPRIATE)
        with self._begin() as connection:
            if changes:
                status, reports = _change(connection, action, uid, information, _caller(event))
            else:
                status = states.SUCCESS
                reports = self._subscribe(connection, action, uid, information)
        self._queue_reports(reports)
        return status, None

    def _subscribe(
        self, connection: Any, action: Action, uid: str, information: Dataset
    ) -> EventReports:
        if not self._receivers:
            raise Refused(states.NO_EVENTS)
        ae_title = str(information.get("ReceivingAE") or "").strip()
        if ae_title not in self._receivers:
            raise Refused(states.UNKNOWN_RECEIVER)
        if action is Action.SUSPEND_GLOBAL:
            if uid != GLOBAL_SUBSCRIPTION:
                raise Refused(states.NOT_APPROPRIATE)
            subscriptions.suspend(connection, ae_title)
            return []
        if action is Action.UNSUBSCRIBE:
            subscriptions.unsubscribe(connection, uid, ae_title)
            return []
        lock = str(information.get("DeletionLock") or "")
        if lock not in ("TRUE", "FALSE"):
            raise Refused(states.INVALID_ARGUMENT_VALUE, "DeletionLock is TRUE or FALSE")
        return subscriptions.subscribe(connection, uid, ae_title, int(lock == "TRUE"))

    # ---- alike for all -------------------------------------------------------------------------

    def _answer(
        self,
        event: evt.Event,
        allowed: Sequence[str],
        act: Callable[[], tuple[UPSStatus, Dataset | None]],
    ) -> Answer:
        request: Any = event.request
        if not _may(event, allowed):
            return _status(states.NOT_AUTHORIZED, "not named in [ups]"), None
        if request.RequestedSOPClassUID != UnifiedProcedureStepPush:
            return _status(states.NO_SUCH_SOP_CLASS), None
        try:
            status, ds = act()
        except Refused as error:
            return _status(error.status, error.comment), None
        except Exception:
            logger.exception("request about a workitem not answered")
            return _status(states.PROCESSING_FAILURE), None
        return _status(status), ds

    def _queue_reports(self, reports: EventReports) -> None:
        try:
            self._on_reports(reports)
        except Exception:
            # They are rows: the next housekeeping has them sent. What was asked for is done.
            logger.exception("event reports not queued")

    def _viewed(self, event: evt.Event, studies: Sequence[str]) -> None:
        """Record whose workitems were shown."""
        if not studies:
            return
        with self._begin() as connection:
            for some in views.pieces(studies):
                detail = {"workitems": len(some), "studies": sorted(set(some))}
                columns: trail.Columns = {"detail": detail, **_caller(event)}
                trail.record(connection, trail.Event.LIST_VIEWED, columns)


def _change(
    connection: Any, action: Action, uid: str, information: Dataset, caller: trail.Columns
) -> tuple[UPSStatus, EventReports]:
    if action is Action.REQUEST_CANCEL:
        return audited.request_cancel(connection, uid, information, caller)
    wanted = str(information.get("ProcedureStepState") or "")
    transaction_uid = str(information.get("TransactionUID") or "")
    return audited.change_state(connection, uid, wanted, transaction_uid, caller)


def _may(event: evt.Event, allowed: Sequence[str]) -> bool:
    """Return whether a caller is one of those that the settings name; none named: all are."""
    return not allowed or str(event.assoc.requestor.ae_title) in allowed


def _caller(event: evt.Event) -> trail.Columns:
    requestor = event.assoc.requestor
    return {"calling_ae_title": str(requestor.ae_title), "network_address": requestor.address}


def _read(encoded: Any, decode: Callable[[], Dataset], unreadable: UPSStatus) -> Dataset:
    """Return a data set of which every value can be read, empty when none came, or refuse it."""
    if encoded is None:
        return Dataset()
    if len(encoded.getbuffer()) > LARGEST:
        raise Refused(states.RESOURCE_LIMITATION)
    try:
        return from_json(decode().to_json_dict())
    except Exception as error:  # pydicom decodes an element when it is looked at: raises anything
        raise Refused(unreadable, type(error).__name__) from error


def _answered(found: Dataset, item: Dataset) -> Dataset:
    found.SOPClassUID, found.SOPInstanceUID = item.SOPClassUID, item.SOPInstanceUID
    return _in_utf8(found)


def _in_utf8(ds: Dataset) -> Dataset:
    """Return a data set that declares UTF-8 where it needs it."""
    text = "".join(str(one.value) for one in ds.iterall() if one.VR != "SQ")
    if not text.isascii():
        ds.SpecificCharacterSet = "ISO_IR 192"
    return ds


def _status(status: UPSStatus, comment: str = "") -> Dataset:
    answer = Dataset()
    answer.Status = status.code
    if comment:
        answer.ErrorComment = comment[:64]  # LO, PS3.7 Section C
    return answer
