"""What happens to an object whose SOP Instance UID has been here before.

A PACS re-sends studies on every edit and route. The same bytes are the same object. Other header
values with the same frames, however they are encoded, are a correction: kept as a new version,
analysed no second time. The same frames under another patient are kept, too, and wait for a person
(``study/reconciliation.py``). Other frames, or another study, are an error that must not replace
the first.

Frames are compared before the transaction begins: nobody waits for bytes of strangers.
"""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from thoracle.errors import CannotUnderstand, OutOfResources
from thoracle.receive.comparison import Frames
from thoracle.receive.inbox import Inbox
from thoracle.store import trail
from thoracle.study import instances, reading_list, reconciliation
from thoracle.study.instances import KEPT, Received
from thoracle.study.reconciliation import Patient

ATTEMPTS = 5
"""Times that an object is compared again because another version of it has come meanwhile."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What an object is, as compared with the newest version that was there."""

    event: trail.Event
    previous: Any = None
    frames_sha256: str | None = None
    other_patient: bool = False
    again: bool = False
    """The file of the same object had gone, e.g. by the rules of retention."""


def record(
    database: Engine, inbox: Inbox, frames: Frames, received: Received, started: float
) -> trail.Event:
    """Commit the row and the audit event of a kept file; return which event it was.

    Raises
    ------
    CannotUnderstand
        The UID belongs to another study or other frames; the file is removed.
    """
    committed = written = False
    judged = _Judged(trail.Event.INSTANCE_DUPLICATE)
    try:
        for _ in range(ATTEMPTS):
            with database.connect() as connection:
                previous = instances.latest(connection, received.sop_instance_uid)
            judged = _judge(previous, received, inbox, frames)
            with database.begin() as connection:
                instances.lock_study(connection, received)
                latest = instances.latest(connection, received.sop_instance_uid)
                if _version(latest) != _version(previous):
                    continue
                _write(connection, inbox, judged, received, started)
                written = True
            committed = True
            return judged.event
        raise OutOfResources("other versions of this object come at the same time")
    finally:
        # A server whose answer to the commit is lost may have committed: a row may name the file.
        unsure = written and not committed and database.dialect.name != "sqlite"
        if judged.event is trail.Event.INSTANCE_DUPLICATE or not (committed or unsure):
            inbox.discard(received.path)


def _version(row: Any) -> tuple[int, str] | None:
    return None if row is None else (row.id, row.file_state)


def _judge(previous: Any, received: Received, inbox: Inbox, frames: Frames) -> _Judged:
    """Return what an object is; raise CannotUnderstand when it is an impostor."""
    if previous is None:
        return _Judged(trail.Event.INSTANCE_STORED)
    if previous.study_instance_uid != received.study_instance_uid:
        raise CannotUnderstand("SOP Instance UID is known with another study_instance_uid")
    # Of a file that is gone from the disk the sender has the only copy.
    kept = previous.file_state == KEPT and (inbox.data_folder / previous.path).exists()
    if previous.sha256 == received.sha256:
        if kept:
            return _Judged(trail.Event.INSTANCE_DUPLICATE, previous)
        return _Judged(trail.Event.INSTANCE_STORED, previous, again=True)
    other_patient = not Patient.of(previous).is_same(Patient.of(received))
    digest = previous.frames_sha256
    if kept or digest:
        digest = frames.same(previous, received)
    elif other_patient:  # nothing is left to compare it with
        raise CannotUnderstand("SOP Instance UID is known with another patient_id")
    return _Judged(trail.Event.INSTANCE_CORRECTED, previous, digest, other_patient=other_patient)


def _write(
    connection: Connection, inbox: Inbox, judged: _Judged, received: Received, started: float
) -> None:
    same = not judged.other_patient and instances.take_over_patient(connection, received)
    reading_list.arrive(connection, received, same_patient=same)
    previous = judged.previous
    if judged.again:
        instances.keep_again(connection, previous.id, received)
        inbox.discard(previous.path)  # if it was just about to go
    elif previous is None:
        instances.add(connection, received)
    elif judged.event is trail.Event.INSTANCE_CORRECTED:
        instances.add(
            connection,
            received,
            version=previous.version + 1,
            generation=previous.generation,
            frames_sha256=judged.frames_sha256,
            identity=reconciliation.OPEN if judged.other_patient else previous.identity,
        )
    columns: trail.Columns = {
        "calling_ae_title": received.calling_ae_title,
        "network_address": received.peer_address,
        "patient_id": received.patient_id,
        "issuer_of_patient_id": received.issuer_of_patient_id,
        "study_instance_uid": received.study_instance_uid,
        "accession_number": received.accession_number,
    }
    trail.record(
        connection,
        judged.event,
        {
            **columns,
            "sop_instance_uid": received.sop_instance_uid,
            "status": "0x0000",
            "seconds": round(time.perf_counter() - started, 4),
            "detail": {"sha256": received.sha256, "size": received.size},
        },
    )
    if not same:
        _ask_whose(connection, received, columns)


def _ask_whose(connection: Connection, received: Received, columns: trail.Columns) -> None:
    """Have a person asked whose images the study has, when several patients are found in it."""
    found = reconciliation.patients(connection, received.study_instance_uid)
    if len(found) < 2 or not reconciliation.ask(connection, received.study_instance_uid, found):
        return
    detail = {"patients": [[one.patient_id, one.issuer] for one in found]}
    trail.record(
        connection,
        trail.Event.PATIENTS_DIFFER,
        {**columns, "event_outcome": trail.MINOR_FAILURE, "detail": detail},
    )
