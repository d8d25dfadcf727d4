"""The smallest study with which OHIF shows a black viewport in place of a valid report.

``python tests/ohif_defect.py FOLDER`` writes it: an image, and a report on it by TID 1500 with one
measurement group that has no coordinates. docs/ohif-defect.md is the text that goes with it.
"""

import sys
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from radiographs import radiograph, saved
from sources import BUNDLE, COMMON
from thoracle.records import Outcome, Reading
from thoracle.report import header, sr

STUDY = "2.25.2026"


def image() -> Dataset:
    """Return an image of 64 x 64 pixels, without a patient."""
    ramp = np.tile(np.arange(0, 4096, 64, dtype=np.uint16), (64, 1))
    ds = radiograph(ramp, PatientName="Anonymous", PatientID="1", SeriesDescription="A ramp")
    ds.StudyInstanceUID = STUDY
    ds.SeriesInstanceUID, ds.SOPInstanceUID = f"{STUDY}.1", f"{STUDY}.1.1"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def report(source: Dataset) -> Dataset:
    """Return a report of ours on it, without the coordinates of its one measurement."""
    uids = str(source.SOPClassUID), str(source.SOPInstanceUID)
    made = sr.build([source], [Reading(*uids, Outcome.NEGATIVE, probability=0.1)], BUNDLE, **COMMON)
    (number,) = _numbers(made)
    del number.ContentSequence
    return header.identified(made, source, made.SOPClassUID)


def _numbers(item: Dataset) -> list[Dataset]:
    found = [item] if item.ValueType == "NUM" else []
    for child in item.get("ContentSequence", []):
        found += _numbers(child)
    return found


def write(folder: Path) -> tuple[Path, Path]:
    """Write both into a folder; return their paths."""
    path = saved(image(), folder / "image.dcm")
    made = folder / "report.dcm"
    made.write_bytes(header.encode(report(dcmread(path, stop_before_pixels=True))))
    return path, made


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
