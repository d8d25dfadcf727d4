"""Results as resources of FHIR R4 (4.0.1), built and validated with fhir.resources.

Of each study there is at most one resource of each type, and its id is the Study Instance UID: a
later result takes the place of the earlier one, as a later report does in the archive.
"""

import re
from typing import Any

from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.task import Task
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as Concept
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from thoracle.fhir import conclusion, elements
from thoracle.fhir.elements import Json
from thoracle.fhir.rows import Study
from thoracle.records import Outcome

_COVID_19 = Concept("840539006", "SCT", "COVID-19")
_FINDINGS = {
    Outcome.POSITIVE: codes.cid240.Present,
    Outcome.NEGATIVE: codes.cid240.Absent,
    Outcome.INDETERMINATE: codes.cid240.Undetermined,
}
_MODALITIES: dict[str, str] = {
    ComputedRadiographyImageStorage: "CR",
    DigitalXRayImageStorageForPresentation: "DX",
    DigitalXRayImageStorageForProcessing: "DX",
}
_REPLACES = "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"


# ---- Resources ---------------------------------------------------------------------------------


def diagnostic_report(study: Study) -> FHIRResourceModel:
    """Return what stands of a study's reports, or that there is none yet.

    A result on later images, or a second reading, is ``preliminary`` like the first: ``amended``
    and ``corrected`` mean that a *final* report was changed, and no report of ours is final. It
    names the report that it replaces by the extension diagnosticReport-replaces.
    """
    row = study.row
    values: Json = {
        **_head(study),
        "status": row.report_status,
        "category": [
            {"coding": [elements.coded(f"{elements.TERMINOLOGY}/v2-0074", "RAD", "Radiology")]}
        ],
        "code": {
            "coding": [elements.coded("http://loinc.org", "18748-4", "Diagnostic imaging study")]
        },
        "subject": elements.subject(row),
        "imagingStudy": [_reference("ImagingStudy", row)],
        "conclusion": conclusion.sentence(study),
        **elements.based_on(row),
        **elements.effective(row),
    }
    values["identifier"] += [elements.uid(one.sop_instance_uid) for one in _standing_reports(study)]
    if row.generation is not None:
        values["result"] = [_reference("Observation", row)]
        values["issued"] = row.finished_at
    earlier = [one for one in study.reports if one.generation < (row.generation or 0)]
    if earlier:
        replaced = {
            "type": "DiagnosticReport",
            "identifier": elements.uid(earlier[-1].sop_instance_uid),
        }
        values["extension"] = [{"url": _REPLACES, "valueReference": replaced}]
    return DiagnosticReport.model_validate(values)


def observation(study: Study) -> FHIRResourceModel:
    """Return the result on a study; of a withdrawn one the value is not repeated."""
    row = study.row
    values: Json = {
        **_head(study),
        "contained": [_device(study)],
        "status": row.observation_status,
        "category": [
            {
                "coding": [
                    elements.coded(
                        f"{elements.TERMINOLOGY}/observation-category", "imaging", "Imaging"
                    )
                ]
            }
        ],
        "code": elements.concept(_COVID_19),
        "subject": elements.subject(row),
        "issued": row.finished_at,
        "method": elements.concept(codes.cid7162.ArtificialIntelligence),
        "device": {"reference": "#model"},
        "derivedFrom": [_reference("ImagingStudy", row)],
        "note": [{"text": text} for text in conclusion.notes(study)],
        **elements.based_on(row),
        **elements.effective(row),
    }
    values["identifier"] += [elements.uid(one.sop_instance_uid) for one in _standing_reports(study)]
    if row.observation_status == "preliminary" and row.outcome != Outcome.REJECTED:
        values["valueCodeableConcept"] = elements.concept(_FINDINGS[Outcome(row.outcome)])
        values["component"] = [conclusion.probability(study)]
    else:
        values["dataAbsentReason"] = conclusion.absent(study)
    return Observation.model_validate(values)


def imaging_study(study: Study) -> FHIRResourceModel:
    """Return the images that were received; what we made of them is not among them."""
    row = study.row
    series: dict[str, Json] = {}
    for image in study.images:
        one = series.setdefault(
            image.series_instance_uid,
            {
                "uid": image.series_instance_uid,
                "modality": _modality(row, image.sop_class_uid),
                "instance": [],
            },
        )
        sop_class = {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{image.sop_class_uid}"}
        one["instance"].append({"uid": image.sop_instance_uid, "sopClass": sop_class})
    for one in series.values():
        one["numberOfInstances"] = len(one["instance"])
    values: Json = {
        **_head(study, ordered=True),
        "status": "available",
        "subject": elements.subject(row),
        "numberOfSeries": len(series),
        "numberOfInstances": len(study.images),
        **elements.based_on(row),
    }
    if series:
        values["series"] = list(series.values())
    if day := elements.day(row):
        values["started"] = day
    if description := elements.text(row.study_description):
        values["description"] = description
    return ImagingStudy.model_validate(values)


def task(study: Study) -> FHIRResourceModel:
    """Return our work on a study, with the priority of its order."""
    row = study.row
    stat = row.urgency == 0 or (row.priority is not None and row.priority <= 1)
    values: Json = {
        **_head(study, ordered=True),
        "status": row.task_status,
        "intent": "order",
        "priority": "stat" if stat else "routine",
        "code": {
            "coding": [elements.own("READ-BY-AI", "Read chest radiographs by AI, for research")]
        },
        "focus": _reference("ImagingStudy", row),
        "for": elements.subject(row),
        "authoredOn": row.first_received_at,
        "lastModified": row.updated,
        **elements.based_on(row),
    }
    if reason := conclusion.task_reason(study):
        values["statusReason"] = reason
    shown = row.newest_state in ("done", "withdrawn") and row.newest_sending not in (
        "held",
        "shadow",
    )
    if shown and row.generation is not None:
        output = _reference("DiagnosticReport", row)
        values["output"] = [{"type": {"text": "Report"}, "valueReference": output}]
    return Task.model_validate(values)


BUILDERS = {
    "DiagnosticReport": diagnostic_report,
    "ImagingStudy": imaging_study,
    "Observation": observation,
    "Task": task,
}


# ---- Parts -------------------------------------------------------------------------------------


def _head(study: Study, *, ordered: bool = False) -> Json:
    row = study.row
    identifiers = [{"use": "official", **elements.uid(row.study_instance_uid)}]
    if ordered and (accession := elements.accession(row)):
        identifiers.append(accession)
    return {
        "id": row.study_instance_uid,
        "meta": {"lastUpdated": row.updated, "tag": [elements.RESEARCH]},
        "identifier": identifiers,
    }


def _standing_reports(study: Study) -> list[Any]:
    return [one for one in study.reports if one.generation == study.row.generation]


def _device(study: Study) -> Json:
    """Return the model: name, version, and the digest that says exactly which."""
    name, _, version = (study.bundle or "").rpartition(" ")
    versions = [{"type": {"text": "SHA-256 of the bundle"}, "value": study.row.bundle_digest}]
    if version:
        versions.insert(0, {"type": {"text": "bundle"}, "value": version})
    return {
        "resourceType": "Device",
        "id": "model",
        "manufacturer": "Thoracle",
        "deviceName": [{"name": name or "unknown", "type": "model-name"}],
        "version": versions,
        "note": [{"text": "Research software, not a medical device."}],
    }


def _modality(row: Any, sop_class_uid: str) -> Json:
    said = row.modality or ""
    code = _MODALITIES.get(sop_class_uid) or (
        said if re.fullmatch(r"[A-Z][A-Z0-9]{1,15}", said) else "OT"
    )
    return {"system": elements.SYSTEMS["DCM"], "code": code}


def _reference(type_: str, row: Any) -> Json:
    return {"reference": f"{type_}/{row.study_instance_uid}"}
