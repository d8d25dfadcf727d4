"""PNG and JPEG images become DICOM files: the same image always the same bytes.

Pixels are decoded as serving decodes them, and stored so that ``pixels`` makes the same image of
the DICOM file as of the picture. Nothing else of the file is copied: no text, Exif or profile.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from thoracle import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from thoracle.dataset.fingerprint import check_signature
from thoracle.dataset.layout import Entry
from thoracle.errors import NotAnalysable, ThoracleError
from thoracle.image.codecs import decode_file
from thoracle.report.identity import derived_uid
from thoracle.store import files

# ---- header --------------------------------------------------------------------------------------
# The attributes around the pixels: what is known is stated, what is not stays empty.
#
# What the standard wants and nobody knows is filled so that it cannot be taken for knowledge, and
# Image Comments says so: an Imager Pixel Spacing of 1 mm, Burned In Annotation YES, and a Patient
# Orientation by convention.

_VIEWS = {
    "PA": codes.SCT.PosteroAnterior,
    "AP": codes.SCT.AnteroPosterior,
    "LATERAL": codes.SCT.LateralProjection,
}
_UNKNOWN = ("", "UNKNOWN")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image as decoded, and the file it came from."""

    content: bytes
    """The whole file."""
    stored: NDArray[Any]
    """``(rows, columns)``, uint8 or uint16, using all bits; more is brighter."""
    lossy_ratio: float | None
    """Decoded bytes by compressed bytes when the file is a JPEG; else ``None``."""


def header(picture: SourceImage, row: Mapping[str, str], kind: Literal["dx", "sc"]) -> Dataset:
    """Return the data set of an image, pixels included.

    Parameters
    ----------
    picture
        The image.
    row
        What a manifest says of it; read are ``patient_id``, ``view``, ``age_group``, ``label``,
        ``source_repo``, ``source_path`` and ``licence``. The class is not carried.
    kind
        ``dx`` for DX Image Storage For Presentation, ``sc`` for Secondary Capture.

    Raises
    ------
    ThoracleError
        The manifest says that this is no radiograph of the chest, which DX would deny.

    References
    ----------
    PS3.3 A.26, A.8.1, C.7.1.1, C.7.6.1, C.8.6.1, C.8.11.
    """
    view = row.get("view", "").strip().upper()
    is_chest = view != "CT" and row.get("label", "").strip().lower() != "other"
    if kind == "dx" and not (is_chest and view in (*_VIEWS, *_UNKNOWN)):
        found = f"view {view or 'not stated'} and label {row.get('label') or 'not stated'}"
        raise ThoracleError(f"found {found}, required: a chest radiograph, or SOP class sc")
    ds = Dataset()
    _add_patient(ds, picture, row)
    _add_image(ds, picture)
    _add_anatomy(ds, is_chest, view)
    ds.ImageComments = _comments(row, kind)
    if kind == "dx":
        _add_dx(ds, view)
    else:
        _add_sc(ds, view)
    _add_identity(ds, picture, kind, view)
    return ds


def _add_anatomy(ds: Dataset, is_chest: bool, view: str) -> None:
    """Add what the image shows, and which way round (PS3.3 C.7.3.1, C.7.6.1.1.1)."""
    if is_chest:
        ds.BodyPartExamined = "CHEST"
    else:
        ds.Laterality = ""  # it might be one of a pair
    # DX wants it. Pictures are shown upright, frontal ones facing the reader: a convention.
    ds.PatientOrientation = ["L" if view in ("PA", "AP") else "", "F"]


def _add_patient(ds: Dataset, picture: SourceImage, row: Mapping[str, str]) -> None:
    """Add a pseudonym (PS3.3 C.7.1.1): the manifest's, or one made of the file."""
    stated = row.get("patient_id", "").strip()
    if stated and stated == ascii_text(stated, 64):
        ds.PatientID = stated
    else:  # cut or respelled, two names could become one
        digest = hashlib.sha256(stated.encode() or picture.content).hexdigest()
        ds.PatientID = f"sha256-{digest[:32]}"
    ds.PatientName = f"Pseudonym^{ds.PatientID}"[:64]
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "Made of a picture; nothing else was taken from its file"
    group = ascii_text(row.get("age_group", ""), 64)
    if group.upper() not in _UNKNOWN:
        # Patient's Age wants a number of years, which nobody knows.
        ds.PatientComments = f"Age group: {group}"
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID = ""
    ds.Manufacturer = ""  # never our name: it would be refused as our own output


def _add_image(ds: Dataset, picture: SourceImage) -> None:
    """Add what pixels are and how to show them (PS3.3 C.7.6.1, C.7.6.3, C.11.2)."""
    bits = picture.stored.dtype.itemsize * 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = picture.stored.shape
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0
    # LINEAR over the full range: (x - (c - 0.5)) / (w - 1) + 0.5 = x / (2^bits - 1)
    ds.WindowCenter, ds.WindowWidth = 2 ** (bits - 1), 2**bits
    ds.PresentationLUTShape = "IDENTITY"
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.DerivationDescription = "Converted from a picture file"
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.BurnedInAnnotation = "YES"  # nobody has looked, and published figures carry letters
    ds.LossyImageCompression = "00"
    if picture.lossy_ratio is not None:
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionMethod = "ISO_10918_1"
        ds.LossyImageCompressionRatio = f"{picture.lossy_ratio:.2f}"
    data = picture.stored.astype(picture.stored.dtype.newbyteorder("<"), copy=False).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"


def _add_dx(ds: Dataset, view: str) -> None:
    """Add the modules of DX (PS3.3 C.8.11.1 to C.8.11.5)."""
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageLaterality = "U"
    ds.AnatomicRegionSequence = [_item(codes.SCT.Chest)]
    ds.DetectorType = ""
    ds.ImagerPixelSpacing = [1, 1]
    ds.PositionerType = ""
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1  # higher values where fewer X-rays arrived
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.AcquisitionContextSequence = []
    if view in ("PA", "AP"):
        ds.ViewPosition = view
    if view in _VIEWS:
        item = _item(_VIEWS[view])
        item.ViewModifierCodeSequence = []
        ds.ViewCodeSequence = [item]


def _add_sc(ds: Dataset, view: str) -> None:
    """Add the modules of Secondary Capture (PS3.3 C.8.6.1)."""
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.Modality = "OT"
    ds.ConversionType = "WSD"
    if view in ("PA", "AP"):
        # Of the CR modules; a Secondary Capture may carry it as an extension.
        ds.ViewPosition = view


def _add_identity(ds: Dataset, picture: SourceImage, kind: str, view: str) -> None:
    """Add UIDs that follow from the file, the kind, and all that is stated of the image."""
    source = hashlib.sha256(picture.content).hexdigest()
    stated = [ds.get(name, "") for name in ("PatientComments", "ImageComments")]
    ds.StudyInstanceUID = derived_uid(f"dataset {kind} study", source, ds.PatientID)
    ds.SeriesInstanceUID = derived_uid(f"dataset {kind} series", source, ds.PatientID)
    ds.SOPInstanceUID = derived_uid(f"dataset {kind}", source, ds.PatientID, view, *stated)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta


def _comments(row: Mapping[str, str], kind: str) -> str:
    """Return where the image is from, under which licence, and what was filled in."""
    source = "/".join(row[name] for name in ("source_repo", "source_path") if row.get(name))
    sentences = [
        f"Source: {source}." if source else "",
        f"Licence: {row['licence']}." if row.get("licence") else "",
        "Imager Pixel Spacing is unknown and stated as 1 mm." if kind == "dx" else "",
        "Patient Orientation is that of a picture shown as usual.",
        "Burned-in annotation was not looked for.",
    ]
    return ascii_text(" ".join(filter(None, sentences)), 10240)


def ascii_text(text: str, most: int) -> str:
    """Return text in printable ASCII without backslash, of at most so many characters."""
    letters = unicodedata.normalize("NFKD", text)
    kept = (letter for letter in letters if not unicodedata.combining(letter))
    # A backslash would part one value into two (PS3.5 Section 6.2).
    plain = "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in kept)
    return plain.strip()[:most]


def _item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item


# ---- conversion ----------------------------------------------------------------------------------

_LUMA = np.array([0.299, 0.587, 0.114])  # as in ``pixels``
Kind = Literal["dx", "sc"]
MOST_ROWS_COLUMNS = 65535
"""Rows and Columns have VR US (PS3.3 Section C.7.6.3)."""


def convert(entries: Iterable[Entry], folder: Path, kind: Kind) -> Iterator[tuple[Entry, str]]:
    """Write a DICOM file for each image, and yield the image with nothing, or with what is wrong.

    Parameters
    ----------
    entries
        The images.
    folder
        Where the files go, below it as they lie in the set, ``.dcm`` added to their names. A file
        is there as a whole or not at all; one of that name is replaced.
    kind
        ``dx`` for DX Image Storage For Presentation, ``sc`` for Secondary Capture.
    """
    for entry in entries:
        try:
            files.write_durably(folder / f"{entry.name}.dcm", encoded(entry, kind))
        except NotAnalysable as error:
            yield entry, error.detail
        except (ThoracleError, OSError) as error:
            yield entry, str(error)
        else:
            yield entry, ""


def encoded(entry: Entry, kind: Kind) -> bytes:
    """Return the DICOM file of an image.

    Raises
    ------
    ThoracleError
        The image cannot be read, or is nothing that an object of this kind may be.
    """
    content = entry.path.read_bytes()
    check_signature(content)
    stored = decode_file(entry.path)
    array = grey(stored.array)
    if max(array.shape) > MOST_ROWS_COLUMNS:
        found = " x ".join(map(str, array.shape))
        raise ThoracleError(f"found {found} pixels, required: at most {MOST_ROWS_COLUMNS}")
    ratio = stored.array.nbytes / len(content) if stored.format == "JPEG" else None
    ds = header(SourceImage(content, array, ratio), entry.row, kind)
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def grey(array: NDArray[Any]) -> NDArray[Any]:
    """Return stored values, ``(rows, columns)``, for MONOCHROME2 over all bits of their type.

    Grey stays as it is, 8 or 16 bit. So does colour with three equal channels. Other colours
    become their brightness in 16 bit, since 8 would round it by up to 1/510 of full scale.
    """
    if array.ndim == 2:
        return array
    if (array == array[..., :1]).all():
        return np.ascontiguousarray(array[..., 0])
    brightness: NDArray[np.uint16] = np.rint(array @ (_LUMA * 257)).astype(np.uint16)
    return brightness
