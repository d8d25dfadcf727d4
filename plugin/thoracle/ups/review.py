"""The workitem "review AI result": what a reader's client sees of it (PS3.3 Section C.30)."""

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from dbos import DBOS
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as Concept
from pydicom.uid import UID
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    UnifiedProcedureStepPush,
)
from sqlalchemy import Connection

from thoracle.errors import ObjectsAway
from thoracle.image.header import header_of
from thoracle.records import BundleIdentity, Finding, Outcome, Reading, study_outcome
from thoracle.report import context
from thoracle.report.codes import item
from thoracle.report.identity import derived_uid
from thoracle.routing.rules import UPS, RoutingDecision
from thoracle.settings import Destination
from thoracle.store import objects, trail
from thoracle.study.line import parts
from thoracle.ups import workitems
from thoracle.ups.attributes import ObjectReference, from_json
from thoracle.ups.subscriptions import EventReports
from thoracle.wording import DISCLAIMER

INTERPRETATION: Final = codes.cid9231.Interpretation
LONGEST_LABEL = 64
"""Characters of a Procedure Step Label (LO)."""

# PS3.4 Table CC.2.5-3: of the patient and the visit, what is Type 2 in an N-CREATE.
_PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "AdmittingDiagnosesDescription",
)
_EMPTY_SEQUENCES = (
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledHumanPerformersSequence",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesCodeSequence",
    "ReplacedProcedureStepSequence",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)


def build(
    context: Dataset,
    requests: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    *,
    sop_instance_uid: str,
    worklist_label: str,
    scheduled: str,
) -> Dataset:
    """Return the attributes of a workitem, all but its state and what the network adds.

    Parameters
    ----------
    context
        Patient and study of the images, decoded.
    requests
        Items of Referenced Request Sequence.
    readings, bundle
        What was said of the images, and by which model.
    sop_instance_uid
        Of the workitem; it follows from the report, so that a repetition makes no second one.
    worklist_label
        Worklist Label (0074,1202).
    scheduled
        Scheduled Procedure Step Start DateTime (0040,4005).
    """
    ds = Dataset()
    ds.SOPClassUID = UID(UnifiedProcedureStepPush)
    ds.SOPInstanceUID = UID(sop_instance_uid)
    ds.ScheduledProcedureStepPriority = "HIGH"
    ds.ProcedureStepLabel = label(readings, bundle.finding)
    ds.WorklistLabel = worklist_label
    ds.ScheduledProcedureStepStartDateTime = scheduled
    ds.ScheduledProcedureStepModificationDateTime = scheduled
    ds.ScheduledWorkitemCodeSequence = [_item(INTERPRETATION)]
    ds.CommentsOnTheScheduledProcedureStep = f"{DISCLAIMER} Model: {bundle.name} {bundle.version}."
    ds.InputReadinessState = "READY"
    ds.StudyInstanceUID = context.StudyInstanceUID
    for keyword in _PATIENT:
        setattr(ds, keyword, None)
        if keyword in context:
            ds.add(context[keyword])
    for keyword in _EMPTY_SEQUENCES:
        setattr(ds, keyword, [])
    ds.ReferencedRequestSequence = list(requests)
    return ds


def label(readings: Sequence[Reading], finding: Finding) -> str:
    """Return what a person reads in the list, e.g. ``Chest XR - AI: Pneumonia positive 91 %``."""
    outcome = study_outcome(readings)
    if outcome is Outcome.REJECTED:
        reasons = {one.reason.code.meaning: None for one in readings if one.reason}
        text = f"Chest XR - AI: not analysed ({next(iter(reasons), 'no image')})"
    else:
        telling = [one.probability or 0.0 for one in readings if one.outcome is outcome]
        text = f"Chest XR - AI: {finding.short_name} {outcome} {100 * max(telling):.0f} %"
    end = " (research)"
    longest = LONGEST_LABEL - len(end)
    return (text if len(text) <= longest else f"{text[: longest - 3]}...") + end


def inputs(
    study_instance_uid: str,
    references: Iterable[ObjectReference],
    destinations: Sequence[Destination],
) -> list[Dataset]:
    """Return the items of Input, or Output, Information Sequence, one a series and place.

    Where an archive is a destination with an AE title it stands in DICOM Retrieval Sequence, one
    with a ``url`` in WADO-RS Retrieval Sequence. A received image is in the archive that sent it.
    """
    known = {one.name: one for one in destinations}
    by_ae = {one.ae_title: one.name for one in destinations if one.ae_title}
    grouped: dict[tuple[str, tuple[str, ...]], list[ObjectReference]] = {}
    for one in references:
        sent_by = [by_ae[one.sender]] if one.sender in by_ae else []
        places = tuple(sorted({*one.destinations, *sent_by} & known.keys()))
        grouped.setdefault((one.series_instance_uid, places), []).append(one)
    return [
        _series(study_instance_uid, series, [known[name] for name in places], found)
        for (series, places), found in grouped.items()
    ]


def _series(
    study: str, series: str, places: Sequence[Destination], found: Sequence[ObjectReference]
) -> Dataset:
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID, item.SeriesInstanceUID = study, series
    item.ReferencedSOPSequence = []
    for one in found:
        reference = Dataset()
        reference.ReferencedSOPClassUID = one.sop_class_uid
        reference.ReferencedSOPInstanceUID = one.sop_instance_uid
        item.ReferencedSOPSequence.append(reference)
    titles = [place.ae_title for place in places if place.ae_title]
    if titles:
        item.DICOMRetrievalSequence = [_with(RetrieveAETitle=title) for title in titles]
    urls = [place.url for place in places if place.url]
    if urls:
        item.WADORSRetrievalSequence = [
            _with(RetrieveURL=f"{url.rstrip('/')}/studies/{study}/series/{series}") for url in urls
        ]
    return item


def _with(**attributes: str) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _item(code: Concept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item


logger = logging.getLogger(__name__)

# ---- when it is offered --------------------------------------------------------------------------
# review: the workitem by which a reader's client learns of a result (docs/ups.md).

FAULT = "fault"
RESCHEDULED = item(codes.cid9300.DiscontinuedProcedureStepRescheduled)
DISCONTINUED = item(codes.cid9300.DiscontinuedForUnspecifiedReason)


@DBOS.step(name="workitem")
@objects.patient
def propose(
    sources: list[str],
    readings: list[dict[str, Any]],
    report: dict[str, Any],
    made: str,
    routing: dict[str, Any],
) -> dict[str, Any] | None:
    """Return the attributes of the workitem for a result, ``None`` when it is to have none.

    Where they cannot be built: why, as ``fault``.
    """
    settings = parts().settings.ups
    read = [Reading.from_json(one) for one in readings]
    decision = RoutingDecision.from_json(routing)
    if not settings.offer or decision.shadow or UPS not in decision.planned.notify:
        return None
    if study_outcome(read) not in settings.outcomes:
        return None
    try:
        headers = [header_of(parts().path(path)) for path in sources]
        ds = build(
            context.study_context(headers[0]),
            context.referenced_requests(headers),
            read,
            parts().reader.bundle,
            sop_instance_uid=derived_uid("workitem", report["sop_instance_uid"]),
            worklist_label=settings.worklist_label,
            scheduled=datetime.fromisoformat(made).astimezone(UTC).strftime("%Y%m%d%H%M%S+0000"),
        )
        return ds.to_json_dict()
    except ObjectsAway:
        raise
    except Exception as error:  # noqa: BLE001 - the result is worth more than this about it
        # Without the text, which may quote what the header says.
        logger.error("no workitem about a result: %s", type(error).__name__)
        return {FAULT: f"could not be built: {type(error).__name__}"}


def conclude(
    connection: Connection,
    study: str,
    generation: int,
    digest: str,
    attributes: dict[str, Any] | None,
    *,
    held: bool,
) -> EventReports:
    """Offer the workitem of a new result in place of those of earlier ones.

    Returns the event reports that are to be sent.
    """
    workflow_id = str(DBOS.workflow_id)
    text = "There is a newer AI result on this study."
    reports = workitems.supersede(connection, study, text, RESCHEDULED, workflow_id)
    if attributes is None:
        return reports
    if FAULT in attributes:
        withhold(connection, study, digest, attributes, workflow_id)
        return reports
    values = {
        "sop_instance_uid": from_json(attributes).SOPInstanceUID,
        "study_instance_uid": study,
        "generation": generation,
        "bundle_digest": digest,
        "attributes": attributes,
    }
    return reports + workitems.offer(connection, values, held=held, workflow_id=workflow_id)


def withhold(
    connection: Connection, study: str, digest: str, attributes: dict[str, Any], workflow_id: str
) -> None:
    """Record that there is no workitem about a result, and why; an alarm tells of it."""
    columns: trail.Columns = {
        "study_instance_uid": study,
        "bundle_digest": digest,
        "correlation_id": workflow_id,
        "event_outcome": trail.SERIOUS_FAILURE,
        "detail": {"comment": attributes[FAULT]},
    }
    trail.record(connection, trail.Event.WORKITEM_CREATED, columns)


def withdraw(connection: Connection, study: str) -> EventReports:
    """Cancel the workitems of a result that is withdrawn."""
    text = "The AI result is withdrawn."
    return workitems.supersede(connection, study, text, DISCONTINUED, str(DBOS.workflow_id))
