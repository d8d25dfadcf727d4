"""OpenVINO in place of torch: the same results, or torch again."""

import logging
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file
from torch import Tensor, nn

from thoracle.classify import bundle
from thoracle.classify.classifier import Classifier
from thoracle.classify.compiled import CompiledNetwork, accelerate
from thoracle.classify.network import EfficientNetLite0
from thoracle.cli import machine
from thoracle.errors import BundleError, SettingsError
from thoracle.image.pixels import read_image
from thoracle.records import Image
from thoracle.settings import Classify, Settings

IMAGE = {"num_channels": 1, "spatial_shape": [64, 96], "value_range": [-1, 1]}
FORMAT = {"inputs": {"image": IMAGE}}


def _network() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def compiled() -> CompiledNetwork:
    network = accelerate(_network(), FORMAT, Classify(runtime="openvino"))
    assert isinstance(network, CompiledNetwork)
    return network


class OtherWhenTraced(nn.Module):
    """Gives what OpenVINO is told of, and in torch something else."""

    def __init__(self, difference: float) -> None:
        super().__init__()
        self._difference = difference

    def forward(self, image: Tensor) -> Tensor:
        # torch documents it, but annotates and exports it not.
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        return image.mean((2, 3)) + (self._difference if tracing else 0)


class WithMaps(nn.Module):
    """Gives the logits and the maps that they are made of."""

    def __init__(self) -> None:
        super().__init__()
        self._network = _network()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self._network(image), self._network.maps(image)


def test_the_bundle_gives_the_same_probabilities_in_openvino() -> None:
    path = get_testdata_file("RG1_UNCR.dcm", download=False)
    array = read_image(Path(str(path))).array
    images = [Image(array ** np.float32(gamma)) for gamma in (0.8, 1.0, 1.3, 1.6)]
    reference = Classifier.load(Classify(runtime="torch"))
    compiled = Classifier.load(Classify(runtime="openvino"))
    found = [compiled.classify(image).probability for image in images]
    assert found == pytest.approx(
        [reference.classify(image).probability for image in images], abs=1e-3
    )
    assert len(set(found)) > 1


def test_an_image_gets_in_a_batch_what_it_gets_alone(compiled: CompiledNetwork) -> None:
    images = torch.rand(5, 1, 64, 96)
    together = compiled(images)
    assert together.shape == (5, 2)
    assert torch.equal(together, torch.cat([compiled(image[None]) for image in images]))


def test_images_of_another_size_are_left_to_torch(compiled: CompiledNetwork) -> None:
    images = torch.rand(2, 1, 128, 64)
    with torch.inference_mode():
        assert torch.equal(compiled(images), _network()(images))


def test_a_network_of_two_outputs_gives_both() -> None:
    network = accelerate(WithMaps().eval(), FORMAT, Classify(runtime="openvino"))
    assert isinstance(network, CompiledNetwork)
    images = torch.rand(2, 1, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), WithMaps().eval()(images), rtol=0, atol=1e-4)


def test_a_network_that_openvino_runs_otherwise_stays_in_torch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)  # a command that ran in this process may have set another
    network = OtherWhenTraced(0.01)
    assert accelerate(network, FORMAT, Classify()) is network
    assert "runs in torch" in caplog.text
    assert "required is" in caplog.text


@pytest.mark.parametrize("difference", [0.01, float("nan")])
def test_openvino_asked_for_by_name_must_give_the_same(difference: float) -> None:
    with pytest.raises(BundleError, match=r"found outputs .* from torch's, required is 0.001"):
        accelerate(OtherWhenTraced(difference), FORMAT, Classify(runtime="openvino"))


def test_a_network_whose_input_is_not_described_stays_in_torch() -> None:
    network = _network()
    assert accelerate(network, None, Classify()) is network


def test_torch_asked_for_by_name_runs_the_network(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network = _network()
    assert accelerate(network, FORMAT, Classify(runtime="torch")) is network
    assert f"EfficientNetLite0 runs in torch {torch.__version__}" in caplog.text


def _absent(name: str) -> str:
    if name == "openvino":
        raise PackageNotFoundError
    return "1.0"


def test_torch_is_chosen_where_openvino_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "version", _absent)
    assert bundle.runtime_of(Classify()) == "torch"
    finding = next(one for one in machine.check(Settings()) if "runtime" in one.subject)
    assert (finding.well, finding.text) == (True, "torch 1.0 runs the networks")


def test_openvino_asked_for_and_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "version", _absent)
    settings = Settings(classify=Classify(runtime="openvino"))
    with pytest.raises(SettingsError, match=r"found no openvino .* required is `pip install"):
        Classifier.load(settings.classify)
    finding = next(one for one in machine.check(settings) if "runtime" in one.subject)
    assert not finding.well
    assert finding.text.startswith("found no openvino on this machine, required is")


def test_openvino_sends_nothing_and_keeps_no_identifier(tmp_path: Path) -> None:
    program = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "os.fork"):
        print(event, arguments)
sys.addaudithook(watch)
from thoracle.classify.classifier import Classifier
from thoracle.settings import Classify
Classifier.load(Classify(runtime="openvino"))
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
"""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert run.stdout == ""
    assert not (tmp_path / "intel").exists()
