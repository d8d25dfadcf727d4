"""A row of the trail as an audit message (PS3.15 Section A.5), nothing of it left out.

What the standard has a place for goes there: what happened, who (active participants), what about
(participant objects). Every other column is a detail of an object of its own, the row.

A column of which characters cannot stand in XML is written with U+FFFD in their place, and its
exact text is a detail of the row besides.
"""

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree import ElementTree

from thoracle.records import SCHEME

# ---- markup --------------------------------------------------------------------------------------
# Elements of an audit message, and how text gets into them.
#
# XML 1.0 has no control characters, and an attribute does not keep a line feed. Such characters
# are written as U+FFFD; the values of details are base64, so they may be any text.

Row = Mapping[str, Any]
"""Columns of ``audit_event``; ``detail`` as text or as what it means."""

DCM, RFC3881 = "DCM", "RFC-3881"
NOT_IN_XML = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 Section 2.2 forbids or discourages, and what an attribute does not keep."""
REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """Return a text with U+FFFD for each character that XML does not keep."""
    return NOT_IN_XML.sub(REPLACEMENT, text)


def add(parent: ElementTree.Element, tag: str, **attributes: Any) -> ElementTree.Element:
    """Add an element, with those of its attributes that are not empty; the others are left out."""
    written = {name: clean(str(value)) for name, value in attributes.items() if value != ""}
    return ElementTree.SubElement(parent, tag, written)


def add_code(parent: ElementTree.Element, tag: str, code: str, scheme: str, meaning: str) -> None:
    """Add a coded value."""
    values = {"csd-code": clean(code), "codeSystemName": scheme, "originalText": clean(meaning)}
    ElementTree.SubElement(parent, tag, values)


def add_detail(described: ElementTree.Element, name: str, value: str) -> None:
    """Add a detail of a participant object; its value is base64."""
    values = {"type": name, "value": encoded(value)}
    ElementTree.SubElement(described, "ParticipantObjectDetail", values)


def encoded(text: str) -> str:
    """Return a text as base64 of its UTF-8."""
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def as_text(value: Any) -> str:
    """Return a column's value as text; ``detail`` and numbers as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _meaning(detail: Any) -> Any:
    if not isinstance(detail, str):
        return detail
    try:
        return json.loads(detail)
    except ValueError:
        return None


def reason(row: Row) -> str:
    """Return the reason that an event's detail gives in words, if any."""
    detail = _meaning(row.get("detail"))
    if not isinstance(detail, dict):
        return ""
    found = (detail.get(name) for name in ("reason", "comment", "why", "sentence", "detail"))
    return next((one for one in found if isinstance(one, str) and one), "")


# ---- participant objects -------------------------------------------------------------------------
# Participant objects of an audit message: what an event is about, and its row.
#
# What the standard has a place for goes there. Every other column, those that a later version
# adds too, is a detail of an object of its own, the row.

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


class ObjectKind(NamedTuple):
    """What kind of object it is."""

    type_code: str
    """Participant Object Type Code: 1 person, 2 system object."""
    role: str
    """Its role: 1 patient, 3 report, 13 security resource, 20 job, 24 query."""
    code: str
    """What its ID is."""
    scheme: str
    meaning: str


STUDY = ObjectKind("2", "3", "110180", DCM, "Study Instance UID")
ACCESSION = ObjectKind("2", "3", "121022", DCM, "Accession Number")
INSTANCE = ObjectKind("2", "3", "INSTANCE", SCHEME, "SOP Instance UID")
REPORT = ObjectKind("2", "3", "9", RFC3881, "Report Number")
JOB = ObjectKind("2", "20", "WORKITEM", SCHEME, "SOP Instance UID of a workitem")
PATIENT = ObjectKind("1", "1", "2", RFC3881, "Patient Number")
LOG = ObjectKind("2", "13", "12", RFC3881, "URI")
SEARCH = ObjectKind("2", "24", "10", RFC3881, "Search Criteria")
NODE = ObjectKind("2", "13", "110182", DCM, "Node ID")
ROW = ObjectKind("2", "13", "ROW", SCHEME, "Row of the audit")

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


def _object(
    root: ElementTree.Element, row: Row, kind: ObjectKind, object_id: str
) -> ElementTree.Element:
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


def _life_cycle(row: Row, kind: ObjectKind) -> str:
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


# ---- message -------------------------------------------------------------------------------------

LEFT_OUT = "left out: {bytes} bytes, SHA-256 {digest}"
"""In place of a text that was too long; the row has it."""
LEAST_SHORTENED = 100
"""Bytes: what is shorter than its replacement is not replaced."""

EVENTS = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110102": "Begin Transferring DICOM Instances",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110105": "DICOM Study Deleted",
    "110106": "Export",
    "110107": "Import",
    "110108": "Network Entry",
    "110109": "Order Record",
    "110110": "Patient Record",
    "110111": "Procedure Record",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
}
"""EventID (CID 400)."""
TYPES = {
    "110120": "Application Start",
    "110121": "Application Stop",
    "110122": "Login",
    "110123": "Logout",
    "110124": "Attach",
    "110125": "Detach",
    "110126": "Node Authentication",
    "110127": "Emergency Override Started",
    "110128": "Network Configuration",
    "110129": "Security Configuration",
    "110130": "Hardware Configuration",
    "110131": "Software Configuration",
    "110132": "Use of Restricted Function",
    "110133": "Audit Recording Stopped",
    "110134": "Audit Recording Started",
    "110135": "Object Security Attributes Changed",
    "110136": "Security Roles Changed",
    "110137": "User Security Attributes Changed",
}
"""EventTypeCode (CID 401), as far as a node can have them; others are our own."""


@dataclass(frozen=True, slots=True)
class EventSource:
    """Who writes the messages."""

    source_id: str
    enterprise_site_id: str
    """Empty when there is none."""
    ae_title: str
    host: str
    """Name of this machine."""


def build(row: Row, source: EventSource, classes: Mapping[str, str] | None = None) -> bytes:
    """Return the message of a row, UTF-8, on one line.

    Parameters
    ----------
    row
        Columns of ``audit_event``; ``detail`` as text or as what it means.
    source
        Who writes it.
    classes
        SOP Class UIDs of instances that the row names, as far as they are known.
    """
    root = ElementTree.Element("AuditMessage")
    _event(root, row)
    _participants(root, row, source)
    written = add(
        root,
        "AuditSourceIdentification",
        AuditEnterpriseSiteID=source.enterprise_site_id,
        AuditSourceID=source.source_id,
    )
    add(written, "AuditSourceTypeCode").set("csd-code", "4")  # application server
    add_objects(root, row, source.ae_title, classes or {})
    text = ElementTree.tostring(root, encoding="unicode")
    return b'<?xml version="1.0" encoding="UTF-8"?>' + text.encode()


def fitted(
    row: Row, source: EventSource, largest: int, classes: Mapping[str, str] | None = None
) -> bytes:
    """Return the message of a row with at most ``largest`` bytes, 2000 or more.

    The longest texts are replaced by their length and their SHA-256, one by one until it fits.
    """
    message = build(row, source, classes)
    shortened = dict(row)
    while len(message) > largest:
        texts = {name: as_text(value) for name, value in shortened.items() if value is not None}
        longest = max(texts, key=lambda name: len(texts[name].encode("utf-8", "replace")))
        content = texts[longest].encode("utf-8", "replace")
        if len(content) < LEAST_SHORTENED:
            break
        said = LEFT_OUT.format(bytes=len(content), digest=hashlib.sha256(content).hexdigest())
        shortened[longest] = json.dumps(said) if longest == "detail" else said
        message = build(shortened, source, classes)
    return message


# ---- What happened -----------------------------------------------------------------------------


def _event(root: ElementTree.Element, row: Row) -> None:
    event = add(
        root,
        "EventIdentification",
        EventActionCode=row["action"],
        EventDateTime=row["recorded_at"],
        EventOutcomeIndicator=row["event_outcome"],
    )
    event_id: str = row["event_id"]
    verb: str = row["event"]
    add_code(event, "EventID", event_id, DCM, EVENTS.get(event_id, event_id))
    type_code = row.get("event_type_code")
    if type_code:
        scheme = DCM if type_code.isdigit() else SCHEME
        add_code(event, "EventTypeCode", type_code, scheme, TYPES.get(type_code, verb))
    add_code(event, "EventTypeCode", verb.replace(" ", "-"), SCHEME, verb)
    why = reason(row)
    if row["event_outcome"] and why:
        add(event, "EventOutcomeDescription").text = clean(why)


# ---- Who ---------------------------------------------------------------------------------------


def _participants(root: ElementTree.Element, row: Row, source: EventSource) -> None:
    """Add who asked, who called, we ourselves, and where things went; one of them began it."""
    user, calling, address = (
        row.get(name) or "" for name in ("user_id", "calling_ae_title", "network_address")
    )
    where = _access_point(address)
    if user:
        person = _participant(root, user, requestor=True, **({} if calling else where))
        add_code(person, "RoleIDCode", "PERSON", SCHEME, "Person or program that asked")
    if calling or (address and not user):
        alternative = f"AETITLES={calling}" if calling else ""
        who = _participant(
            root, calling or address, not user, AlternativeUserID=alternative, **where
        )
        add_code(who, "RoleIDCode", "110153", DCM, "Source Role ID")
    _ourselves(root, row, source, requestor=not (user or calling or address))
    if row.get("destination"):
        there = _participant(root, row["destination"], requestor=False)
        add_code(there, "RoleIDCode", "110152", DCM, "Destination Role ID")


def _ourselves(
    root: ElementTree.Element, row: Row, source: EventSource, *, requestor: bool
) -> None:
    called = row.get("called_ae_title") or ""
    us = _participant(
        root,
        source.source_id,
        requestor,
        AlternativeUserID=f"AETITLES={called or source.ae_title}",
        NetworkAccessPointID=source.host,
        NetworkAccessPointTypeCode="1" if source.host else "",
    )
    add_code(us, "RoleIDCode", "110150", DCM, "Application")
    if called:
        add_code(us, "RoleIDCode", "CALLED", SCHEME, "By the AE title that was called")
    if row["event_id"] in (TRANSFERRED, EXPORT) and row["action"] == "R":
        add_code(us, "RoleIDCode", "110153", DCM, "Source Role ID")
    elif row["event_id"] == TRANSFERRED:
        add_code(us, "RoleIDCode", "110152", DCM, "Destination Role ID")


def _participant(
    root: ElementTree.Element, user_id: str, requestor: bool, **attributes: str
) -> ElementTree.Element:
    flag = "true" if requestor else "false"
    return add(root, "ActiveParticipant", UserID=user_id, UserIsRequestor=flag, **attributes)


def _access_point(address: str) -> dict[str, str]:
    if not address:
        return {}
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return {"NetworkAccessPointID": address, "NetworkAccessPointTypeCode": "1"}
    return {"NetworkAccessPointID": address, "NetworkAccessPointTypeCode": "2"}
