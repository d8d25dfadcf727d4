"""A row of the trail as an AuditEvent of FHIR R4, equal in meaning to its message (PS3.15 A.5).

What R4 has a place for goes there; every other column is a detail of the last entity, the row. A
text that FHIR's strings cannot carry is there too, in base64.
"""

import base64
import ipaddress
import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from fhir.resources.R4B.auditevent import AuditEvent
from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel

from thoracle.audit.message import (
    DETAILS,
    EVENTS,
    EXPORT,
    TRANSFERRED,
    TYPES,
    WORKITEM,
    as_text,
    reason,
)
from thoracle.audit.search import JOB, PATIENT, QUERY, REPORT, SEARCH, SECURITY
from thoracle.fhir import elements
from thoracle.fhir.elements import Json

Row = Mapping[str, Any]
DCM = elements.SYSTEMS["DCM"]
TYPE_SYSTEM = f"{elements.TERMINOLOGY}/audit-entity-type"
ROLE_SYSTEM = f"{elements.TERMINOLOGY}/object-role"
LIFE_CYCLE_SYSTEM = f"{elements.TERMINOLOGY}/dicom-audit-lifecycle"
SOURCE_SYSTEM = f"{elements.TERMINOLOGY}/security-source-type"
ROLES = {
    PATIENT: "Patient",
    REPORT: "Report",
    SECURITY: "Security Resource",
    JOB: "Job",
    SEARCH: "Query",
}
LIFE_CYCLES = {
    "2": "Import / Copy",
    "6": "Access / Use",
    "10": "Export",
    "15": "Permanent erasure / Physical destruction",
}
EXACT = "Exact "
"""Before a column's name: its text, of which some characters cannot be where they belong."""
_NOT_IN_DETAILS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_PLACED = {
    *("id", "recorded_at", "event", "event_id", "event_type_code", "action", "event_outcome"),
    *("calling_ae_title", "called_ae_title", "network_address", "user_id", "destination"),
    *("patient_id", "issuer_of_patient_id", "study_instance_uid", "accession_number"),
    *("sop_instance_uid", "result_sop_instance_uid"),
}


def audit_event(row: Row, source_id: str, site: str) -> FHIRResourceModel:
    """Return the resource of a row.

    Parameters
    ----------
    row
        Columns of ``audit_event``; those that are empty may be missing.
    source_id
        What this trail is called.
    site
        Name of the site; empty leaves it out.
    """
    event_id: str = row["event_id"]
    observer = {"type": "Device", "identifier": {"value": source_id}}
    source: Json = {
        "observer": observer,
        "type": [elements.coded(SOURCE_SYSTEM, "4", "Application Server")],
    }
    if name := elements.text(site):
        source["site"] = name
    values: Json = {
        "id": str(row["id"]),
        "meta": {"tag": [elements.RESEARCH]},
        "type": elements.coded(DCM, event_id, EVENTS.get(event_id, event_id)),
        "subtype": list(_subtypes(row)),
        "action": row["action"],
        "recorded": row["recorded_at"],
        "outcome": str(row.get("event_outcome", 0)),
        "agent": list(_agents(row, source_id)),
        "source": source,
        "entity": [*_entities(row), _row_entity(row)],
    }
    if row.get("event_outcome") and (why := elements.text(reason(row))):
        values["outcomeDesc"] = why
    return AuditEvent.model_validate(values)


def _subtypes(row: Row) -> Iterator[Json]:
    code, verb = row.get("event_type_code"), row["event"]
    if code in TYPES:
        yield elements.coded(DCM, code, TYPES[code])
    elif code:
        yield elements.own(code, verb)
    yield elements.own(verb.replace(" ", "-"), verb)


# ---- Who ---------------------------------------------------------------------------------------


def _agents(row: Row, source_id: str) -> Iterator[Json]:
    """Yield who asked, who called, we ourselves, and where things went; one of them began it."""
    user, calling, address = (
        row.get(name) or "" for name in ("user_id", "calling_ae_title", "network_address")
    )
    where = _network(address)
    if user:
        role = elements.own("PERSON", "Person or program that asked")
        yield {**_agent(user, role, requestor=True), **({} if calling else where)}
    if calling or (address and not user):
        role = elements.coded(DCM, "110153", "Source Role ID")
        yield {
            **_agent(calling or address, role, requestor=not user),
            **_alternative(calling),
            **where,
        }
    yield _ourselves(row, source_id, requestor=not (user or calling or address))
    if there := row.get("destination"):
        yield _agent(there, elements.coded(DCM, "110152", "Destination Role ID"), requestor=False)


def _agent(name: str, role: Json, *, requestor: bool) -> Json:
    identifier = elements.exact(name)
    who: Json = {"identifier": {"value": identifier}} if identifier else {}
    who["display"] = elements.text(name) or "without a name"
    return {"type": {"coding": [role]}, "who": who, "requestor": requestor}


def _ourselves(row: Row, source_id: str, *, requestor: bool) -> Json:
    roles = []
    if row["event_id"] in (TRANSFERRED, EXPORT) and row["action"] == "R":
        roles.append({"coding": [elements.coded(DCM, "110153", "Source Role ID")]})
    elif row["event_id"] == TRANSFERRED:
        roles.append({"coding": [elements.coded(DCM, "110152", "Destination Role ID")]})
    us = _agent(source_id, elements.coded(DCM, "110150", "Application"), requestor=requestor)
    us["who"]["type"] = "Device"
    return {
        **us,
        **({"role": roles} if roles else {}),
        **_alternative(row.get("called_ae_title") or ""),
    }


def _alternative(ae_title: str) -> Json:
    found = elements.exact(ae_title)
    return {"altId": found} if found else {}


def _network(address: str) -> Json:
    shown = elements.text(address)
    if shown is None:
        return {}
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return {"network": {"address": shown, "type": "1"}}
    return {"network": {"address": shown, "type": "2"}}


# ---- What about --------------------------------------------------------------------------------


def _entities(row: Row) -> Iterator[Json]:
    """Yield what an event is about, the most important first."""
    if study := row.get("study_instance_uid"):
        yield _entity(row, REPORT, {"type": "ImagingStudy", **_uid(study)})
    if number := row.get("accession_number"):
        known = elements.accession(SimpleNamespace(accession_number=number))
        identifier = {"identifier": known} if known else {"display": elements.text(number) or "-"}
        yield _entity(row, REPORT, {"type": "ServiceRequest", **identifier})
    if instance := row.get("sop_instance_uid"):
        if row.get("event_type_code") == WORKITEM:
            yield _entity(row, JOB, {"type": "Task", **_uid(instance)})
        else:
            yield _entity(row, REPORT, _uid(instance))
    if report := row.get("result_sop_instance_uid"):
        yield _entity(row, REPORT, _uid(report))
    if row.get("patient_id"):
        patient = SimpleNamespace(
            patient_id=row["patient_id"],
            issuer_of_patient_id=row.get("issuer_of_patient_id"),
            patient_name=None,
        )
        yield _entity(row, PATIENT, elements.subject(patient))


def _uid(value: str) -> Json:
    exact = elements.exact(value)
    return {"identifier": elements.uid(exact)} if exact else {"display": elements.text(value)}


def _entity(row: Row, role: str, what: Json) -> Json:
    life_cycle = _life_cycle(row) if role == REPORT else ""
    kind = ("1", "Person") if role == PATIENT else ("2", "System Object")
    found: Json = {
        "what": what,
        "type": elements.coded(TYPE_SYSTEM, *kind),
        "role": elements.coded(ROLE_SYSTEM, role, ROLES[role]),
    }
    if life_cycle:
        found["lifecycle"] = elements.coded(LIFE_CYCLE_SYSTEM, life_cycle, LIFE_CYCLES[life_cycle])
    return found


def _life_cycle(row: Row) -> str:
    """Return 2 import, 6 access, 10 export or 15 erasure, where the event is one of these."""
    if row["event_id"] == TRANSFERRED:
        return "10" if row["action"] == "R" else "2"
    return {"110103": "6", EXPORT: "10", "110105": "15"}.get(row["event_id"], "")


def _row_entity(row: Row) -> Json:
    """Return the row itself: what has no other place; where it is a query, the query too."""
    is_query = row["event_id"] == QUERY
    found: Json = {
        "type": elements.coded(TYPE_SYSTEM, "2", "System Object"),
        "role": elements.coded(ROLE_SYSTEM, *((SEARCH, "Query") if is_query else _SECURITY)),
    }
    if is_query:
        found["query"] = _base64(as_text(row.get("detail") or {}))
    else:
        found["name"] = "Security Audit Log" if row["event_id"] == "110101" else "Row of the audit"
    if details := list(_details(row)):
        found["detail"] = details
    return found


_SECURITY = (SECURITY, ROLES[SECURITY])


def _details(row: Row) -> Iterator[Json]:
    for name, value in row.items():
        text = as_text(value)
        if value is None or not text:
            continue
        if name not in _PLACED:
            yield {"type": DETAILS.get(name, name), **_value(text)}
        elif isinstance(value, str) and elements.text(value) != value:
            yield {"type": EXACT + name, **_value(text)}


def _value(text: str) -> Json:
    if text.strip() and not _NOT_IN_DETAILS.search(text):
        return {"valueString": text}
    return {"valueBase64Binary": _base64(text)}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
