"""Audit messages read back as dcm4che names their parts, and held against our RELAX NG."""

import base64
import json
from importlib.resources import files
from typing import Any

from lxml import etree  # type: ignore[import-untyped]  # ships no types

SCHEMA = etree.RelaxNG(
    etree.fromstring((files("thoracle.audit") / "audit_message.rng").read_bytes())
)
OBJECT = "ParticipantObjectIdentification"
DETAILS = {
    "AlgorithmVersion": "bundle_version",
    "AlgorithmDigest": "bundle_digest",
    "Result": "outcome",
    "Probability": "probability",
    "Reason": "reason_code",
}
NUMBERS = ("id", "probability", "seconds", "detail")


def faults(message: bytes) -> str:
    """Return what the schema says against a message; empty when it is valid."""
    if SCHEMA.validate(etree.fromstring(message)):
        return ""
    return str(SCHEMA.error_log)


def parse(message: bytes) -> dict[str, Any]:
    """Return the columns of the row that a message was made of."""
    root = etree.fromstring(message)
    columns = {**_event(root), **_participants(root), **_objects(root)}
    exact = {}
    for detail in root.iter("ParticipantObjectDetail"):
        name = detail.get("type")
        value = base64.b64decode(detail.get("value")).decode("utf-8", "surrogatepass")
        if name.startswith("Exact "):
            exact[name.removeprefix("Exact ")] = value
        elif name != "Alert Description":
            column = DETAILS.get(name, name)
            columns[column] = json.loads(value) if column in NUMBERS else value
    return {name: value for name, value in {**columns, **exact}.items() if value is not None}


def _event(root: Any) -> dict[str, Any]:
    event = root.find("EventIdentification")
    types = event.findall("EventTypeCode")
    return {
        "action": event.get("EventActionCode"),
        "recorded_at": event.get("EventDateTime"),
        "event_outcome": int(event.get("EventOutcomeIndicator")),
        "event_id": event.find("EventID").get("csd-code"),
        "event_type_code": types[0].get("csd-code") if len(types) > 1 else None,
        "event": types[-1].get("originalText"),
    }


def _participants(root: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for one in root.findall("ActiveParticipant"):
        roles = {role.get("csd-code") for role in one.findall("RoleIDCode")}
        if "110150" in roles:
            if "CALLED" in roles:
                columns["called_ae_title"] = _ae_title(one)
            continue
        if "NetworkAccessPointID" in one.attrib:
            columns["network_address"] = one.get("NetworkAccessPointID")
        if "PERSON" in roles:
            columns["user_id"] = one.get("UserID")
        elif "110152" in roles:
            columns["destination"] = one.get("UserID")
        elif "110153" in roles and "AlternativeUserID" in one.attrib:
            columns["calling_ae_title"] = _ae_title(one)
    return columns


def _ae_title(participant: Any) -> str:
    return str(participant.get("AlternativeUserID")).removeprefix("AETITLES=")


def _objects(root: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for one in root.findall(OBJECT):
        kind = one.find("ParticipantObjectIDTypeCode").get("csd-code")
        object_id = one.get("ParticipantObjectID")
        names = {"110180": "study_instance_uid", "121022": "accession_number"}
        names |= {"9": "result_sop_instance_uid", "WORKITEM": "sop_instance_uid"}
        names |= {"INSTANCE": "sop_instance_uid"}
        if kind in names:
            columns[names[kind]] = object_id
        if kind == "110180":
            for tag, column in (
                ("Accession", "accession_number"),
                ("Instance", "sop_instance_uid"),
            ):
                for part in one.iter(tag):
                    columns[column] = part.get("Number") or part.get("UID")
        if kind == "2":
            patient, _, issuer = object_id.partition("^^^")
            for name, value in (("patient_id", patient), ("issuer_of_patient_id", issuer)):
                columns[name] = value.replace("\\S\\", "^").replace("\\E\\", "\\") or None
    return columns
