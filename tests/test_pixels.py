"""PS3.4 Section N.2 with numbers worked out by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from radiographs import radiograph, saved
from thoracle import pixels
from thoracle.decoder import Decoder
from thoracle.errors import NotAnalysable
from thoracle.records import Reason

FULL_12_BIT = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
"""LINEAR: y = (x - 2047.5) / 4095 + 0.5 = x / 4095."""


def displayed(stored: NDArray[Any], **attributes: object) -> list[float]:
    return list(read(stored, **attributes).array.ravel().tolist())


def read(stored: NDArray[Any], **attributes: object) -> Any:
    return pixels.radiograph(radiograph(stored, **attributes), stored)


def words(*values: int) -> NDArray[np.uint16]:
    return np.array([values], np.uint16)


def lut(
    count: int, first: int, bits: int, data: list[int] | bytes, signed: bool = False
) -> Dataset:
    item = Dataset()
    vr = "SS" if signed else "US"
    item.add_new("LUTDescriptor", vr, [count, first, bits])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return item


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


@pytest.mark.parametrize(
    ("function", "center", "width", "expected"),
    [
        # (x - (100 - 0.5)) / (11 - 1) + 0.5 for 94 (-0.05), 95, 100, 104, 105 (1.05)
        ("LINEAR", 100, 11, [0, 0.05, 0.55, 0.95, 1]),
        # (x - 100) / 10 + 0.5 for 94 (-0.1), 95, 100, 104, 105
        ("LINEAR_EXACT", 100, 10, [0, 0, 0.5, 0.9, 1]),
        # 1 / (1 + exp(-4 (x - 100) / 10)): exponents 2.4, 2, 0, -1.6, -2
        ("SIGMOID", 100, 10, [0.0831727, 0.1192029, 0.5, 0.8320184, 0.8807971]),
        # 0 up to 99.5, 1 above
        ("LINEAR", 100, 1, [0, 0, 1, 1, 1]),
    ],
)
def test_windows_follow_the_formulas_of_the_standard(
    function: str, center: float, width: float, expected: list[float]
) -> None:
    found = displayed(
        words(94, 95, 100, 104, 105),
        VOILUTFunction=function,
        WindowCenter=center,
        WindowWidth=width,
    )
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(function: str) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    ds = radiograph(
        stored,
        BitsStored=12,
        HighBit=11,
        VOILUTFunction=function,
        WindowCenter=1500,
        WindowWidth=2000,
    )
    theirs = apply_windowing(stored, ds) / 4095
    assert pixels.radiograph(ds, stored).array[0] == pytest.approx(theirs, abs=1e-5)


def test_of_several_windows_the_first_is_taken() -> None:
    # x / 100 from the first window: center 50.5, width 101
    found = displayed(words(0, 25, 100), WindowCenter=[50.5, 5000], WindowWidth=[101, 1])
    assert found == pytest.approx([0, 0.25, 1])


@pytest.mark.parametrize("width", [0, 0.5, -3])
def test_a_window_without_width_is_passed_over(width: float) -> None:
    given = {"WindowCenter": [7, 50.5], "WindowWidth": [width, 101]}
    assert displayed(words(0, 25, 100), **given) == pytest.approx([0, 0.25, 1])


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


def test_rescale_comes_before_the_window() -> None:
    # 2 x - 100: 0, 50, 100 of 50, 75, 100; (x - 50) / 100 + 0.5
    given = {"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 50.5, "WindowWidth": 101}
    assert displayed(words(50, 75, 100), **given) == pytest.approx([0, 0.5, 1])


def test_a_negative_slope_turns_the_scale_round() -> None:
    given = {"RescaleSlope": -1, "RescaleIntercept": 100, "WindowCenter": 50.5, "WindowWidth": 101}
    assert displayed(words(0, 75, 100), **given) == pytest.approx([1, 0.25, 0])


def test_a_modality_lut_of_12_bits_replaces_the_rescale() -> None:
    item = lut(4, 10, 12, [0, 1000, 2000, 4095])
    given = {"ModalityLUTSequence": [item], "RescaleSlope": 9, "RescaleIntercept": 9}
    # below 10 the first entry, above 13 the last; (x - 2047.5) / 4095 + 0.5 = x / 4095
    found = displayed(words(0, 10, 11, 12, 13, 99), **FULL_12_BIT | given)
    assert found == pytest.approx([0, 0, 1000 / 4095, 2000 / 4095, 1, 1])


def test_a_voi_lut_is_preferred_to_a_window() -> None:
    item = lut(3, 100, 16, [0, 13107, 65535])
    # 13107 / 65535 = 0.2
    found = displayed(
        words(0, 100, 101, 102, 900),
        VOILUTSequence=[item],
        **FULL_12_BIT | {"BitsStored": 16, "HighBit": 15},
    )
    assert found == pytest.approx([0, 0, 0.2, 1, 1])


def test_of_several_voi_luts_the_first_is_taken() -> None:
    items = [lut(2, 0, 16, [0, 65535]), lut(2, 0, 16, [65535, 0])]
    assert displayed(words(0, 1), VOILUTSequence=items) == [0, 1]


def test_entries_of_16_bits_may_be_bytes() -> None:
    item = lut(3, 0, 16, np.array([0, 13107, 65535], "<u2").tobytes())
    assert displayed(words(0, 1, 2), VOILUTSequence=[item]) == pytest.approx([0, 0.2, 1])


def test_entries_of_8_bits_may_be_packed_two_in_a_word() -> None:
    packed = bytes([0, 51, 102, 255])  # 0, 0.2, 0.4, 1 of 255
    item = lut(4, 0, 8, packed)
    assert displayed(words(0, 1, 2, 3), VOILUTSequence=[item]) == pytest.approx([0, 0.2, 0.4, 1])
    item = lut(4, 0, 8, [51 << 8, 255 << 8 | 102])
    assert displayed(words(0, 1, 2, 3), VOILUTSequence=[item]) == pytest.approx([0, 0.2, 0.4, 1])


def test_8_bit_entries_may_be_more_than_256() -> None:
    item = lut(1024, 0, 8, bytes(index // 4 for index in range(1024)))
    # 204 // 4 = 51, and 51 / 255 = 0.2
    assert displayed(words(0, 204, 1023), VOILUTSequence=[item]) == pytest.approx([0, 0.2, 1])


def test_a_count_of_0_means_65536_entries() -> None:
    item = lut(0, 0, 16, np.arange(65536, dtype="<u2").tobytes())
    assert displayed(words(0, 13107, 65535), VOILUTSequence=[item]) == pytest.approx([0, 0.2, 1])


def test_overstated_bits_per_entry_do_not_darken_the_image() -> None:
    item = lut(3, 0, 16, [0, 819, 4095])
    assert displayed(words(0, 1, 2), VOILUTSequence=[item]) == pytest.approx([0, 0.2, 1])


def test_the_first_value_of_a_voi_lut_may_be_negative() -> None:
    stored = np.array([[-2, -1, 0]], np.int16)
    signed = lut(3, -2, 16, [0, 13107, 65535], signed=True)
    assert displayed(stored, VOILUTSequence=[signed]) == pytest.approx([0, 0.2, 1])
    unsigned = lut(3, 65534, 16, [0, 13107, 65535])  # the same, read with the other VR
    assert displayed(stored, VOILUTSequence=[unsigned]) == pytest.approx([0, 0.2, 1])


def test_a_malformed_lut_is_refused_without_quoting_it() -> None:
    item = lut(9, 0, 16, b"Doe^Jane")
    with pytest.raises(NotAnalysable) as refusal:
        displayed(words(0, 1), VOILUTSequence=[item])
    assert refusal.value.reason is Reason.UNDECODABLE
    assert "Doe" not in refusal.value.detail


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


def test_lossy_compression_is_known_by_its_transfer_syntax_too() -> None:
    ds = radiograph(words(0), **FULL_12_BIT)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert pixels.radiograph(ds, words(0, 4095)).limitations == (
        "Lossy compression, ratio not stated.",
    )


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


def test_a_dicom_file_reads_the_same_in_this_process_and_in_the_child(tmp_path: Path) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = saved(radiograph(stored, **FULL_12_BIT), tmp_path / "a.dcm")
    with Decoder(2048, 60) as decoder:
        theirs = pixels.read_image(path, decoder)
    assert np.array_equal(theirs.array, pixels.read_image(path).array)
    assert theirs.array[0, 0, 0] == 0
    assert theirs.array[0, -1, -1] == 1
