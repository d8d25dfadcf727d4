"""The DICOM listener: Verification and Storage SCP, and SCU of Storage Commitment.

A C-STORE is answered with Success only after file, folder and row are durable (R1). The table of
all answers is ``STATUSES``.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydicom import Dataset
from pynetdicom import AE, _config, dimse_messages, evt
from pynetdicom.pdu import A_RELEASE_RQ
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from thoracle.errors import (
    CannotUnderstand,
    NotAuthorized,
    ObjectsAway,
    OutOfResources,
    ReceiveError,
)
from thoracle.receive import duplicates, negotiation, transport
from thoracle.receive.associations import Arrival, Arrivals, Places, Refusal, Refusals, Visits
from thoracle.receive.completeness import Command, Walked, check
from thoracle.receive.duplicates import Frames
from thoracle.receive.inbox import Inbox, IncomingFile
from thoracle.settings import Receive, tls
from thoracle.store import trail
from thoracle.study import instances
from thoracle.study.instances import Description, Received

# ---- statuses ------------------------------------------------------------------------------------
# Every status that the C-STORE handler can answer, with its clause and when it is used.


@dataclass(frozen=True, slots=True)
class Status:
    """A row of the table: a service status and the situation that it stands for."""

    code: int
    name: str
    clause: str
    when: str


SUCCESS = Status(
    0x0000,
    "Success",
    "PS3.4 B.2.3",
    "File and folder are synchronised to disk and the database row is committed; also for an "
    "object that we already have.",
)
OUT_OF_RESOURCES = Status(
    0xA700,
    "Refused: Out of Resources",
    "PS3.4 Table B.2-1",
    "Disk or database cannot take the object now, or it is larger than the limit; sending again "
    "later can help.",
)
DATA_SET_MISMATCH = Status(
    0xA900,
    "Error: Data Set Does Not Match SOP Class",
    "PS3.4 Table B.2-1",
    "UIDs differ from the command's, a required UID is missing or none, Rows or Columns are 0, or "
    "there is less pixel data than they call for.",
)
CANNOT_UNDERSTAND = Status(
    0xC000,
    "Error: Cannot Understand",
    "PS3.4 Table B.2-1",
    "The data set is missing, cut short or cannot be parsed; reading it would cost more than "
    "receive.budget allows (the comment says of what); or its UID was used before for another "
    "study or other pixels. Sending it again will not help.",
)
NOT_AUTHORIZED = Status(
    0x0124,
    "Refused: Not Authorized",
    "PS3.7 Section C.4.19",
    "receive.store_ae_titles does not name the caller.",
)

PROCESSING_FAILURE = Status(
    0x0110,
    "Processing Failure",
    "PS3.7 Annex C",
    "Of a C-ECHO alone: no object could be stored now; Error Comment says why.",
)

STATUSES = (SUCCESS, OUT_OF_RESOURCES, DATA_SET_MISMATCH, CANNOT_UNDERSTAND, NOT_AUTHORIZED)


# ---- listener ------------------------------------------------------------------------------------

logger = logging.getLogger(__name__)

STAT, ROUTINE = 1, 100
LONGEST_NAME = 324
"""Characters of a PN: five components of 64 with their separators (PS3.5 Table 6.2-1)."""
More = Callable[[AE], list[evt.EventHandlerType]]
"""Lets others negotiate further services; returns what is to be bound to their events."""


class Listener:
    """The Storage SCP, from :meth:`start` to :meth:`stop`, with further services if there are any.

    Raises
    ------
    SettingsError
        When the files of ``receive.tls`` cannot be used. They are read once, here.
    """

    def __init__(
        self,
        settings: Receive,
        inbox: Inbox,
        frames: Frames,
        database: Engine,
        on_arrival: Arrival,
        on_commitment: negotiation.OnAnswer,
        more: More | None = None,
        ready: Callable[[], str] = str,
    ) -> None:
        self._settings = settings
        self._ready = ready
        self._inbox = inbox
        self._frames = frames
        self._database = database
        self._on_commitment = negotiation.commitment_handler(on_commitment)
        self._tls = None if settings.tls is None else tls.server_context(settings.tls)
        self._refusals = Refusals(database)
        self._places = Places(settings.maximum_associations)
        self._visits = Visits(database)
        self._arrivals = Arrivals(on_arrival)
        self._ae = negotiation.application_entity(settings)
        self._more = [] if more is None else more(self._ae)
        self._server: Any = None

    def start(self) -> None:
        """Bind the port and serve in threads of pynetdicom's.

        Raises
        ------
        OSError
            When the port cannot be bound.
        """
        _config.STORE_RECV_CHUNKED_DATASET = True
        _config.LOG_HANDLER_LEVEL = "none"  # else each PDU is formatted for a log nobody reads
        # pynetdicom writes chunks to a temporary file in the system's folder, flushes every
        # fragment and dies of a full disk. It offers no hook but this name.
        stand_in: Any = dimse_messages
        stand_in.NamedTemporaryFile = lambda **_: self._inbox.open()
        self._server = self._ae.start_server(
            (self._settings.host, self._settings.port),
            block=False,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._on_connected),
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_C_ECHO, self._on_c_echo),
                (evt.EVT_C_STORE, self._on_c_store),
                (evt.EVT_N_EVENT_REPORT, self._on_commitment),
                (evt.EVT_REJECTED, self._on_rejected),
                (evt.EVT_PDU_RECV, self._on_pdu),
                *self._more,
            ],
        )
        # It would collect all of the interpreter's garbage every half minute, with its lock held.
        self._server.service_actions = lambda: None
        # pynetdicom queues five connections; a sixth sender waits for its SYN to be repeated.
        self._server.socket.listen(self._settings.maximum_associations)

    def stop(self, seconds: float) -> None:
        """Refuse new associations, let those at work end for ``seconds``, then abort the rest."""
        if self._server is None:
            return
        self._server.socket.close()
        deadline = time.monotonic() + seconds
        while self._ae.active_associations and time.monotonic() < deadline:
            # An association without a message under way would idle until its network timeout.
            for assoc in self._ae.active_associations:
                if assoc.dimse.message is None and assoc.dimse.msg_queue.empty():
                    assoc.abort()
            time.sleep(0.05)
        self._server.shutdown()
        self._ae.shutdown()
        self._refusals.flush()

    def _on_connected(self, event: evt.Event) -> None:
        assoc: Any = event.assoc
        address = assoc.requestor.address
        settings = self._settings
        transport.at_end(assoc, self._on_ended)
        try:
            if self._tls is not None:
                transport.secure(event, self._tls, settings.acse_timeout_seconds)
        except tls.HandshakeEnded as error:
            logger.info("connection from %s: %s", address, error)
            return
        except tls.HandshakeFailed as error:
            self._refusals.add(Refusal(address, str(error)))
            return
        if not self._places.enter(assoc, address):
            transport.reject(assoc)
            reason = f"this address has {self._places.per_address} associations already"
            self._refusals.add(Refusal(address, reason))
            return
        transport.prepare(assoc, settings, lambda reason: self._refused(assoc, reason))

    def _refused(self, assoc: Any, reason: str) -> None:
        """Tell of an association that was rejected, or ended for what it sent."""
        primitive = assoc.requestor.primitive
        called = None if primitive is None else str(primitive.called_ae_title)
        calling = None if primitive is None else str(primitive.calling_ae_title)
        self._refusals.add(Refusal(assoc.requestor.address, reason, calling, called))

    def _on_requested(self, event: evt.Event) -> None:
        """Reject what pynetdicom would accept."""
        assoc: Any = event.assoc
        objection = negotiation.objection(assoc, self._settings, self._places)
        if objection is not None:
            reason, answer = objection
            assoc.acse.send_reject(*answer)
            self._refused(assoc, reason)
            assoc.kill()

    def _on_c_echo(self, event: evt.Event) -> Dataset:
        """Answer a C-ECHO-RQ; it fails while ``ready`` says why no object could be stored."""
        if fault := self._ready():
            return _answer(PROCESSING_FAILURE.code, fault)
        return _answer(SUCCESS.code)

    def _on_c_store(self, event: evt.Event) -> Dataset:
        """Answer a C-STORE-RQ; every Status that can come back is in ``STATUSES``."""
        file: IncomingFile | None = cast(Any, event.request)._dataset_file
        started = time.perf_counter()
        received: Received | None = None
        try:
            self._authorize(event)
            if file is None:
                raise CannotUnderstand("C-STORE-RQ without a data set")
            received = self._keep(event, file)
            event_recorded = duplicates.record(
                self._database, self._inbox, self._frames, received, started
            )
        except ReceiveError as error:
            return self._refuse(event, error.status, str(error), received)
        except ObjectsAway as error:
            return self._refuse(event, OutOfResources.status, str(error), received)
        except (OSError, MemoryError, SQLAlchemyError) as error:
            logger.exception("object not stored")
            comment = type(error).__name__
            return self._refuse(event, OutOfResources.status, comment, received)
        except Exception:
            logger.exception("object not stored")
            return self._refuse(event, CANNOT_UNDERSTAND.code, "internal error, see log")
        finally:
            if file is not None:
                file.remove()
        self._visits.count(event.assoc, event_recorded)
        if event_recorded is not trail.Event.INSTANCE_DUPLICATE or self._is_unplanned(received):
            self._arrivals.push(event.assoc, received.study_instance_uid)
        return _answer(SUCCESS.code)

    def _is_unplanned(self, received: Received) -> bool:
        """Return whether nobody may know yet of an object that is repeated.

        Its sender has had no answer: who stored it may have died before it told of its arrival.
        """
        try:
            with self._database.connect() as connection:
                latest = instances.latest(connection, received.sop_instance_uid)
        except SQLAlchemyError:  # it is stored all the same, and housekeeping finds it
            return False
        return latest is not None and latest.generation is None

    def _keep(self, event: evt.Event, file: IncomingFile) -> Received:
        request = cast(Any, event.request)
        command = Command(
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
            str(event.context.transfer_syntax),
        )
        file.raise_error()
        walked = check(Path(file.name), command, self._settings.budget)
        size = Path(file.name).stat().st_size - walked.data_set_offset
        received = _received(command, walked, event.assoc, size, file.sha256)
        return replace(received, path=self._inbox.keep(file))

    def _authorize(self, event: evt.Event) -> None:
        allowed = self._settings.store_ae_titles
        if allowed and event.assoc.requestor.ae_title not in allowed:
            raise NotAuthorized("receive.store_ae_titles does not name this AE title")

    def _refuse(
        self, event: evt.Event, status: int, comment: str, received: Received | None = None
    ) -> Dataset:
        """Refuse an object; ``received`` is what it said of itself, as far as that was read."""
        request = cast(Any, event.request)
        logger.warning("refused with 0x%04X: %s", status, comment)
        if status == OutOfResources.status:
            self._inbox.note_refusal(comment)
        self._visits.count(event.assoc, trail.Event.INSTANCE_REFUSED)
        try:
            with self._database.begin() as connection:
                trail.record(
                    connection,
                    trail.Event.INSTANCE_REFUSED,
                    {
                        "event_outcome": trail.SERIOUS_FAILURE,
                        "calling_ae_title": event.assoc.requestor.ae_title,
                        "network_address": event.assoc.requestor.address,
                        "study_instance_uid": received.study_instance_uid if received else None,
                        "accession_number": received.accession_number if received else None,
                        "sop_instance_uid": str(request.AffectedSOPInstanceUID)[:64],
                        "status": f"0x{status:04X}",
                        "detail": {"comment": comment},
                    },
                )
        except SQLAlchemyError:
            logger.exception("refusal not audited")
        return _answer(status, comment)

    def _on_pdu(self, event: evt.Event) -> None:
        if isinstance(event.pdu, A_RELEASE_RQ):
            self._arrivals.release(event.assoc)

    def _on_ended(self, assoc: Any) -> None:
        """Clear up after an association, whatever ended it; called in its own thread, once."""
        # First the reading of its studies: what follows waits for the database.
        released = self._arrivals.end(assoc)
        self._places.leave(assoc)
        self._visits.end(assoc, released=released)
        for file in transport.unread(assoc):
            file.refuse("association ended within an object")

    def _on_rejected(self, event: evt.Event) -> None:
        requestor: Any = event.assoc.requestor
        answer: Any = event.assoc.acceptor.primitive
        self._refusals.add(
            Refusal(
                requestor.address,
                answer.reason_str,
                str(requestor.ae_title),
                str(requestor.primitive.called_ae_title),
            )
        )


def _received(command: Command, walked: Walked, assoc: Any, size: int, sha256: str) -> Received:
    return Received(
        sop_class_uid=command.affected_sop_class_uid,
        sop_instance_uid=command.affected_sop_instance_uid,
        study_instance_uid=walked.text("StudyInstanceUID"),
        series_instance_uid=walked.text("SeriesInstanceUID"),
        transfer_syntax_uid=command.transfer_syntax_uid,
        patient_id=walked.text("PatientID"),
        issuer_of_patient_id=walked.text("IssuerOfPatientID"),
        accession_number=walked.text("AccessionNumber"),
        priority=STAT if _is_stat(walked) else ROUTINE,
        path="",  # not kept yet
        size=size,
        sha256=sha256,
        calling_ae_title=str(assoc.requestor.ae_title),
        peer_address=assoc.requestor.address,
        description=_description(walked),
    )


def _description(walked: Walked) -> Description:
    return Description(
        patient_name=walked.text("PatientName", LONGEST_NAME),
        modality=walked.text("Modality", 16),
        study_description=walked.text("StudyDescription"),
        study_date=walked.text("StudyDate"),
        study_time=walked.text("StudyTime"),
        device=walked.text("StationName") or walked.text("ManufacturerModelName"),
        patient_birth_date=walked.text("PatientBirthDate", 16),
        patient_sex=walked.text("PatientSex", 16),
        patient_age=walked.text("PatientAge", 16),
    )


def _is_stat(walked: Walked) -> bool:
    # (0032,000C) is retired but sent; (0040,1003) belongs to the worklist and is copied by some.
    return walked.text("RequestedProcedurePriority") in ("STAT", "HIGH") or (
        walked.text("StudyPriorityID") == "HIGH"
    )


def _answer(status: int, comment: str = "") -> Dataset:
    answer = Dataset()
    answer.Status = status
    if comment:
        answer.ErrorComment = comment[:64]  # LO, PS3.7 Section C
    return answer
