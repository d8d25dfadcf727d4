"""Elements of FHIR resources: codes, identifiers, and what stands for patient and order.

Values of DICOM are data here: what FHIR's strings cannot carry is replaced in what people read,
and left out where a part of an identifier would be another one's.
"""

import re
from typing import Any

from pydicom.sr.coding import Code as Concept

from thoracle.records import SCHEME, Code, Reason
from thoracle.wording import RESEARCH_USE_ONLY

Json = dict[str, Any]

LONGEST_TEXT = 1024
"""Characters of what people read; longer is cut."""
LONGEST_IDENTIFIER = 255
DICOM_UID = "urn:dicom:uid"
SCHEME_URI = "urn:oid:2.25.1252076735742979959174602804689620574"
"""Of our own codes, 99THORACLE in DICOM."""
RESEARCH = {
    "system": SCHEME_URI,
    "code": "RESEARCH-USE",
    "display": RESEARCH_USE_ONLY,
}
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
    "LN": "http://loinc.org",
    "RADLEX": "http://radlex.org",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "UMLS": "http://www.nlm.nih.gov/research/umls",
    SCHEME: SCHEME_URI,
}
"""Of coding schemes of DICOM (PS3.16 Table 8-1), as far as it names one for FHIR."""
UNKNOWN: Json = {"text": "finding not known here"}
"""In place of a code that is required, of a model that nothing is kept of."""

_NOT_IN_STRINGS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""What R4's string should not have, and what breaks off or hides the rest of a text elsewhere."""


# ---- Codes -------------------------------------------------------------------------------------


def coded(system: str, code: str, display: str) -> Json:
    """Return a Coding."""
    return {"system": system, "code": code, "display": display}


def own(code: str, display: str) -> Json:
    """Return a Coding of our own scheme."""
    return coded(SCHEME_URI, code, display)


def concept(found: Concept) -> Json:
    """Return a CodeableConcept of a concept of DICOM."""
    return code(Code(found.value, found.scheme_designator, found.meaning))


def code(found: Code) -> Json:
    """Return a CodeableConcept of one of our codes; a private scheme has no URI and stays out."""
    coding = {"code": found.value, "display": found.meaning}
    if found.scheme in SYSTEMS:
        coding["system"] = SYSTEMS[found.scheme]
    return {"coding": [coding]}


def meaning(reason: str) -> str:
    """Return what the code of a reason means."""
    try:
        return Reason.from_code_value(reason).code.meaning
    except KeyError:  # of a later or an earlier version
        return reason


def percentage(probability: float) -> float:
    """Return a probability of 0 to 1 in percent, rounded to two decimals."""
    return round(float(probability) * 100, 2)


# ---- Values of DICOM ---------------------------------------------------------------------------


def text(value: str | None) -> str | None:
    """Return what people read, without control characters and not too long."""
    shown = _NOT_IN_STRINGS.sub("\N{REPLACEMENT CHARACTER}", value or "").strip()
    if len(shown) > LONGEST_TEXT:
        shown = f"{shown[: LONGEST_TEXT - 3]}..."
    return shown or None


def exact(value: str | None) -> str | None:
    """Return an identifier, or nothing when FHIR cannot carry it as it is."""
    found = (value or "").strip(" \0")
    if not found or len(found) > LONGEST_IDENTIFIER or _NOT_IN_STRINGS.search(found):
        return None
    return found


# ---- Identifiers and references ----------------------------------------------------------------


def uid(value: str) -> Json:
    """Return a UID as an Identifier, as R4 writes it for DICOM."""
    return {"system": DICOM_UID, "value": f"urn:oid:{value}"}


def accession(row: Any) -> Json | None:
    """Return the Accession Number as an Identifier, if there is one."""
    value = exact(row.accession_number)
    return {"type": _v2_0203("ACSN", "Accession ID"), "value": value} if value else None


def based_on(row: Any) -> Json:
    """Return ``basedOn``: the order, by its Accession Number; nothing without one."""
    identifier = accession(row)
    return {"basedOn": [{"type": "ServiceRequest", "identifier": identifier}]} if identifier else {}


def subject(row: Any) -> Json:
    """Return the patient: by identifier, because there are no Patient resources here."""
    patient: Json = {"type": "Patient"}
    value = exact(row.patient_id)
    if value:
        identifier: Json = {"type": _v2_0203("MR", "Medical record number"), "value": value}
        patient["identifier"] = identifier | _issuer(exact(row.issuer_of_patient_id))
    if name := text(row.patient_name):
        patient["display"] = name
    elif not value:
        patient["display"] = "without an identifier"
    return patient


def _issuer(issuer: str | None) -> Json:
    if issuer is None:
        return {}
    if re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+", issuer):
        return {"system": f"urn:oid:{issuer}"}
    if re.fullmatch(r"(https?|urn):[!-~]+", issuer):
        return {"system": issuer}
    return {"assigner": {"display": issuer}}


def effective(row: Any) -> Json:
    """Return ``effectiveDateTime``: the study's date, if it is known."""
    found = day(row)
    return {"effectiveDateTime": found} if found else {}


def day(row: Any) -> str | None:
    """Return the study's date; its time has no zone, without which FHIR takes no time."""
    found = (row.study_datetime or "")[:10]
    return found if re.fullmatch(r"[12]\d{3}-\d{2}-\d{2}", found, re.ASCII) else None


def _v2_0203(code: str, display: str) -> Json:
    return {"coding": [coded(f"{TERMINOLOGY}/v2-0203", code, display)]}
