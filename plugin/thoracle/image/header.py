"""The header of a DICOM file: its data set without the pixels, each attribute read by itself."""

from pathlib import Path
from typing import NamedTuple

from pydicom import Dataset
from pydicom.misc import is_dicom

from thoracle.errors import NotAnalysable
from thoracle.image import attributes, codestream, image_pixel, part10
from thoracle.image.attributes import Fault
from thoracle.records import Reason


class Header(NamedTuple):
    """What a file says of itself."""

    ds: Dataset
    """Every value is of its kind; empty for a file that is no DICOM."""
    faults: tuple[Fault, ...] = ()
    """What could not be read, or cannot be meant."""


def read(path: Path) -> Header:
    """Return the header of a file; a value that cannot be read costs that attribute alone.

    Lossy Image Compression is what the code stream says, where that says more than the attribute
    (PS3.3 Section C.7.6.1.1.5).

    Raises
    ------
    NotAnalysable
        The file is gone, or its elements cannot be told apart.
    """
    try:
        if not is_dicom(path):
            return Header(Dataset())
        with path.open("rb") as file:
            parsed = part10.parse(file, stop_before_pixels=True)
            found, faults = attributes.readable(parsed.ds)
            if parsed.without_character_set:
                faults += (attributes.NO_CHARACTER_SET,)
            faults += image_pixel.complete(found)
            syntax = found.file_meta.get("TransferSyntaxUID")
            if syntax is not None and codestream.is_lossy(parsed.file, syntax):
                found.LossyImageCompression = "01"
    except FileNotFoundError as error:
        raise NotAnalysable(Reason.UNDECODABLE, "the stored file is missing") from error
    # pydicom raises all kinds of errors on bytes from outside, RecursionError among them.
    except Exception as error:
        detail = f"the header cannot be parsed ({type(error).__name__})"
        if isinstance(error, OSError) and error.strerror:  # pydicom's own have none
            detail = f"the stored file cannot be read ({error.strerror})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
    return Header(found, faults)


def header_of(path: Path) -> Dataset:
    """Return the data set of :func:`read`.

    Raises
    ------
    NotAnalysable
        As :func:`read`.
    """
    return read(path).ds
