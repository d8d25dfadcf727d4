"""Lossy or not, by the code stream, whatever syntax and attributes say."""

import contextlib
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from radiographs import FULL_12_BIT, gradient, radiograph, saved
from thoracle.errors import NotAnalysable
from thoracle.image import pixels
from thoracle.image.codecs import decode_file
from thoracle.image.decoder import Decoder
from thoracle.image.header import header_of

SENTENCE = "Lossy compression, ratio not stated."


def run(*command: str | Path) -> None:
    subprocess.run([*command], check=True, capture_output=True)


def noisy() -> np.ndarray:
    rng = np.random.default_rng(1)
    values: np.ndarray = np.clip(gradient(64, 64) + rng.integers(-90, 90, (64, 64)), 0, 4095)
    return values.astype(np.uint16)


def compressed(path: Path, syntax: UID, **options: Any) -> Path:
    ds = radiograph(noisy(), **FULL_12_BIT)
    ds.compress(syntax, generate_instance_uid=False, **options)
    if "LossyImageCompression" in ds:
        del ds.LossyImageCompression
    return saved(ds, path)


@pytest.mark.parametrize(
    ("syntax", "options", "lossy"),
    [
        (JPEGLSLossless, {}, False),
        (JPEGLSNearLossless, {"jls_error": 3}, True),
        (JPEG2000Lossless, {}, False),
        (JPEG2000, {"j2k_cr": [20]}, True),
        (RLELossless, {}, False),
    ],
    ids=["LS", "LS near", "2000", "2000 irreversible", "RLE"],
)
def test_the_code_stream_says_whether_it_is_lossy(
    syntax: UID, options: dict[str, Any], lossy: bool, tmp_path: Path
) -> None:
    path = compressed(tmp_path / "a.dcm", syntax, **options)
    assert (header_of(path).get("LossyImageCompression") == "01") is lossy
    assert (SENTENCE in pixels.read_image(path).limitations) is lossy


def test_near_lossless_syntax_without_loss_is_lossless(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", JPEGLSLossless)
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = JPEGLSNearLossless
    assert header_of(saved(ds, path)).get("LossyImageCompression") is None


def test_irreversible_under_the_general_syntax_is_seen_behind_a_jp2_header(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", JPEG2000, j2k_cr=[20])
    ds = dcmread(path)
    stream = b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\0jp2c" + ds.PixelData[16:]
    ds.PixelData = encapsulate([stream])
    assert header_of(saved(ds, path)).LossyImageCompression == "01"


def jpeg(path: Path) -> Path:
    buffer = BytesIO()
    Pillow.fromarray((noisy() >> 4).astype(np.uint8)).save(buffer, "JPEG", quality=80)
    ds = radiograph((noisy() >> 4).astype(np.uint8))
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([buffer.getvalue()])
    ds["PixelData"].is_undefined_length = True
    return saved(ds, path)


def test_jpeg_is_lossy_by_its_process(tmp_path: Path) -> None:
    assert SENTENCE in pixels.read_image(jpeg(tmp_path / "a.dcm")).limitations


@pytest.mark.parametrize("length", [0, 8, 20, 30, 60])
def test_a_stream_that_is_cut_short_says_nothing(length: int, tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.dcm")
    content = path.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00")
    path.write_bytes(content[: start + 12 + length])
    assert "LossyImageCompression" not in header_of(path)


def test_attributes_that_say_lossy_are_believed(tmp_path: Path) -> None:
    ds = radiograph(noisy(), **FULL_12_BIT, LossyImageCompression="01")
    assert header_of(saved(ds, tmp_path / "a.dcm")).LossyImageCompression == "01"


def test_jpeg_of_12_bits_is_decoded_as_dcmdjpeg_decodes_it(tmp_path: Path) -> None:
    path = saved(radiograph(noisy(), **FULL_12_BIT), tmp_path / "a.dcm")
    run("dcmcjpeg", "+ee", path, tmp_path / "extended.dcm")
    run("dcmdjpeg", tmp_path / "extended.dcm", tmp_path / "native.dcm")
    found = decode_file(tmp_path / "extended.dcm").array
    theirs: Dataset = dcmread(tmp_path / "native.dcm")
    assert theirs.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert found.dtype == np.uint16
    assert np.array_equal(found, theirs.pixel_array)
    assert header_of(tmp_path / "extended.dcm").LossyImageCompression == "01"


def test_jpeg_of_12_bits_that_is_cut_short_is_refused_or_decoded(tmp_path: Path) -> None:
    path = saved(radiograph(noisy(), **FULL_12_BIT), tmp_path / "a.dcm")
    run("dcmcjpeg", "+ee", path, tmp_path / "extended.dcm")
    ds = dcmread(tmp_path / "extended.dcm")
    ds.PixelData = ds.PixelData[:200] + b"\0" * (len(ds.PixelData) - 200)
    saved(ds, tmp_path / "cut.dcm")
    with Decoder(2048, 60) as decoder:
        with contextlib.suppress(NotAnalysable):
            assert decoder.decode(tmp_path / "cut.dcm").array.shape == (64, 64)
        assert np.array_equal(decoder.decode(path).array, noisy())
