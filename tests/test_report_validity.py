"""The reports by the validators of others: valid, and true to their templates."""

from collections.abc import Callable
from html import unescape
from pathlib import Path

import highdicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    DigitalMammographyXRayImageStorageForPresentation,
)

from sources import cr, dx, real
from structured_reports import (
    REGIONS,
    SAID,
    SOURCES,
    each_said,
    each_source,
    illustrated,
    items,
    mixed_study,
    report,
    texts,
    withdrawn,
    written,
)
from thoracle.report import sr
from thoracle.report.content import Illustration
from thoracle.report.header import Instance
from validators import dciodvfy, dsr2html, pixelmed


@each_source
@each_said
def test_a_report_is_valid_and_shows_its_conclusion(said: str, source: str, tmp_path: Path) -> None:
    built = report(SOURCES[source](), said)
    path = written(built, tmp_path)
    assert dciodvfy(path) == []
    shown = " ".join(unescape(dsr2html(path)).split())
    assert texts(built, "Conclusion")[0] in shown
    parsed = highdicom.sr.srread(path)
    if "reason" not in SAID[said]:
        assert isinstance(parsed.content, highdicom.sr.MeasurementReport)
        groups = parsed.content.get_image_measurement_groups()
        assert len(groups) == len(SOURCES[source]())


@each_said
def test_the_same_report_as_comprehensive_sr_is_valid(said: str, tmp_path: Path) -> None:
    built = report(
        [cr()], said, predecessor=Instance(Comprehensive3DSRStorage, "2.25.7.1", "2.25.7")
    )
    path = written(sr.as_comprehensive_sr(built), tmp_path)
    assert dciodvfy(path) == []
    assert highdicom.sr.srread(path).SOPClassUID == ComprehensiveSRStorage


def test_a_report_with_every_outcome_follows_its_templates(tmp_path: Path) -> None:
    path = written(mixed_study(), tmp_path)
    assert pixelmed(path) == []
    assert dciodvfy(path) == []


@each_source
@pytest.mark.parametrize("built", [illustrated, withdrawn])
def test_illustrated_reports_and_withdrawals_are_valid_too(
    built: Callable[[list[Dataset]], Dataset], source: str, tmp_path: Path
) -> None:
    made = built(SOURCES[source]())
    assert dciodvfy(written(made, tmp_path)) == []
    assert texts(made, "Conclusion")[0] in unescape(dsr2html(written(made, tmp_path)))
    parsed = highdicom.sr.srread(written(sr.as_comprehensive_sr(made), tmp_path))
    assert dciodvfy(written(parsed, tmp_path)) == []
    if built is illustrated:
        assert isinstance(parsed.content, highdicom.sr.MeasurementReport)
        groups = parsed.content.get_image_measurement_groups()
        assert len(groups) == len(SOURCES[source]()) + len(REGIONS)


@pytest.mark.parametrize("form", [lambda built: built, sr.as_comprehensive_sr], ids=["3D", "2D"])
@pytest.mark.parametrize("built", [illustrated, withdrawn])
def test_illustrated_reports_and_withdrawals_follow_their_templates(
    built: Callable[[list[Dataset]], Dataset], form: Callable[[Dataset], Dataset], tmp_path: Path
) -> None:
    assert pixelmed(written(form(built([dx(1), cr(2)])), tmp_path)) == []


def test_a_report_against_its_templates_is_found_out(tmp_path: Path) -> None:
    built = illustrated([cr()])
    items(built, "Image Library")[0].RelationshipType = "HAS PROPERTIES"
    (error,) = pixelmed(written(built, tmp_path))
    assert error.endswith("Incorrect relationship - expected CONTAINS - found HAS PROPERTIES")


@pytest.mark.slow
@pytest.mark.parametrize("form", [lambda built: built, sr.as_comprehensive_sr], ids=["3D", "2D"])
@pytest.mark.parametrize("source", ["CR MONOCHROME1", "DX MONOCHROME2", "three images", "Japanese"])
@each_said
def test_each_report_follows_its_templates(
    said: str, source: str, form: Callable[[Dataset], Dataset], tmp_path: Path
) -> None:
    assert pixelmed(written(form(report(SOURCES[source](), said)), tmp_path)) == []


def test_a_report_on_a_real_radiograph_is_valid(tmp_path: Path) -> None:
    assert dciodvfy(written(report([real("RG1_UNCR.dcm")], "positive"), tmp_path)) == []


@pytest.mark.parametrize("regions", [0, 1, 2])
def test_reports_with_any_number_of_regions_follow_their_templates(
    regions: int, tmp_path: Path
) -> None:
    only = {cr().SOPInstanceUID: Illustration(REGIONS[:regions])}
    assert pixelmed(written(report([cr()], "positive", illustrations=only), tmp_path)) == []


def test_an_image_of_another_class_is_reported_too(tmp_path: Path) -> None:
    source = cr(SOPClassUID=DigitalMammographyXRayImageStorageForPresentation)
    assert dciodvfy(written(report([source], "lateral"), tmp_path)) == []
