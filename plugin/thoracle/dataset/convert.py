"""PNG and JPEG images become DICOM files: the same image always the same bytes.

Pixels are decoded as serving decodes them, and stored so that ``pixels`` makes the same image of
the DICOM file as of the picture. Nothing else of the file is copied: no text, Exif or profile.
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thoracle.dataset.fingerprint import check_signature
from thoracle.dataset.header import Picture, header
from thoracle.dataset.layout import Entry
from thoracle.errors import NotAnalysable, ThoracleError
from thoracle.image.codecs import decode_file
from thoracle.store import files

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
            files.keep(folder / f"{entry.name}.dcm", encoded(entry, kind))
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
        raise ThoracleError(f"found {found} pixels, required are at most {MOST_ROWS_COLUMNS}")
    ratio = stored.array.nbytes / len(content) if stored.format == "JPEG" else None
    ds = header(Picture(content, array, ratio), entry.row, kind)
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
