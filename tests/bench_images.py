"""The images of the benchmark: a part of bench.py."""

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

SIDE = 2000
"""Rows and columns of the images: 8 MB each, as a CR or DX has them."""


def real_chest(side: int) -> tuple[Dataset, np.ndarray]:
    """Return a real chest in so many rows and columns: its header, and its pixels apart."""
    ds = dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    stored = ds.pixel_array
    rows = np.arange(side) * stored.shape[0] // side
    columns = np.arange(side) * stored.shape[1] // side
    ds.Rows = ds.Columns = side
    return ds, stored[rows][:, columns]


def with_noise(chest: np.ndarray, random: np.random.Generator) -> bytes:
    """Return pixels as a file has them, with noise so that no two images agree."""
    noise = random.integers(0, 64, chest.shape, dtype=np.uint16)
    return np.minimum(chest + noise, 32767).astype(np.uint16).tobytes()


def make_images(folder: Path, studies: int, images: int) -> list[list[Path]]:
    """Return the files of each study: a real chest, enlarged, with noise."""
    ds, chest = real_chest(SIDE)
    random = np.random.default_rng(0)
    return [make_study(folder, ds, chest, random, images) for _ in range(studies)]


def make_study(
    folder: Path, ds: Dataset, chest: np.ndarray, random: np.random.Generator, images: int
) -> list[Path]:
    """Write the images of one study and return their paths."""
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    paths = []
    for _ in range(images):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.PixelData = with_noise(chest, random)
        paths.append(folder / f"{ds.SOPInstanceUID}.dcm")
        ds.save_as(paths[-1])
    return paths


def make_large(folder: Path) -> list[Path]:
    """Return the files of ten images of 100 MB."""
    ds = dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    ds.Rows = ds.Columns = 7072
    ds.StudyInstanceUID = generate_uid()
    ds.PixelData = bytes(7072 * 7072 * 2)
    paths = []
    for _ in range(10):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        paths.append(folder / "images" / f"{ds.SOPInstanceUID}.dcm")
        ds.save_as(paths[-1])
    return paths
