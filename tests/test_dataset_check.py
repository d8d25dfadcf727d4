"""`thoracle dataset check`: what leaks in a set of images, and a split without it."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pictures import clean, leaky, patient, save
from thoracle.cli import app
from thoracle.dataset.layout import patient_of_name
from thoracle.errors import ThoracleError


def found(*arguments: object) -> dict[str, Any]:
    """Return what the command says in JSON."""
    result = CliRunner().invoke(app, ["dataset", "check", "--json", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def ends_with(*arguments: object) -> int:
    return CliRunner().invoke(app, ["dataset", "check", *map(str, arguments)]).exit_code


def rows(split: Path) -> list[dict[str, str]]:
    with split.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_images_are_counted_by_part_and_label(tmp_path: Path) -> None:
    report = found(leaky(tmp_path))
    assert report["counts"] == {
        "train": {"covid": 4, "normal": 2},
        "val": {"covid": 2, "normal": 1},
    }


@pytest.mark.parametrize("below", ["", "Dataset"])
def test_the_folder_may_be_dataset_or_the_one_around_it(tmp_path: Path, below: str) -> None:
    assert found(clean(tmp_path) / below)["images"] == 4


def test_unreadable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    unreadable = found(leaky(tmp_path) / "Dataset")["unreadable"]
    assert set(unreadable) == {"Train/Covid/cut.png", "Train/Normal/page.jpg"}
    assert "required: a PNG or JPEG file" in unreadable["Train/Normal/page.jpg"]


def test_copies_are_found_by_their_pixels_however_they_are_packed(tmp_path: Path) -> None:
    report = found(leaky(tmp_path) / "Dataset")
    (copies,) = report["copies"]
    names = ["Train/Covid/copy.png", "Train/Covid/packed.png", "Val/Covid/c.png"]
    assert copies["names"] == names
    assert report["byte_copies"] == 1


def test_a_scaled_and_compressed_copy_is_found(tmp_path: Path) -> None:
    (near,) = found(leaky(tmp_path) / "Dataset")["near_copies"]
    assert (near["one"], near["other"]) == ("Train/Normal/smaller.jpeg", "Val/Normal/d.jpeg")
    assert near["across"]


def test_a_copy_without_its_border_is_found(tmp_path: Path) -> None:
    dataset = clean(tmp_path) / "Dataset"
    whole = patient(20, 256, cells=5)
    save(whole, dataset / "Train/Covid/whole.png")
    cropped = whole[20:220, 30:250].copy()
    cropped[:20, :40] = 255  # a letter
    save(cropped, dataset / "Val/Covid/cropped.jpg", quality=70)
    (near,) = found(dataset)["near_copies"]
    assert (near["one"], near["other"]) == ("Train/Covid/whole.png", "Val/Covid/cropped.jpg")
    assert near["how"].startswith("cropped")


def test_a_patient_in_two_parts_is_found_by_the_names_of_the_files(tmp_path: Path) -> None:
    (one,) = found(leaky(tmp_path) / "Dataset")["patients_across"]
    assert one["patient"] == "name:16654"
    assert one["parts"] == ["train", "val"]


def test_leaks_are_counted_by_kind(tmp_path: Path) -> None:
    (leak,) = found(leaky(tmp_path))["leaks"]
    expected = {"part": "val", "knows": "train", "copies": 1, "near_copies": 1, "patients": 1}
    assert leak == expected


def test_leaks_end_the_command_with_1_unless_a_split_without_them_was_written(
    tmp_path: Path,
) -> None:
    assert ends_with(leaky(tmp_path)) == 1
    assert ends_with(tmp_path, "--split", tmp_path / "split.csv") == 0


def test_a_set_without_leaks_ends_the_command_with_0(tmp_path: Path) -> None:
    assert found(clean(tmp_path))["leaks"] == []
    assert ends_with(tmp_path) == 0


def test_the_terminal_shows_counts_leaks_and_shortcuts(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["dataset", "check", str(leaky(tmp_path))]).stdout
    for words in ("published", "LEAKS", "name:16654", "Shortcuts", "page.jpg", "144"):
        assert words in said


def test_no_group_of_the_split_is_in_two_parts_and_val_wins(tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    ends_with(leaky(tmp_path) / "Dataset", "--split", split)
    parts = {row["path"]: row["split"] for row in rows(split)}
    groups: dict[str, set[str]] = {}
    for row in rows(split):
        groups.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in groups.values())
    assert parts["Train/Normal/smaller.jpeg"] == "val"
    assert parts["Train/Covid/16654_1_1.png"] == "val"
    assert parts["Train/Covid/a.png"] == "train"


def test_of_exact_copies_the_split_keeps_the_one_in_its_own_part(tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    ends_with(leaky(tmp_path) / "Dataset", "--split", split)
    names = {row["path"] for row in rows(split)}
    assert "Val/Covid/c.png" in names
    assert not names & {"Train/Covid/copy.png", "Train/Covid/packed.png"}


def test_prediction_wins_over_val_and_train(tmp_path: Path) -> None:
    dataset = clean(tmp_path) / "Dataset"
    for part in ("Train/Covid", "Val/Covid", "Prediction"):
        save(patient(9), dataset / part / "ryct.fig5-day0.png")
    save(patient(8), dataset / "Train/Covid/ryct.fig5-day7.png")
    split = tmp_path / "split.csv"
    ends_with(dataset, "--split", split)
    parts = {row["path"]: row["split"] for row in rows(split) if "ryct" in row["path"]}
    assert parts == {
        "Prediction/ryct.fig5-day0.png": "prediction",
        "Train/Covid/ryct.fig5-day7.png": "prediction",
    }


def test_the_split_file_is_the_same_when_written_again(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    leaky(tmp_path)
    ends_with(tmp_path, "--split", one)
    ends_with(tmp_path, "--split", other)
    assert one.read_bytes() == other.read_bytes()


def test_an_image_with_two_labels_is_named_and_left_out_of_the_split(tmp_path: Path) -> None:
    dataset = clean(tmp_path) / "Dataset"
    save(patient(0), dataset / "Train/Normal/other.png")
    split = tmp_path / "split.csv"
    report = found(dataset, "--split", split)
    assert report["two_labels"] == [["Train/Covid/a.png", "Train/Normal/other.png"]]
    assert not {row["path"] for row in rows(split)} & set(report["two_labels"][0])


def test_the_manifest_tells_patients_clusters_and_views(tmp_path: Path) -> None:
    dataset = clean(tmp_path) / "Dataset"
    (tmp_path / "manifest.csv").write_text(
        "path,patient_id,dup_cluster,view\n"
        "Dataset/Train/Covid/a.png,p1,,lateral\n"
        "Dataset/Val/Covid/c.png,p1,7,PA\n"
        "Dataset/Val/Normal/d.jpeg,,8,AP\n"
        "Dataset/Train/Normal/b.png,,8,PA\n",
        encoding="utf-8",
    )
    split = tmp_path / "split.csv"
    report = found(dataset, "--split", split)
    assert [one["patient"] for one in report["patients_across"]] == ["p1"]
    assert report["views"] == {"lateral": ["Train/Covid/a.png"]}
    assert {row["split"] for row in rows(split)} == {"val"}


def test_a_file_that_the_manifest_describes_differently_is_named(tmp_path: Path) -> None:
    clean(tmp_path)
    text = f"path,sha256\nDataset/Train/Covid/a.png,{'0' * 64}\n"
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8")
    assert found(tmp_path)["changed_since_manifest"] == ["Dataset/Train/Covid/a.png"]


def test_a_property_that_tells_the_class_is_found_on_train_and_counted_on_val(
    tmp_path: Path,
) -> None:
    for part, colours in (("Train", 4), ("Val", 3)):
        for number in range(4):
            colour = np.repeat(patient(10 * number)[..., None], 3, axis=2)
            image = colour if number < colours else patient(10 * number)
            save(image, tmp_path / part / "Covid" / f"{number}.png")
            save(patient(10 * number + 5), tmp_path / part / "Normal" / f"{number}.png")
    (rule,) = (one for one in found(tmp_path)["shortcuts"] if one["name"] == "channels")
    assert rule["rule"] == "channels > 2"
    assert rule["accuracy"] == {"train": 1.0, "val": 0.875}


def test_a_folder_of_one_class_has_no_shortcuts(tmp_path: Path) -> None:
    save(patient(0), tmp_path / "covid" / "a.png")
    assert found(tmp_path)["shortcuts"] == []


def test_a_folder_of_wrecks_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    report = found(tmp_path)
    assert report["images"] == 0
    assert "an empty file" in report["unreadable"]["a.png"]


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("00012211_000", "name:00012211"),
        ("NORMAL2-IM-0416-0001-0001", "name:normal2-im-0416"),
        ("IM-0140-0001", "name:im-0140"),
        ("person100_virus_184", "name:person100"),
        ("ieee8023__16660_5_1", "name:16660"),
        ("covid-19-pneumonia-20-pa-on-admission", "name:covid-19-pneumonia-20"),
        ("88de9d8c39e946abd495b37cd07d89e5-2ee6-0", "name:88de9d8c39e946abd495b37cd07d89e5"),
        ("ryct.2020200034.fig5-day0", "name:ryct.2020200034.fig5"),
        ("symptoms-l", "name:symptoms"),
        ("AR-1", ""),
        ("1", ""),
    ],
)
def test_names_of_files_tell_the_patient(stem: str, expected: str) -> None:
    assert patient_of_name(stem) == expected


@pytest.mark.parametrize(
    ("text", "fault"), [("name\nx\n", "found no column 'path'"), ("", "found no column 'path'")]
)
def test_a_manifest_without_paths_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    clean(tmp_path)
    manifest = tmp_path / "other.csv"
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(ThoracleError, match=fault):
        CliRunner().invoke(
            app,
            ["dataset", "check", str(tmp_path), "--manifest", str(manifest)],
            catch_exceptions=False,
        )


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_path_without_images_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ThoracleError, match="required: one"):
        CliRunner().invoke(app, ["dataset", "check", str(tmp_path / name)], catch_exceptions=False)
