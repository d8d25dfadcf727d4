"""PS3.3 Section C.11 with numbers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import ExplicitVRBigEndian

from radiographs import FULL_12_BIT, displayed, radiograph, words
from thoracle.image import pixels


def lut(
    count: int, first: int, bits: int, data: list[int] | bytes, signed: bool = False
) -> Dataset:
    item = Dataset()
    vr = "SS" if signed else "US"
    item.add_new("LUTDescriptor", vr, [count, first, bits])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return item


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


def test_a_lut_that_is_a_little_short_goes_on_with_its_last_entry() -> None:
    ds = radiograph(words(0), VOILUTSequence=[lut(4, 0, 12, [0, 819, 4095])])
    image = pixels.radiograph(ds, words(0, 1, 2, 3))
    assert image.array.ravel().tolist() == pytest.approx([0, 0.2, 1, 1])
    assert image.limitations == (
        "VOI LUT: found 3 entries in LUT Data, required: 4; the last one stands for what is "
        "missing.",
    )


def test_entries_of_12_bits_are_never_taken_for_pairs_of_8() -> None:
    item = lut(4, 0, 12, np.array([0, 819, 4095], "<u2").tobytes())
    found = displayed(words(0, 1, 2, 3), VOILUTSequence=[item])
    assert found == pytest.approx([0, 0.2, 1, 1])


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize(
    "item",
    [
        Dataset(),
        lut(9, 0, 16, b"Doe^Jane"),  # less than half of it
        lut(4, 0, 12, [0, 0, 0, 0]),
        lut(4, 0, 12, []),
    ],
    ids=["empty", "short", "zero", "nothing"],
)
def test_a_lut_that_cannot_be_applied_is_none_and_says_so(keyword: str, item: Dataset) -> None:
    ds = radiograph(words(0), **{keyword: [item]}, **FULL_12_BIT)
    image = pixels.radiograph(ds, words(0, 819, 4095))
    assert image.array.ravel().tolist() == pytest.approx([0, 0.2, 1])
    (sentence,) = image.limitations
    assert sentence.endswith("found no usable LUT Descriptor and LUT Data; it is not applied.")


def test_an_unknown_function_is_linear_and_a_slope_of_0_is_1() -> None:
    ds = radiograph(words(0), **FULL_12_BIT, VOILUTFunction="CUBIC", RescaleSlope=0)
    image = pixels.radiograph(ds, words(0, 819, 4095))
    assert image.array.ravel().tolist() == pytest.approx([0, 0.2, 1])
    assert len(image.limitations) == 2


@pytest.mark.parametrize(
    ("bits", "entries"),
    [(16, [0, 13107, 26214, 65535]), (8, [51 << 8, 255 << 8 | 102])],  # 0, 0.2, 0.4, 1
)
def test_entries_of_big_endian_files_are_read_the_right_way_round(
    bits: int, entries: list[int], tmp_path: Path
) -> None:
    stored = words(0, 1, 2, 3)
    item = lut(4, 0, bits, np.array(entries, ">u2").tobytes())
    ds = radiograph(stored, VOILUTSequence=[item])
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = stored.astype(">u2").tobytes()
    ds.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=False, enforce_file_format=True)
    found = pixels.read_image(tmp_path / "a.dcm").array.ravel().tolist()
    assert found == pytest.approx([0, 0.2, 0.4, 1])
