"""What is kept of an image when its file goes: what a correction states of it, and nothing else.

Elements stay as they were encoded. So a correction that is made of them has the same bytes as one
that is made of the whole image.
"""

from io import BytesIO
from pathlib import Path

from pydicom import FileDataset, dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.misc import is_dicom
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from thoracle import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from thoracle.errors import ThoracleError
from thoracle.image import attributes, part10
from thoracle.report.context import PATIENT, STUDY, ZONE
from thoracle.report.identity import digest

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
        raise ThoracleError("found another header than was written, required is the same")
    return content


def read(content: bytes) -> Dataset:
    """Return the attributes that :func:`extract` kept, as ``image/header.py`` would read them."""
    return _readable(dcmread(BytesIO(content)))


def _read(path: Path) -> FileDataset:
    with path.open("rb") as file:
        return part10.parse(file, stop_before_pixels=True, specific_tags=ATTRIBUTES).ds


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
