"""`thoracle evaluate`: labels matched with images, figures, and all that is left out."""

import csv
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner

from pictures import patient, public_images, save
from radiographs import chest, lungs, saved
from sources import FINDING
from thoracle.classify import bundle
from thoracle.cli import app
from thoracle.cli.evaluate import _csv
from thoracle.errors import ThoracleError
from thoracle.evaluate import labels as labels_module
from thoracle.evaluate import labels as match_module
from thoracle.evaluate.metrics import wilson
from thoracle.settings import Classify

DOCS = Path(__file__).parent.parent / "docs"


def invoke(*arguments: object) -> tuple[int, str]:
    """Run the command in this process; return exit code and what it said."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if isinstance(result.exception, ThoracleError):
        return 1, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def figures(*arguments: object) -> dict[str, Any]:
    """Return what the command says in JSON."""
    code, said = invoke(*arguments, "--json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


def write(path: Path, *lines: str) -> Path:
    """Return the path, where a CSV file with these lines now is."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of DICOM files, one with a lateral beside, a hand, and pictures."""
    folder = tmp_path_factory.mktemp("site")
    for name, study, changes in (
        ("a", "2.25.1", {}),
        ("a lateral", "2.25.1", {"ViewPosition": "LL"}),
        ("b", "2.25.2", {"AccessionNumber": "B2"}),
        ("hand", "2.25.3", {"BodyPartExamined": "HAND"}),
    ):
        ds = chest(StudyInstanceUID=study, **changes)
        saved(ds, folder / f"{name}.dcm")
    shutil.copy(folder / "b.dcm", folder / "b again.dcm")
    for number in range(4):
        darker = (lungs() / 4095) ** (1 + number / 10)
        save((darker * 255).astype(np.uint8), folder / "pictures" / f"{number}.png")
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    return folder


def test_images_are_evaluated_and_everything_else_is_counted(site: Path, tmp_path: Path) -> None:
    labels = write(
        tmp_path / "labels.csv",
        "Path;Label;Group;Patient;Remark",
        "a.dcm;covid;AP;1;",
        "./a.dcm;positive;AP;1;again",
        "hand.dcm;COVID-19;AP;2;",
        "pictures/0.png;1;PA;3;",
        "1.png;normal;PA;4;by its name",
        "pictures\\2.png;pneumonia;;;from another system",
        "pictures/3.png;0;PA;6;",
        f"{site / 'pictures' / '3.png'};1;PA;6;contradicts",
        "pictures/broken.png;0;PA;7;",
        "nowhere.png;0;PA;8;",
    )
    predictions = tmp_path / "predictions.csv"
    found = figures(site, labels, "--predictions", predictions)
    assert found["cases"] == 6
    assert found["columns_not_used"] == ["remark"]
    assert found["rejected"] == {
        "Body part is not the chest": {"positive": 1, "negative": 0},
        "Pixel data cannot be decoded": {"positive": 0, "negative": 1},
    }
    left_out = {reason: len(names) for reason, names in found["left_out"].items()}
    assert left_out == {
        "labels given twice": 1,
        "labels that contradict another of the same image": 2,
        "labels without an image": 1,
        "images without a label": 3,
    }
    yes, no = found["outcomes"]["positive"], found["outcomes"]["negative"]
    assert (yes["n"], no["n"]) == (2, 2)
    counts = found["at_threshold"]
    assert counts["true_positive"] + counts["false_negative"] == 2
    assert counts["threshold"] == found["decision"]["threshold"]
    assert 0 <= found["auroc"]["lower"] <= found["auroc"]["upper"] <= 1
    assert {proposal["rates"] for proposal in found["proposals"]} == {None}
    assert "required: 20 of each" in found["proposals"][0]["refused"]
    assert set(found["groups"]) == {"AP", "PA", ""}
    assert found["groups"]["AP"]["auroc"] is None
    assert {(one["positive"], one["negative"]) for one in found["auroc_by_groups"]} == {
        ("AP", "PA"), ("AP", ""), ("PA", "PA"), ("PA", ""),
    }  # fmt: skip
    assert found["patients"] == 4
    rows = list(csv.DictReader(predictions.read_text(encoding="utf-8").splitlines()))
    assert [row["outcome"] for row in rows].count("rejected") == 2
    assert [row["label"] for row in rows].count("positive") == 3
    assert list(rows[0]) == ["path", "probability", "outcome", "reason", "label"]


@pytest.mark.parametrize("key", ["study_instance_uid", "accession_number"])
def test_a_study_is_what_the_most_telling_of_its_images_is(
    site: Path, tmp_path: Path, key: str
) -> None:
    values = {"study_instance_uid": ("2.25.1", "2.25.2"), "accession_number": ("A1", "B2")}[key]
    labels = write(tmp_path / "l.csv", f"{key},label", f"{values[0]},1", f"{values[1]},0")
    found = figures(site, labels)
    assert found["cases"] == 2
    assert found["rejected"] == {}
    rejected = found["rejected_images_of_analysed_cases"]
    assert rejected["View is not frontal"] == 1
    assert len(found["left_out"]["further files of the same SOP Instance"]) == 1


def test_sop_instances_are_found_by_their_uid(site: Path, tmp_path: Path) -> None:
    uid = dcmread(site / "a.dcm", stop_before_pixels=True).SOPInstanceUID
    found = figures(site, write(tmp_path / "l.csv", "sop_instance_uid,label", f"{uid},1"))
    assert found["cases"] == 1
    assert found["auroc"] is None
    assert found["at_threshold"]["specificity"] is None
    assert found["predictive_values"] == []


def test_people_read_tables_and_what_they_are_worth(site: Path, tmp_path: Path) -> None:
    labels = write(
        tmp_path / "l.csv", "path,label", "a.dcm,1", "hand.dcm,1", "1.png,0", "gone[red].png,0"
    )
    code, said = invoke(site, labels)
    assert code == 0
    assert "3 labelled cases found by path: 2 analysed, 1 rejected" in said
    assert "rejected, Body part is not the chest: 1 positive, 0 negative" in said
    assert "gone[red].png" in said
    assert "No threshold by greatest Youden index: found 1 positive" in said
    assert "Research software, not for diagnosis" in said
    assert "Doe" not in said


def test_a_plot_is_a_png_and_the_same_each_time(site: Path, tmp_path: Path) -> None:
    labels = write(
        tmp_path / "l.csv", "path,label,group", "0.png,1,_$x", "1.png,0,_$x", "2.png,0,y"
    )
    made = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in made:
        figures(site, labels, "--plot", path)
    assert made[0].read_bytes() == made[1].read_bytes()
    with Image.open(made[0]) as image:
        assert image.size == (1860, 1080)
        assert round(image.info["dpi"][0]) == 150
        assert "Software" not in image.info
    assert struct.unpack(">II", made[0].read_bytes()[16:24]) == (1860, 1080)


def test_a_threshold_of_ones_own_is_a_bundle_of_ones_own(site: Path, tmp_path: Path) -> None:
    shipped = bundle.identify(Classify())
    ours = tmp_path / "our_bundle"
    shutil.copytree(bundle.bundle_folder(Classify()), ours)
    place = ours / "models" / "decision.json"
    decision = json.loads(place.read_text())
    decision |= {"threshold": 0.25, "indeterminate": {"lower": 0.25, "upper": 0.25}}
    place.write_text(json.dumps(decision))
    digest = bundle.digest(ours)
    assert digest != shipped.digest
    config = write(
        tmp_path / "t.toml", "[classify]", 'bundle = "our_bundle"', f'digest = "{digest}"'
    )
    labels = write(tmp_path / "l.csv", "path,label", "0.png,1", "1.png,0")
    found = figures(site, labels, "--config", config)
    assert found["decision"] == {"threshold": 0.25, "lower": 0.25, "upper": 0.25}
    assert found["at_threshold"]["threshold"] == 0.25
    assert found["bundle"]["digest"] == digest
    assert found["outcomes"]["positive"]["indeterminate"] == 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["path,label", "a.png,1", "b.png,maybe"], "line 3: found label 'maybe', allowed are 1, "),
        (["path,label", "a.png"], "line 2: found 1 values, required: 2"),
        (["path,label", ",1"], "line 2: found no path"),
        (["path,label", "a\x07b,1"], "required: printable characters"),
        (["path,diagnosis", "a.png,1"], "found the columns path, diagnosis; required: `label`"),
        (["path,accession_number,label", "a.png,1,1"], "one of path, sop_instance_uid"),
        (["path,label,label", "a.png,1,0"], "each once"),
        (["path,label"], "found no labels"),
    ],
)
def test_a_faulty_file_of_labels_ends_in_what_was_found(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    labels = write(tmp_path / "labels.csv", *lines)
    with pytest.raises(ThoracleError, match=r"labels\.csv") as raised:
        labels_module.read(labels, FINDING)
    assert said in str(raised.value)


def test_many_faults_are_not_all_printed(tmp_path: Path) -> None:
    labels = write(tmp_path / "l.csv", "path,label", *(f"{n}.png,perhaps" for n in range(30)))
    with pytest.raises(ThoracleError, match="and 22 more lines like these") as raised:
        labels_module.read(labels, FINDING)
    assert len(str(raised.value).splitlines()) == 9


def test_a_file_name_that_two_images_have_is_ambiguous(tmp_path: Path) -> None:
    images = [save(patient(n), tmp_path / part / "x.png") for n, part in enumerate("ab")]
    labels = labels_module.read(
        write(tmp_path / "l.csv", "path,label", "x.png,1", "a/x.png,0"), FINDING
    )
    found = match_module.match(labels, tmp_path, images)
    assert [case.paths for case in found.cases] == [(images[0],)]
    assert found.left_out == {
        "labels with a file name that several images have": ["x.png"],
        "images without a label": [str(images[1])],
    }


def test_cells_that_would_be_formulas_are_text() -> None:
    row = dict.fromkeys(("path", "probability", "outcome", "reason", "label"), "x")
    said = _csv([row | {"path": '=HYPERLINK("http://example.org")'}, row | {"path": "@x"}])
    assert [line[0] for line in csv.reader(said.splitlines()[1:])] == [
        "'=HYPERLINK(\"http://example.org\")", "'@x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prevalence", "1"], "--prevalence: found 1, required: above 0 and below 1"),
        (["--target-sensitivity", "1.5"], "required: above 0 and at most 1"),
        (["--plot", "no-such-folder/x.png"], "found no folder no-such-folder"),
    ],
)
def test_what_would_fail_later_fails_at_once(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, answer = invoke(tmp_path, tmp_path / "l.csv", *arguments)
    assert code == 1
    assert said in answer


def test_without_matplotlib_only_the_plot_is_missing(tmp_path: Path) -> None:
    arguments = ["thoracle", "evaluate", ".", "l.csv", "--plot", str(tmp_path / "x.png")]
    code = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest)\n"
        "from thoracle.cli import main\n"
        f"sys.argv = {arguments!r}\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "thoracle: --plot: found no matplotlib; `pip install 'thoracle[evaluate]'`\n"
    )


@pytest.mark.parametrize("n", [50, 100, 200, 400])
def test_the_widths_in_the_document_are_those_computed(n: int) -> None:
    cells = [wilson(round(share * n), n) for share in (0.8, 0.9)]
    row = " | ".join(f"{one.lower:.2f} to {one.upper:.2f}" for one in cells)
    assert f"| {n} | {row} |" in (DOCS / "evaluate.md").read_text(encoding="utf-8")


def test_labels_in_the_document_are_those_allowed() -> None:
    page = (DOCS / "evaluate.md").read_text(encoding="utf-8")
    for allowed in (labels_module.POSITIVE, labels_module.NEGATIVE):
        assert ", ".join(f"`{word}`" for word in allowed) in page


@pytest.mark.slow
def test_real_images_are_evaluated_with_thresholds(tmp_path: Path) -> None:
    val = public_images() / "Dataset" / "Val"
    lines = [
        f"{path.relative_to(val)},{folder.lower()}"
        for folder in ("Covid", "Normal")
        for path in sorted((val / folder).iterdir())
        if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    ]
    found = figures(val, write(tmp_path / "l.csv", "path,label", *lines))
    assert found["cases"] == len(lines)
    assert found["auroc"]["value"] > 0.6
    sensitive = found["proposals"][1]["rates"]
    assert sensitive["sensitivity"]["value"] >= 0.9
    assert sensitive["sensitivity"]["lower"] < 0.9
