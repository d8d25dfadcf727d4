"""The classifier: from an image to a calibrated probability."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from radiographs import chest, saved
from thoracle.classify import bundle
from thoracle.classify.classifier import Classifier
from thoracle.classify.network import EfficientNetLite0, greyscale_weights
from thoracle.classify.transforms import LoadRadiograph, LoadRadiographd
from thoracle.errors import BundleError, NotAnalysable
from thoracle.image.pixels import radiograph, read_image
from thoracle.records import Image
from thoracle.settings import Classify

FOLDER = bundle.bundle_folder(Classify())
RUNTIMES: tuple[bundle.Runtime, ...] = ("torch", "openvino")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(Classify())


def _radiograph(name: str = "RG1_UNCR.dcm") -> Image:
    path = pydicom.data.get_testdata_file(name, download=False)
    assert isinstance(path, str), "found no pydicom-data, required: the dependency group test"
    return read_image(Path(path))


def _chest() -> Image:
    """Return the radiograph of the tests, 512 x 512, as the reader gives it."""
    ds = chest()
    return radiograph(ds, ds.pixel_array)


def _darker(gamma: float) -> Image:
    """Return the radiograph with other grey values."""
    return Image(_radiograph().array ** np.float32(gamma))


def test_the_classifier_says_which_bundle_it_is(classifier: Classifier) -> None:
    assert classifier.identity == bundle.identify(Classify())


def test_a_real_radiograph_gets_a_probability_of_four_decimals(classifier: Classifier) -> None:
    probability = classifier.classify(_radiograph()).probability
    assert 0 <= probability <= 1
    assert probability == round(probability, 4)


def test_the_same_image_gets_the_same_probability_every_time(classifier: Classifier) -> None:
    image = _radiograph()
    again = Classifier.load(Classify())
    first = classifier.classify(image)
    assert [classifier.classify(image), again.classify(image)] == [first, first]


def test_classifying_leaves_the_image_as_it_was(classifier: Classifier) -> None:
    image = _radiograph()
    before = image.array.copy()
    classifier.classify(image)
    assert np.array_equal(image.array, before)


def test_threads_that_share_a_classifier_get_what_one_gets(classifier: Classifier) -> None:
    images = [_darker(1 + number / 10) for number in range(6)]
    expected = [classifier.classify(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(classifier.classify, images)) == expected


@pytest.mark.parametrize("name", ["black", "noise", "negative", "upside down", "hand"])
def test_what_is_no_frontal_chest_is_refused_with_a_reason(
    classifier: Classifier, name: str
) -> None:
    chest_array = _radiograph().array
    arrays = {
        "black": np.zeros((1, 700, 600), np.float32),
        "noise": np.random.default_rng(1).random((1, 700, 600), np.float32),
        "negative": 1 - chest_array,
        "upside down": np.ascontiguousarray(chest_array[:, ::-1]),
        "hand": _radiograph("RG3_UNCR.dcm").array,
    }
    with pytest.raises(NotAnalysable) as refusal:
        classifier.classify(Image(arrays[name]))
    assert refusal.value.detail


def test_a_refused_image_is_not_prepared_for_the_network(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "bundle"))
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    cutting = config["preprocessing"]["transforms"][-1]
    config["preprocessing"]["transforms"].append(cutting | {"keys": "absent"})
    path.write_text(json.dumps(config))
    broken = Classifier.load(Classify(bundle=folder, digest=bundle.digest(folder)))
    with pytest.raises(NotAnalysable):
        broken.classify(Image(np.zeros((1, 700, 600), np.float32)))
    with pytest.raises(RuntimeError, match="applying transform"):
        broken.classify(_chest())


def test_the_map_has_shares_within_the_box_of_the_lungs_alone(classifier: Classifier) -> None:
    judgement = classifier.classify(_chest())
    assert judgement.saliency is not None
    assert judgement.lung_box is not None
    found = judgement.saliency.contributions
    assert found.shape == (512, 512)
    assert found.dtype == np.float32
    # The radiograph of the tests has as many rows and columns as the map.
    left, top, right, bottom = (round(edge) for edge in judgement.lung_box)
    inside = found[top:bottom, left:right]
    assert (inside > 0).all()
    assert (inside < 1).all()
    assert np.count_nonzero(found) == inside.size < found.size


def test_an_explanation_is_the_map_of_the_judgement(classifier: Classifier) -> None:
    judgement, saliency = classifier.classify(_chest()), classifier.explain(_chest())
    assert judgement.saliency is not None
    assert saliency is not None
    assert np.array_equal(judgement.saliency.contributions, saliency.contributions)


def test_the_same_image_is_explained_by_the_same_bytes(classifier: Classifier) -> None:
    first, again = classifier.explain(_chest()), classifier.explain(_chest())
    assert first is not None
    assert again is not None
    assert first.contributions.tobytes() == again.contributions.tobytes()


def test_explaining_changes_no_probability(classifier: Classifier) -> None:
    before = classifier.classify(_chest())
    classifier.explain(_chest())
    assert classifier.classify(_chest()) == before


def test_both_runtimes_explain_alike() -> None:
    found = [Classifier.load(Classify(runtime=name)).explain(_chest()) for name in RUNTIMES]
    one, other = (saliency.contributions for saliency in found if saliency is not None)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_a_refused_image_is_not_explained(classifier: Classifier) -> None:
    with pytest.raises(NotAnalysable):
        classifier.explain(Image(np.zeros((1, 700, 600), np.float32)))


def test_a_network_of_another_maker_is_not_explained(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "bundle"))
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"] = {
        "_target_": "thoracle.classify.network.EfficientNetLite0",
        "in_channels": 1,
    }
    path.write_text(json.dumps(config))
    torch.save(EfficientNetLite0().state_dict(), folder / "models" / "model.pt")
    other = Classifier.load(Classify(bundle=folder, digest=bundle.digest(folder)))
    assert 0 <= other.classify(_chest()).probability <= 1
    assert other.explain(_chest()) is None


def test_the_settings_name_the_number_of_threads() -> None:
    Classifier.load(Classify(threads=2))
    assert torch.get_num_threads() == 2
    # What others compute beside it would wait for cores that spin.
    Classifier.load(Classify())
    assert torch.get_num_threads() == 1


def test_a_bundle_is_loaded_while_another_thread_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    class Imported(str):
        """Name of a module; another one is imported when somebody looks at it."""

        def startswith(self, *_: object) -> bool:
            monkeypatch.setitem(sys.modules, f"imported_{len(sys.modules)}", sys)
            return False

    monkeypatch.setitem(sys.modules, Imported("one"), sys)
    Classifier.load(Classify())


def test_nothing_of_a_bundle_with_another_digest_is_evaluated(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "bundle"))
    path, evaluated = folder / "configs" / "inference.json", tmp_path / "evaluated"
    config = json.loads(path.read_text())
    config["inferer"] = f"$open({str(evaluated)!r}, 'w')"
    path.write_text(json.dumps(config))
    with pytest.raises(BundleError, match="found digest"):
        Classifier.load(Classify(bundle=folder, digest=bundle.SHIPPED_DIGEST))
    assert not evaluated.exists()


def test_a_bundle_whose_weights_are_malformed_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "bundle"))
    (folder / "models" / "model.pt").write_bytes(b"not weights")
    with pytest.raises(BundleError, match="bundle: "):
        Classifier.load(Classify(bundle=folder, digest=bundle.digest(folder)))


def test_a_file_and_its_image_give_the_same_tensor(tmp_path: Path) -> None:
    path = saved(chest(), tmp_path / "one.dcm")
    from_file, from_image = LoadRadiograph()(path), LoadRadiograph()(read_image(path))
    assert isinstance(from_file, MetaTensor)
    assert from_file.dtype == torch.float32
    assert torch.equal(from_file.as_tensor(), from_image.as_tensor())
    assert from_file.meta["filename_or_obj"] == str(path)


def test_the_dictionary_transform_reads_its_entries_alone(tmp_path: Path) -> None:
    path = saved(chest(), tmp_path / "one.dcm")
    entries = LoadRadiographd("image")({"image": str(path), "label": 1})
    assert entries["image"].shape[0] == 1
    assert entries["label"] == 1


def test_a_file_that_is_no_image_is_not_analysable(tmp_path: Path) -> None:
    path = tmp_path / "text.dcm"
    path.write_text("no image")
    with pytest.raises(NotAnalysable):
        LoadRadiograph()(path)


def test_weights_for_colour_give_the_same_features_for_grey() -> None:
    torch.manual_seed(0)
    colour, grey = EfficientNetLite0(in_channels=3).eval(), EfficientNetLite0().eval()
    missing = grey.load_state_dict(greyscale_weights(colour.state_dict()), strict=False)
    assert missing.missing_keys == ["_fc.weight", "_fc.bias"]
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        features = grey.maps(image), colour.maps(image.expand(1, 3, 64, 64))
    assert features[0].shape == (1, 1280, 2, 2)
    torch.testing.assert_close(*features)
