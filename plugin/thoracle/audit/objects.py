"""Participant objects of an audit message: what an event is about, and its row.

What the standard has a place for goes there. Every other column, those that a later version adds
too, is a detail of an object of its own, the row.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.etree import ElementTree

from thoracle.audit.markup import (
    DCM,
    NOT_IN_XML,
    RFC3881,
    Row,
    add,
    add_code,
    add_detail,
    as_text,
    encoded,
    reason,
)
from thoracle.records import SCHEME

DETAILS = {
    "bundle_version": "AlgorithmVersion",
    "bundle_digest": "AlgorithmDigest",
    "outcome": "Result",
    "probability": "Probability",
    "reason_code": "Reason",
}
"""Columns that are details of the study, or of what is in its place, and what they are called."""
ACCESSED, TRANSFERRED, DELETED, EXPORT = "110103", "110104", "110105", "110106"
WORKITEM = "UPS"
"""EventTypeCode of events of which ``sop_instance_uid`` is a workitem."""
LOG_URI = "urn:thoracle:audit"
EXACT = "Exact "
"""Before a column's name: its text, of which some characters were replaced elsewhere."""

_PLACED = {
    *("recorded_at", "event", "event_id", "event_type_code", "action", "event_outcome"),
    *("calling_ae_title", "called_ae_title", "network_address", "user_id", "destination"),
    *("patient_id", "issuer_of_patient_id", "study_instance_uid", "accession_number"),
    *("sop_instance_uid", "result_sop_instance_uid", *DETAILS),
}


class Kind(NamedTuple):
    """What kind of object it is."""

    type_code: str
    """Participant Object Type Code: 1 person, 2 system object."""
    role: str
    """Its role: 1 patient, 3 report, 13 security resource, 20 job, 24 query."""
    code: str
    """What its ID is."""
    scheme: str
    meaning: str


STUDY = Kind("2", "3", "110180", DCM, "Study Instance UID")
ACCESSION = Kind("2", "3", "121022", DCM, "Accession Number")
INSTANCE = Kind("2", "3", "INSTANCE", SCHEME, "SOP Instance UID")
REPORT = Kind("2", "3", "9", RFC3881, "Report Number")
JOB = Kind("2", "20", "WORKITEM", SCHEME, "SOP Instance UID of a workitem")
PATIENT = Kind("1", "1", "2", RFC3881, "Patient Number")
LOG = Kind("2", "13", "12", RFC3881, "URI")
SEARCH = Kind("2", "24", "10", RFC3881, "Search Criteria")
NODE = Kind("2", "13", "110182", DCM, "Node ID")
ROW = Kind("2", "13", "ROW", SCHEME, "Row of the audit")

_ORDER = (
    *("ParticipantObjectIDTypeCode", "ParticipantObjectName", "ParticipantObjectQuery"),
    *("ParticipantObjectDetail", "Accession", "SOPClass"),
)


def add_objects(
    root: ElementTree.Element, row: Row, ae_title: str, classes: Mapping[str, str]
) -> None:
    """Add study, report, workitem and patient, as far as they are named, and the row.

    ``classes`` are SOP Class UIDs of instances, as far as they are known.
    """
    made = [*_subjects(root, row, classes), _row_object(root, row, ae_title)]
    for name, called in DETAILS.items():
        if row.get(name) is not None:
            add_detail(made[0], called, as_text(row[name]))
    for described in made:  # the order of the parts is fixed
        described[:] = sorted(described, key=lambda one: _ORDER.index(one.tag))


def _subjects(
    root: ElementTree.Element, row: Row, classes: Mapping[str, str]
) -> Iterator[ElementTree.Element]:
    """Add what an event is about, the most important first."""
    study, accession = row.get("study_instance_uid"), row.get("accession_number")
    if study:
        made = _object(root, row, STUDY, study)
        if accession:
            add(made, "Accession", Number=accession)
        yield made
    elif accession:
        yield _object(root, row, ACCESSION, accession)
    if instance := row.get("sop_instance_uid"):
        kind = JOB if row.get("event_type_code") == WORKITEM else INSTANCE
        if kind is INSTANCE and study:  # it belongs to the study
            _add_instance(made, instance, classes)
        else:
            yield _object(root, row, kind, instance)
    if report := row.get("result_sop_instance_uid"):
        made = _object(root, row, REPORT, report)
        _add_instance(made, report, classes)
        yield made
    if patient := _patient(row):
        yield _object(root, row, PATIENT, patient)


def _row_object(root: ElementTree.Element, row: Row, ae_title: str) -> ElementTree.Element:
    """Add the row, as the log, the query or the node where the event is about one."""
    match row["event_id"]:
        case "110101":
            made = _object(root, row, LOG, LOG_URI)
            made[1].text = "Security Audit Log"
        case "110112":
            made = _object(root, row, SEARCH, row["event"])
            made.remove(made[1])
            add(made, "ParticipantObjectQuery").text = encoded(as_text(row.get("detail")))
        case "110113":
            made = _object(root, row, NODE, ae_title)
            add_detail(made, "Alert Description", reason(row) or row["event"])
        case _:
            made = _object(root, row, ROW, as_text(row.get("id")))
    for name, value in row.items():
        if name not in _PLACED and value is not None:
            add_detail(made, name, as_text(value))
        elif isinstance(value, str) and NOT_IN_XML.search(value):
            add_detail(made, EXACT + name, value)
    return made


def _object(root: ElementTree.Element, row: Row, kind: Kind, object_id: str) -> ElementTree.Element:
    made = add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=object_id,
        ParticipantObjectTypeCode=kind.type_code,
        ParticipantObjectTypeCodeRole=kind.role,
        ParticipantObjectDataLifeCycle=_life_cycle(row, kind),
    )
    add_code(made, "ParticipantObjectIDTypeCode", kind.code, kind.scheme, kind.meaning)
    add(made, "ParticipantObjectName")  # required; the trail keeps no names
    return made


def _life_cycle(row: Row, kind: Kind) -> str:
    """Return 2 import, 6 access, 10 export or 15 erasure, where it is one of these.

    The report of an event that reads an image is what came of it.
    """
    if kind.role != STUDY.role or (kind is REPORT and row["event_id"] == ACCESSED):
        return ""
    if row["event_id"] == TRANSFERRED:
        return "10" if row["action"] == "R" else "2"
    return {ACCESSED: "6", EXPORT: "10", DELETED: "15"}.get(row["event_id"], "")


def _add_instance(described: ElementTree.Element, uid: str, classes: Mapping[str, str]) -> None:
    known = add(described, "SOPClass", UID=classes.get(uid, ""), NumberOfInstances="1")
    add(known, "Instance", UID=uid)


def _patient(row: Row) -> str:
    """Return Patient ID and issuer as HL7 writes them (CX): ``ID^^^ISSUER``."""
    patient, issuer = (
        (row.get(name) or "").replace("\\", "\\E\\").replace("^", "\\S\\")
        for name in ("patient_id", "issuer_of_patient_id")
    )
    return f"{patient}^^^{issuer}" if issuer else patient
