"""The Image Pixel module with what it does not state (PS3.3 Section C.7.6.3).

The decoder's child and its parent ask this one module, so that both take the same.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import RLELossless

from thoracle.image.attributes import LONGEST_QUOTE, Fault

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = (
    "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT",
)  # fmt: skip
PALETTE = "PALETTE COLOR"
ESSENTIAL = ("Rows", "Columns", "BitsAllocated")
"""Without these there is no image, and nothing else says what they are."""


def complete(ds: Dataset) -> tuple[Fault, ...]:
    """Add to a data set that :func:`attributes.readable` made what it has to state and does not.

    Rows, Columns and Bits Allocated cannot be known; the others follow from what is stated, or are
    what nearly all images have.

    Returns
    -------
    tuple of Fault
        About values that are there and cannot be meant.
    """
    return (*_kind(ds), *_cells(ds))


def _kind(ds: Dataset) -> list[Fault]:
    """Complete what a pixel consists of."""
    photometric = str(ds.get("PhotometricInterpretation") or "").strip().upper()
    known = photometric in (*GREY, *COLOUR, PALETTE)
    samples, faults = ds.get("SamplesPerPixel"), []
    if samples is None:
        samples = ds.SamplesPerPixel = 3 if photometric in COLOUR else 1
    if not known:
        taken = "RGB" if samples == 3 else "MONOCHROME2"
        found = repr(photometric[:LONGEST_QUOTE]) if photometric else "none"
        required = "MONOCHROME1, MONOCHROME2 or another term of PS3.3 Section C.7.6.3.1.2"
        faults.append(Fault("PhotometricInterpretation", found, required, f"{taken} is taken"))
        photometric = taken
    ds.PhotometricInterpretation = photometric
    if samples == 3 and ds.get("PlanarConfiguration") not in (0, 1):
        ds.PlanarConfiguration = 0
    frames = ds.get("NumberOfFrames")
    if frames is None or int(frames) < 1:
        if frames is not None:
            faults.append(Fault("NumberOfFrames", repr(str(frames)), "1"))
        ds.NumberOfFrames = 1
    return faults


def _cells(ds: Dataset) -> list[Fault]:
    """Complete where the value is in its cell."""
    allocated = ds.get("BitsAllocated")
    if not allocated:
        return []
    faults = []
    stored, high = ds.get("BitsStored"), ds.get("HighBit")
    if not stored or stored > allocated:
        if stored is not None:
            faults.append(Fault("BitsStored", repr(str(stored)), f"1 to {allocated}"))
        ds.BitsStored = stored = allocated
    if high is None or not stored - 1 <= high < allocated:
        if high is not None:
            faults.append(Fault("HighBit", repr(str(high)), f"{stored - 1} to {allocated - 1}"))
        ds.HighBit = stored - 1
    signed = ds.get("PixelRepresentation")
    if signed not in (0, 1):
        if signed is not None:
            faults.append(Fault("PixelRepresentation", repr(str(signed)), "0 or 1"))
        ds.PixelRepresentation = 0
    return faults


def stored_values(ds: Dataset, cells: NDArray[Any]) -> NDArray[np.int64]:
    """Return the values in pixel cells, without their unused bits (PS3.5 Section 8.1.1).

    Parameters
    ----------
    ds
        What :func:`complete` returned.
    cells
        Integers of any shape.
    """
    cells, bits = cells.astype(np.int64), int(ds.BitsStored)
    syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    # Codecs right-justify what they decode; run-length encoding keeps the cells as they were.
    if syntax is None or not syntax.is_compressed or syntax == RLELossless:
        cells = cells >> max(0, int(ds.get("HighBit", bits - 1)) - bits + 1)
    values: NDArray[np.int64] = cells & (2**bits - 1)
    if ds.PixelRepresentation:
        values = np.where(values >= 2 ** (bits - 1), values - 2**bits, values)
    return values
