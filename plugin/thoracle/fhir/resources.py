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
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from thoracle.fhir import elements
from thoracle.fhir.elements import Json
from thoracle.fhir.rows import Study
from thoracle.records import Outcome, Reason
from thoracle.study.published import KEPT_BACK
from thoracle.wording import DISCLAIMER

# ---- conclusion ----------------------------------------------------------------------------------
# What resources say of a result: its sentence and number, or why there is none.


def sentence(study: Study) -> str:
    """Return the conclusion of a report: one sentence, and that it is for research."""
    return f"{DISCLAIMER} {_said(study)}".rstrip()


def _said(study: Study) -> str:
    row = study.row
    if row.report_status == "registered":
        return f"No result yet. {_nothing(study)}"
    if row.report_status == "cancelled":
        return f"No result: the analysis failed. {_nothing(study)}"
    if row.report_status == "entered-in-error":
        return f"The AI result is withdrawn and must not be used. {_nothing(study)}"
    if row.outcome == Outcome.REJECTED:
        meanings = "; ".join(one["display"] for one in _reasons(study))
        return f"Not analysed: {meanings}. {_nothing(study)}"
    numbers = f"probability {elements.percentage(row.probability):g} %"
    if (threshold := _threshold(study)) is not None:
        numbers += f", decision threshold {threshold:g} %"
    if study.finding is None:
        return f"{row.outcome}: {numbers}."
    return study.finding.outcomes.of(Outcome(row.outcome)).with_numbers(numbers)


def _nothing(study: Study) -> str:
    """Return the sentence that nothing is said of the finding."""
    found = study.finding
    return f"{found.outcomes.rejected.sentence}." if found else ""


def notes(study: Study) -> list[str]:
    """Return what is to be known of an observation: of how many images it is, and details."""
    said = [DISCLAIMER]
    if study.row.state == "withdrawn":
        return said
    analysed = sum(one.outcome != Outcome.REJECTED for one in study.readings)
    if len(study.readings) > 1:
        said.append(
            f"Images analysed: {analysed} of {len(study.readings)}. The study takes the most "
            "telling outcome: positive before indeterminate before negative."
        )
    details = dict.fromkeys(one.detail for one in study.readings if one.reason_code and one.detail)
    return said + [shown for detail in details if (shown := elements.text(detail))]


def probability(study: Study) -> Json:
    """Return the component of an observation that has the probability, in percent."""
    threshold = _threshold(study)
    component: Json = {
        "code": elements.concept(codes.DCM.Probability),
        "valueQuantity": {
            "value": elements.percentage(study.row.probability),
            "unit": "%",
            "system": elements.SYSTEMS["UCUM"],
            "code": "%",
        },
    }
    if threshold is not None:
        # Text alone: "high" would say that all below it is normal, and some is indeterminate.
        component["referenceRange"] = [{"text": f"Decision threshold {threshold:g} %"}]
    return component


def absent(study: Study) -> Json:
    """Return why an observation has no value."""
    reasons = _reasons(study)
    failed = any(one["code"] == Reason.SOFTWARE_FAILURE.code.value for one in reasons)
    general = ("error", "Error") if failed else ("not-performed", "Not Performed")
    if study.row.state == "withdrawn":
        general = ("unknown", "Unknown")  # there was a value, and it must not be used
    return {
        "coding": [
            elements.coded(f"{elements.TERMINOLOGY}/data-absent-reason", *general),
            *reasons,
        ],
        "text": "; ".join(one["display"] for one in reasons) or general[1],
    }


def task_reason(study: Study) -> Json | None:
    """Return why a task is where it is, if there is anything to say."""
    row = study.row
    if row.task_status == "failed":
        return {"text": f"The analysis failed. {_nothing(study)}".rstrip()}
    if row.task_status == "on-hold":
        return {"text": "A rule holds the result until somebody releases it."}
    shown = row.task_status == "completed" and row.newest_sending not in KEPT_BACK
    if shown and (row.outcome == Outcome.REJECTED or row.state == "withdrawn"):
        reasons = _reasons(study)
        return {"coding": reasons, "text": "; ".join(one["display"] for one in reasons)}
    return None


def _threshold(study: Study) -> float | None:
    found = [one.threshold for one in study.readings if one.threshold is not None]
    return elements.percentage(found[0]) if found else None


def _reasons(study: Study) -> list[Json]:
    if study.row.state == "withdrawn":
        return [elements.own(Reason.WITHDRAWN.code.value, Reason.WITHDRAWN.code.meaning)]
    found: dict[str, Json] = {}
    for one in study.readings:
        if one.reason_code:
            system = elements.SYSTEMS.get(one.reason_scheme, elements.SCHEME_URI)
            found[one.reason_code] = elements.coded(
                system, one.reason_code, elements.meaning(one.reason_code)
            )
    return list(found.values())


# ---- resources -----------------------------------------------------------------------------------

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
        "conclusion": sentence(study),
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
    row, finding = study.row, study.finding
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
        "code": elements.code(finding.code) if finding else elements.UNKNOWN,
        "subject": elements.subject(row),
        "issued": row.finished_at,
        "method": elements.concept(codes.cid7162.ArtificialIntelligence),
        "device": {"reference": "#model"},
        "derivedFrom": [_reference("ImagingStudy", row)],
        "note": [{"text": text} for text in notes(study)],
        **elements.based_on(row),
        **elements.effective(row),
    }
    values["identifier"] += [elements.uid(one.sop_instance_uid) for one in _standing_reports(study)]
    said = row.observation_status == "preliminary" and row.outcome != Outcome.REJECTED
    if said and finding is not None:
        value = finding.outcomes.of(Outcome(row.outcome)).code
        values["valueCodeableConcept"] = elements.code(value)
        values["component"] = [probability(study)]
    else:
        values["dataAbsentReason"] = absent(study)
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
    if reason := task_reason(study):
        values["statusReason"] = reason
    shown = row.newest_state in ("done", "withdrawn") and row.newest_sending not in KEPT_BACK
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
    versions = [{"type": {"text": "SHA-256 of the bundle"}, "value": study.row.bundle_digest}]
    if study.model is not None:
        versions.insert(0, {"type": {"text": "bundle"}, "value": study.model.version})
    return {
        "resourceType": "Device",
        "id": "model",
        "manufacturer": "Thoracle",
        "deviceName": [
            {"name": study.model.name if study.model else "unknown", "type": "model-name"}
        ],
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
