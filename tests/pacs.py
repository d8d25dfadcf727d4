"""The one double of the tests and the demo: an archive in this process that keeps what it gets.

A Storage SCP over a real socket. It can be told to refuse, to accept fewer SOP Classes, and to be
away for a while; to offer Storage Commitment and to report early, late, wrongly or never; and to
offer C-FIND and to answer for objects that were not asked for.
"""

import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, Self

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE, build_role, dsutils, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

Report = tuple[int, Dataset]
"""Event Type ID and Event Information of an N-EVENT-REPORT."""


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw7").removeprefix("gw")) % 8
_PORTS = itertools.cycle(
    random.sample(range(12_000 + 2500 * _WORKER, 14_500 + 2500 * _WORKER), 2500)
)
"""Each process of the tests has its own, below those that the kernel gives to callers: one that it
gave away meanwhile was a gateway that could not start, or the gateway of another test."""


def free_port() -> int:
    """Return a TCP port of the loopback address that was free a moment ago."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


KINDS = ["sr", "sc", "pr", "ko"]


class Pacs:
    """An archive; a context manager that is reachable inside the block."""

    def __init__(
        self,
        ae_title: str = "PACS",
        sop_classes: tuple[UID, ...] = (Comprehensive3DSRStorage, ComprehensiveSRStorage),
        *,
        commitment: bool = False,
        query: bool = False,
    ) -> None:
        self.ae_title = ae_title
        self.port = free_port()
        self.kinds = KINDS if SecondaryCaptureImageStorage in sop_classes else ["sr"]
        """What a destination is to say that it takes: one for reports alone wants no pictures."""
        self.status = 0x0000
        """What it answers to a C-STORE; it keeps the object only when this is success."""
        self.delay = 0.0
        """Seconds before it answers."""
        self.kept: dict[str, list[bytes]] = {}
        """SOP Instance UID -> the data set of each time it came, encoded."""
        self.arrived: dict[str, float] = {}
        """SOP Instance UID -> time of its first arrival, seconds of ``time.time``."""
        self.calling_ae_titles: list[str] = []
        self.commitment_status = 0x0000
        """What it answers to an N-ACTION; it reports only when this is success."""
        self.requests: list[Dataset] = []
        """Action Information of each N-ACTION."""
        self.report: Callable[[Dataset], Report] = self.truth
        """Makes the report on a request; :meth:`truth` unless a test has it lie."""
        self.reports_to: tuple[str, int] | None = None
        """AE title and port for a report on a new association; ``None``: on the same one."""
        self.report_after: float | None = 0.0
        """Seconds from the N-ACTION to the report; ``None``: never."""
        self.reports_first = False
        """Whether it reports on the same association before it answers the N-ACTION."""
        self.report_statuses: list[int | None] = []
        """What was answered to each report; ``None``: nothing."""
        self.find_status = 0x0000
        """What it answers at the end of a C-FIND."""
        self.matches: Callable[[Dataset], Iterable[Dataset]] = self.matching
        """Finds what a C-FIND asks for; :meth:`matching` unless a test has it err."""
        self._changed = threading.Condition(threading.RLock())
        self._ae = AE(ae_title=ae_title)
        self._ae.add_supported_context(Verification)
        for sop_class in sop_classes:
            self._ae.add_supported_context(sop_class)
        if commitment:
            self._ae.add_supported_context(StorageCommitmentPushModel)
        if query:
            self._ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        self._server: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Become reachable."""
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._commit),
            (evt.EVT_C_FIND, self._find),
        ]
        self._server = self._ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers
        )

    def stop(self) -> None:
        """Become unreachable."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        time.sleep(self.delay)
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]  # C-STORE
        with self._changed:
            self.calling_ae_titles.append(str(event.assoc.requestor.ae_title))
            if self.status == 0x0000:
                self.kept.setdefault(uid, []).append(event.encoded_dataset())
                self.arrived.setdefault(uid, time.time())
            self._changed.notify_all()
        return self.status

    # ---- Storage Commitment --------------------------------------------------------------------

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        if self.commitment_status == 0x0000:
            information = event.action_information
            with self._changed:
                self.requests.append(information)
                self._changed.notify_all()
            if self.reports_first:
                self._send_unasked(event, self.report(information))
            if self.report_after is not None:
                threading.Timer(
                    self.report_after, self._tell, (event.assoc, self.report(information))
                ).start()
        return self.commitment_status, None

    def truth(self, request: Dataset) -> Report:
        """Return the report that what is kept is committed, and the rest failed."""
        information = Dataset()
        information.TransactionUID = request.TransactionUID
        here: list[Dataset] = []
        missing: list[Dataset] = []
        for item in request.ReferencedSOPSequence:
            (here if item.ReferencedSOPInstanceUID in self.kept else missing).append(item)
        information.ReferencedSOPSequence = here
        if not missing:
            return 1, information
        for item in missing:
            item.FailureReason = 0x0112  # no such object instance
        information.FailedSOPSequence = missing
        return 2, information

    def _tell(self, assoc: Association, report: Report) -> None:
        if self.reports_to is None:
            self._send(assoc, report)
            return
        ae_title, port = self.reports_to
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        own = ae.associate("127.0.0.1", port, ae_title=ae_title, ext_neg=[role])
        if own.is_established:
            self._send(own, report)
            own.release()

    def _send(self, assoc: Association, report: Report) -> None:
        event_type, information = report
        try:
            answer, _ = assoc.send_n_event_report(
                information,
                event_type,
                StorageCommitmentPushModel,
                StorageCommitmentPushModelInstance,
            )
        except RuntimeError:  # the association has been released meanwhile
            answer = Dataset()
        with self._changed:
            self.report_statuses.append(answer.get("Status"))
            self._changed.notify_all()

    def _send_unasked(self, event: evt.Event, report: Report) -> None:
        syntax = event.context.transfer_syntax
        request = N_EVENT_REPORT()
        request.MessageID = 1
        request.AffectedSOPClassUID = StorageCommitmentPushModel
        request.AffectedSOPInstanceUID = StorageCommitmentPushModelInstance
        request.EventTypeID = report[0]
        encoded = dsutils.encode(report[1], syntax.is_implicit_VR, syntax.is_little_endian)
        assert encoded is not None
        request.EventInformation = BytesIO(encoded)
        event.assoc.dimse.send_msg(request, event.context.context_id or 0)

    # ---- Query ---------------------------------------------------------------------------------

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for match in self.matches(event.identifier):
            yield 0xFF00, match
        yield self.find_status, None

    def matching(self, identifier: Dataset) -> list[Dataset]:
        """Return the UIDs of the kept object that an identifier of the IMAGE level asks for."""
        return [
            uids_of(ds)
            for ds in self.datasets()
            if ds.SOPInstanceUID == identifier.SOPInstanceUID
            and ds.SeriesInstanceUID == identifier.SeriesInstanceUID
            and ds.StudyInstanceUID == identifier.StudyInstanceUID
        ]

    # ---- What is kept --------------------------------------------------------------------------

    def datasets(self) -> list[Dataset]:
        """Return what is kept, each object once, in order of arrival."""
        with self._changed:
            return [dcmread(BytesIO(copies[0])) for copies in self.kept.values()]

    def reports_on(self, study_instance_uid: str) -> list[Dataset]:
        """Return the kept objects of a study."""
        return [ds for ds in self.datasets() if ds.StudyInstanceUID == study_instance_uid]

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Return when a condition over what is kept holds; ``TimeoutError`` when it does not."""
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                raise TimeoutError(f"not so after {seconds} s, {len(self.kept)} objects are kept")

    def wait_for(self, number: int, seconds: float) -> None:
        """Return when so many different objects are kept; ``TimeoutError`` when they are not."""
        self.wait_until(lambda: len(self.kept) >= number, seconds)


def uids_of(ds: Dataset) -> Dataset:
    """Return a match for an object at the IMAGE level."""
    match = Dataset()
    match.QueryRetrieveLevel = "IMAGE"
    match.StudyInstanceUID = ds.StudyInstanceUID
    match.SeriesInstanceUID = ds.SeriesInstanceUID
    match.SOPInstanceUID = ds.SOPInstanceUID
    return match


def smallest_report(**attributes: object) -> Dataset:
    """Return a report without content of a study of its own: enough for an archive to keep."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = Comprehensive3DSRStorage
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(ds, keyword, generate_uid())
    ds.PatientID = ds.StudyInstanceUID[-10:]
    ds.Modality = "SR"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds
