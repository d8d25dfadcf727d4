"""Outlines of lungs, drawn by hand, for the images of ieee8023 that have one.

They are V7 Labs' annotations of the ieee8023 collection, as torchxrayvision ships them: a ZIP
archive inside its wheel, one PNG an image, under the image's name. Only the wheel is read; the
package is never installed or imported.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scripts.data import read_rows
from scripts.wheels import member

REQUIREMENT = "torchxrayvision==1.5.7"
MEMBER = "torchxrayvision/data/semantic_masks_v7labs_lungs.zip"
COLLECTION = "covid-chestxray-dataset"
INSIDE = 128
"""Grey value from which a pixel of an outline is lung; a few files are JPEG and not pure."""


def mask_entries(
    split_file: str, dataset_dir: str, wheel: str, output_dir: str, parts: list[str]
) -> list[dict[str, Any]]:
    """Return one dictionary for each image of the split that has an outline.

    Parameters
    ----------
    split_file
        docs/split.csv of the bundle.
    dataset_dir
        Folder ``kaggle`` of the data; its manifest.csv names the images' sources.
    wheel
        torchxrayvision's wheel.
    output_dir
        Folder in which the masks are written as PNG, 255 in lungs.
    parts
        Parts of the split to take.

    Returns
    -------
    list
        ``image`` and ``lungs`` are paths.

    Raises
    ------
    FileNotFoundError
        There is no such wheel.
    """
    folder = Path(output_dir) / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    content = member(wheel, MEMBER, REQUIREMENT)
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        members = {Path(name).name: name for name in inner.namelist()}
        found = []
        for path in _frontal(split_file, dataset_dir, parts):
            name = members.get(Path(path["source_path"]).name)
            if name is None:
                continue
            mask = _mask(inner.read(name))
            if not _same_shape(mask, path):
                continue
            target = folder / f"{path['sha256']}.png"
            Image.fromarray(mask).save(target)
            found.append({"image": str(Path(dataset_dir, path["path"])), "lungs": str(target)})
    return found


def _frontal(split_file: str, dataset_dir: str, parts: list[str]) -> list[dict[str, str]]:
    """Return the manifest's rows of the images of ieee8023 in parts of the split."""
    rows = read_rows(split_file)
    wanted = {row["path"].removeprefix("kaggle/") for row in rows if row["split"] in parts}
    manifest = read_rows(Path(dataset_dir) / "manifest.csv")
    return [r for r in manifest if r["path"] in wanted and COLLECTION in r["source_repo"]]


def _mask(content: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(content)) as image:
        return np.where(np.asarray(image.convert("L")) >= INSIDE, 255, 0).astype(np.uint8)


def _same_shape(mask: np.ndarray[Any, Any], row: dict[str, str]) -> bool:
    """Return whether the outline has the proportions of the image: three were cut since."""
    rows, columns = mask.shape
    aspect = int(row["orig_width"]) / int(row["orig_height"])
    return abs(columns / rows - aspect) < 0.02
