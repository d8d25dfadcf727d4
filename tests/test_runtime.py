"""OpenVINO in place of torch: the same results, or torch again."""

import logging
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file
from torch import Tensor, nn

from thoracle.classify import bundle, compiled_cache
from thoracle.classify import compiled as conversion
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
    assert "required:" in caplog.text


@pytest.mark.parametrize("difference", [0.01, float("nan")])
def test_openvino_asked_for_by_name_must_give_the_same(difference: float) -> None:
    with pytest.raises(BundleError, match=r"found outputs .* from torch's, required: 0.001"):
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
    with pytest.raises(SettingsError, match=r"found no openvino .* required: `pip install"):
        Classifier.load(settings.classify)
    finding = next(one for one in machine.check(settings) if "runtime" in one.subject)
    assert not finding.well
    assert finding.text.startswith("found no openvino on this machine, required:")


def test_loading_imports_nothing_for_training_and_openvino_sends_nothing(tmp_path: Path) -> None:
    program = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "os.fork"):
        print(event, arguments)
sys.addaudithook(watch)
from thoracle.classify import load_classifier
from thoracle.settings import Classify
load_classifier(Classify(runtime="openvino"))
assert "monai" in sys.modules
print(*{"ignite", "matplotlib"} & sys.modules.keys())
import matplotlib  # the same process can draw
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
"""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == ""
    assert not (tmp_path / "intel").exists()


# ---- cache ---------------------------------------------------------------------------------------


def _small() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.ReLU6(), nn.Conv2d(4, 2, 3)
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.fixture
def settings(tmp_path: Path) -> Classify:
    return Classify(runtime="openvino", cache_folder=tmp_path / "cache")


def _refuse_to_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was converted again")

    monkeypatch.setattr(conversion, "converted", refuse)


def _entry(settings: Classify) -> Path:
    assert settings.cache_folder is not None
    (entry,) = settings.cache_folder.iterdir()
    return entry


def test_a_network_is_converted_once(settings: Classify, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 1, 64, 96)
    before = accelerate(_small(), FORMAT, settings)(images)
    _refuse_to_convert(monkeypatch)
    after = accelerate(_small(), FORMAT, settings)
    assert isinstance(after, CompiledNetwork)
    assert torch.equal(after(images), before)
    assert _entry(settings).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["one bit", "cut", "empty"])
def test_a_damaged_entry_is_replaced(
    damage: str, settings: Classify, caplog: pytest.LogCaptureFixture
) -> None:
    accelerate(_small(), FORMAT, settings)
    entry = _entry(settings)
    whole = entry.read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 1
    entry.write_bytes({"one bit": bytes(broken), "cut": whole[:-9], "empty": b""}[damage])
    caplog.set_level(logging.WARNING)
    network = accelerate(_small(), FORMAT, settings)
    images = torch.rand(1, 1, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), _small()(images), rtol=0, atol=1e-3)
    assert "found other bytes than were written" in caplog.text
    assert compiled_cache.read(_entry(settings)) is not None


def test_a_network_with_other_weights_has_another_entry(settings: Classify) -> None:
    accelerate(_small(), FORMAT, settings)
    other = _small()
    with torch.no_grad():
        other.get_parameter("2.bias").add_(1)
    images = torch.rand(1, 1, 64, 96)
    with torch.inference_mode():
        expected = other(images)
        found = accelerate(other, FORMAT, settings)(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_an_attribute_that_no_weight_shows_makes_another_entry(settings: Classify) -> None:
    assert isinstance(accelerate(OtherWhenTraced(0.0), FORMAT, settings), CompiledNetwork)
    with pytest.raises(BundleError, match="found outputs"):
        accelerate(OtherWhenTraced(0.01), FORMAT, settings)


def test_a_network_that_differs_is_not_kept(settings: Classify) -> None:
    for _ in range(2):
        with pytest.raises(BundleError, match="found outputs"):
            accelerate(OtherWhenTraced(0.01), FORMAT, settings)


def test_a_folder_that_others_may_write_to_is_not_used(
    settings: Classify, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.cache_folder is not None
    settings.cache_folder.mkdir()
    settings.cache_folder.chmod(0o777)
    caplog.set_level(logging.WARNING)
    assert isinstance(accelerate(_small(), FORMAT, settings), CompiledNetwork)
    assert "with mode 777, required:" in caplog.text
    assert list(settings.cache_folder.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    settings: Classify, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.cache_folder is not None
    settings.cache_folder.write_text("a file in its place")
    caplog.set_level(logging.WARNING)
    assert isinstance(accelerate(_small(), FORMAT, settings), CompiledNetwork)
    assert "converted networks are not kept" in caplog.text


def test_entries_that_nobody_reads_are_removed(settings: Classify) -> None:
    accelerate(_small(), FORMAT, settings)
    used = _entry(settings)
    old = used.with_name(f"{'0' * 64}.network")
    shutil.copy(used, old)
    long_ago = used.stat().st_mtime - 91 * 86400
    os.utime(old, (long_ago, long_ago))
    os.utime(used, (long_ago, long_ago))
    accelerate(_small(), FORMAT, settings)  # reads, and says so
    accelerate(nn.Conv2d(1, 2, 3).eval(), FORMAT, settings)  # writes
    assert used.exists()
    assert not old.exists()


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"CACHE_DIRECTORY": "/var/cache/thoracle"}, "/var/cache/thoracle"),
        ({"XDG_CACHE_HOME": "/tmp/cache"}, "/tmp/cache/thoracle"),
        ({"XDG_CACHE_HOME": "not/absolute", "HOME": "/home/a"}, "/home/a/.cache/thoracle"),
        ({"HOME": "/home/a"}, "/home/a/.cache/thoracle"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert compiled_cache.default_folder() == Path(folder)
