"""What happens to an object whose SOP Instance UID has been here before.

A PACS re-sends studies on every edit and route. The same bytes are the same object. Other header
values with the same pixels are a correction: kept as a new version, analysed no second time.
Another patient or other pixels under an old UID is an error that must not replace the first.
"""

import time
from typing import Any

from pydicom import dcmread
from sqlalchemy import Connection, Engine

from thoracle.errors import CannotUnderstand
from thoracle.receive.inbox import Inbox
from thoracle.store import trail
from thoracle.study import instances, reading_list
from thoracle.study.instances import KEPT, Received


def record(database: Engine, inbox: Inbox, received: Received, started: float) -> trail.Event:
    """Commit the row and the audit event of a kept file; return which event it was.

    Raises
    ------
    CannotUnderstand
        The UID belongs to another patient, another study or other pixels; the file is removed.
    """
    committed = written = False
    event = trail.Event.INSTANCE_DUPLICATE
    try:
        with database.begin() as connection:
            instances.lock_study(connection, received)
            reading_list.arrive(connection, received)
            event = _add(connection, inbox, received)
            trail.record(
                connection,
                event,
                {
                    "calling_ae_title": received.calling_ae_title,
                    "network_address": received.peer_address,
                    "patient_id": received.patient_id,
                    "issuer_of_patient_id": received.issuer_of_patient_id,
                    "study_instance_uid": received.study_instance_uid,
                    "accession_number": received.accession_number,
                    "sop_instance_uid": received.sop_instance_uid,
                    "status": "0x0000",
                    "seconds": round(time.perf_counter() - started, 4),
                    "detail": {"sha256": received.sha256, "size": received.size},
                },
            )
            written = True
        committed = True
    finally:
        # A server whose answer to the commit is lost may have committed: a row may name the file.
        unsure = written and not committed and database.dialect.name != "sqlite"
        if event is trail.Event.INSTANCE_DUPLICATE or not (committed or unsure):
            inbox.discard(received.path)
    return event


def _add(connection: Connection, inbox: Inbox, received: Received) -> trail.Event:
    previous = instances.latest(connection, received.sop_instance_uid)
    if previous is None:
        instances.add(connection, received)
        return trail.Event.INSTANCE_STORED
    # Of a file that is gone from the disk the sender has the only copy.
    if previous.file_state != KEPT or not (inbox.data_folder / previous.path).exists():
        return _again(connection, inbox, previous, received)
    if previous.sha256 == received.sha256:
        return trail.Event.INSTANCE_DUPLICATE
    _reject_impostor(inbox, previous, received)
    instances.add(
        connection, received, version=previous.version + 1, generation=previous.generation
    )
    return trail.Event.INSTANCE_CORRECTED


def _again(connection: Connection, inbox: Inbox, previous: Any, received: Received) -> trail.Event:
    """Keep an object again whose file has gone, e.g. by retention: nothing else changes by it."""
    _reject_other_patient(previous, received)
    if previous.sha256 == received.sha256:
        instances.keep_again(connection, previous.id, received)
        inbox.discard(previous.path)  # if it was just about to go
        return trail.Event.INSTANCE_STORED
    # Its pixels cannot be compared any more; both versions have their rows.
    instances.add(
        connection, received, version=previous.version + 1, generation=previous.generation
    )
    return trail.Event.INSTANCE_CORRECTED


def _reject_other_patient(previous: Any, received: Received) -> None:
    for name in ("patient_id", "issuer_of_patient_id", "study_instance_uid"):
        if (getattr(previous, name) or "") != getattr(received, name):
            raise CannotUnderstand(f"SOP Instance UID is known with another {name}")


def _reject_impostor(inbox: Inbox, previous: Any, received: Received) -> None:
    _reject_other_patient(previous, received)
    # Another transfer syntax of the same UID can only be a lossless one (PS3.3 C.7.6.1.1.5 asks
    # for a new UID otherwise), and its bytes differ; both versions are kept.
    if previous.transfer_syntax_uid != received.transfer_syntax_uid:
        return
    old, new = (
        dcmread(inbox.data_folder / path).get("PixelData")
        for path in (previous.path, received.path)
    )
    if old != new:
        raise CannotUnderstand("SOP Instance UID is known with other pixels")
