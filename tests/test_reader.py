"""Several images at a time: each on its own, the answers in order."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from radiographs import FULL_12_BIT, chest, radiograph, saved
from thoracle.child import Answer
from thoracle.classify import bundle
from thoracle.image.codecs import StoredPixels
from thoracle.image.decoder import Decoder
from thoracle.pipeline.reader import Reader
from thoracle.pipeline.recent_images import RecentImages, state_of
from thoracle.records import Image, Judgement, Kind, Outcome, Reason, Saliency
from thoracle.report.result_set import Made
from thoracle.settings import Classify, Report, Settings


class Means:
    """A classifier whose probability is the image's mean; each waits for the one behind it."""

    def __init__(self, images: int) -> None:
        self._arrived = [threading.Event() for _ in range(images)]

    def classify(self, image: Image) -> Judgement:
        mean = round(float(image.array.mean()), 1)
        number = round(mean * 10) - 1
        self._arrived[number].set()
        if number % 2 == 0:
            assert self._arrived[number + 1].wait(60), "the next image was not read meanwhile"
        return Judgement(mean)

    def explain(self, image: Image) -> None:
        return None


class Constant:
    """A classifier that says the same of every image, and never why."""

    def classify(self, image: Image) -> Judgement:
        return Judgement(0.5)

    def explain(self, image: Image) -> None:
        return None


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder(memory_megabytes=2048, timeout_seconds=60) as decoder:
        yield decoder


def _reader(decoder: Decoder, classifier: Means | Constant) -> Reader:
    return Reader(Settings(), bundle.identify(Classify()), decoder, lambda: classifier)


def _grey(mean: float) -> np.ndarray:
    """Return a 12 bit image of this mean, with contrast."""
    stored = np.full((512, 512), round(mean * 4095), np.uint16)
    stored[::2] += 200
    stored[1::2] -= 200
    return stored


def test_answers_come_in_order_while_later_images_are_read(
    decoder: Decoder, tmp_path: Path
) -> None:
    means = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    paths = [
        saved(radiograph(_grey(mean), **FULL_12_BIT), tmp_path / f"{mean}.dcm") for mean in means
    ]
    readings = list(_reader(decoder, Means(len(means))).read_all(paths))
    assert [reading.probability for reading in readings] == means


def test_an_image_that_kills_the_decoder_costs_only_itself(
    decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [saved(chest(), tmp_path / f"{number}.dcm") for number in range(6)]
    child = decoder._child
    exchange = child._exchange

    def kill(question: bytes, read: Callable[[Answer], object]) -> object:
        if json.loads(question)["path"] == str(paths[2]):
            assert child.pid is not None
            os.kill(child.pid, 9)
        return exchange(question, read)

    monkeypatch.setattr(child, "_exchange", kill)
    readings = list(_reader(decoder, Constant()).read_all(paths))
    assert readings[2].reason is Reason.UNDECODABLE
    assert [reading.outcome is Outcome.REJECTED for reading in readings].count(True) == 1
    assert len({reading.sop_instance_uid for reading in readings}) == 6


def test_no_files_get_no_answers(decoder: Decoder) -> None:
    assert list(_reader(decoder, Constant()).read_all([])) == []


def test_one_who_stops_asking_waits_for_nothing_more(decoder: Decoder, tmp_path: Path) -> None:
    paths = [saved(chest(), tmp_path / f"{number}.dcm") for number in range(9)]
    readings = _reader(decoder, Constant()).read_all(paths)
    next(readings)
    readings.close()  # type: ignore[attr-defined]  # a generator, which the signature leaves open
    assert decoder.decode(paths[-1]).array.shape == (512, 512)


class Inexplicable(Constant):
    """A classifier with an explanation that nothing can be drawn of."""

    def explain(self, image: Image) -> Saliency:  # type: ignore[override]  # it says something
        return Saliency(np.zeros(3, np.float32))


MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = {"sc": ("indeterminate",), "pr": ("indeterminate",), "ko": ("indeterminate",)}


def _results(decoder: Decoder, classifier: Constant, path: Path) -> list[Made]:
    reader = _reader(decoder, classifier)
    reader = replace(reader, settings=Settings(report=Report.model_validate(EVERY)))
    reading = reader.read(path)
    assert reading.outcome is Outcome.INDETERMINATE
    return reader.report([path], [reading], content_datetime=datetime.now(UTC))


def test_a_result_that_cannot_be_illustrated_is_reported_all_the_same(
    decoder: Decoder, tmp_path: Path
) -> None:
    (made,) = _results(decoder, Inexplicable(), saved(chest(), tmp_path / "a.dcm"))
    assert made.kind is Kind.SR
    report = dcmread(BytesIO(made.content))
    texts = [element.value for element in report.iterall() if element.keyword == "TextValue"]
    assert "Heat map, outlines and key objects could not be made." in " ".join(texts)


def test_a_bundle_that_cannot_say_why_gets_a_picture_without_colours_all_the_same(
    decoder: Decoder, tmp_path: Path
) -> None:
    made = _results(decoder, Constant(), saved(chest(), tmp_path / "a.dcm"))
    assert [one.kind for one in made] == [Kind.SR, Kind.SC, Kind.KO]


def test_a_picture_shows_the_image_that_was_read_and_reads_it_again_only_when_it_has_gone(
    decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    decode = decoder.decode

    def counted(path: Path) -> StoredPixels:
        asked.append(path)
        return decode(path)

    monkeypatch.setattr(decoder, "decode", counted)
    path = saved(chest(), tmp_path / "1.dcm")
    reader = _reader(decoder, Constant())
    reader = replace(reader, settings=Settings(report=Report.model_validate(EVERY)))
    reading = reader.read(path)
    os.utime(path)  # as a copy of an object in a bucket, which is asked for before each use

    def pictures() -> list[Made]:
        return reader.report([path], [reading], content_datetime=MOMENT)

    first = pictures()
    assert asked == [path]
    assert pictures() == first  # given once: it is read again, and is the same
    assert asked == [path, path]
    reader.read(path)
    shutil.copy(path, tmp_path / "2.dcm")
    (tmp_path / "2.dcm").replace(path)  # another file of this name
    pictures()
    assert asked == [path] * 4


def test_images_that_are_kept_have_a_limit_and_the_oldest_go_first(tmp_path: Path) -> None:
    recent = RecentImages(largest_bytes=2500)
    paths = [tmp_path / str(number) for number in range(3)]
    image = Image(np.zeros((1, 16, 16), np.float32))  # 1024 bytes
    for path in paths:
        path.write_bytes(b"1")
        recent.keep(path, state_of(path), image, None)
    assert recent.take(paths[0]) is None
    assert recent.take(paths[2]) == (image, None)
    assert recent.take(paths[2]) is None
    recent.keep(paths[0], state_of(paths[0]), Image(np.zeros((1, 64, 64), np.float32)), None)
    assert recent.take(paths[0]) is None
    assert recent.take(paths[1]) == (image, None)
    recent.keep(paths[1], state_of(tmp_path / "none"), image, None)
    assert recent.take(paths[1]) is None
