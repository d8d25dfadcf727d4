"""Patient, study and request of the source, copied as they are: nothing invented, nothing dropped.

Text comes decoded (image/attributes.py), so that it can be written in another character set.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import FileDataset, config, dcmread, dcmwrite
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.misc import is_dicom
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from thoracle import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from thoracle.errors import ThoracleError
from thoracle.image import attributes, header
from thoracle.report.identity import digest

# ---- context -------------------------------------------------------------------------------------

# PS3.3 C.7.1.1 Patient and C.7.1.3 Clinical Trial Subject
PATIENT = """
ReferencedPatientSequence PatientName PatientID IssuerOfPatientID TypeOfPatientID
IssuerOfPatientIDQualifiersSequence SourcePatientGroupIdentificationSequence
GroupOfPatientsIdentificationSequence PatientBirthDate PatientBirthTime
PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar
PatientAlternativeCalendar PatientSex QualityControlSubject OtherPatientIDs OtherPatientNames
OtherPatientIDsSequence ReferencedPatientPhotoSequence EthnicGroup EthnicGroupCodeSequence
PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription
PatientBreedCodeSequence BreedRegistrationSequence ResponsiblePerson ResponsiblePersonRole
ResponsibleOrganization PatientComments PatientIdentityRemoved DeidentificationMethod
DeidentificationMethodCodeSequence ClinicalTrialSponsorName ClinicalTrialProtocolID
ClinicalTrialProtocolName IssuerOfClinicalTrialProtocolID ClinicalTrialSiteID ClinicalTrialSiteName
IssuerOfClinicalTrialSiteID ClinicalTrialSubjectID IssuerOfClinicalTrialSubjectID
ClinicalTrialSubjectReadingID IssuerOfClinicalTrialSubjectReadingID
ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolEthicsCommitteeApprovalNumber
""".split()  # noqa: SIM905 - as a list it would take a line for each name
# PS3.3 C.7.2.1 General Study, C.7.2.2 Patient Study, C.7.2.3 Clinical Trial Study
STUDY = """
StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber IssuerOfAccessionNumberSequence
ReferringPhysicianName ReferringPhysicianIdentificationSequence ConsultingPhysicianName
ConsultingPhysicianIdentificationSequence StudyDescription ProcedureCodeSequence PhysiciansOfRecord
PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy
PhysiciansReadingStudyIdentificationSequence ReferencedStudySequence RequestingService
RequestingServiceCodeSequence ReasonForPerformedProcedureCodeSequence AdmittingDiagnosesDescription
AdmittingDiagnosesCodeSequence PatientAge PatientSize PatientSizeCodeSequence PatientBodyMassIndex
MeasuredAPDimension MeasuredLateralDimension PatientWeight MedicalAlerts Allergies Occupation
SmokingStatus AdditionalPatientHistory PregnancyStatus LastMenstrualDate PatientSexNeutered
ReasonForVisit ReasonForVisitCodeSequence AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID
ServiceEpisodeDescription IssuerOfServiceEpisodeIDSequence PatientState ClinicalTrialTimePointID
ClinicalTrialTimePointDescription LongitudinalTemporalOffsetFromEvent LongitudinalTemporalEventType
ConsentForClinicalTrialUseSequence
""".split()  # noqa: SIM905 - as a list it would take a line for each name
# Without it the dates and times of the study would change their meaning (PS3.3 C.12.1).
ZONE = ["TimezoneOffsetFromUTC"]
# Type 2: they must be there, and are empty when the source does not know.
REQUIRED = """
PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber
ReferringPhysicianName
""".split()  # noqa: SIM905 - as a list it would take a line for each name


def study_context(source: Dataset) -> Dataset:
    """Return the patient and study attributes of ``source``, decoded."""
    context = copied(source, (*PATIENT, *STUDY, *ZONE))
    for keyword in REQUIRED:
        if keyword not in context:
            setattr(context, keyword, None)
    return context


def referenced_requests(sources: Sequence[Dataset]) -> list[Dataset]:
    """Return the items of Referenced Request Sequence (PS3.3 C.17.2), one for each request.

    They follow from the Request Attributes Sequence, and without one from the Accession Number;
    with neither the list is empty.
    """
    requests: dict[tuple[str, str], Dataset] = {}
    for source in sources:
        for request in source.get("RequestAttributesSequence") or [Dataset()]:
            item = _referenced_request(source, request)
            key = (str(item.AccessionNumber or ""), str(item.RequestedProcedureID or ""))
            if any(key):
                requests.setdefault(key, item)
    return list(requests.values())


def character_set(source: Dataset, report: Dataset) -> str | Sequence[str] | None:
    """Return the Specific Character Set for ``report`` with text copied from ``source``.

    That of the source while the report stays within the default repertoire, because old archives
    dislike UTF-8; else UTF-8, which holds every repertoire.
    """
    if _is_ascii(report):
        declared: str | Sequence[str] | None = source.get("SpecificCharacterSet")
        terms = [declared] if isinstance(declared, str) else declared or []
        # Of ISO_IR 203, new in 2020, pydicom does not know how to write it.
        return declared if all(term in python_encoding or not term for term in terms) else None
    return "ISO_IR 192"


def copied(source: Dataset, keywords: Iterable[str]) -> Dataset:
    """Return the named attributes that ``source`` has, decoded.

    Empty sequences are left out: they say nothing and are not allowed where Type is 3.
    """
    found = Dataset()
    for keyword in keywords:
        if keyword in source:
            element = source[keyword]
            if element.VR != "SQ" or len(element.value) > 0:
                found.add(_decoded(element))
    return found


def _referenced_request(source: Dataset, attributes: Dataset) -> Dataset:
    item = copied(
        attributes,
        ("RequestedProcedureID", "RequestedProcedureDescription", "RequestedProcedureCodeSequence"),
    )
    # An image of several requests has the number of each in the item, and none or one of them
    # at the top (PS3.3 Section 10.6).
    own = attributes if attributes.get("AccessionNumber") else source
    item.update(copied(own, ("AccessionNumber", "IssuerOfAccessionNumberSequence")))
    item.StudyInstanceUID = attributes.get("StudyInstanceUID") or source.StudyInstanceUID
    for keyword in (
        "AccessionNumber",
        "RequestedProcedureID",
        "RequestedProcedureDescription",
        "RequestedProcedureCodeSequence",
        "ReferencedStudySequence",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
    ):  # Type 2
        if keyword not in item:
            setattr(item, keyword, [] if keyword.endswith("Sequence") else None)
    return item


def _is_ascii(dataset: Dataset) -> bool:
    return all(
        str(element.value).isascii()
        for element in dataset.iterall()
        if element.VR != "SQ" and not isinstance(element.value, bytes)
    )


def _decoded(element: DataElement) -> DataElement:
    """Return the element without a tie to the character set that it was read with."""
    value: Any
    match element.VR:
        case "SQ":
            value = [_decoded_item(item) for item in element.value]
        case "PN" if isinstance(element.value, MultiValue):
            value = [str(name) for name in element.value]
        case "PN":
            value = [str(element.value)]  # a list: a text would be split at a backslash
        case _:
            return copy(element)
    # Whatever the source has is copied, also what is against the rules.
    return DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE)


def _decoded_item(item: Dataset) -> Dataset:
    decoded = Dataset()
    for element in item:
        # The item's own character set: it is decoded now. Group lengths are written nowhere.
        if element.keyword != "SpecificCharacterSet" and element.tag.element != 0:
            decoded.add(_decoded(element))
    return decoded


# ---- kept headers --------------------------------------------------------------------------------
# What is kept of an image when its file goes: what a correction states of it, and nothing else.
#
# Elements stay as they were encoded. So a correction that is made of them has the same bytes as one
# that is made of the whole image.

INSTANCE = """
SpecificCharacterSet SOPClassUID SOPInstanceUID SeriesInstanceUID InstanceNumber ViewPosition
""".split()  # noqa: SIM905 - as a list it would take a line for each name
# PS3.3 10.6 Request Attributes, and what HL7 messages say of order and visit.
REQUEST = """
RequestAttributesSequence RequestedProcedureCodeSequence PlacerOrderNumberImagingServiceRequest
FillerOrderNumberImagingServiceRequest IssuerOfAdmissionID
""".split()  # noqa: SIM905 - as a list it would take a line for each name
ATTRIBUTES = (*INSTANCE, *REQUEST, *PATIENT, *STUDY, *ZONE)
"""Keywords. A test compares them with what corrections read."""


def extract(path: Path) -> bytes | None:
    """Return the attributes of an image that corrections need, as a small Part 10 file.

    ``None`` when there is no file, or none whose header can be read: of such a header no
    correction could be made either. It was read back, and found to say the same.

    Raises
    ------
    OSError
        The file is there, and the disk does not give it.
    ThoracleError
        What was written does not say the same.
    """
    try:
        if not is_dicom(path):
            return None
        said = _readable(_read(path))
        if not said.get("SOPInstanceUID"):
            return None
        content = _encoded(_read(path), said)  # anew: a value that was looked at is converted
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno is None:  # pydicom says so of sequences that are cut short
            return None
        raise
    # pydicom raises all kinds of errors on bytes from outside, and more in future.
    except Exception:  # noqa: BLE001 - a header that cannot be taken apart is none
        return None
    if digest(read(content)) != digest(said):
        raise ThoracleError("found another header than was written, required: the same")
    return content


def read(content: bytes) -> Dataset:
    """Return the attributes that :func:`extract` kept, as ``image/header.py`` would read them."""
    return _readable(dcmread(BytesIO(content)))


def _read(path: Path) -> FileDataset:
    with path.open("rb") as file:
        return header.parse(file, stop_before_pixels=True, specific_tags=ATTRIBUTES).ds


def _readable(ds: Dataset) -> Dataset:
    return attributes.readable(ds)[0]


def _encoded(ds: FileDataset, said: Dataset) -> bytes:
    """Return a data set, which says ``said``, in the encoding in which it came, pixels apart."""
    implicit, little = ds.original_encoding
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.TransferSyntaxUID = syntax if little else ExplicitVRBigEndian
    meta.MediaStorageSOPClassUID = said.get("SOPClassUID")
    meta.MediaStorageSOPInstanceUID = said.SOPInstanceUID
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta, ds.preamble = meta, bytes(128)
    if "SpecificCharacterSet" in ds:  # its terms as they are meant: others pydicom may not write
        del ds.SpecificCharacterSet
        ds.SpecificCharacterSet = said.get("SpecificCharacterSet")
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()
