"""The modules of a report around its content tree (PS3.3 A.35.13)."""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

import thoracle
from thoracle.records import SCHEME, BundleIdentity
from thoracle.report import codes, context
from thoracle.report.identity import NAME, device_uid
from thoracle.settings import Report as ReportSettings

SERIES_DESCRIPTION = "AI COVID-19 report (research, not verified)"


class Instance(NamedTuple):
    """An object that a report refers to, in the same study."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def add_equipment(
    report: Dataset, bundle: BundleIdentity, content_datetime: datetime, settings: ReportSettings
) -> None:
    """Add Enhanced General Equipment (PS3.3 C.7.5.2) and the contribution of the model.

    IHE AIR wants the algorithm among the contributing equipment, with its Device UID.
    """
    report.Manufacturer = NAME
    report.ManufacturerModelName = NAME
    report.DeviceSerialNumber = bundle.digest[:16]
    report.SoftwareVersions = thoracle.__version__
    if settings.institution_name:
        report.InstitutionName = settings.institution_name
    model = Dataset()
    model.PurposeOfReferenceCodeSequence = [_code_item(codes.PROCESSING_EQUIPMENT)]
    model.Manufacturer = NAME
    model.ManufacturerModelName = bundle.name
    model.SoftwareVersions = [bundle.version, thoracle.__version__]
    model.DeviceSerialNumber = bundle.digest[:16]
    model.DeviceUID = device_uid(bundle.digest)
    model.ContributionDateTime = content_datetime.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f%z")
    model.ContributionDescription = "AI inference for research: COVID-19 classification"
    report.ContributingEquipmentSequence = [model]


def add_series(report: Dataset, content_datetime: datetime, settings: ReportSettings) -> None:
    """Add SR Document Series (PS3.3 C.17.1): a series of our own, never the modality's."""
    local = content_datetime.astimezone(_zone(report) or content_datetime.tzinfo)
    report.Modality = "SR"
    report.SeriesNumber = settings.series_number
    report.SeriesDescription = SERIES_DESCRIPTION
    report.SeriesDate = report.ContentDate = local.strftime("%Y%m%d")
    report.SeriesTime = report.ContentTime = local.strftime("%H%M%S.%f")
    report.ReferencedPerformedProcedureStepSequence = []
    report.InstanceNumber = 1


def add_document(report: Dataset, sources: Sequence[Dataset], predecessor: Instance | None) -> None:
    """Add SR Document General (PS3.3 C.17.2) and what says that this is research."""
    report.CompletionFlag = "COMPLETE"
    # "Verified" and "final" make some information systems bill or close the order.
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    report.ContentQualification = "RESEARCH"
    report.PerformedProcedureCodeSequence = []
    requests = context.referenced_requests(sources)
    if requests:
        report.ReferencedRequestSequence = requests
    images = [
        Instance(source.SOPClassUID, source.SOPInstanceUID, source.SeriesInstanceUID)
        for source in sources
    ]
    study_instance_uid = report.StudyInstanceUID
    report.CurrentRequestedProcedureEvidenceSequence = [references(study_instance_uid, images)]
    if predecessor is not None:
        report.PredecessorDocumentsSequence = [references(study_instance_uid, [predecessor])]


def add_coding_scheme(report: Dataset) -> None:
    """Add Coding Scheme Identification (PS3.3 C.12.1) for our own codes."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "Thoracle"
    scheme.CodingSchemeResponsibleOrganization = "Thoracle"
    report.CodingSchemeIdentificationSequence = [scheme]


def references(study_instance_uid: str, instances: Sequence[Instance]) -> Dataset:
    """Return a Hierarchical SOP Instance Reference (PS3.3 C.17.2.1) below one study."""
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    study.ReferencedSeriesSequence = []
    for series_instance_uid in sorted({instance.series_instance_uid for instance in instances}):
        series = Dataset()
        series.SeriesInstanceUID = series_instance_uid
        series.ReferencedSOPSequence = []
        for instance in instances:
            if instance.series_instance_uid == series_instance_uid:
                item = Dataset()
                item.ReferencedSOPClassUID = instance.sop_class_uid
                item.ReferencedSOPInstanceUID = instance.sop_instance_uid
                series.ReferencedSOPSequence.append(item)
        study.ReferencedSeriesSequence.append(series)
    return study


def _zone(report: Dataset) -> tzinfo | None:
    """Return the zone that Timezone Offset From UTC states, if it states one."""
    try:
        return datetime.strptime(str(report.get("TimezoneOffsetFromUTC")), "%z").tzinfo
    except ValueError:
        return None


def _code_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item
