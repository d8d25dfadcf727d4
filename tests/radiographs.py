"""Radiographs built in code: what the tests feed to the pipeline, with nothing committed."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from thoracle.image import pixels

FULL_12_BIT = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
"""LINEAR: y = (x - 2047.5) / 4095 + 0.5 = x / 4095."""


def radiograph(stored: NDArray[Any], **attributes: object) -> Dataset:
    """Return a frontal chest CR with these stored values.

    Parameters
    ----------
    stored
        ``(rows, columns)`` integers of 8, 16 or 32 bit, or ``(rows, columns, 3)`` of 8 bit.
    attributes
        Elements by keyword, added or put in place of the defaults; ``None`` removes one.
    """
    bits = stored.dtype.itemsize * 8
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.StudyDate = "20200401"
    ds.StudyTime = "101500"
    ds.AccessionNumber = "A1"
    ds.StudyID = "1"
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.ReferringPhysicianName = ""
    ds.Manufacturer = "Maker"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "P1"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "F"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.Modality = "CR"
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = "PA"
    ds.PatientOrientation = ["L", "F"]
    ds.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = stored.shape[:2]
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    with disable_value_validation():  # senders break the rules of value representations
        for keyword, value in attributes.items():
            if keyword in ds:
                delattr(ds, keyword)  # an element validates as it did when it was made
            if value is not None:
                setattr(ds, keyword, value)
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds


def gradient(rows: int = 512, columns: int = 512) -> NDArray[np.uint16]:
    """Return 12 bit values, ``(rows, columns)``, that grow from corner to corner."""
    y, x = np.mgrid[0:rows, 0:columns]
    values: NDArray[np.uint16] = (4095 * (x + y) / (rows + columns - 2)).astype(np.uint16)
    return values


@cache
def lungs() -> NDArray[np.uint16]:
    """Return 12 bit values, ``(512, 512)``, of a real chest: the input gate takes no drawing.

    It is RG1 of pydicom-data.
    """
    path = get_testdata_file("RG1_UNCR.dcm", download=False)
    assert isinstance(path, str), "found no pydicom-data, required: the dependency group test"
    image = torch.from_numpy(pixels.read_image(Path(path)).array)
    small = torch.nn.functional.interpolate(image[None], (512, 512), mode="area")[0, 0]
    values: NDArray[np.uint16] = (small * 4095).round().numpy().astype(np.uint16)
    return values


def chest(**attributes: object) -> Dataset:
    """Return a frontal chest radiograph of 512 x 512 pixels that Thoracle analyses."""
    return radiograph(lungs(), **attributes)


def silent(**attributes: object) -> Dataset:
    """Return a radiograph that states neither body part nor view, but for what is given."""
    keywords = ("BodyPartExamined", "ViewPosition", "PatientOrientation")
    return chest(**dict.fromkeys(keywords) | attributes)


def coded(code: Code) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = "x"
    return item


def saved(ds: Dataset, path: Path) -> Path:
    """Return the path, where the data set now is as a Part 10 file."""
    ds.save_as(path, enforce_file_format=True)
    return path


def displayed(stored: NDArray[Any], **attributes: object) -> list[float]:
    """Return the display values of stored ones, 0 to 1."""
    image = pixels.radiograph(radiograph(stored, **attributes), stored)
    return [float(value) for value in image.array.ravel()]


def words(*values: int) -> NDArray[np.uint16]:
    """Return one row of 16 bit values."""
    return np.array([values], np.uint16)
