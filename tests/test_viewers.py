"""Results as they are seen in OHIF: each object shows what it is meant to show, or does no harm.

The radiograph is RG1 of pydicom-data. With THORACLE_SCREENSHOTS in the environment, which names a
folder, what is seen is kept there.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

import ohif_defect
from associations import delivered
from gateway import Gateway
from ledger import concluded, eventually, rows
from ohif import Ohif, Viewer, ohif, webgl
from orthanc import Orthanc
from sender import send
from sources import BUNDLE, NOON
from thoracle.deliver.association import Peer
from thoracle.image import pixels
from thoracle.records import Box, Image, Kind, Outcome, Reading, Reason, Saliency
from thoracle.report import header, keyobject, result_set, sr
from thoracle.report.result_set import Picture
from thoracle.settings import Report

SCREENSHOTS = os.environ.get("THORACLE_SCREENSHOTS")
LUNGS = Box(300, 250, 1600, 1500)
PLACES = ((0.3, 0.4), (0.7, 0.6))
"""Of opacities, as shares of columns and rows."""


@dataclass(frozen=True)
class Study:
    """What is said of RG1, and what is to be seen."""

    outcome: Outcome
    probability: float | None = None
    reason: Reason | None = None
    regions: int = 0
    lateral: bool = False
    withdrawn: bool = False
    settings: Report = field(default_factory=Report)


STUDIES = {
    "two regions": Study(Outcome.POSITIVE, 0.91, regions=2),
    "one region": Study(Outcome.POSITIVE, 0.91, regions=1),
    "no region": Study(Outcome.POSITIVE, 0.91),
    "negative": Study(Outcome.NEGATIVE, 0.0825),
    "indeterminate": Study(Outcome.INDETERMINATE, 0.5),
    "beside a lateral": Study(Outcome.NEGATIVE, 0.0825, lateral=True),
    "rejected": Study(Outcome.REJECTED, reason=Reason.INCOMPLETE),
    "rejected, with a card": Study(
        Outcome.REJECTED, reason=Reason.INCOMPLETE, settings=Report(sc=("rejected",))
    ),
    "withdrawn": Study(Outcome.POSITIVE, 0.91, regions=1, withdrawn=True),
}


@dataclass(frozen=True)
class Hospital:
    """An archive with a study of each outcome, and the viewer in front of it."""

    archive: Orthanc
    viewer: Ohif
    studies: dict[str, str]

    @property
    def peer(self) -> Peer:
        return Peer("ORTHANC", "127.0.0.1", self.archive.port, "THORACLE", 30)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    with Orthanc(folder) as archive, webgl() as browser, ohif(folder, archive, browser) as viewer:
        here = Hospital(archive, viewer, {})
        for name, study in STUDIES.items():
            for path in written(study, folder):
                assert delivered(here.peer, path).status == "0x0000"
            here.studies[name] = str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)
        yield here


def radiograph() -> Dataset:
    """Return RG1 as a new study."""
    ds = dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    # It is 0\\0, which is against the standard; OHIF shows such an image, whatever it is, in black.
    del ds.PixelSpacing
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(ds, keyword, generate_uid())
    ds.PatientID = ds.StudyID = str(ds.StudyInstanceUID)[-16:]
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


@cache
def read() -> Image:
    """Return RG1 as the model is given it."""
    return pixels.read_image(Path(str(get_testdata_file("RG1_UNCR.dcm", download=False))))


def lateral_of(source: Dataset) -> Dataset:
    """Return a lateral in the study of a source, which is the same picture all the same."""
    ds = radiograph()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "StudyID"):
        setattr(ds, keyword, source[keyword].value)
    ds.ViewPosition, ds.InstanceNumber = "LL", 2
    return ds


def saliency(places: int) -> Saliency:
    """Return a map with so many places that speak for the positive class."""
    y, x = np.mgrid[0:40, 0:40] / 40
    found: NDArray[np.float64] = np.full((40, 40), -0.2)
    for column, row in PLACES[:places]:
        spot = np.exp(-(((x - column) / 0.07) ** 2) - ((y - row) / 0.09) ** 2)
        found = np.maximum(found, spot * 1.2 - 0.2)
    return Saliency(found.astype(np.float32))


def written(study: Study, folder: Path) -> list[Path]:
    """Write the image of a study and the objects of its result; return their paths."""
    source = radiograph()
    images = [source, lateral_of(source)] if study.lateral else [source]
    folder = folder / str(source.StudyInstanceUID)
    folder.mkdir()
    paths = [folder / f"{number}.dcm" for number in range(len(images))]
    for path, ds in zip(paths, images, strict=True):
        ds.save_as(path)
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    readings = [reading(study, headers[0])]
    if study.lateral:
        refused = Study(Outcome.REJECTED, reason=Reason.NOT_FRONTAL)
        readings.append(reading(refused, headers[1]))
    pictures = {}
    if study.probability is not None:
        picture = Picture(read(), saliency(study.regions))
        pictures[readings[0].sop_instance_uid] = picture
    common: dict[str, Any] = {"content_datetime": NOON, "settings": study.settings}
    made = [ds for _, ds in result_set.build(headers, readings, pictures, BUNDLE, **common)]
    if study.withdrawn:
        common["content_datetime"] += timedelta(hours=1)  # so that it is a series of its own
        report = header.instance(made[0])
        made.append(sr.withdrawal(headers, report, "Wrong patient", BUNDLE, **common))
        named = [header.instance(ds) for ds in made]
        made.append(keyobject.rejection(named, headers, BUNDLE, **common))
    for number, ds in enumerate(made):
        paths.append(folder / f"made{number}.dcm")
        paths[-1].write_bytes(header.encode(ds))
    return paths


def reading(study: Study, ds: Dataset) -> Reading:
    return Reading(
        str(ds.SOPClassUID),
        str(ds.SOPInstanceUID),
        study.outcome,
        study.reason,
        detail="Lungs: found 80 %, required: 95 %" if study.reason else None,
        probability=study.probability,
        lung_box=LUNGS if study.probability is not None else None,
    )


# ---- what is seen ------------------------------------------------------------------------------


def is_black(picture: NDArray[np.uint8]) -> bool:
    """Return whether nothing is seen but a few words in the corners."""
    return bool((picture.max(axis=2) > 60).mean() < 0.02)


def coloured(picture: NDArray[np.uint8]) -> float:
    """Return the share of the pixels that have a warm colour, but for the caption."""
    upper = picture[: round(0.8 * len(picture))].astype(int)
    return float((upper[..., 0] - upper[..., 2] > 60).mean())


def keep(viewer: Viewer, name: str) -> None:
    if SCREENSHOTS is not None:
        viewer.page.screenshot(path=Path(SCREENSHOTS) / f"{name.replace(' ', '-')}.png")


def opened(viewer: Viewer, number: int) -> str:
    """Return the words of the report that is shown.

    It is shown again where a busy machine shows the radiograph alone.
    """
    for _ in range(2):
        with suppress(TimeoutError):
            return viewer.wait_for("Diagnostic Imaging Report", "AI: COVID-19", seconds=30)
        viewer.show("CR")
        viewer.show("SR", number)
    keep(viewer, "not drawn")
    return viewer.wait_for("Diagnostic Imaging Report", "AI: COVID-19")


def check_report(viewer: Viewer, number: int, study: Study, seen: list[str]) -> None:
    """Check a report: drawn on the radiograph, or in words."""
    text = opened(viewer, number)
    if "Diagnostic Imaging Report" in text:
        seen.append("words")
        assert "AI result for research, not verified by a physician" in text
        expected = "withdrawn and must not be used" if study.withdrawn else "Image not analysed"
        assert expected in text
        assert "Undetermined" in text
        assert "Probability" not in text
        return
    seen.append("drawing")
    assert study.probability is not None
    drawn = viewer.wait_for(f"Probability: {100 * study.probability:.2f} %")
    assert f"AI: COVID-19 {study.outcome} (research)" in drawn
    assert drawn.count("AI: opacity seen by the model") == study.regions


def check_picture(picture: NDArray[np.uint8], study: Study) -> None:
    """Check a Secondary Capture: colours where the result is positive, and nowhere else."""
    assert (picture.max(axis=2) > 200).any()  # the words
    if study.probability is not None:
        assert (coloured(picture) > 0.002) == (study.regions > 0)
        assert not is_black(picture)


@pytest.mark.parametrize(
    "name",
    [
        # Each takes up to half a minute: those that have all kinds of objects stand for the others.
        pytest.param(name, marks=() if name in ("one region", "withdrawn") else pytest.mark.slow)
        for name in STUDIES
    ],
)
def test_each_object_shows_what_it_is_meant_to_or_does_no_harm(
    name: str, hospital: Hospital
) -> None:
    study, seen = STUDIES[name], list[str]()
    with hospital.viewer.open(hospital.studies[name]) as viewer:
        modalities, before = viewer.series(), viewer.picture()
        for number, modality in enumerate(modalities):
            place = modalities[:number].count(modality)
            viewer.show(modality, place)
            if modality == "SR":
                check_report(viewer, place, study, seen)
            picture = viewer.picture()
            match modality:
                case "SR":
                    assert seen[-1] == "words" or not is_black(picture)
                case "OT":
                    check_picture(picture, study)
                case "KO" | "PR":  # OHIF has no view of them: it says so, and leaves the picture
                    assert is_black(picture) == is_black(before)
                case _:
                    assert not is_black(picture)
            before = picture
            keep(viewer, f"{name} {number} {modality}")
            assert viewer.complaints == []
        viewer.show("CR")
        assert not is_black(viewer.picture())
    assert seen.count("drawing") == (study.probability is not None)
    assert seen.count("words") == (study.probability is None or study.withdrawn)
    assert modalities.count("OT") == (study.outcome in study.settings.sc)


def test_a_study_that_went_through_the_gateway_is_seen_with_its_result(
    hospital: Hospital, tmp_path: Path
) -> None:
    source = radiograph()
    study = str(source.StudyInstanceUID)
    path = tmp_path / "source.dcm"
    source.save_as(path)
    with Gateway(tmp_path, hospital.archive) as gateway:
        assert delivered(hospital.peer, path).status == "0x0000"
        assert send(gateway.port, source).status == 0x0000
        concluded(gateway, study)
        (one,) = rows(gateway, "SELECT outcome, probability FROM reading")
        eventually(lambda: states(gateway) == {"delivered"})
        made = {row["kind"] for row in rows(gateway, "SELECT kind FROM result")}
        with hospital.viewer.open(study) as viewer:
            viewer.show("SR")
            drawn = opened(viewer, 0)
            assert f"AI: COVID-19 {one['outcome']} (research)" in drawn
            assert f"Probability: {100 * one['probability']:.2f} %" in drawn
            assert not is_black(viewer.picture())
            viewer.show("OT")
            keep(viewer, "gateway")
            assert not is_black(viewer.picture())
            assert viewer.complaints == []
    assert {Kind.SR, Kind.SC} <= made


def test_the_defect_that_our_reports_avoid_is_still_there(
    hospital: Hospital, tmp_path: Path
) -> None:
    """docs/ohif-defect.md; when this fails after an update of OHIF, it can go."""
    for path in ohif_defect.write(tmp_path):
        assert delivered(hospital.peer, path).status == "0x0000"
    with hospital.viewer.open(ohif_defect.STUDY) as viewer:
        viewer.show("CR")
        assert not is_black(viewer.picture())
        viewer.show("SR")
        with suppress(TimeoutError):
            viewer.wait_for("Probability", seconds=5)
        assert is_black(viewer.picture())


def states(gateway: Gateway) -> set[str]:
    return {row["state"] for row in rows(gateway, "SELECT state FROM outbox")}
