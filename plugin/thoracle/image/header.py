"""The header of a DICOM file: its data set without the pixels."""

from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.misc import is_dicom

from thoracle.errors import NotAnalysable
from thoracle.records import Reason


def header_of(path: Path) -> Dataset:
    """Return a DICOM file's data set without its pixels, empty for any other file.

    Raises
    ------
    NotAnalysable
        The file is gone, or its header cannot be parsed.
    """
    try:
        return dcmread(path, stop_before_pixels=True) if is_dicom(path) else Dataset()
    except FileNotFoundError as error:
        raise NotAnalysable(Reason.UNDECODABLE, "the stored file is missing") from error
    # pydicom raises all kinds of errors for bytes from outside, RecursionError among them.
    except Exception as error:
        detail = f"the header cannot be parsed ({type(error).__name__})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
