"""Clients of Unified Procedure Steps: who claims and ends workitems, and who is told of them.

Over real sockets, with pynetdicom; `dcmtk_ups.py` is the client of another make.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from ledger import eventually
from pacs import free_port
from thoracle.ups.states import GLOBAL_SUBSCRIPTION

ASKED = (UnifiedProcedureStepPull, UnifiedProcedureStepWatch, UnifiedProcedureStepQuery)


def data(**attributes: Any) -> Dataset:
    """Return a data set of these attributes."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def coded(value: str, scheme: str = "DCM", meaning: str = "x") -> Dataset:
    """Return an item of a code sequence."""
    return data(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def performed() -> Dataset:
    """Return an item of what a performer has done that meets the final state requirements."""
    return data(
        PerformedStationNameCodeSequence=[coded("READER", "99TEST")],
        PerformedWorkitemCodeSequence=[coded("110005")],
        PerformedProcedureStepStartDateTime="20261124120000+0000",
        PerformedProcedureStepEndDateTime="20261124120100+0000",
        OutputInformationSequence=[],
    )


class Reader:
    """A client on one association; a context manager."""

    def __init__(self, port: int, called: str = "THORACLE", ae_title: str = "READER") -> None:
        self._ae = AE(ae_title=ae_title)
        self._port, self._called = port, called
        self.transaction_uid = generate_uid()

    def __enter__(self) -> Self:
        contexts = [build_context(one) for one in ASKED]
        self.assoc = self._ae.associate("127.0.0.1", self._port, contexts, self._called)
        assert self.assoc.is_established
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.assoc.release()

    def find(
        self, identifier: Dataset | None = None, sop_class: Any = UnifiedProcedureStepPull
    ) -> list[Dataset]:
        """Return what matches; by default everything."""
        self.statuses = []
        found = []
        for status, match in self.assoc.send_c_find(identifier or everything(), sop_class):
            self.statuses.append(status.Status)
            if match is not None:
                found.append(match)
        return found

    def get(self, uid: str, *tags: int) -> tuple[int, Dataset | None]:
        """Return status and attributes of an N-GET."""
        status, ds = self.assoc.send_n_get(
            list(map(Tag, tags)), UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull
        )
        return int(status.Status), ds

    def set(self, uid: str, transaction_uid: str | None = "", **attributes: Any) -> int:
        """Return the status of an N-SET, by default under our Transaction UID."""
        modification = data(**attributes)
        if transaction_uid is not None:
            modification.TransactionUID = transaction_uid or self.transaction_uid
        status, _ = self.assoc.send_n_set(
            modification, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull
        )
        self.comment = status.get("ErrorComment")
        return int(status.Status)

    def act(
        self, uid: str, action: int, sop_class: Any = UnifiedProcedureStepWatch, **attributes: Any
    ) -> int:
        """Return the status of an N-ACTION."""
        status, _ = self.assoc.send_n_action(
            data(**attributes) if attributes else None,
            action,
            UnifiedProcedureStepPush,
            uid,
            meta_uid=sop_class,
        )
        self.comment = status.get("ErrorComment")
        return int(status.Status)

    def change(self, uid: str, state: str, transaction_uid: str | None = "") -> int:
        """Return the status of a change of state, by default under our Transaction UID."""
        attributes = {"ProcedureStepState": state}
        if transaction_uid is not None:
            attributes["TransactionUID"] = transaction_uid or self.transaction_uid
        return self.act(uid, 1, UnifiedProcedureStepPull, **attributes)

    def claim(self, uid: str) -> int:
        """Return the status of a claim."""
        return self.change(uid, "IN PROGRESS")

    def complete(self, uid: str) -> int:
        """Return the status of a completion, with all that it needs."""
        assert self.set(uid, UnifiedProcedureStepPerformedProcedureSequence=[performed()]) == 0
        return self.change(uid, "COMPLETED")

    def cancel(self, uid: str) -> int:
        """Return the status of a cancellation, with all that it needs."""
        progress = data(
            ProcedureStepCancellationDateTime="20261124120000+0000",
            ProcedureStepDiscontinuationReasonCodeSequence=[coded("110513")],
        )
        assert self.set(uid, ProcedureStepProgressInformationSequence=[progress]) == 0
        return self.change(uid, "CANCELED")

    def subscribe(self, ae_title: str, uid: str = GLOBAL_SUBSCRIPTION, lock: str = "FALSE") -> int:
        """Return the status of a subscription."""
        return self.act(uid, 3, ReceivingAE=ae_title, DeletionLock=lock)


def everything() -> Dataset:
    """Return an Identifier that all workitems match, with the attributes that the tests look at."""
    return data(
        SOPInstanceUID="",
        ProcedureStepState="",
        ProcedureStepLabel="",
        ScheduledProcedureStepPriority="",
        PatientName="",
        PatientID="",
        WorklistLabel="",
        StudyInstanceUID="",
        InputInformationSequence=[],
        ReplacedProcedureStepSequence=[],
    )


class Station:
    """A station that subscribes: it keeps the event reports that it gets."""

    def __init__(self, ae_title: str = "STATION") -> None:
        self.ae_title, self.port = ae_title, free_port()
        self.status: Callable[[int], int] = lambda _: 0x0000
        """Answers the n-th report, counted from 0."""
        self.reports: list[tuple[str, int, Dataset]] = []
        """SOP Instance UID, Event Type ID and Event Information of each, if it was taken."""
        self.asked = 0
        self._lock = threading.Lock()
        self._ae = AE(ae_title=ae_title)
        self._ae.add_supported_context(UnifiedProcedureStepEvent, scu_role=True, scp_role=True)
        self._server: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Become reachable."""
        self._server = self._ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)],
        )

    def stop(self) -> None:
        """Become unreachable."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        request: Any = event.request
        with self._lock:
            status = self.status(self.asked)
            self.asked += 1
            if status == 0x0000:
                uid = str(request.AffectedSOPInstanceUID)
                self.reports.append((uid, request.EventTypeID, event.event_information))
        return status, None

    def of(self, uid: str) -> list[tuple[int, str]]:
        """Return type and state of the reports on a workitem."""
        return [
            (kind, str(ds.get("ProcedureStepState", "")))
            for one, kind, ds in list(self.reports)
            if one == uid
        ]

    def wait(self, uid: str, reports: list[tuple[int, str]], seconds: float = 60) -> None:
        """Return when these reports on a workitem have come; ``TimeoutError`` with what has."""
        try:
            eventually(lambda: self.of(uid) == reports, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"found {self.of(uid)}, required: {reports}") from error
