"""What happens to an object whose SOP Instance UID has been here before.

A PACS re-sends studies on every edit and route. The same bytes are the same object. Other header
values with the same frames, however they are encoded, are a correction: kept as a new version, and
analysed a second time only where a value differs by which an image is read. The same frames under
another patient are kept, too, and wait for a person (``study/reconciliation.py``). Other frames, or
another study, are an error that must not replace the first.

Frames are compared before the transaction begins: nobody waits for bytes of strangers.
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from sqlalchemy import Connection, Engine

from thoracle.errors import CannotUnderstand, NotAnalysable, ObjectsAway, OutOfResources
from thoracle.image import attributes, header, selection
from thoracle.image.decoder import Decoder
from thoracle.receive import completeness
from thoracle.receive.completeness import Walked
from thoracle.receive.inbox import Inbox
from thoracle.receive.walk import UNDEFINED_LENGTH
from thoracle.records import Reason
from thoracle.settings import Budget
from thoracle.store import trail
from thoracle.store.object_files import Objects
from thoracle.study import instances, reading_list, reconciliation
from thoracle.study.instances import KEPT, Received
from thoracle.study.reconciliation import Patient

# ---- comparison of frames ------------------------------------------------------------------------
# Whether two objects have the same frames, whatever their encoding, and are read alike.
#
# The same bytes of pixels under the same description are the same frames; this is looked at first,
# in constant memory. Else both are decoded, in a child with limits of memory and time, and the
# digests of what comes out are compared. What cannot be compared is not the same.

_CHUNK = 1_048_576
_DESCRIBING = (
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
"""Elements that say how bytes become stored values (PS3.3 Section C.7.6.3)."""
READ = (
    *("BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "PresentationLUTShape", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("BodyPartExamined", "ViewPosition", "AnatomicRegionSequence", "ViewCodeSequence"),
    *("ImageType", "PresentationIntentType", "PatientAge"),
    *("Modality", "PatientOrientation", "Manufacturer", "ContributingEquipmentSequence"),
)
"""Elements by which the same frames become another picture, or are eligible or not."""
DESCRIPTIONS = ("ProtocolName", "SeriesDescription", "StudyDescription")
"""Elements that are asked where no other states region or view."""
DATES = ("PatientBirthDate", "StudyDate")
"""Elements that are asked where no age is stated."""


class Frames:
    """Compares a received object with a version that is kept.

    Parameters
    ----------
    objects
        Where both are.
    decoder
        The child; its own, so that reading and receiving do not wait for each other.
    budget
        What a walk over an object may cost.
    """

    def __init__(self, objects: Objects, decoder: Decoder, budget: Budget) -> None:
        self._objects = objects
        self._decoder = decoder
        self._budget = budget

    def same(self, previous: Any, received: Received) -> str | None:
        """Return the digest of the received frames, which are the same; ``None``: not needed.

        Raises
        ------
        CannotUnderstand
            They have other frames, or it cannot be told.
        """
        known: str | None = previous.frames_sha256
        old, new = (self._objects.local(one.path) for one in (previous, received))
        if old.exists() and previous.transfer_syntax_uid == received.transfer_syntax_uid:
            encoded = self._encoded(old, received)
            if encoded is not None and encoded == self._encoded(new, received):
                return known
        try:
            known = known or self._decoder.digest(old)
            found = self._decoder.digest(new)
            if found == known or (old.exists() and self._same_used_bits(old, new)):
                return found
        except NotAnalysable as error:
            detail = "SOP Instance UID is known; its pixels cannot be compared"
            if error.reason is Reason.SOFTWARE_FAILURE:  # of ours: it is to be sent again
                raise OutOfResources(f"{detail}: {error.detail}") from error
            raise CannotUnderstand(f"{detail}: {error.detail}") from error
        raise CannotUnderstand("SOP Instance UID is known with other pixels")

    def _same_used_bits(self, *paths: Path) -> bool:
        """Return whether only bits differ that no value is made of (PS3.5 Section 8.1.1)."""
        return len({self._decoder.digest(path, used_bits=True) for path in paths}) == 1

    def read_alike(self, previous: Any, received: Received) -> bool:
        """Return whether both would be given to the model alike; so too when one is gone.

        Where a header cannot be parsed they are not alike: the analysis says what is wrong with it.
        """
        try:
            said, says = (_said(self._objects.local(one.path)) for one in (previous, received))
        except FileNotFoundError:
            return True
        except ObjectsAway:
            raise
        except Exception:  # noqa: BLE001 - whatever a parser meets in bytes of strangers
            return False
        return said == says

    def _encoded(self, path: Path, received: Received) -> tuple[object, ...] | None:
        """Return what describes the pixels and the digest of their bytes, ``None`` when unknown."""
        syntax = UID(received.transfer_syntax_uid)
        if syntax == DeflatedExplicitVRLittleEndian:
            return None
        try:
            walked = completeness.walked(path, syntax, self._budget)
            described = tuple(str(walked.header.get(name)) for name in _DESCRIBING)
            return (*described, _digest(path, walked))
        except CannotUnderstand:  # kept by a version without this budget
            return None


def _said(path: Path) -> dict[str, str]:
    """Return the values of a file by which it is read."""
    tags = (*READ, *DESCRIPTIONS, *DATES)
    with path.open("rb") as file:
        ds = header.parse(file, stop_before_pixels=True, specific_tags=tags).ds
        found, _ = attributes.readable(ds)
    region = found.get("AnatomicRegionSequence") or found.get("BodyPartExamined")
    view = found.get("ViewCodeSequence") or found.get("ViewPosition")
    asked = [*READ, *(() if region and view else DESCRIPTIONS)]
    said = {keyword: str(found[keyword].value) for keyword in asked if keyword in found}
    return said | {"age": str(selection.age_years(found))}


def _digest(path: Path, walked: Walked) -> str:
    """Return the digest of native pixels without padding, or of all fragments in a row."""
    assert walked.pixels is not None
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(walked.pixels.position)
        if walked.pixels.length != UNDEFINED_LENGTH:
            left = completeness.required_bytes(walked)
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                sha256.update(chunk)
                left -= len(chunk)
            return sha256.hexdigest()
        first = True  # the Basic Offset Table, which is no pixels (PS3.5 Section A.4)
        while (head := file.read(8))[:4] == b"\xfe\xff\x00\xe0":
            left = int.from_bytes(head[4:], "little")
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                if not first:
                    sha256.update(chunk)
                left -= len(chunk)
            first = False
    return sha256.hexdigest()


# ---- duplicates ----------------------------------------------------------------------------------

ATTEMPTS = 5
"""Times that an object is compared again because another version of it has come meanwhile."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What an object is, as compared with the newest version that was there."""

    event: trail.Event
    previous: Any = None
    frames_sha256: str | None = None
    other_patient: bool = False
    read_alike: bool = True
    """Whether what is known of the version before holds for this one."""
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
                _write(connection, judged, received, started)
                written = True
            committed = True
            if judged.again:  # the former file was perhaps just about to go
                inbox.discard(judged.previous.path)
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
    kept = previous.file_state == KEPT and inbox.objects.exists(previous.path)
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
    return _Judged(
        trail.Event.INSTANCE_CORRECTED,
        previous,
        digest,
        other_patient=other_patient,
        read_alike=not kept or frames.read_alike(previous, received),
    )


def _write(connection: Connection, judged: _Judged, received: Received, started: float) -> None:
    same = not judged.other_patient and instances.take_over_patient(connection, received)
    reading_list.arrive(connection, received, same_patient=same)
    previous = judged.previous
    if judged.again:
        instances.replace_file(connection, previous.id, received)
    elif previous is None:
        instances.add(connection, received)
    elif judged.event is trail.Event.INSTANCE_CORRECTED:
        instances.add(
            connection,
            received,
            version=previous.version + 1,
            generation=previous.generation if judged.read_alike else None,
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
        _open_reconciliation(connection, received, columns)


def _open_reconciliation(
    connection: Connection, received: Received, columns: trail.Columns
) -> None:
    """Have a person asked whose images the study has, when several patients are found in it."""
    found = reconciliation.patients(connection, received.study_instance_uid)
    if len(found) < 2 or not reconciliation.open_reconciliation(
        connection, received.study_instance_uid, found
    ):
        return
    detail = {"patients": [[one.patient_id, one.issuer] for one in found]}
    trail.record(
        connection,
        trail.Event.PATIENTS_DIFFER,
        {**columns, "event_outcome": trail.MINOR_FAILURE, "detail": detail},
    )
