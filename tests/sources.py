"""Headers of radiographs as they arrive, and what is said of them: no picture, no person."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from thoracle.classify import finding
from thoracle.classify.bundle import bundle_folder
from thoracle.image import attributes
from thoracle.image.header import header_of
from thoracle.records import BundleIdentity, Decision, Outcome, Reading
from thoracle.report import context, header
from thoracle.settings import Classify
from thoracle.settings import Report as ReportSettings

FINDING = finding.read(
    json.loads((bundle_folder(Classify()) / "configs" / "metadata.json").read_text())
)
"""What the shipped bundle finds."""
BUNDLE = BundleIdentity(
    name="covid_cxr",
    version="0.1.0",
    digest="5f" * 32,
    decision=Decision(threshold=0.5, lower=0.4, upper=0.6),
    calibration="temperature(1.300)",
    finding=FINDING,
)
NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
COMMON: dict[str, Any] = {"content_datetime": NOON, "settings": ReportSettings()}
"""What every object of a result is made with."""

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


def real(name: str) -> Dataset:
    """Return the header of a real radiograph of pydicom-data, e.g. ``RG1_J2KR.dcm``."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.fail(f"{name} is missing: pip install pydicom-data")
    return header_of(Path(path))


SOURCES: dict[str, Callable[[], Dataset]] = {
    "CR MONOCHROME1": cr,
    "DX MONOCHROME2": dx,
    "JPEG 2000": lambda: real("RG1_J2KR.dcm"),
    "Greek": lambda: named(GREEK),
    "no Accession Number": lambda: dx(AccessionNumber=None, RequestAttributesSequence=None),
    "no Study Description": lambda: cr(StudyDescription=None),
}
"""What arrives, of which every kind of object has to be valid."""
each_source = pytest.mark.parametrize("arrive", SOURCES.values(), ids=SOURCES)


def positive(source: Dataset) -> Reading:
    """Return what is said of a source that is positive with 91 %."""
    return Reading(
        str(source.SOPClassUID),
        str(source.SOPInstanceUID),
        Outcome.POSITIVE,
        probability=0.91,
    )


def written(made: Dataset, folder: Path) -> Path:
    """Return the path, below a folder, of an object of ours as it is sent."""
    path = folder / f"{made.Modality}.dcm"
    path.write_bytes(header.encode(made))
    return path


def assert_same_context(source: Dataset, made: Dataset) -> None:
    """Fail unless an object has the patient and the study of a source, nothing less or more."""
    for keyword in (*context.PATIENT, *context.STUDY):
        if keyword in source:
            assert made[keyword].value == source[keyword].value, keyword
        else:
            assert not made.get(keyword), keyword


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
    found, _ = attributes.readable(pydicom.dcmread(BytesIO(buffer.getvalue())))
    return found
