"""PS3.4 Section N.2 with numbers worked out by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from radiographs import FULL_12_BIT, displayed, radiograph, saved, words
from thoracle.errors import NotAnalysable
from thoracle.image import pixels
from thoracle.image.decoder import Decoder
from thoracle.records import Reason


def read(stored: NDArray[Any], **attributes: object) -> Any:
    return pixels.radiograph(radiograph(stored, **attributes), stored)


def test_the_image_is_one_channel_of_float32_between_0_and_1() -> None:
    image = read(words(0, 2047, 4095), **FULL_12_BIT)
    assert image.array.shape == (1, 1, 3)
    assert image.array.dtype == np.float32
    assert image.array.min() == 0
    assert image.array.max() == 1


@pytest.mark.parametrize(
    ("photometric", "shape", "expected"),
    [
        ("MONOCHROME2", None, [0, 0.2, 1]),
        ("MONOCHROME2", "IDENTITY", [0, 0.2, 1]),
        ("MONOCHROME2", "INVERSE", [1, 0.8, 0]),
        ("MONOCHROME1", None, [1, 0.8, 0]),
        ("MONOCHROME1", "IDENTITY", [1, 0.8, 0]),
        ("MONOCHROME1", "INVERSE", [1, 0.8, 0]),
    ],
)
def test_monochrome1_is_inverted_exactly_once(
    photometric: str, shape: str | None, expected: list[float]
) -> None:
    given = {"PhotometricInterpretation": photometric} | (
        {"PresentationLUTShape": shape} if shape else {}
    )
    # 819 / 4095 = 0.2
    assert displayed(words(0, 819, 4095), **FULL_12_BIT, **given) == pytest.approx(expected)


def test_the_contradiction_of_monochrome2_and_inverse_is_a_limitation() -> None:
    image = read(words(0, 4095), **FULL_12_BIT, PresentationLUTShape="INVERSE")
    assert any("INVERSE" in sentence for sentence in image.limitations)


def test_without_a_usable_window_the_percentiles_are_the_window() -> None:
    # 0.5 % of 1000 pixels are 5: the fifth smallest value, 4, is the low end; 994 the high one.
    stored = np.arange(1000, dtype=np.uint16).reshape(20, 50)
    image = read(stored, WindowCenter=40, WindowWidth=0)
    # (499 - 4) / (994 - 4) = 0.5
    assert image.array.ravel()[[0, 4, 499, 994, 999]].tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert any("percentiles" in sentence for sentence in image.limitations)


def test_padding_is_left_out_of_the_percentiles_and_becomes_0() -> None:
    stored = words(*range(1000), *[60000] * 5000)
    array = read(stored, PixelPaddingValue=60000).array.ravel()
    assert array[499] == pytest.approx(0.5)
    assert not array[1000:].any()


def test_padding_stays_0_where_monochrome1_would_make_it_bright() -> None:
    given = FULL_12_BIT | {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    assert displayed(words(0, 1, 4095), **given) == pytest.approx([0, 4094 / 4095, 0])


@pytest.mark.parametrize(("value", "limit"), [(10, 0), (0, 10)])
def test_a_padding_range_includes_both_its_ends_in_either_order(value: int, limit: int) -> None:
    given = FULL_12_BIT | {
        "PhotometricInterpretation": "MONOCHROME1",
        "PixelPaddingValue": value,
        "PixelPaddingRangeLimit": limit,
    }
    found = displayed(words(0, 5, 10, 11, 4095), **given)
    assert found == pytest.approx([0, 0, 0, 4084 / 4095, 0])


def test_signed_padding_written_as_unsigned_is_understood() -> None:
    stored = np.array([[-2000, 0, 1000]], np.int16)
    ds = radiograph(
        stored, PhotometricInterpretation="MONOCHROME1", WindowCenter=500, WindowWidth=1001
    )
    ds.add_new("PixelPaddingValue", "US", 63536)  # -2000 + 65536
    found = pixels.radiograph(ds, stored).array.ravel().tolist()
    # 1 - ((0 - 499.5) / 1000 + 0.5) = 0.9995
    assert found == pytest.approx([0, 0.9995, 0], abs=1e-6)


def test_an_image_of_padding_alone_is_refused() -> None:
    with pytest.raises(NotAnalysable, match="padding") as refusal:
        read(words(7, 7), PixelPaddingValue=7)
    assert refusal.value.reason is Reason.FLAT


def test_unused_high_bits_are_cleared() -> None:
    stored = words(0xF000, 0xA000 + 819, 0x1FFF)  # 0, 819 and 4095 below the upper four bits
    assert displayed(stored, **FULL_12_BIT) == pytest.approx([0, 0.2, 1])


def test_signed_values_extend_from_bits_stored() -> None:
    # 12 bit: 0x800 is -2048, 0x7FF is 2047, garbage above
    stored = np.array([[0x0800, 0x07FF, 0x5000]], np.uint16).view(np.int16)
    given = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 0, "WindowWidth": 4096}
    # (x + 0.5) / 4095 + 0.5 = (x + 2048) / 4095
    assert displayed(stored, **given) == pytest.approx([0, 1, 2048 / 4095])


def test_values_above_low_order_bits_are_shifted_by_high_bit() -> None:
    stored = words(0 << 4, 819 << 4 | 0xF, 4095 << 4)
    given = FULL_12_BIT | {"HighBit": 15}
    assert displayed(stored, **given) == pytest.approx([0, 0.2, 1])


def test_a_codec_has_shifted_its_values_already() -> None:
    ds = radiograph(words(0), **FULL_12_BIT | {"HighBit": 15})
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert pixels.radiograph(ds, words(0, 4095)).array.ravel().tolist() == [0, 1]
    ds.file_meta.TransferSyntaxUID = RLELossless
    assert pixels.radiograph(ds, words(0, 4095 << 4)).array.ravel().tolist() == [0, 1]


def test_32_bit_values_take_the_same_way() -> None:
    stored = np.array([[0, 50000, 100000]], np.uint32)
    given = {"WindowCenter": 50000.5, "WindowWidth": 100001}
    assert displayed(stored, **given) == pytest.approx([0, 0.5, 1])


def test_float_values_take_the_same_way() -> None:
    stored = np.array([[0.0, 0.25, 1.0, math.nan]], np.float32)
    given = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 0.5, "WindowWidth": 1}
    ds = radiograph(words(0), **given)
    assert pixels.radiograph(ds, stored).array.ravel().tolist() == [0, 0.25, 1, 0]


def test_colour_becomes_its_luma() -> None:
    stored = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    image = read(stored)
    assert image.array.ravel().tolist() == pytest.approx([0.299, 0.587, 0.114, 1])
    assert image.limitations == ("The image is a colour image.",)


def test_palette_colour_becomes_the_luma_of_its_entries() -> None:
    stored = np.array([[0, 1, 2]], np.uint8)
    ds = radiograph(stored, PhotometricInterpretation="PALETTE COLOR")
    for colour, entries in (
        ("Red", [0, 65535, 65535]),
        ("Green", [0, 0, 65535]),
        ("Blue", [0, 0, 65535]),
    ):
        ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [3, 0, 16])
        data = np.array(entries, "<u2").tobytes()
        ds.add_new(f"{colour}PaletteColorLookupTableData", "OW", data)
    found = pixels.radiograph(ds, stored).array.ravel().tolist()
    assert found == pytest.approx([0, 0.299, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": 12.5}, "ratio 12.5"),
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": [2, 3]}, "ratio 2 then 3"),
        ({"LossyImageCompression": "01"}, "ratio not stated"),
        ({"BurnedInAnnotation": "YES"}, "Burned-in annotation"),
    ],
)
def test_what_was_done_to_the_image_is_a_limitation(
    attributes: dict[str, object], expected: str
) -> None:
    (sentence,) = read(words(0, 4095), **FULL_12_BIT, **attributes).limitations
    assert expected in sentence


@pytest.mark.parametrize(
    "attributes",
    [{}, {"WindowCenter": 9000, "WindowWidth": 2}, {"RescaleSlope": 0, "RescaleIntercept": 1}],
)
def test_an_image_without_contrast_is_refused(attributes: dict[str, object]) -> None:
    stored = np.full((20, 20), 300, np.uint16)
    stored[0, 0] = 301  # one defective pixel is no contrast
    with pytest.raises(NotAnalysable) as refusal:
        read(stored, **attributes)
    assert refusal.value.reason is Reason.FLAT


def rg1(name: str, decoder: Decoder) -> NDArray[np.float32]:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    array: NDArray[np.float32] = pixels.read_image(Path(path), decoder).array[0]
    return array


def test_lungs_are_dark_and_bone_is_bright_in_a_real_monochrome1_radiograph() -> None:
    with Decoder(2048, 60) as decoder:
        array = rg1("RG1_UNCR.dcm", decoder)
        assert array.shape == (1955, 1841)
        lungs = [array[270:350, 560:720].mean(), array[300:420, 1310:1440].mean()]
        spine, heart = array[1080:1380, 860:940].mean(), array[1230:1380, 1120:1250].mean()
        assert max(lungs) < 0.65
        assert min(spine, heart) > 0.85
        assert np.array_equal(array, rg1("RG1_J2KR.dcm", decoder))


def test_a_dicom_file_reads_the_same_in_this_process_and_in_the_child(tmp_path: Path) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = saved(radiograph(stored, **FULL_12_BIT), tmp_path / "a.dcm")
    with Decoder(2048, 60) as decoder:
        theirs = pixels.read_image(path, decoder)
    assert np.array_equal(theirs.array, pixels.read_image(path).array)
    assert theirs.array[0, 0, 0] == 0
    assert theirs.array[0, -1, -1] == 1
