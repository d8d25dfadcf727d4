"""Headers of radiographs as they arrive, made in code: no picture, no person."""

from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

STUDY = "2.25.1001"
GREEK = ("ISO_IR 126", "Δημητριάδης^Ξένια", "Ακτινογραφία θώρακος")
# The next two are the examples of PS3.5 Annexes H.3 and I.2.
JAPANESE = (
    ["", "ISO 2022 IR 87"],
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "胸部単純撮影",
)
KOREAN = (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "흉부 촬영")
ARABIC = ("ISO_IR 127", "قباني^لنزار", "صورة الصدر")


def cr(number: int = 1, **changes: Any) -> Dataset:
    """Return a CR, MONOCHROME1, as read without its pixels; ``None`` takes an attribute away."""
    return _received(
        {
            **_common(number),
            "SOPClassUID": ComputedRadiographyImageStorage,
            "Modality": "CR",
            "PhotometricInterpretation": "MONOCHROME1",
            "ViewPosition": "PA",
            **changes,
        }
    )


def dx(number: int = 1, **changes: Any) -> Dataset:
    """Return a DX for presentation, MONOCHROME2, with the request that it answers."""
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    request.RequestedProcedureDescription = "Chest"
    request.ScheduledProcedureStepID = "SPS1"
    return _received(
        {
            **_common(number),
            "SOPClassUID": DigitalXRayImageStorageForPresentation,
            "Modality": "DX",
            "PresentationIntentType": "FOR PRESENTATION",
            "PhotometricInterpretation": "MONOCHROME2",
            "RequestAttributesSequence": [request],
            **changes,
        }
    )


def named(language: tuple[Any, str, str], **changes: Any) -> Dataset:
    """Return a DX of a patient with a name of this language, in its own character set."""
    character_set, name, description = language
    other = Dataset()
    other.PatientID = "B-2"
    other.TypeOfPatientID = "TEXT"
    other.IssuerOfPatientID = description
    return dx(
        SpecificCharacterSet=character_set,
        PatientName=name,
        StudyDescription=description,
        OtherPatientIDsSequence=[other],
        **changes,
    )


def _common(number: int) -> dict[str, Any]:
    return {
        "SOPInstanceUID": f"{STUDY}.1.{number}",
        "SeriesInstanceUID": f"{STUDY}.1",
        "StudyInstanceUID": STUDY,
        "PatientName": "Roe^Jane",
        "PatientID": "A-1",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "StudyDate": "20260102",
        "StudyTime": "101500",
        "StudyID": "S1",
        "AccessionNumber": "ACC1",
        "ReferringPhysicianName": "Poe^John",
        "StudyDescription": "Chest",
        "InstanceNumber": number,
        "Rows": 2000,
        "Columns": 1800,
    }


def _received(values: dict[str, Any]) -> Dataset:
    """Return the data set after it went through a file, as it comes to the report."""
    sent = Dataset()
    sent.file_meta = FileMetaDataset()
    sent.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in values.items():
        if value is not None:
            setattr(sent, keyword, value)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, sent, enforce_file_format=True)
    return pydicom.dcmread(BytesIO(buffer.getvalue()), stop_before_pixels=True)
