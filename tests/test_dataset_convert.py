"""`thoracle dataset convert`: pictures become DICOM files that read as the pictures do."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage
from typer.testing import CliRunner

from pictures import patient, save
from sources import FINDING
from thoracle.cli import app
from thoracle.image import selection
from thoracle.image.pixels import read_image
from thoracle.settings import Select
from validators import dciodvfy

KINDS = ("dx", "sc")
IODS = {"dx": "DXImageForPresentation", "sc": "SCImage"}
ROUNDING = 2e-7
"""Of float32, where a picture's brightness is a sum of three products."""
SIXTEEN_BIT = 0.5 / 65535 + ROUNDING
"""Half a grey level, where colour becomes grey."""


def colour(side: int = 95) -> NDArray[np.uint8]:
    return np.stack([patient(number, side) for number in (1, 2, 3)], axis=2)


def grey16(side: int = 95) -> NDArray[np.uint16]:
    return (patient(1, side).astype(np.uint16) * 251 + np.arange(side)).astype(np.uint16)


PICTURES = {
    "grey.png": (Image.fromarray(patient(1, 95)), 0.0),
    "grey with transparency.png": (Image.fromarray(patient(1, 95)).convert("LA"), 0.0),
    "16 bit.png": (Image.fromarray(grey16()), 0.0),
    "grey.jpg": (Image.fromarray(patient(1, 95)), 0.0),
    "grey as colour.jpeg": (Image.fromarray(patient(1, 95)).convert("RGB"), ROUNDING),
    "colour.JPG": (Image.fromarray(colour()), SIXTEEN_BIT),
    "transparent.png": (Image.fromarray(colour()).convert("RGBA"), SIXTEEN_BIT),
    "palette.png": (Image.fromarray(colour()).quantize(64), SIXTEEN_BIT),
    "grey palette.png": (Image.fromarray(patient(1, 95)).quantize(64), ROUNDING),
    "black and white.png": (Image.fromarray(patient(1, 95) > 127), 0.0),
}
"""Name to picture, and by how much its tensors may differ."""


def convert(path: Path, out: Path, *options: str) -> tuple[int, str]:
    """Return exit code and what was said."""
    command = ["dataset", "convert", str(path), str(out), *options]
    result = CliRunner().invoke(app, command)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def converted(root: Path, name: str = "a.png", kind: str = "dx", **row: str) -> Dataset:
    """Return the object made of the one image in a folder, with a manifest that says this of it."""
    if row:
        columns = ",".join(("path", *row))
        text = f"{columns}\n{','.join((name, *row.values()))}\n"
        (root / "manifest.csv").write_text(text, encoding="utf-8")
    code, said = convert(root, root / "out", "--sop-class", kind)
    assert code == 0, said
    return dcmread(root / "out" / f"{name}.dcm")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_and_its_dicom_file_give_the_same_tensor(
    tmp_path: Path, name: str, kind: str
) -> None:
    picture, most = PICTURES[name]
    picture.save(tmp_path / name)
    converted(tmp_path, name, kind)
    one = read_image(tmp_path / name).array
    other = read_image(tmp_path / "out" / f"{name}.dcm").array
    assert one.dtype == other.dtype == np.float32
    assert one.shape == other.shape
    assert float(np.abs(one - other).max()) <= most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["grey.png", "16 bit.png", "colour.JPG"])
@pytest.mark.parametrize("view", ["PA", "AP", "lateral", "unknown"])
def test_dciodvfy_finds_no_error(tmp_path: Path, name: str, kind: str, view: str) -> None:
    PICTURES[name][0].save(tmp_path / name)
    converted(tmp_path, name, kind, view=view, patient_id="p-1", age_group="adult", licence="CC0")
    assert dciodvfy(tmp_path / "out" / f"{name}.dcm", IODS[kind]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_image_becomes_the_same_bytes(tmp_path: Path, kind: str) -> None:
    save(patient(1), tmp_path / "in" / "a.png")
    convert(tmp_path / "in", tmp_path / "one", "--sop-class", kind)
    convert(tmp_path / "in", tmp_path / "other", "--sop-class", kind)
    one = (tmp_path / "one" / "a.png.dcm").read_bytes()
    assert one == (tmp_path / "other" / "a.png.dcm").read_bytes()


def test_uids_differ_by_kind_and_by_what_the_manifest_states(tmp_path: Path) -> None:
    save(patient(1), tmp_path / "a.png")
    objects = [
        converted(tmp_path),
        converted(tmp_path, kind="sc"),
        converted(tmp_path, view="PA"),
        converted(tmp_path, view="PA", patient_id="p1"),
    ]
    uids = [ds.SOPInstanceUID for ds in objects]
    assert len(set(uids)) == len(uids)
    assert all(uid.startswith("2.25.") for uid in uids)


def test_folders_below_out_are_those_below_path(tmp_path: Path) -> None:
    for name in ("Train/Covid/a.png", "Train/Covid/a.jpg", "Val/Normal/b.jpeg"):
        save(patient(1), tmp_path / "Dataset" / name)
    assert convert(tmp_path / "Dataset", tmp_path / "out")[0] == 0
    names = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert names == {
        "Train/Covid/a.png.dcm",
        "Train/Covid/a.jpg.dcm",
        "Val/Normal/b.jpeg.dcm",
    }


def test_what_the_manifest_knows_is_carried(tmp_path: Path) -> None:
    save(patient(1), tmp_path / "a.png")
    ds = converted(
        tmp_path,
        view="AP",
        patient_id="ieee8023-7",
        age_group="adult",
        label="covid",
        source_repo="owner/set",
        source_path="images/a.png",
        licence="CC BY 4.0 (Müller\\Söhne)",
    )
    assert (ds.PatientID, ds.PatientName) == ("ieee8023-7", "Pseudonym^ieee8023-7")
    assert ds.ViewPosition == "AP"
    assert ds.ViewCodeSequence[0].CodeValue == codes.SCT.AnteroPosterior.value
    assert ds.PatientComments == "Age group: adult"
    assert "Source: owner/set/images/a.png." in ds.ImageComments
    assert "Licence: CC BY 4.0 (Muller?Sohne)." in ds.ImageComments
    assert ds.BodyPartExamined == "CHEST"
    assert "covid" not in str(ds).lower()


@pytest.mark.parametrize("ending", ["", "é"])
def test_patients_whose_names_do_not_fit_stay_apart(tmp_path: Path, ending: str) -> None:
    save(patient(1), tmp_path / "a.png")
    names = ("x" * 64 + "1" + ending, "x" * 64 + "2" + ending, "x" * 64)
    patients = {str(converted(tmp_path, patient_id=name).PatientID) for name in names}
    assert len(patients) == 3
    assert all(len(one) <= 64 for one in patients)


def test_without_a_manifest_the_pseudonym_follows_from_the_file(tmp_path: Path) -> None:
    for name in ("one/a.png", "other/b.png"):
        save(patient(1), tmp_path / name)
    ids = {
        converted(tmp_path / folder, name).PatientID
        for folder, name in (("one", "a.png"), ("other", "b.png"))
    }
    assert len(ids) == 1
    assert ids.pop().startswith("sha256-")


@pytest.mark.parametrize(
    ("kind", "uid"),
    [("dx", DigitalXRayImageStorageForPresentation), ("sc", SecondaryCaptureImageStorage)],
)
def test_the_node_takes_what_it_converted_for_a_frontal_chest_radiograph(
    tmp_path: Path, kind: str, uid: str
) -> None:
    save(patient(1, 512), tmp_path / "a.png")
    ds = converted(tmp_path, kind=kind, view="PA")
    selection.check(ds, Select(), FINDING.population)
    assert ds.SOPClassUID == uid
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


def test_a_jpeg_says_how_lossy_it_was(tmp_path: Path) -> None:
    path = save(patient(1), tmp_path / "a.jpg", quality=50)
    ds = converted(tmp_path, "a.jpg")
    assert ds.LossyImageCompression == "01"
    assert ds.LossyImageCompressionMethod == "ISO_10918_1"
    expected = 96 * 96 / path.stat().st_size
    assert float(ds.LossyImageCompressionRatio) == pytest.approx(expected, abs=0.005)


def test_a_png_is_not_called_lossy(tmp_path: Path) -> None:
    save(patient(1), tmp_path / "a.png")
    assert converted(tmp_path).LossyImageCompression == "00"


@pytest.mark.parametrize(("name", "bits"), [("grey.png", 8), ("16 bit.png", 16)])
def test_bits_are_those_of_the_picture(tmp_path: Path, name: str, bits: int) -> None:
    PICTURES[name][0].save(tmp_path / name)
    ds = converted(tmp_path, name)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (bits, bits, bits - 1)


def test_text_and_exif_of_the_picture_are_not_copied(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", "Doe^Jane")
    save(patient(1), tmp_path / "in" / "a.png", pnginfo=text)
    exif = Image.Exif()
    exif[0x010E] = "Doe^Jane"  # ImageDescription
    save(patient(1), tmp_path / "in" / "b.jpg", exif=exif)
    convert(tmp_path / "in", tmp_path / "out")
    for path in tmp_path.glob("in/*"):
        assert b"Doe^Jane" in path.read_bytes()
    for path in tmp_path.glob("out/*"):
        assert b"Doe^Jane" not in path.read_bytes()


def test_a_bad_file_is_named_and_the_others_are_converted(tmp_path: Path) -> None:
    save(patient(1), tmp_path / "in" / "c.png")
    (tmp_path / "in" / "a.png").write_bytes(b"GIF89a..")
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "c.png").read_bytes()[:150])
    code, said = convert(tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert "a.png: found first bytes 47 49 46 38" in said
    assert "b.png: the file cannot be read" in said
    assert "1 images converted, 2 not" in said
    assert [path.name for path in tmp_path.glob("out/*")] == ["c.png.dcm"]


@pytest.mark.parametrize("row", [{"view": "CT", "label": "covid"}, {"label": "other"}])
def test_what_is_no_chest_radiograph_becomes_a_secondary_capture_or_nothing(
    tmp_path: Path, row: dict[str, str]
) -> None:
    save(patient(1), tmp_path / "a.png")
    ds = converted(tmp_path, kind="sc", **row)
    assert "BodyPartExamined" not in ds
    (tmp_path / "out" / "a.png.dcm").unlink()
    code, said = convert(tmp_path, tmp_path / "out")
    assert code == 1
    assert "required: a chest radiograph, or SOP class sc" in said


def test_a_lateral_is_not_taken_for_a_frontal_image(tmp_path: Path) -> None:
    save(patient(1), tmp_path / "a.png")
    ds = converted(tmp_path, view="lateral")
    assert ds.ViewCodeSequence[0].CodeValue == codes.SCT.LateralProjection.value
    assert "ViewPosition" not in ds
    assert list(ds.PatientOrientation) == ["", "F"]


def test_an_image_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    save(patient(1), tmp_path / "in" / "a.png")
    (tmp_path / "out").write_text("a file where the folder should be", encoding="utf-8")
    code, said = convert(tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert "a.png: " in said
