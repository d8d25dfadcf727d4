"""What all our objects have alike: patient and study, equipment, a series of ours, identity."""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from io import BytesIO
from typing import NamedTuple

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

import thoracle
from thoracle import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from thoracle.errors import ReportError
from thoracle.records import SCHEME, BundleIdentity, Finding, Kind, Outcome
from thoracle.report import codes, context
from thoracle.report.identity import (
    NAME,
    derived_uid,
    device_uid,
    digest,
)
from thoracle.settings import Report as ReportSettings
from thoracle.wording import IN_LISTS

SERIES = {
    Kind.SR: ("SR", "report"),
    Kind.SC: ("OT", "result picture"),
    Kind.PR: ("PR", "outlines"),
    Kind.KO: ("KO", "key images"),
    Kind.REJECTION: ("KO", "results withdrawn"),
}
"""Modality of each kind, and what its Series Description calls it; its place here is added to
``series_number``."""


class Instance(NamedTuple):
    """An object that another one refers to, in the same study."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def instance(ds: Dataset) -> Instance:
    """Return how a data set is referred to."""
    return Instance(str(ds.SOPClassUID), str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID))


def base(
    kind: Kind,
    source: Dataset,
    bundle: BundleIdentity,
    content_datetime: datetime,
    settings: ReportSettings,
) -> Dataset:
    """Return what every object of a kind in one result starts with: all but its content.

    Patient and study are those of ``source``; equipment and series are ours, and the series is
    never the modality's. Objects of one kind that are made with the same arguments share it.

    Raises
    ------
    ReportError
        The time has no zone.
    """
    if content_datetime.tzinfo is None:
        raise ReportError(f"content_datetime: found {content_datetime}, required: a time zone")
    ds = context.study_context(source)
    _add_equipment(ds, bundle, content_datetime, settings)
    _add_series(ds, kind, bundle, content_datetime, settings)
    ds.SeriesInstanceUID = derived_uid("series", digest(ds))
    return ds


def identified(
    ds: Dataset,
    source: Dataset,
    sop_class_uid: UID,
    transfer_syntax_uid: UID = ExplicitVRLittleEndian,
) -> Dataset:
    """Return a finished object with its character set, and the UID that follows from all the rest.

    The same UID so always means the same content.
    """
    character_set = context.character_set(source, ds)
    if character_set:
        ds.SpecificCharacterSet = character_set
    ds.SOPClassUID = sop_class_uid
    return with_uid(ds, derived_uid("instance", digest(ds)), transfer_syntax_uid)


def with_uid(
    ds: Dataset, sop_instance_uid: UID, transfer_syntax_uid: UID = ExplicitVRLittleEndian
) -> Dataset:
    """Return an object with its SOP Instance UID and File Meta Information set."""
    ds.SOPInstanceUID = sop_instance_uid
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = transfer_syntax_uid
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta
    return ds


def encode(ds: Dataset) -> bytes:
    """Return an object as a Part 10 file, the same bytes each time."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def add_document(
    report: Dataset,
    sources: Sequence[Dataset],
    predecessor: Instance | None,
    illustrations: Sequence[Instance],
) -> None:
    """Add SR Document General (PS3.3 C.17.2) and what says that this is research."""
    report.InstanceNumber = 1
    report.ReferencedPerformedProcedureStepSequence = []
    report.CompletionFlag = "COMPLETE"
    # "Verified" and "final" make some information systems bill or close the order.
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    report.ContentQualification = "RESEARCH"
    report.PerformedProcedureCodeSequence = []
    add_evidence(report, sources, [*map(instance, sources), *illustrations])
    if predecessor is not None:
        report.PredecessorDocumentsSequence = [references(report.StudyInstanceUID, [predecessor])]


def add_evidence(
    document: Dataset, sources: Sequence[Dataset], evidence: Sequence[Instance]
) -> None:
    """Add the requests of the sources, and as evidence all that the document refers to.

    Objects of ours, too, were made for the procedure that was requested, and are in its study:
    so they are Current Requested Procedure Evidence, not Pertinent Other Evidence (PS3.3
    C.17.2.3).
    """
    requests = context.referenced_requests(sources)
    if requests:
        document.ReferencedRequestSequence = requests
    document.CurrentRequestedProcedureEvidenceSequence = [
        references(document.StudyInstanceUID, evidence)
    ]


def add_coding_schemes(report: Dataset, finding: Finding, *, ours: bool) -> None:
    """Add Coding Scheme Identification (PS3.3 C.12.1) for private codes: the bundle's, ours."""
    said = [finding.outcomes.of(outcome).code for outcome in Outcome]
    used = {code.scheme for code in (finding.code, *said)} | ({SCHEME} if ours else set())
    private = sorted(one for one in used if one.startswith("99"))
    if private:
        report.CodingSchemeIdentificationSequence = [_coding_scheme(one) for one in private]


def _coding_scheme(designator: str) -> Dataset:
    scheme = Dataset()
    scheme.CodingSchemeDesignator = designator
    if designator == SCHEME:
        scheme.CodingSchemeName = NAME
        scheme.CodingSchemeResponsibleOrganization = NAME
    return scheme


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


def _add_equipment(
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
    model.PurposeOfReferenceCodeSequence = [codes.item(codes.PROCESSING_EQUIPMENT)]
    model.Manufacturer = NAME
    model.ManufacturerModelName = bundle.name
    model.SoftwareVersions = [bundle.version, thoracle.__version__]
    model.DeviceSerialNumber = bundle.digest[:16]
    model.DeviceUID = device_uid(bundle.digest)
    model.ContributionDateTime = content_datetime.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f%z")
    model.ContributionDescription = f"AI inference for research: {bundle.finding.name}"
    report.ContributingEquipmentSequence = [model]


def _add_series(
    report: Dataset,
    kind: Kind,
    bundle: BundleIdentity,
    content_datetime: datetime,
    settings: ReportSettings,
) -> None:
    """Add General Series (PS3.3 C.7.3.1), and Content Date and Time, which all kinds have."""
    local = content_datetime.astimezone(_zone(report) or content_datetime.tzinfo)
    report.Modality, called = SERIES[kind]
    report.SeriesDescription = f"AI {bundle.finding.short_name} {called} {IN_LISTS}"
    report.SeriesNumber = settings.series_number + list(SERIES).index(kind)
    report.SeriesDate = report.ContentDate = local.strftime("%Y%m%d")
    report.SeriesTime = report.ContentTime = local.strftime("%H%M%S.%f")


def _zone(report: Dataset) -> tzinfo | None:
    """Return the zone that Timezone Offset From UTC states, if it states one."""
    try:
        return datetime.strptime(str(report.get("TimezoneOffsetFromUTC")), "%z").tzinfo
    except ValueError:
        return None
