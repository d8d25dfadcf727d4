"""What is measured of an image is what its pixels say, and never decides a result."""

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from radiographs import chest, saved
from thoracle.classify.classifier import Classifier
from thoracle.image.decoder import Decoder
from thoracle.image.features import features
from thoracle.pipeline import reader as reading_room
from thoracle.pipeline.reader import Reader
from thoracle.records import Image, Outcome, Reading, Reason
from thoracle.settings import Classify, Settings
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.tables import reading
from thoracle.study import results
from thoracle.study.results import AnalysisKey


def image(array: np.ndarray) -> Image:
    return Image(array.astype(np.float32)[np.newaxis])


def test_a_ramp_has_the_features_of_a_ramp() -> None:
    ramp = np.tile(np.linspace(0, 1, 1001), (501, 1))
    found = features(image(ramp))
    assert found["mean"] == pytest.approx(0.5, abs=0.002)
    assert found["contrast"] == pytest.approx(1 / np.sqrt(12), abs=0.002)
    assert (found["dark"], found["median"], found["bright"]) == pytest.approx(
        (0.05, 0.5, 0.95), abs=0.003
    )
    assert (found["black"], found["white"]) == pytest.approx((0.01, 0.01), abs=0.003)
    assert found["aspect"] == pytest.approx(1001 / 501, abs=1e-5)
    assert found["megapixels"] == 0.5015
    assert found["sharpness"] == pytest.approx(0, abs=0.001)  # a straight slope has no curvature


def test_sharpness_is_of_neighbouring_pixels_however_large_the_image() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0.5, 0.01, (2000, 2000))
    # The Laplacian of independent noise has the variance (4 + 16) times that of a pixel.
    assert features(image(noise))["sharpness"] == pytest.approx(10 * np.sqrt(20), rel=0.02)
    pairs = np.repeat(np.repeat(noise[::2, ::2], 2, axis=0), 2, axis=1)
    assert features(image(pairs))["sharpness"] < features(image(noise))["sharpness"] / 1.5


def test_the_grid_of_a_large_image_tells_what_all_its_pixels_tell() -> None:
    rng = np.random.default_rng(2)
    smooth = np.clip(rng.beta(2, 3, (2500, 2048)), 0, 1)
    found = features(image(smooth))
    assert found["mean"] == pytest.approx(float(smooth.mean()), abs=0.003)
    assert found["bright"] == pytest.approx(float(np.percentile(smooth, 95)), abs=0.005)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5000), (3, 3)])
def test_images_of_any_size_have_features(shape: tuple[int, int]) -> None:
    found = features(image(np.full(shape, 0.25)))
    assert found["mean"] == 0.25
    assert found["sharpness"] == 0
    assert all(np.isfinite(value) for value in found.values())


def test_a_reading_recorded_before_there_were_features_can_still_be_read() -> None:
    now = Reading("1.2", "1.2.3", Outcome.NEGATIVE, probability=0.1, features={"mean": 0.5})
    assert Reading.from_json(now.to_json()) == now
    then = now.to_json()
    del then["features"]
    assert Reading.from_json(then).features == {}


def test_an_image_that_cannot_be_measured_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(chest(), tmp_path / "image.dcm")
    classifier = Classifier.load(Classify())
    with Decoder(memory_megabytes=2048, timeout_seconds=60) as decoder:
        reader = Reader(Settings(), classifier.identity, decoder, lambda: classifier)
        before = reader.read(path)
        monkeypatch.setattr(reading_room, "features", _broken)
        after = reader.read(path)
    assert set(before.features) >= {"mean", "contrast", "sharpness", "lungs"}
    assert 0 < before.features["lungs"] < 1

    assert (after.outcome, after.probability) == (before.outcome, before.probability)
    assert set(after.features) == {"lungs"}


def _broken(_image: Image) -> dict[str, float]:
    raise ArithmeticError("no features today")


def test_features_are_kept_with_the_reading_and_absent_where_nothing_was_read(
    tmp_path: Path,
) -> None:
    database = open_database(sqlite_url(tmp_path))
    read = Reading("1.2", "1.2.3", Outcome.NEGATIVE, probability=0.1, features={"mean": 0.5})
    refused = Reading("1.2", "1.2.4", Outcome.REJECTED, reason=Reason.NOT_CHEST)
    with database.begin() as connection:
        results.add_readings(connection, AnalysisKey("1.2", 1, "d"), "SCT:1", [read, refused], 0.5)
    with database.connect() as connection:
        kept = dict(
            connection.execute(select(reading.c.sop_instance_uid, reading.c.features)).all()
        )
        absent = connection.execute(
            select(reading.c.sop_instance_uid).where(reading.c.features.is_(None))
        ).scalars()
        assert list(absent) == ["1.2.4"]
    assert kept == {"1.2.3": {"mean": 0.5}, "1.2.4": None}
