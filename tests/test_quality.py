"""The input gate: frontal radiographs pass, all else is refused with a coded reason."""

import csv
import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom.data
import pytest
import torch
from monai.bundle.config_parser import ConfigParser
from torch import Tensor
from torch.nn import functional

from pictures import public_images
from thoracle.classify import bundle
from thoracle.classify.lungs import FindLungsd
from thoracle.classify.quality import CLASSES, FEATURES, Gate, GateNetwork, Limits
from thoracle.errors import NotAnalysable
from thoracle.image.pixels import read_image
from thoracle.records import Reason
from thoracle.settings import Classify

FOLDER = bundle.bundle_folder(Classify())
Verdict = Callable[[Tensor], Reason | None]


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate.load(FOLDER)


@pytest.fixture(scope="module")
def lungs() -> Callable[[Tensor], Tensor]:
    parser = ConfigParser()
    parser.read_config(FOLDER / "configs" / "inference.json")
    network = parser.get_parsed_content("lungs_network")
    network.load_state_dict(torch.load(FOLDER / "models" / "lungs.pt", weights_only=True))
    find = FindLungsd("image", network.eval(), tuple(parser["lungs_size"]))
    return lambda image: find({"image": image})["lungs"]


@pytest.fixture(scope="module")
def verdict(gate: Gate, lungs: Callable[[Tensor], Tensor]) -> Verdict:
    """Give the reason that an image ``(1, 512, 512)`` is refused for, or ``None``."""

    def judged(image: Tensor) -> Reason | None:
        try:
            gate.check(image, lungs(image))
        except NotAnalysable as error:
            return error.reason
        return None

    return judged


def _square(path: Path | str) -> Tensor:
    image = torch.from_numpy(read_image(Path(path)).array)
    return functional.interpolate(image[None], (512, 512), mode="area")[0]


def _sample(name: str) -> Tensor:
    path = pydicom.data.get_testdata_file(name, download=False)
    assert isinstance(path, str), "found no pydicom-data, required: the dependency group test"
    return _square(path)


def _part(image: Tensor, rows: slice, columns: slice) -> Tensor:
    return functional.interpolate(image[None, :, rows, columns], (512, 512), mode="bilinear")[0]


WHOLE = slice(0, 512)
FRONTAL: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda image: image,
    "mirrored": lambda image: image.flip(2),
    "darker": lambda image: image**1.8,
    "brighter": lambda image: image**0.6,
    "of half the contrast": lambda image: 0.25 + image / 2,
    "of 250 pixels": lambda image: functional.interpolate(
        functional.interpolate(image[None], (250, 250), mode="area"), (512, 512)
    )[0],
    "a little cut": lambda image: _part(image, slice(20, 490), slice(20, 490)),
    "in a white frame": lambda image: functional.pad(
        _part(image, WHOLE, WHOLE)[:, 20:-20, 20:-20], [20] * 4, value=1.0
    ),
}
REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], set[Reason]]] = {
    "the negative": (lambda image: 1 - image, {Reason.INVERTED, Reason.NOT_LIKE_KNOWN}),
    "upside down": (
        lambda image: image.flip(1),
        {Reason.NOT_UPRIGHT, Reason.NOT_LIKE_KNOWN},
    ),
    "turned left": (
        lambda image: torch.rot90(image, 1, (1, 2)),
        {Reason.NOT_UPRIGHT, Reason.NOT_LIKE_KNOWN},
    ),
    "the left half": (
        lambda image: _part(image, WHOLE, slice(0, 250)),
        {Reason.INCOMPLETE, Reason.NOT_LIKE_KNOWN},
    ),
    "the right half blank": (
        lambda image: torch.cat([image[..., :256], torch.zeros(1, 512, 256)], 2),
        {Reason.INCOMPLETE, Reason.NOT_LIKE_KNOWN},
    ),
    "a patch": (
        lambda image: _part(image, slice(200, 330), slice(60, 220)),
        {Reason.INCOMPLETE, Reason.NOT_LIKE_KNOWN},
    ),
    "two panels": (
        lambda image: torch.cat([image[..., ::2], image[..., ::2]], 2),
        {Reason.NOT_LIKE_KNOWN, Reason.INCOMPLETE},
    ),
    "black": (lambda image: image * 0, {Reason.FLAT}),
    "white": (lambda image: image * 0 + 1, {Reason.FLAT}),
    "black but for a label": (
        lambda image: image * (torch.rand(1, 512, 512) > 0.95),
        {Reason.FLAT},
    ),
}


@pytest.mark.parametrize("name", FRONTAL)
def test_a_frontal_radiograph_passes_whatever_the_device_made_of_it(
    name: str, verdict: Verdict
) -> None:
    assert verdict(FRONTAL[name](_sample("RG1_UNCR.dcm"))) is None


@pytest.mark.parametrize("name", REFUSED)
def test_damage_is_refused_and_named(name: str, verdict: Verdict) -> None:
    torch.manual_seed(0)
    damage, reasons = REFUSED[name]
    assert verdict(damage(_sample("RG1_UNCR.dcm"))) in reasons


@pytest.mark.parametrize("name", ["RG3_UNCR.dcm", "CT_small.dcm", "MR_small.dcm", "693_UNCI.dcm"])
def test_images_of_other_kinds_are_refused(name: str, verdict: Verdict) -> None:
    assert verdict(_sample(name)) is not None


def test_what_is_no_picture_is_refused(verdict: Verdict) -> None:
    ramp = torch.linspace(0, 1, 512).expand(1, 512, 512)
    noise = torch.rand(1, 512, 512, generator=torch.Generator().manual_seed(1))
    assert None not in {verdict(ramp.clone()), verdict(noise)}


def test_the_refusal_says_what_was_found_and_what_is_required(gate: Gate) -> None:
    with pytest.raises(NotAnalysable, match=r"found .*lateral.*; required: frontal 0\.\d\d"):
        gate.check(torch.rand(1, 512, 512), torch.zeros(1, 128, 128))


def test_an_unusual_image_is_flagged(gate: Gate, lungs: Callable[[Tensor], Tensor]) -> None:
    image = _sample("RG1_UNCR.dcm")
    strict = Gate(gate.network, Limits(0.0, 1.0, 0.7, 0.9))
    (sentence,) = strict.check(image, lungs(image))
    assert sentence.startswith("Unusual image")
    assert gate.check(image, lungs(image)) == ()


@pytest.mark.parametrize("name", ["as it is", "darker", "mirrored"])
def test_an_accelerated_gate_answers_the_same(
    name: str, gate: Gate, lungs: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    image = FRONTAL[name](_sample("RG1_UNCR.dcm"))
    accelerated = Gate.load(FOLDER)
    accelerated.accelerate(Classify(runtime="openvino"))
    assert "EarlyBlocks runs in openvino" in caplog.text
    found = accelerated.probabilities(image, lungs(image))
    assert found == pytest.approx(gate.probabilities(image, lungs(image)), abs=1e-4)


def test_lungs_of_any_size_do(gate: Gate, lungs: Callable[[Tensor], Tensor]) -> None:
    image = _sample("RG1_UNCR.dcm")
    large = functional.interpolate(lungs(image)[None], (256, 256))[0]
    same, other = gate.probabilities(image, lungs(image)), gate.probabilities(image, large)
    assert same == pytest.approx(other, abs=1e-4)


def test_every_fault_has_its_reason_and_probabilities_add_up(gate: Gate) -> None:
    assert list(CLASSES.values()).count(None) == 1
    found = gate.probabilities(torch.rand(1, 512, 512), torch.rand(1, 128, 128))
    assert list(found) == list(CLASSES)
    assert sum(found.values()) == pytest.approx(1)


def test_the_reason_is_named_only_when_it_is_clear() -> None:
    class Undecided(GateNetwork):
        def forward(self, features: Tensor) -> Tensor:
            return torch.tensor([[-9.0, 2.0, 2.0, 0.0, 0.0, 0.0]])

    gate = Gate(Undecided().eval(), Limits(0.5, 0.9, 0.7, 0.9))
    with pytest.raises(NotAnalysable) as refusal:
        gate.check(torch.rand(1, 512, 512), torch.zeros(1, 128, 128))
    assert refusal.value.reason is Reason.NOT_LIKE_KNOWN


def test_the_file_is_small_and_of_the_right_shape(gate: Gate) -> None:
    assert (FOLDER / "models" / "gate.pt").stat().st_size < 3_000_000
    assert gate.network.mean.shape == (FEATURES,)


def test_a_limit_that_is_missing_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "models", tmp_path / "models")
    path = tmp_path / "models" / "gate.json"
    limits = json.loads(path.read_text())
    del limits["least_frontal"]
    path.write_text(json.dumps(limits))
    with pytest.raises(KeyError, match="least_frontal"):
        Gate.load(tmp_path)


def test_nearly_all_public_radiographs_pass(verdict: Verdict) -> None:
    folder = public_images()
    with (FOLDER / "docs" / "split.csv").open(newline="", encoding="utf-8") as lines:
        names = [row["path"].removeprefix("kaggle/") for row in csv.DictReader(lines)]
    paths = [name for name in names if (folder / name).is_file()]
    chosen = random.Random(20261122).sample(sorted(paths), 100)
    refused = [path for path in chosen if verdict(_square(folder / path)) is not None]
    assert len(refused) <= 3, refused


def test_public_images_of_other_kinds_are_refused(verdict: Verdict) -> None:
    paths = sorted((public_images() / "extra").glob("ood_*/*"))
    passed = [path.name for path in paths if verdict(_square(path)) is None]
    assert len(passed) <= len(paths) * 0.05, passed
