"""The bundle as such: its files, its digest, and MONAI's own checks of it."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle.config_parser import ConfigParser
from PIL import Image as Picture
from scripts.cache import as_input, cached

from radiographs import chest, saved
from thoracle.classify import bundle
from thoracle.errors import BundleError
from thoracle.settings import Classify

FOLDER = bundle.bundle_folder(Classify())
SCHEMA = Path(__file__).parent / "data" / "bundle_metadata.schema.json"
LARGEST_FILE_BYTES = 25_000_000
"""What the MONAI model zoo takes in git."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped bundle, to be changed."""
    return Path(shutil.copytree(FOLDER, tmp_path / "bundle"))


def _config(name: str) -> str:
    return str(FOLDER / "configs" / name)


def test_the_shipped_bundle_has_the_files_that_monai_requires() -> None:
    required = (
        "LICENSE",
        "configs/metadata.json",
        "configs/inference.json",
        "configs/train.json",
        "configs/evaluate.json",
        "configs/logging.conf",
        "configs/train_gate.json",
        "configs/train_lungs.json",
        "models/model.pt",
        "models/lungs.pt",
        "models/gate.pt",
        "models/gate.json",
        "models/decision.json",
        "docs/README.md",
        "docs/data_license.txt",
    )
    assert [name for name in required if not (FOLDER / name).is_file()] == []


def test_the_weights_fit_into_the_model_zoo() -> None:
    assert (FOLDER / "models" / "model.pt").stat().st_size <= LARGEST_FILE_BYTES


def test_the_shipped_bundle_has_the_shipped_digest() -> None:
    assert bundle.digest(FOLDER) == bundle.SHIPPED_DIGEST


def test_the_class_names_stand_in_the_metadata() -> None:
    metadata = json.loads((FOLDER / "configs" / "metadata.json").read_text())
    classes = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert classes == {"0": "not COVID-19", "1": "COVID-19"}


def test_the_identity_tells_name_version_and_decision() -> None:
    identity = bundle.identify(Classify())
    decision = identity.decision
    assert identity.digest == bundle.SHIPPED_DIGEST
    assert identity.name.startswith("Thoracle")
    assert re.fullmatch(r"offset\([+-]\d\.\d\d\) temperature\(\d+\.\d\d\)", identity.calibration)
    assert 0 < decision.lower < decision.threshold < decision.upper < 1


@pytest.mark.parametrize("name", ["configs/inference.json", "models/decision.json"])
def test_a_changed_file_changes_the_digest(copy: Path, name: str) -> None:
    before = bundle.digest(copy)
    with (copy / name).open("a") as file:
        file.write("\n")
    assert bundle.digest(copy) != before


def test_a_renamed_file_changes_the_digest(copy: Path) -> None:
    before = bundle.digest(copy)
    (copy / "configs" / "evaluate.json").rename(copy / "configs" / "evaluation.json")
    assert bundle.digest(copy) != before


def test_documents_and_compiled_files_do_not_change_the_digest(copy: Path) -> None:
    before = bundle.digest(copy)
    (copy / "docs" / "README.md").write_text("changed")
    (copy / "configs" / "__pycache__").mkdir()
    (copy / "configs" / "__pycache__" / "any.pyc").write_bytes(b"any")
    assert bundle.digest(copy) == before


def test_a_bundle_with_another_digest_is_refused_and_both_are_named(copy: Path) -> None:
    settings = Classify(bundle=copy, digest="0" * 64)
    with pytest.raises(BundleError, match=f"{bundle.SHIPPED_DIGEST}.*{'0' * 64}"):
        bundle.identify(settings)


def test_a_bundle_that_the_settings_name_is_taken(copy: Path) -> None:
    settings = Classify(bundle=copy, digest=bundle.digest(copy))
    assert bundle.identify(settings).digest == bundle.SHIPPED_DIGEST


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="required: a MONAI bundle"):
        bundle.identify(Classify(bundle=tmp_path, digest="0" * 64))


@pytest.mark.parametrize("text", ["{", "[]", '{"temperature": 1}'])
def test_a_malformed_decision_is_refused(copy: Path, text: str) -> None:
    (copy / "models" / "decision.json").write_text(text)
    with pytest.raises(BundleError):
        bundle.identify(Classify(bundle=copy, digest=bundle.digest(copy)))


def test_a_decision_whose_band_is_turned_round_is_refused(copy: Path) -> None:
    path = copy / "models" / "decision.json"
    decision = json.loads(path.read_text())
    decision["indeterminate"] = {"lower": 0.8, "upper": 0.2}
    path.write_text(json.dumps(decision))
    with pytest.raises(BundleError, match="ascending"):
        bundle.identify(Classify(bundle=copy, digest=bundle.digest(copy)))


def test_asking_for_the_identity_does_not_import_torch() -> None:
    program = (
        "import sys; from thoracle.classify import bundle; from thoracle.settings import Classify; "
        "bundle.identify(Classify()); sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_metadata_satisfy_the_schema() -> None:
    from monai.bundle.scripts import verify_metadata

    # MONAI would download the schema, were there no such file, and warns without a hash.
    verify_metadata(
        meta_file=_config("metadata.json"),
        filepath=SCHEMA,
        hash_val=hashlib.sha256(SCHEMA.read_bytes()).hexdigest(),
        hash_type="sha256",
    )


def test_the_inference_workflow_has_the_properties_that_monai_expects(tmp_path: Path) -> None:
    saved(chest(), tmp_path / "one.dcm")  # the evaluator refuses a folder without images
    # A process of its own, as importing ignite warns of what torch deprecates: an error here.
    program = f"""
from monai.bundle import ConfigWorkflow
workflow = ConfigWorkflow(
    config_file={_config("inference.json")!r}, meta_file={_config("metadata.json")!r},
    logging_file=False, workflow_type="infer", bundle_root={str(FOLDER)!r},
    dataset_dir={str(tmp_path)!r}, output_dir={str(tmp_path)!r})
workflow.initialize()
assert workflow.check_properties() == [], workflow.check_properties()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_network_takes_and_gives_what_the_metadata_say() -> None:
    from monai.bundle.scripts import verify_net_in_out

    verify_net_in_out(
        net_id="network_def",
        meta_file=_config("metadata.json"),
        config_file=_config("inference.json"),
        device="cpu",
    )


def test_training_gives_the_network_what_inference_gives_it(tmp_path: Path) -> None:
    path = saved(chest(), tmp_path / "one.dcm")
    parser = ConfigParser()
    parser.read_config(_config("inference.json"))
    parser["bundle_root"] = str(FOLDER)
    weights = torch.load(FOLDER / "models" / "lungs.pt", weights_only=True)
    parser.get_parsed_content("lungs_network").load_state_dict(weights)
    parser.get_parsed_content("lungs_network").eval()
    served = parser.get_parsed_content("preprocessing")({"image": str(path)})
    network = parser.get_parsed_content("lungs_network")
    kept = cached(["one.dcm"], str(tmp_path), str(tmp_path / "cache.npz"), network)
    again = cached(["one.dcm"], "nowhere", str(tmp_path / "cache.npz"), network)
    side = json.loads(Path(_config("train.json")).read_text())["side"]
    assert torch.equal(kept.large, again.large)
    assert served["image"].shape == (1, side, side)
    # The cache keeps 256 grey levels, of which one is 2 / 255.
    assert float((as_input(kept.large, side)[0] - served["image"]).abs().max()) < 1.01 / 255
    assert float((kept.lungs[0] / 255 - served["lungs"]).abs().max()) < 0.51 / 255


def test_the_rule_says_its_band_in_a_sentence() -> None:
    rule = json.loads((FOLDER / "models" / "decision.json").read_text())
    band = rule["indeterminate"]
    assert rule["bands"]["8%"] == band
    assert rule["sentence"] == (
        f"positive from {band['upper']:.2f}, negative below {band['lower']:.2f}"
    )


def test_nothing_of_an_image_of_siim_is_in_the_split() -> None:
    rows = [row for row in _split() if row["source"] == "siim"]
    assert len(rows) > 4000
    assert set(rows[0]) == {
        *("path", "sha256", "source", "finding", "category", "age", "view", "view_by"),
        *("group", "split"),
    }


def _split() -> list[dict[str, str]]:
    with (FOLDER / "docs" / "split.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_no_group_of_the_split_is_in_two_parts() -> None:
    parts: dict[str, set[str]] = {}
    for row in _split():
        parts.setdefault(row["group"], set()).add(row["split"])
    assert {group: found for group, found in parts.items() if len(found) > 1} == {}


def test_no_image_is_in_the_split_twice() -> None:
    rows = _split()
    assert len({row["path"] for row in rows}) == len(rows)
    # SIIM has exact copies of some images under another number, of the same patient.
    assert len({(row["sha256"], row["group"]) for row in rows}) == len({r["sha256"] for r in rows})
    others = [row for row in rows if row["source"] != "siim"]
    assert len({row["sha256"] for row in others}) == len(others)


def test_what_kaggle_evaluates_on_is_in_the_test_part_alone() -> None:
    evaluated = [
        row
        for row in _split()
        if row["path"].startswith(("kaggle/Dataset/Val/", "kaggle/Dataset/Prediction/"))
    ]
    assert {row["split"] for row in evaluated} == {"test"}


def test_the_bundle_runs_from_its_own_folder_on_dicom_and_png(tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "output"
    images.mkdir()
    saved(chest(), images / "one.dcm")
    picture = np.tile(np.linspace(0, 255, 600, dtype=np.uint8), (500, 1))
    Picture.fromarray(picture).save(images / "two.png")
    subprocess.run(
        [
            *(sys.executable, "-m", "monai.bundle", "run"),
            *("--config_file", "configs/inference.json"),
            *("--dataset_dir", str(images), "--output_dir", str(output)),
        ],
        check=True,
        cwd=FOLDER,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    with (output / "predictions.csv").open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert [Path(row[0]).name for row in rows] == ["one.dcm", "two.png"]
    assert sum(map(float, rows[0][1:])) == pytest.approx(1, abs=1e-4)
    assert rows[1][1:] == ["nan", "nan"], "a ramp is no chest: the gate refuses it"
