"""In the public set of images the known leaks are found; skipped where the set is not at hand."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pictures import public_images
from thoracle.dataset import fingerprint, layout
from thoracle.dataset.check import DatasetReport, check
from thoracle.dataset.convert import encoded
from thoracle.dataset.groups import cropped_copies
from thoracle.dataset.layout import Part
from thoracle.image.pixels import read_image
from validators import dciodvfy


@cache
def report() -> DatasetReport:
    entries = layout.entries(public_images() / "Dataset")
    return check(fingerprint.fingerprints(entries))


def together(*names: str) -> bool:
    """Return whether these images are in one group: copies are found by what they are copies of."""
    groups = {place.image.fingerprint.pixels_sha256: place.group for place in report().places}
    images = {image.entry.name: image.fingerprint.pixels_sha256 for image in report().images}
    return len({groups[images[name]] for name in names}) == 1


def test_one_image_of_the_published_348_is_missing() -> None:
    counts = report().counts()
    missing = {key: layout.PUBLISHED[key] - counts[key] for key in layout.PUBLISHED}
    assert missing.pop((Part.VAL, "covid")) == 1
    assert set(missing.values()) == {0}


def test_every_covid_image_of_val_is_in_train_and_four_of_prediction_are() -> None:
    leaks = {(leak.part, leak.knows): leak for leak in report().leaks}
    assert set(leaks) == {("val", "train"), ("prediction", "train")}
    assert leaks["val", "train"].copies == 29
    assert leaks["prediction", "train"].copies == 4


def test_the_near_copy_in_train_of_an_image_in_val_is_found() -> None:
    assert together("Train/Covid/extubation-1.jpg", "Val/Covid/4-x-day1.jpg")
    (leak,) = (leak for leak in report().leaks if leak.part == "val")
    assert leak.near_copies == 1


def test_the_near_copies_within_train_are_found() -> None:
    assert together("Train/Covid/AR-1.jpg", "Train/Covid/AR-2.jpg")


def test_a_cropped_copy_in_another_collection_is_found() -> None:
    names = (
        "Dataset/Train/Covid/16660_2_1.jpg",
        "Dataset/Train/Covid/16664_1_1.jpg",
        "more/covid_cxnet/ef773ec27b0f.jpg",
        "more/covid_cxnet/36f615adfe50.jpg",
    )
    paths = [public_images() / name for name in names]
    if not all(path.exists() for path in paths):
        pytest.skip("the set has no images of COVID-CXNet in more/")
    entries = [layout.Entry(path, path.name, Part.NONE, "covid") for path in paths]
    images = [fingerprint.fingerprint(entry).small for entry in entries]
    assert [(one, other) for one, other, _ in cropped_copies(images)] == [(0, 2), (1, 3)]


def test_patients_of_val_have_further_images_in_train() -> None:
    (leak,) = (leak for leak in report().leaks if leak.part == "val")
    assert leak.patients == 4


def test_more_than_one_channel_means_covid_for_nine_in_ten_of_val() -> None:
    accuracy = {one.name: one.accuracy["val"] for one in report().shortcuts}
    assert accuracy["channels"] == pytest.approx(0.898, abs=5e-4)


def test_no_group_of_the_split_is_in_two_parts() -> None:
    parts: dict[int, set[Part]] = {}
    for place in report().places:
        parts.setdefault(place.group, set()).add(place.part)
    assert all(len(found) == 1 for found in parts.values())
    assert len(report().places) == len(report().images) - 33


@pytest.mark.parametrize(("kind", "iod"), [("dx", "DXImageForPresentation"), ("sc", "SCImage")])
def test_converted_images_are_valid_and_read_as_the_pictures_do(
    tmp_path: Path, kind: str, iod: str
) -> None:
    entries = layout.entries(public_images() / "Dataset")
    for number, entry in enumerate(entries[::44]):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(encoded(entry, kind))  # type: ignore[arg-type]  # a parameter is any str
        assert dciodvfy(path, iod) == []
        difference = np.abs(read_image(entry.path).array - read_image(path).array).max()
        assert float(difference) <= 8e-6, entry.name
