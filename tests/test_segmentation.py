"""Segmentations of the saliency: valid, on the grid of the image, and never called a lesion."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from sources import (
    BUNDLE,
    COMMON,
    STUDY,
    assert_same_context,
    cr,
    dx,
    each_source,
    written,
)
from thoracle.errors import ReportError
from thoracle.records import Saliency
from thoracle.report import header, segmentation
from validators import dciodvfy


def saliency(*places: tuple[int, int, float]) -> Saliency:
    """Return a map of 20 x 18 places that is -1 but for these (row, column, contribution)."""
    contributions = np.full((20, 18), -1, np.float32)
    for row, column, value in places:
        contributions[row, column] = value
    return Saliency(contributions)


SPOT = saliency((5, 4, 2.5), (15, 10, 0.5))


def made(source: Dataset, found: Saliency = SPOT, **changes: Any) -> Dataset:
    arguments = {**COMMON, "instance_number": 1, "context_source": source, **changes}
    return segmentation.build(source, found, BUNDLE, **arguments)


def pixels(ds: Dataset, folder: Path) -> NDArray[np.uint8]:
    """Return what others decode, ``(rows, columns)``."""
    return np.asarray(dcmread(written(ds, folder)).pixel_array)


@each_source
def test_a_segmentation_is_valid_and_in_the_study_of_the_source(
    arrive: Callable[[], Dataset], tmp_path: Path
) -> None:
    source = arrive()
    ds = made(source)
    path = written(ds, tmp_path)
    assert dciodvfy(path, "Segmentation") == []
    assert_same_context(source, ds)
    parsed = highdicom.seg.segread(path)
    assert parsed.segmentation_type == highdicom.seg.SegmentationTypeValues.FRACTIONAL
    assert parsed.get_source_image_uids() == [
        (source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID)
    ]
    shares = parsed.get_pixels_by_source_instance([source.SOPInstanceUID])
    assert shares.shape == (1, source.Rows, source.Columns, 1)
    assert 0.9 < shares.max() <= 1


def test_a_place_lies_where_it_is_in_the_image_and_its_maximum_is_full_scale(
    tmp_path: Path,
) -> None:
    found = pixels(made(dx()), tmp_path).astype(int)
    assert found.shape == (2000, 1800)
    # The place (i, j) of the 20 x 18 has its centre at (100 i + 50, 100 j + 50).
    assert found[549:551, 449:451].min() >= 250
    assert found[1549:1551, 1049:1051].max() == pytest.approx(51, abs=1)
    assert found[550, 400] == found[500, 450] == pytest.approx(127, abs=2)
    assert found[250, 450] == found[550, 700] == 0


def test_what_speaks_against_is_nothing() -> None:
    with pytest.raises(ReportError, match="saliency: found a maximum of 0, required is more"):
        made(dx(), saliency())


def test_it_is_called_saliency_and_no_lesion() -> None:
    ds = made(dx())
    (segment,) = ds.SegmentSequence
    assert segment.SegmentLabel == "AI saliency"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "111099"
    category = segment.SegmentedPropertyCategoryCodeSequence[0]
    assert category.CodeMeaning == "Spatial and Relational Concept"
    assert "what the model used, not where disease is" in ds.ContentDescription
    assert segment.SegmentDescription.endswith("shares of their maximum, 2.5.")
    assert ds.SegmentationFractionalType == "PROBABILITY"


def test_orientation_and_loss_are_those_of_the_source(tmp_path: Path) -> None:
    source = cr(
        PatientOrientation=["L", "F"],
        LossyImageCompression="01",
        LossyImageCompressionRatio="12.5",
        LossyImageCompressionMethod="ISO_15444_1",
    )
    ds = made(source)
    assert ds.PatientOrientation == ["L", "F"]
    assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 12.5)
    assert dciodvfy(written(ds, tmp_path), "Segmentation") == []


@pytest.mark.parametrize(("rows", "columns"), [(601, 513), (512, 512), (65, 64)])
def test_images_of_any_size_have_one(rows: int, columns: int, tmp_path: Path) -> None:
    found = pixels(made(dx(Rows=rows, Columns=columns)), tmp_path)
    assert found.shape == (rows, columns)
    assert found.max() > 150


def test_it_is_compressed(tmp_path: Path) -> None:
    path = written(made(dx()), tmp_path)
    assert dcmread(path).file_meta.TransferSyntaxUID.name == "RLE Lossless"
    assert path.stat().st_size < 2000 * 1800 / 4


def test_the_same_content_has_the_same_uid_and_other_content_another() -> None:
    assert header.encode(made(dx())) == header.encode(made(dx()))
    others = [made(dx(), saliency((5, 4, 2.5))), made(cr()), made(dx(), instance_number=2)]
    assert len({ds.SOPInstanceUID for ds in [made(dx()), *others]}) == 4


def test_segmentations_of_one_result_share_a_series() -> None:
    one, two = dx(1), dx(2, SeriesInstanceUID=f"{STUDY}.2")
    both = [made(one), made(two, instance_number=2, context_source=one)]
    assert len({ds.SeriesInstanceUID for ds in both}) == 1
