"""Files of all kinds through the codecs: stored values, or the reason why not."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from radiographs import gradient, radiograph, saved
from thoracle.errors import NotAnalysable
from thoracle.image import pixels
from thoracle.image.codecs import LARGEST_IMAGE_BYTES, decode_file
from thoracle.records import Reason


def refused(path: Path) -> NotAnalysable:
    with pytest.raises(NotAnalysable) as refusal:
        decode_file(path)
    return refusal.value


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_stored_values_come_back_unchanged(dtype: type, tmp_path: Path) -> None:
    info = np.iinfo(dtype)
    stored: NDArray[Any] = np.array([[info.min, 0, 1], [2, 100, info.max]], dtype)
    answer = decode_file(saved(radiograph(stored), tmp_path / "a.dcm"))
    assert answer.format == "DICOM"
    assert answer.array.dtype == stored.dtype
    assert np.array_equal(answer.array, stored)


def test_colour_comes_back_as_red_green_blue(tmp_path: Path) -> None:
    stored = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    answer = decode_file(saved(radiograph(stored), tmp_path / "a.dcm"))
    assert np.array_equal(answer.array, stored)


def test_several_frames_are_refused(tmp_path: Path) -> None:
    path = saved(radiograph(gradient(), NumberOfFrames=2), tmp_path / "a.dcm")
    assert refused(path).reason is Reason.GEOMETRY


def test_a_data_set_without_pixel_data_is_no_image(tmp_path: Path) -> None:
    ds = radiograph(gradient())
    del ds.PixelData
    assert refused(saved(ds, tmp_path / "a.dcm")).reason is Reason.NO_IMAGE


def test_a_truncated_image_is_undecodable(tmp_path: Path) -> None:
    ds = radiograph(gradient())
    ds.PixelData = ds.PixelData[:1000]
    assert refused(saved(ds, tmp_path / "a.dcm")).reason is Reason.UNDECODABLE


def test_an_image_above_the_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = saved(radiograph(gradient(), Rows=65535, Columns=65535), tmp_path / "a.dcm")
    error = refused(path)
    assert error.detail == (
        f"found {65535 * 65535 * 2} bytes of pixels, required: at most {LARGEST_IMAGE_BYTES}"
    )


@pytest.mark.parametrize(
    "content", [b"", b"junk" * 99, b"\x89PNG\r\n\x1a\n" + b"\0" * 99, b"\xff\xd8\xff" + b"\0" * 99]
)
def test_what_is_no_image_is_undecodable(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert refused(tmp_path / "a").reason is Reason.UNDECODABLE


def test_a_missing_file_is_refused_without_its_path(tmp_path: Path) -> None:
    error = refused(tmp_path / "Doe^Jane.dcm")
    assert error.reason is Reason.UNDECODABLE
    assert "Doe" not in error.detail


def test_a_png_that_unfolds_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    header = struct.pack(">II5B", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + b"\0" * 4
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    assert refused(tmp_path / "bomb.png").reason is Reason.UNDECODABLE


PICTURES: list[tuple[str, NDArray[Any], list[float]]] = [
    ("L.png", np.array([[0, 51, 255]], np.uint8), [0, 0.2, 1]),
    ("I;16.png", np.array([[0, 13107, 65535]], np.uint16), [0, 0.2, 1]),
    ("LA.png", np.array([[[0, 0], [51, 9], [255, 255]]], np.uint8), [0, 0.2, 1]),
    ("RGB.png", np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8), [0, 0.299]),
    ("RGBA.png", np.array([[[0, 0, 0, 0], [0, 255, 0, 0]]], np.uint8), [0, 0.587]),
]


@pytest.mark.parametrize(
    ("name", "array", "expected"), PICTURES, ids=[name for name, *_ in PICTURES]
)
def test_pictures_become_luma_over_full_scale(
    name: str, array: NDArray[Any], expected: list[float], tmp_path: Path
) -> None:
    Pillow.fromarray(array).save(tmp_path / name)
    image = pixels.read_image(tmp_path / name)
    assert image.array.shape == (1, 1, len(expected))
    assert image.array.dtype == np.float32
    assert image.array.ravel().tolist() == pytest.approx(expected)
    assert image.limitations == ()


def test_a_picture_with_a_palette_is_read_through_it(tmp_path: Path) -> None:
    picture = Pillow.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([255, 255, 255, 0, 0, 255])
    picture.save(tmp_path / "P.png")
    assert pixels.read_image(tmp_path / "P.png").array.ravel().tolist() == pytest.approx([1, 0.114])


def test_a_jpeg_file_is_marked_lossy_and_its_exif_orientation_ignored(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    wide = np.repeat(np.array([[0, 255]], np.uint8), 8, axis=1).repeat(8, axis=0)
    Pillow.fromarray(wide).save(tmp_path / "a.jpg", exif=exif, quality=100)
    image = pixels.read_image(tmp_path / "a.jpg")
    assert image.array.shape == (1, 8, 16)
    assert image.array[0, :, :6].max() < 0.05
    assert image.array[0, :, 10:].min() > 0.95
    assert image.limitations == ("Lossy compression: JPEG file.",)


def test_a_flat_picture_is_refused(tmp_path: Path) -> None:
    Pillow.new("L", (8, 8), 128).save(tmp_path / "flat.png")
    with pytest.raises(NotAnalysable, match=r"span 0\.0000"):
        pixels.read_image(tmp_path / "flat.png")
