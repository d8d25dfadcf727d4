"""The header of a DICOM file: its data set without the pixels."""

from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.misc import is_dicom

from thoracle.errors import NotAnalysable
from thoracle.image.codecs import MALFORMED
from thoracle.records import Reason


def header_of(path: Path) -> Dataset:
    """Return a DICOM file's data set without its pixels, empty for any other file.

    Raises
    ------
    NotAnalysable
        The header cannot be parsed.
    """
    try:
        return dcmread(path, stop_before_pixels=True) if is_dicom(path) else Dataset()
    except (*MALFORMED, OSError, EOFError) as error:
        detail = f"the header is malformed ({type(error).__name__})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error
