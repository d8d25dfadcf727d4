"""An image with the patient of another image, as an archive corrects it (PS3.3 C.12.1.1.9).

The header alone is taken apart and written again: what stands from Pixel Data on is left as it is.
"""

from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from pydicom import Dataset, FileDataset, dcmread, dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian

OF_PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("TypeOfPatientID", "OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames"),
    *("PatientBirthDate", "PatientBirthTime", "PatientBirthName", "PatientSex"),
)
"""What identifies a patient (PS3.3 Section C.7.1.1)."""
UTF_8 = "ISO_IR 192"


class Beginning(NamedTuple):
    """The bytes that take the place of a file's first ones."""

    content: bytes
    """Preamble, File Meta Information and the elements before Pixel Data."""
    offset: int
    """Where, in the file as it was, the bytes begin that stay behind them."""


Corrector = Callable[[Path, Path, datetime], Beginning]
"""How :func:`with_patient_of` is called; in a child with limits where bytes are of strangers."""


def with_patient_of(path: Path, model: Path, moment: datetime) -> Beginning:
    """Return how an image begins with the patient of another one.

    Parameters
    ----------
    path, model
        The image, and the one that has the patient.
    moment
        When it is changed.

    Raises
    ------
    Exception
        Whatever pydicom raises for a header that cannot be taken apart, or written.
    """
    with path.open("rb") as file:
        ds = dcmread(file, stop_before_pixels=True)
        offset = file.tell()
    syntax = ds.file_meta.TransferSyntaxUID
    encoding = (syntax.is_implicit_VR, syntax.is_little_endian)
    if syntax == DeflatedExplicitVRLittleEndian or ds.original_encoding != encoding:
        # What stays behind it would not be of the same encoding.
        ds, offset = dcmread(path), path.stat().st_size
    as_patient_of(ds, dcmread(model, stop_before_pixels=True), moment)
    return Beginning(_written(ds), offset)


def as_patient_of(ds: Dataset, model: Dataset, moment: datetime) -> None:
    """Give an image the patient of another one, and note what it said before."""
    before = Dataset()
    if ds.get("SpecificCharacterSet") != model.get("SpecificCharacterSet"):
        ds.decode()
        ds.SpecificCharacterSet = UTF_8
    for keyword in OF_PATIENT:
        if keyword in ds:
            before[keyword] = ds[keyword]
            del ds[keyword]
        if keyword in model:
            ds[keyword] = model[keyword]
    change = Dataset()
    change.ModifiedAttributesSequence = [before]
    change.AttributeModificationDateTime = moment.strftime("%Y%m%d%H%M%S")
    change.ModifyingSystem = "THORACLE"
    change.SourceOfPreviousValues = ""
    change.ReasonForTheAttributeModification = "COERCE"
    ds.OriginalAttributesSequence = [*(ds.get("OriginalAttributesSequence") or []), change]


def _written(ds: FileDataset) -> bytes:
    written = BytesIO()
    dcmwrite(written, ds, enforce_file_format=True)
    return written.getvalue()
