"""The double of a workflow manager: a worklist in this process that others work off.

A UPS SCP over a real socket, with the state machine of PS3.4 Table CC.1.1-2 in memory. It can be
told to answer otherwise, to give a workitem to another performer first, and to be away.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    Verification,
)

from pacs import free_port
from workflow import coded, data

Answer = tuple[int, Dataset | None]


class Manager:
    """A workflow manager; a context manager that is reachable inside the block."""

    def __init__(self, ae_title: str = "MANAGER") -> None:
        self.ae_title, self.port = ae_title, free_port()
        self.items: dict[str, Dataset] = {}
        """SOP Instance UID -> workitem, its Transaction UID included."""
        self.log: list[tuple[str, str, str]] = []
        """Service, workitem and what was wanted, of each change that was made."""
        self.finds = 0
        self.intercept: Callable[[str, str, str], int | None] = lambda *_: None
        """Asked first, with service, workitem and what is wanted: another status to answer."""
        self.after: Callable[[str, str, str], None] = lambda *_: None
        """Told of each change before its answer is sent."""
        self._lock = threading.RLock()
        self._ae = AE(ae_title=ae_title)
        self._ae.add_supported_context(Verification)
        self._ae.add_supported_context(UnifiedProcedureStepPull)
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
            evt_handlers=[
                (evt.EVT_C_FIND, self._find),
                (evt.EVT_N_GET, self._get),
                (evt.EVT_N_SET, self._set),
                (evt.EVT_N_ACTION, self._act),
            ],
        )

    def stop(self) -> None:
        """Become unreachable."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def settings(self, **more: object) -> dict[str, Any]:
        """Return the table [[workflow_manager]] of it."""
        table = {"name": self.ae_title.lower(), "ae_title": self.ae_title, "host": "127.0.0.1"}
        return {**table, "port": self.port, "poll_seconds": 1, **more}

    # ---- workitems -----------------------------------------------------------------------------

    def schedule(self, *images: Dataset, archive: str = "", **attributes: Any) -> str:
        """Return the UID of a new workitem that wants these images read."""
        item = data(
            TypeOfInstances="DICOM",
            StudyInstanceUID=images[0].StudyInstanceUID,
            SeriesInstanceUID=images[0].SeriesInstanceUID,
            ReferencedSOPSequence=[
                data(
                    ReferencedSOPClassUID=one.SOPClassUID,
                    ReferencedSOPInstanceUID=one.SOPInstanceUID,
                )
                for one in images
            ],
        )
        if archive:
            item.DICOMRetrievalSequence = [data(RetrieveAETitle=archive)]
        uid = generate_uid()
        self.items[uid] = data(
            SOPClassUID=UnifiedProcedureStepPush,
            SOPInstanceUID=uid,
            ProcedureStepState="SCHEDULED",
            InputReadinessState="READY",
            ScheduledWorkitemCodeSequence=[coded("110003")],
            ScheduledProcedureStepPriority="MEDIUM",
            StudyInstanceUID=images[0].StudyInstanceUID,
            InputInformationSequence=[item],
            **attributes,
        )
        return uid

    def state(self, uid: str) -> str:
        """Return the state of a workitem."""
        return str(self.items[uid].ProcedureStepState)

    def done(self, uid: str) -> Dataset:
        """Return what the performer of a workitem says that it did."""
        return self.items[uid].UnifiedProcedureStepPerformedProcedureSequence[0]  # type: ignore[no-any-return]  # an item

    def progress(self, uid: str) -> Dataset:
        """Return the progress information of a workitem."""
        return self.items[uid].ProcedureStepProgressInformationSequence[0]  # type: ignore[no-any-return]  # an item

    def changes(self, uid: str) -> Counter[str]:
        """Return how often a workitem came to each state."""
        return Counter(wanted for what, one, wanted in self.log if (what, one) == ("state", uid))

    # ---- services ------------------------------------------------------------------------------

    def _find(self, event: evt.Event) -> Iterator[Answer]:
        keys = event.identifier
        code = keys.ScheduledWorkitemCodeSequence[0].CodeValue
        self.finds += 1
        for item in list(self.items.values()):
            if (
                item.ProcedureStepState == keys.ProcedureStepState
                and item.InputReadinessState == keys.InputReadinessState
                and item.ScheduledWorkitemCodeSequence[0].CodeValue == code
            ):
                found = data(
                    SOPClassUID=item.SOPClassUID,
                    SOPInstanceUID=item.SOPInstanceUID,
                    ProcedureStepState=item.ProcedureStepState,
                )
                yield 0xFF00, found

    def _get(self, event: evt.Event) -> Answer:
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID)
        status = self.intercept("get", uid, "")
        if status is not None:
            return status, None
        if uid not in self.items:
            return 0xC307, None
        found = Dataset()
        tags = request.AttributeIdentifierList or []
        if isinstance(tags, int):  # pynetdicom has a list of one tag as the tag itself
            tags = [tags]
        found.update({tag: self.items[uid][tag] for tag in tags if tag in self.items[uid]})
        return 0x0000, found

    def _set(self, event: evt.Event) -> Answer:
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID)
        modification = event.modification_list
        with self._lock:
            status = self.intercept("set", uid, "")
            if status is None:
                status = self._settable(uid, modification.get("TransactionUID"))
            if status != 0x0000:
                return status, None
            self.items[uid].update({one.tag: one for one in modification})
            self.log.append(("set", uid, ""))
        return 0x0000, None

    def _settable(self, uid: str, lock: str | None) -> int:
        item = self.items.get(uid)
        if item is None:
            return 0xC307
        if item.ProcedureStepState in ("COMPLETED", "CANCELED"):
            return 0xC300
        if item.ProcedureStepState == "SCHEDULED":
            return 0xC310
        return 0x0000 if lock == item.TransactionUID else 0xC301

    def _act(self, event: evt.Event) -> Answer:
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID)
        information = event.action_information
        wanted, lock = information.ProcedureStepState, information.get("TransactionUID")
        with self._lock:
            status = self.intercept("state", uid, wanted)
            if status is None:
                status = self._changeable(uid, wanted, lock)
            if status != 0x0000:
                return status, None
            self.items[uid].TransactionUID = lock
            self.items[uid].ProcedureStepState = wanted
            self.log.append(("state", uid, wanted))
        self.after("state", uid, wanted)
        return 0x0000, None

    def _changeable(self, uid: str, wanted: str, lock: str | None) -> int:
        item = self.items.get(uid)
        if item is None:
            return 0xC307
        state = item.ProcedureStepState
        if state == "SCHEDULED":
            return 0x0000 if wanted == "IN PROGRESS" else 0xC310
        if lock != item.get("TransactionUID"):
            return 0xC301
        if state == "IN PROGRESS":
            return 0xC302 if wanted == state else 0x0000
        return {"COMPLETED": 0xB306, "CANCELED": 0xB304}[state] if wanted == state else 0xC300
