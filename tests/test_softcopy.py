"""Presentation states: valid, of the original as its modality shows it, with outlines and words."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from sources import (
    BUNDLE,
    COMMON,
    STUDY,
    assert_same_context,
    cr,
    dx,
    each_source,
    positive,
    real,
    written,
)
from thoracle.errors import ReportError
from thoracle.image import pixels
from thoracle.image.header import header_of
from thoracle.records import Region
from thoracle.report import header, softcopy
from validators import dciodvfy, dcmp2pgm, dcmpschk

IOD = "GrayscaleSoftcopyPresentationState"


def outline(left: float, top: float, right: float, bottom: float) -> Region:
    return Region(((left, top), (right, top), (right, bottom), (left, bottom), (left, top)), 0.5)


REGIONS = (outline(700, 900.5, 880.25, 1210), outline(1200, 800, 1290, 900))


def state(source: Dataset, regions: tuple[Region, ...] = REGIONS, **changes: Any) -> Dataset:
    arguments = {**COMMON, "instance_number": 1, "context_source": source, **changes}
    return softcopy.build(source, regions, positive(source), BUNDLE, **arguments)


def table(first: int, entries: list[int]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, 16]
    item.LUTData = np.array(entries, "<u2").tobytes()
    item["LUTDescriptor"].VR = "US"
    item["LUTData"].VR = "OW"
    return item


@each_source
def test_a_state_is_valid_and_in_the_study_of_the_source(
    arrive: Callable[[], Dataset], tmp_path: Path
) -> None:
    source = arrive()
    regions = (outline(20, 30, 0.5 * source.Columns, 0.5 * source.Rows),)
    made = state(source, regions)
    path = written(made, tmp_path)
    assert dciodvfy(path, IOD) == []
    assert dcmpschk(path) == []
    assert_same_context(source, made)
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID


def test_a_state_refers_to_the_original_alone() -> None:
    made = state(dx(1))
    images = [
        item.ReferencedSOPInstanceUID
        for owner in (made.ReferencedSeriesSequence[0], made.GraphicAnnotationSequence[0])
        for item in owner.ReferencedImageSequence
    ]
    assert images == [dx(1).SOPInstanceUID] * 2
    assert "ContentDate" not in made
    assert (made.PresentationCreationDate, made.SeriesNumber) == ("20260102", 9003)


def test_each_region_is_a_closed_outline_in_pixels() -> None:
    (annotation,) = state(dx()).GraphicAnnotationSequence
    for region, shape in zip(REGIONS, annotation.GraphicObjectSequence, strict=True):
        assert (shape.GraphicType, shape.GraphicFilled) == ("POLYLINE", "N")
        assert shape.GraphicAnnotationUnits == "PIXEL"
        assert shape.GraphicData == [number for corner in region.outline for number in corner]
        assert shape.GraphicData[:2] == shape.GraphicData[-2:]


def test_the_text_states_probability_and_that_nobody_verified_it() -> None:
    made = state(dx())
    (text,) = made.GraphicAnnotationSequence[0].TextObjectSequence
    assert text.UnformattedTextValue == "AI: COVID-19 91 % (research, not verified)"
    assert text.BoundingBoxAnnotationUnits == "PIXEL"
    assert made.ContentDescription == text.UnformattedTextValue


@pytest.mark.parametrize(
    "regions",
    [
        (outline(0, 0, 100, 100),),
        (outline(700, 900, 800, 2000),),
        (outline(1700, 1850, 1800, 2000), outline(10, 200, 90, 300)),
        (outline(0, 20, 1800, 1960),),
        (outline(0, 60, 1800, 2000),),
        (outline(0, 10, 1800, 1940),),
    ],
    ids=["corner", "to the bottom", "two", "all but an edge", "top free", "bottom free"],
)
def test_the_text_is_inside_the_image_and_covers_no_region(regions: tuple[Region, ...]) -> None:
    left, top, right, bottom = softcopy.text_box(41, regions, 2000, 1800)
    assert 0 <= left < right <= 1800
    assert 0 <= top < bottom <= 2000
    corners = [corner for region in regions for corner in region.outline]
    high, low = min(y for _, y in corners), max(y for _, y in corners)
    if low - high < 1940:
        assert bottom <= high or top >= low


def test_the_text_is_inside_the_image_where_regions_leave_no_room() -> None:
    assert softcopy.text_box(41, (outline(0, 0, 1800, 2000),), 2000, 1800)[3] == 2000
    assert softcopy.text_box(41, (outline(2, 2, 9, 9),), 20, 10) == (0, 9.5, 10, 10.5)


def test_dcmtk_shows_a_monochrome1_radiograph_as_the_classifier_saw_it(tmp_path: Path) -> None:
    source = real("RG1_UNCR.dcm")
    assert source.PhotometricInterpretation == "MONOCHROME1"
    image = Path(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    shown = dcmp2pgm(image, written(state(source), tmp_path), tmp_path)
    seen = pixels.read_image(image).array[0]
    assert np.abs(shown / 255 - seen).max() < 2 / 255


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        (cr(), "INVERSE"),
        (cr(PresentationLUTShape="INVERSE"), "INVERSE"),
        (dx(), "IDENTITY"),
        (dx(PresentationLUTShape="IDENTITY"), "IDENTITY"),
        (dx(PresentationLUTShape="INVERSE"), "INVERSE"),
    ],
)
def test_black_stays_black_whatever_the_photometric_interpretation(
    source: Dataset, shape: str
) -> None:
    assert state(source).PresentationLUTShape == shape


def test_the_first_window_is_the_one_of_the_source(tmp_path: Path) -> None:
    source = dx(
        WindowCenter=["2048", "100"],
        WindowWidth=["0", "300.5"],
        VOILUTFunction="LINEAR",
        RescaleSlope="2",
        RescaleIntercept="-10",
        RescaleType="US",
    )
    made = state(source)
    (voi,) = made.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction) == (100, 300.5, "LINEAR")
    assert (made.RescaleSlope, made.RescaleIntercept, made.RescaleType) == (2, -10, "US")
    assert dciodvfy(written(made, tmp_path), IOD) == []
    assert dcmpschk(written(made, tmp_path)) == []


def test_a_function_of_the_window_stays() -> None:
    source = dx(WindowCenter="5", WindowWidth="0.5", VOILUTFunction="SIGMOID")
    (voi,) = state(source).SoftcopyVOILUTSequence
    assert (voi.WindowWidth, voi.VOILUTFunction) == (0.5, "SIGMOID")


def test_half_of_a_rescale_is_completed() -> None:
    made = state(dx(RescaleIntercept="-1024"))
    assert (made.RescaleSlope, made.RescaleIntercept, made.RescaleType) == (1, -1024, "US")


def test_tables_are_copied_the_first_of_several(tmp_path: Path) -> None:
    modality = table(0, [0, 500, 900, 65535])
    modality.ModalityLUTType = "US"
    source = dx(
        PixelRepresentation=0,
        ModalityLUTSequence=[modality],
        VOILUTSequence=[table(0, [0, 100, 65535]), table(0, [1, 2, 3])],
        WindowCenter="5",
        WindowWidth="10",
    )
    made = dcmread(written(state(source), tmp_path))
    assert made.ModalityLUTSequence[0].LUTData == modality.LUTData
    (voi,) = made.SoftcopyVOILUTSequence
    assert voi.VOILUTSequence[0].LUTData == table(0, [0, 100, 65535]).LUTData
    assert "WindowCenter" not in voi
    assert dciodvfy(written(made, tmp_path), IOD) == []
    assert dcmpschk(written(made, tmp_path)) == []


def test_a_table_of_a_big_endian_source_is_turned_round(tmp_path: Path) -> None:
    source = dx(PixelRepresentation=0, VOILUTSequence=[table(0, [0, 100, 65535])])
    item = source.VOILUTSequence[0]
    item.LUTData = np.array([0, 100, 65535], ">u2").tobytes()
    source.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big.dcm"
    encoding = {"implicit_vr": False, "little_endian": False}
    dcmwrite(path, source, enforce_file_format=True, **encoding)
    made = dcmread(written(state(header_of(path)), tmp_path))
    (voi,) = made.SoftcopyVOILUTSequence
    assert voi.VOILUTSequence[0].LUTData == table(0, [0, 100, 65535]).LUTData


def test_what_the_source_does_not_state_is_not_invented() -> None:
    made = state(dx())
    assert not {"SoftcopyVOILUTSequence", "ModalityLUTSequence", "RescaleSlope"} & set(made.dir())


@pytest.mark.parametrize(
    ("stated", "keyword", "value"),
    [
        ({}, "PresentationPixelAspectRatio", [1, 1]),
        ({"PixelAspectRatio": ["4", "3"]}, "PresentationPixelAspectRatio", [4, 3]),
        ({"ImagerPixelSpacing": ["0.2", "0.1"]}, "PresentationPixelSpacing", [0.2, 0.1]),
        (
            {"PixelSpacing": ["0.15", "0.15"], "ImagerPixelSpacing": ["0.2", "0.2"]},
            "PresentationPixelSpacing",
            [0.15, 0.15],
        ),
        ({"PixelSpacing": ["0", "0"]}, "PresentationPixelAspectRatio", [1, 1]),
    ],
)
def test_the_whole_image_is_shown_in_its_proportions(
    stated: dict[str, Any], keyword: str, value: list[float], tmp_path: Path
) -> None:
    made = state(dx(**stated))
    (area,) = made.DisplayedAreaSelectionSequence
    assert area.DisplayedAreaTopLeftHandCorner == [1, 1]
    assert area.DisplayedAreaBottomRightHandCorner == [1800, 2000]
    assert area[keyword].value == value
    assert dciodvfy(written(made, tmp_path), IOD) == []


def test_the_same_content_has_the_same_uid_and_other_content_another() -> None:
    assert header.encode(state(dx())) == header.encode(state(dx()))
    others = [
        state(dx(), REGIONS[:1]),
        state(dx(WindowCenter="1", WindowWidth="2")),
        state(dx(), instance_number=2),
    ]
    assert len({made.SOPInstanceUID for made in [state(dx()), *others]}) == 4


def test_states_of_one_result_share_a_series() -> None:
    one, two = dx(1), dx(2, SeriesInstanceUID=f"{STUDY}.2")
    states = [state(one), state(two, instance_number=2, context_source=one)]
    assert len({made.SeriesInstanceUID for made in states}) == 1


def test_what_cannot_be_outlined_is_refused() -> None:
    with pytest.raises(ReportError, match="regions: found none"):
        state(dx(), ())
    assert not softcopy.is_greyscale(dx(PhotometricInterpretation="RGB"))
    with pytest.raises(ReportError, match="PhotometricInterpretation: found RGB, required:"):
        state(dx(PhotometricInterpretation="RGB"))
    other = replace(positive(dx()), sop_instance_uid="2.25.3")
    with pytest.raises(ReportError, match=r"reading: found 2\.25\.3, required:"):
        softcopy.build(
            dx(), REGIONS, other, BUNDLE, instance_number=1, context_source=dx(), **COMMON
        )


def test_a_table_of_which_a_part_is_missing_is_repeated_as_it_was_shown() -> None:
    item = table(0, [0, 819, 4095])
    item.LUTDescriptor = [4, 0, 16]
    ds = state(cr(VOILUTSequence=[item]))
    (applied,) = ds.SoftcopyVOILUTSequence[0].VOILUTSequence
    assert applied.LUTDescriptor == [4, 0, 16]
    assert np.frombuffer(applied.LUTData, "<u2").tolist() == [0, 819, 4095, 4095]


def test_a_table_without_values_is_not_repeated() -> None:
    ds = state(cr(VOILUTSequence=[Dataset()], WindowCenter=2048, WindowWidth=4096))
    (applied,) = ds.SoftcopyVOILUTSequence
    assert "VOILUTSequence" not in applied
    assert applied.WindowWidth == 4096
