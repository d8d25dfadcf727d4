"""Pictures for the pages: made in a child process that may die, kept while there is room."""

import io
import json
import os
import signal
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from ledger import eventually
from radiographs import chest, gradient, radiograph, saved
from sources import BUNDLE, COMMON, positive
from test_softcopy import outline
from thoracle.image import pixels
from thoracle.report import header, softcopy, sr
from thoracle.settings import Settings, parse
from thoracle.web.pages import pictures, report_view
from thoracle.web.pages.rendering import GREY_VALUES, LONGEST_SIDE, Order


def settings(folder: Path, **decode: object) -> Settings:
    return parse({"data_folder": str(folder), "decode": decode})


def image_file(folder: Path, name: str = "a.dcm") -> Path:
    """Return where a file is that a row may name."""
    (folder / "images").mkdir(exist_ok=True)
    return folder / "images" / name


def order(image: Path, **changes: object) -> Order:
    usual = {"kind": "radiograph", "image": f"images/{image.name}", "states": [], "heat_map": ""}
    return Order(**{**usual, **changes})  # type: ignore[typeddict-item]  # keys are the same


def opened(made: bytes) -> Image.Image:
    return Image.open(io.BytesIO(made))


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache").rglob("*.png"))


def outlined(source: Dataset, folder: Path) -> Path:
    """Write a presentation state of a source; return its path."""
    arguments = {**COMMON, "instance_number": 1, "context_source": source}
    region = outline(100, 120, 300, 420)
    state = softcopy.build(source, (region,), positive(source), BUNDLE, **arguments)
    path = image_file(folder, "pr.dcm")
    path.write_bytes(header.encode(state))
    return path


# ---- made ------------------------------------------------------------------------------------


def test_the_radiograph_is_what_the_model_is_given(tmp_path: Path) -> None:
    path = saved(chest(PhotometricInterpretation="MONOCHROME1"), image_file(tmp_path))
    shown = opened(pictures.stored_picture(settings(tmp_path), order(path), ["a"]))
    assert (shown.mode, shown.size) == ("L", (512, 512))
    model = pixels.read_image(path).array[0] * 255
    assert np.abs(np.asarray(shown, np.float32) - model).max() <= 0.5


def test_a_large_radiograph_is_made_smaller_in_its_proportions(tmp_path: Path) -> None:
    path = saved(radiograph(gradient(3000, 2000)), image_file(tmp_path))
    shown = opened(pictures.stored_picture(settings(tmp_path), order(path), ["a"]))
    assert shown.size == (round(LONGEST_SIDE * 2 / 3), LONGEST_SIDE)
    values = np.asarray(shown)
    assert values[0, 0] < 10
    assert values[-1, -1] > 245


def test_the_overlay_has_outlines_where_they_belong_and_nothing_else(tmp_path: Path) -> None:
    source = chest()
    path = saved(source, image_file(tmp_path))
    state = outlined(source, tmp_path)
    made = pictures.stored_picture(
        settings(tmp_path), order(path, kind="overlay", states=[f"images/{state.name}"]), ["a"]
    )
    laid = np.asarray(opened(made))
    assert laid.shape == (512, 512, 4)
    opacity = laid[..., 3]
    assert opacity[270, 100] == 255  # the left side of the outline
    assert opacity[120, 200] == 255  # its upper side
    assert opacity[500, 500] == 0
    assert opacity[400, 200] == 0  # inside the outline
    assert (opacity == 0).mean() > 0.8


def test_a_key_image_is_shown_as_it_is(tmp_path: Path) -> None:
    coloured = np.zeros((64, 48, 3), np.uint8)
    coloured[:32] = (10, 120, 200)
    path = saved(radiograph(coloured), image_file(tmp_path))
    shown = opened(
        pictures.stored_picture(settings(tmp_path), order(path, kind="key-image"), ["a"])
    )
    assert shown.size == (48, 64)
    assert shown.getpixel((3, 3)) == (10, 120, 200)


def unpacked(made: bytes) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return what grey values say of themselves, the values, and what each looks like."""
    assert made[:4] == GREY_VALUES
    (length,) = struct.unpack("<I", made[4:8])
    told = json.loads(made[8 : 8 + length])
    body = np.frombuffer(zlib.decompress(made[8 + length :]), np.uint8)
    high, low = body[65536:].reshape(2, told["rows"], told["columns"]).astype(np.uint16)
    values = np.cumsum((high << 8) + low, axis=1, dtype=np.uint16)
    return told, values, body[:65536]


@pytest.mark.parametrize(
    "attributes",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 500, "WindowWidth": 4000},
        {"WindowCenter": [2000, 900], "WindowWidth": [3000, 700]},
    ],
)
def test_the_grey_values_are_all_of_the_image_and_look_like_its_picture(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    source = chest(**attributes)
    path = saved(source, image_file(tmp_path))
    made = pictures.stored_picture(settings(tmp_path), order(path, kind="pixels"), ["a"])
    told, values, display = unpacked(made)
    shown = opened(pictures.stored_picture(settings(tmp_path), order(path), ["a"]))
    assert np.abs(display[values].astype(int) - np.asarray(shown, int)).max() <= 1
    slope, intercept = attributes.get("RescaleSlope", 1), attributes.get("RescaleIntercept", 0)
    rescaled = source.pixel_array * float(slope) + intercept
    assert np.abs(values * told["slope"] + told["intercept"] - rescaled).max() < 1e-6
    assert told["inverse"] is (source.PhotometricInterpretation == "MONOCHROME1")
    assert len(told["windows"]) == np.size(attributes.get("WindowCenter", []))


# ---- not made --------------------------------------------------------------------------------


def test_an_image_that_cannot_be_decoded_says_why_and_nothing_of_the_patient(
    tmp_path: Path,
) -> None:
    ds = chest()
    ds.PixelData = ds.PixelData[:1000]
    path = saved(ds, image_file(tmp_path))
    with pytest.raises(pictures.NoPicture) as caught:
        pictures.stored_picture(settings(tmp_path), order(path), ["a"])
    assert "Pixel data cannot be decoded" in str(caught.value)
    assert "Doe" not in str(caught.value)
    assert kept(tmp_path) == []


def test_a_row_that_names_a_file_elsewhere_has_no_picture(tmp_path: Path) -> None:
    saved(chest(), tmp_path / "a.dcm")
    for elsewhere in ("a.dcm", "images/../a.dcm", str(tmp_path / "a.dcm")):
        asked = Order(kind="radiograph", image=elsewhere, states=[], heat_map="")
        with pytest.raises(pictures.NoPicture, match="required: one in images, results, messages"):
            pictures.stored_picture(settings(tmp_path), asked, ["a"])


def test_a_fault_of_the_child_is_none_of_its_parent(tmp_path: Path) -> None:
    path = saved(chest(), image_file(tmp_path))
    with pytest.raises(pictures.NoPicture, match="ended without a picture"):
        pictures.stored_picture(
            settings(tmp_path),
            order(path, kind="overlay", states=["images/absent"]),
            ["a"],
        )


def test_an_endless_image_is_given_up(tmp_path: Path) -> None:
    os.mkfifo(image_file(tmp_path, "endless"))
    with pytest.raises(pictures.NoPicture, match="longer than the 1 seconds allowed"):
        pictures.stored_picture(
            settings(tmp_path, timeout_seconds=1), order(image_file(tmp_path, "endless")), ["a"]
        )


def test_an_image_needs_no_more_memory_than_allowed(tmp_path: Path) -> None:
    row = np.arange(9000, dtype=np.uint16)
    path = saved(radiograph(np.tile(row, (9000, 1))), image_file(tmp_path))
    with pytest.raises(pictures.NoPicture, match="ended without a picture"):
        pictures.stored_picture(settings(tmp_path, memory_megabytes=512), order(path), ["a"])


def test_a_codec_that_kills_its_process_costs_one_picture(tmp_path: Path) -> None:
    os.mkfifo(image_file(tmp_path, "endless"))
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            pictures.stored_picture(
                settings(tmp_path), order(image_file(tmp_path, "endless")), ["a"]
            )
        except pictures.NoPicture as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    (child,) = eventually(children_at_work)
    os.kill(child, signal.SIGSEGV)
    thread.join()
    assert [str(error) for error in caught] == ["the rendering process ended without a picture"]
    path = saved(chest(), image_file(tmp_path))
    assert opened(pictures.stored_picture(settings(tmp_path), order(path), ["b"])).size == (
        512,
        512,
    )


def children_at_work() -> list[int]:
    """Return our children that make pictures and have begun: they wait for the other end."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            waits = "wait_for_partner" in (entry / "wchan").read_text()
        except OSError:
            continue
        if parent == os.getpid() and b"thoracle.web.pages.rendering" in words and waits:
            found.append(int(entry.name))
    return found


# ---- kept ------------------------------------------------------------------------------------


def test_a_picture_is_made_once(tmp_path: Path) -> None:
    path = saved(chest(), image_file(tmp_path))
    first = pictures.stored_picture(settings(tmp_path), order(path), ["a"])
    (file,) = kept(tmp_path)
    assert (file.parent.stat().st_mode & 0o777) == 0o700
    assert (file.stat().st_mode & 0o777) == 0o600
    path.unlink()
    assert pictures.stored_picture(settings(tmp_path), order(path), ["a"]) == first


def test_a_corrected_image_has_another_picture(tmp_path: Path) -> None:
    path = saved(chest(), image_file(tmp_path))
    first = pictures.stored_picture(settings(tmp_path), order(path), ["a"])
    saved(chest(WindowCenter=1000, WindowWidth=200), path)
    assert pictures.stored_picture(settings(tmp_path), order(path), ["b"]) != first


def test_what_was_not_looked_at_for_longest_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(chest(), image_file(tmp_path))
    size = len(pictures.stored_picture(settings(tmp_path), order(path), ["a"]))
    monkeypatch.setattr(pictures, "LARGEST_ALBUM", size * 5 // 2)
    (first,) = kept(tmp_path)
    pictures.stored_picture(settings(tmp_path), order(path), ["b"])
    (second,) = set(kept(tmp_path)) - {first}
    os.utime(first, (1, 1))
    pictures.stored_picture(settings(tmp_path), order(path), ["a"])  # looked at again
    os.utime(second, (2, 2))
    pictures.stored_picture(settings(tmp_path), order(path), ["c"])
    left = kept(tmp_path)
    assert first in left
    assert second not in left
    assert len(left) == 2


# ---- the report as text ----------------------------------------------------------------------


def test_a_report_becomes_text_with_every_kind_of_value(tmp_path: Path) -> None:
    source = chest(PatientName="<b>Doe</b>")
    reading = positive(source)
    report = sr.build([source], [reading], BUNDLE, **COMMON)
    path = tmp_path / "sr.dcm"
    path.write_bytes(header.encode(report))
    root = report_view.read(path)
    lines = [f"{one.name}|{one.value}|{one.code}" for one in report_view.walk(root)]
    assert lines[0] == "Imaging Measurement Report||"
    assert "Observer Type|Device|121007, DCM" in lines
    assert any(line.startswith("Probability|91") and line.endswith(" %|") for line in lines)
    assert f"Source of Measurement|Instance {source.SOPInstanceUID}|" in lines
    assert any(line.startswith("Conclusion|AI result for research") for line in lines)
    assert any("Device Observer UID|2.25." in line for line in lines)
    assert all("Doe" not in line for line in lines)
    assert len(lines) == 1 + count(dcmread(path))


def count(item: Dataset) -> int:
    """Return how many content items are below one."""
    children = item.get("ContentSequence") or []
    return len(children) + sum(count(child) for child in children)


def test_limitations_are_told_with_their_image_each_once() -> None:
    items = tuple(
        report_view.ContentItem("Comment", value, "")
        for value in (
            "Image 1 (PA): Limitation: lossy.",
            "nothing",
            "Image 1 (PA): Limitation: lossy.",
        )
    )
    root = report_view.ContentItem("", "", "", (report_view.ContentItem("", "", "", items),))
    assert report_view.limitations(root) == ["Image 1 (PA): lossy."]
