"""The report on a study: a Comprehensive 3D SR with TID 1500 (PS3.3 A.35.13, PS3.16).

The SOP Instance UID is derived from the finished document, so the same UID means the same bytes,
and whatever shapes the document shapes the UID.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timezone
from io import BytesIO
from typing import NamedTuple

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code as Concept
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
)

import thoracle
from thoracle import settings
from thoracle.errors import ReportError
from thoracle.records import BundleIdentity, Outcome, Reading
from thoracle.report import codes, content, context
from thoracle.report.identity import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    derived_uid,
    device_uid,
)

SERIES_DESCRIPTION = "AI COVID-19 report (research, not verified)"


class Predecessor(NamedTuple):
    """An earlier report on the same study, which the new one replaces."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def build(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: settings.Report,
    predecessor: Predecessor | None = None,
) -> Dataset:
    """Return the report on one study, complete and ready to be encoded.

    Parameters
    ----------
    sources
        All images of the study that were read or rejected; pixel data is not needed.
    readings
        What is said of them: one for each source, matched by SOP Instance UID, in any order.
    content_datetime
        When the readings were made, with a time zone. It is written in the zone of the source
        where that states one (PS3.3 C.12.1, Timezone Offset From UTC), else in its own.

    Raises
    ------
    ReportError
        When there are no sources, the sources are not of one study and patient, or sources and
        readings do not correspond.
    """
    pairs = _paired(sources, readings)
    sources, readings = [source for source, _ in pairs], [reading for _, reading in pairs]
    report = context.study_context(sources[0])
    _add_equipment(report, bundle, content_datetime, settings)
    _add_series(report, content_datetime, settings)
    _add_document(report, sources, predecessor)
    report.update(content.tree(sources, readings, bundle))
    charset = context.character_set(sources[0], report)
    if charset is not None:
        report.SpecificCharacterSet = charset
    return _identified(report)


def encode(report: Dataset) -> bytes:
    """Return the report as a Part 10 file, the same bytes each time."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, report, enforce_file_format=True)
    return buffer.getvalue()


def as_comprehensive_sr(report: Dataset) -> Dataset:
    """Return the report as a Comprehensive SR, for archives that refuse the 3D class.

    The content is the same, since it has no 3D coordinates. The SOP Instance UID is another,
    derived one; a predecessor is named by the one that it got in the same way.
    """
    other = Dataset()
    other.update(report)
    if "PredecessorDocumentsSequence" in report:
        other.PredecessorDocumentsSequence = [
            _as_comprehensive_reference(item) for item in report.PredecessorDocumentsSequence
        ]
    other.SOPClassUID = ComprehensiveSRStorage
    other.SOPInstanceUID = _comprehensive_uid(report.SOPInstanceUID)
    other.file_meta = _file_meta(other)
    return other


def _paired(
    sources: Sequence[Dataset], readings: Sequence[Reading]
) -> list[tuple[Dataset, Reading]]:
    """Return sources with their readings, in an order that does not depend on arrival."""
    if not sources:
        raise ReportError("sources: found none, required is at least one image")
    for keyword in ("StudyInstanceUID", "PatientID"):
        found = {str(source.get(keyword) or "") for source in sources}
        if len(found) > 1:
            raise ReportError(f"{keyword} of the sources: found {len(found)}, required is one")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not all(source.get(keyword) for source in sources):
            raise ReportError(f"{keyword}: found none in a source, required is a value")
    by_uid = {reading.sop_instance_uid: _checked(reading) for reading in readings}
    keys = sorted((str(source.SOPInstanceUID), str(source.SOPClassUID)) for source in sources)
    found_keys = sorted((reading.sop_instance_uid, reading.sop_class_uid) for reading in readings)
    if keys != found_keys or len(by_uid) != len(keys):
        raise ReportError(f"readings: found {found_keys}, required is one for each source: {keys}")
    ordered = sorted(sources, key=lambda source: str(source.SOPInstanceUID))
    return [(source, by_uid[source.SOPInstanceUID]) for source in ordered]


def _checked(reading: Reading) -> Reading:
    rejected = reading.outcome is Outcome.REJECTED
    if (reading.reason is not None) is not rejected or (
        reading.probability is None
    ) is not rejected:
        raise ReportError(
            f"reading: found outcome {reading.outcome} with reason {reading.reason} and "
            f"probability {reading.probability}, required is a reason when rejected, "
            "else a probability"
        )
    if reading.probability is not None and not 0 <= reading.probability <= 1:
        raise ReportError(f"probability: found {reading.probability}, required is 0 to 1")
    return reading


def _add_equipment(
    report: Dataset, bundle: BundleIdentity, content_datetime: datetime, settings: settings.Report
) -> None:
    """Add Enhanced General Equipment (PS3.3 C.7.5.2) and the contribution of the model."""
    report.Manufacturer = content.NAME
    report.ManufacturerModelName = content.NAME
    report.DeviceSerialNumber = bundle.digest[:16]
    report.SoftwareVersions = thoracle.__version__
    if settings.institution_name:
        report.InstitutionName = settings.institution_name
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code_item(codes.PROCESSING_EQUIPMENT)]
    equipment.Manufacturer = content.NAME
    equipment.ManufacturerModelName = bundle.name
    equipment.SoftwareVersions = [bundle.version, thoracle.__version__]
    equipment.DeviceSerialNumber = bundle.digest[:16]
    equipment.DeviceUID = device_uid(bundle.digest)
    equipment.ContributionDateTime = content_datetime.strftime("%Y%m%d%H%M%S.%f%z")
    equipment.ContributionDescription = "AI inference for research: COVID-19 classification"
    report.ContributingEquipmentSequence = [equipment]


def _add_series(report: Dataset, content_datetime: datetime, settings: settings.Report) -> None:
    """Add SR Document Series (PS3.3 C.17.1): a series of our own, never the modality's."""
    local = content_datetime.astimezone(_zone(report) or content_datetime.tzinfo)
    report.Modality = "SR"
    report.SeriesNumber = settings.series_number
    report.SeriesDescription = SERIES_DESCRIPTION
    report.SeriesDate = report.ContentDate = local.strftime("%Y%m%d")
    report.SeriesTime = report.ContentTime = local.strftime("%H%M%S.%f")
    report.ReferencedPerformedProcedureStepSequence = []
    report.InstanceNumber = 1


def _zone(report: Dataset) -> timezone | None:
    """Return the zone that Timezone Offset From UTC states, if it states one."""
    offset = str(report.get("TimezoneOffsetFromUTC") or "")
    try:
        return datetime.strptime(offset, "%z").tzinfo  # type: ignore[return-value]
    except ValueError:
        return None


def _add_document(
    report: Dataset, sources: Sequence[Dataset], predecessor: Predecessor | None
) -> None:
    """Add SR Document General (PS3.3 C.17.2)."""
    report.CompletionFlag = "COMPLETE"
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    report.ContentQualification = "RESEARCH"
    report.PerformedProcedureCodeSequence = []
    requests = context.referenced_requests(sources)
    if requests:
        report.ReferencedRequestSequence = requests
    study = report.StudyInstanceUID
    images = [
        (str(source.SeriesInstanceUID), source.SOPClassUID, source.SOPInstanceUID)
        for source in sources
    ]
    report.CurrentRequestedProcedureEvidenceSequence = [_references(study, images)]
    if predecessor is not None:
        report.PredecessorDocumentsSequence = [
            _references(
                study,
                [
                    (
                        predecessor.series_instance_uid,
                        predecessor.sop_class_uid,
                        predecessor.sop_instance_uid,
                    )
                ],
            )
        ]


def _references(study: str, instances: Sequence[tuple[str, str, str]]) -> Dataset:
    """Return a Hierarchical SOP Instance Reference (PS3.3 C.17.2.1) below one study."""
    item = Dataset()
    item.StudyInstanceUID = study
    item.ReferencedSeriesSequence = []
    for series_uid in sorted({series_uid for series_uid, _, _ in instances}):
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = []
        for _, sop_class_uid, sop_instance_uid in filter(
            lambda instance: instance[0] == series_uid, instances
        ):
            reference = Dataset()
            reference.ReferencedSOPClassUID = sop_class_uid
            reference.ReferencedSOPInstanceUID = sop_instance_uid
            series.ReferencedSOPSequence.append(reference)
        item.ReferencedSeriesSequence.append(series)
    return item


def _code_item(code: Concept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item


def _identified(report: Dataset) -> Dataset:
    """Return the report with UIDs that follow from all its bytes."""
    report.SOPClassUID = Comprehensive3DSRStorage
    report.SOPInstanceUID = report.SeriesInstanceUID = derived_uid("unnamed")
    report.file_meta = _file_meta(report)
    digest = hashlib.sha256(encode(report)).hexdigest()
    report.SeriesInstanceUID = derived_uid("series", digest)
    report.SOPInstanceUID = derived_uid("report", digest)
    report.file_meta = _file_meta(report)
    return report


def _file_meta(report: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = report.SOPClassUID
    meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _comprehensive_uid(sop_instance_uid: str) -> UID:
    return derived_uid("comprehensive", sop_instance_uid)


def _as_comprehensive_reference(study: Dataset) -> Dataset:
    references = [
        (
            series.SeriesInstanceUID,
            instance.ReferencedSOPClassUID,
            instance.ReferencedSOPInstanceUID,
        )
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    return _references(
        study.StudyInstanceUID,
        [
            (series_uid, ComprehensiveSRStorage, _comprehensive_uid(sop_instance_uid))
            if sop_class_uid == Comprehensive3DSRStorage
            else (series_uid, sop_class_uid, sop_instance_uid)
            for series_uid, sop_class_uid, sop_instance_uid in references
        ],
    )
