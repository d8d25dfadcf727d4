"""What resources say of a result: its sentence and number, or why there is none."""

from pydicom.sr.codedict import codes

from thoracle.fhir import elements
from thoracle.fhir.elements import Json
from thoracle.fhir.rows import Study
from thoracle.records import Outcome, Reason

NOTICE = "AI result for research, not verified by a physician, not for diagnosis."
NO_STATEMENT = "This says nothing about COVID-19."
_SENTENCES = {
    Outcome.POSITIVE: "COVID-19 finding suggested",
    Outcome.NEGATIVE: "COVID-19 finding not suggested; this does not exclude COVID-19",
    Outcome.INDETERMINATE: "COVID-19 result indeterminate, the model is not confident",
}


def sentence(study: Study) -> str:
    """Return the conclusion of a report: one sentence, and that it is for research."""
    row = study.row
    if row.report_status == "registered":
        return f"{NOTICE} No result yet. {NO_STATEMENT}"
    if row.report_status == "cancelled":
        return f"{NOTICE} No result: the analysis failed. {NO_STATEMENT}"
    if row.report_status == "entered-in-error":
        return f"{NOTICE} The AI result is withdrawn and must not be used. {NO_STATEMENT}"
    if row.outcome == Outcome.REJECTED:
        meanings = "; ".join(one["display"] for one in _reasons(study))
        return f"{NOTICE} Not analysed: {meanings}. {NO_STATEMENT}"
    numbers = f"probability {elements.percentage(row.probability):g} %"
    if (threshold := _threshold(study)) is not None:
        numbers += f", decision threshold {threshold:g} %"
    return f"{NOTICE} {_SENTENCES[Outcome(row.outcome)]}: {numbers}."


def notes(study: Study) -> list[str]:
    """Return what is to be known of an observation: of how many images it is, and details."""
    said = [NOTICE]
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
        return {"text": f"The analysis failed. {NO_STATEMENT}"}
    if row.task_status == "on-hold":
        return {"text": "A rule holds the result until somebody releases it."}
    shown = row.task_status == "completed" and row.newest_sending != "shadow"
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
