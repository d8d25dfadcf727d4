"""A row of the trail as an audit message (PS3.15 Section A.5), nothing of it left out.

What the standard has a place for goes there: what happened, who (active participants), what about
(participant objects). Every other column is a detail of an object of its own, the row.

A column of which characters cannot stand in XML is written with U+FFFD in their place, and its
exact text is a detail of the row besides.
"""

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from thoracle.audit.markup import DCM, Row, add, add_code, as_text, clean, reason
from thoracle.audit.objects import EXPORT, TRANSFERRED, add_objects
from thoracle.records import SCHEME

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
class Source:
    """Who writes the messages."""

    source_id: str
    enterprise_site_id: str
    """Empty when there is none."""
    ae_title: str
    host: str
    """Name of this machine."""


def build(row: Row, source: Source, classes: Mapping[str, str] | None = None) -> bytes:
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
    row: Row, source: Source, largest: int, classes: Mapping[str, str] | None = None
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


def _participants(root: ElementTree.Element, row: Row, source: Source) -> None:
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


def _ourselves(root: ElementTree.Element, row: Row, source: Source, *, requestor: bool) -> None:
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
