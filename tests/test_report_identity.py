"""The UIDs of reports: the same for the same content, others for any change."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from sources import BUNDLE, NOON, cr, dx
from structured_reports import REGIONS, SOURCES, each_source, items, read, report, reread
from thoracle.records import Decision
from thoracle.report import header, sr
from thoracle.report.content import Illustration
from thoracle.report.header import Instance
from thoracle.settings import Report as ReportSettings


def test_two_builds_give_the_same_bytes_whatever_the_order() -> None:
    sources = [dx(1), dx(2), dx(3)]
    readings = [read(source, "negative") for source in sources]
    built = [
        header.encode(
            sr.build(given, said, BUNDLE, content_datetime=NOON, settings=ReportSettings())
        )
        for given, said in [
            (sources, readings),
            (sources[::-1], readings),
            (sources, readings[::-1]),
        ]
    ]
    assert built[0] == built[1] == built[2]


CHANGES: dict[str, dict[str, Any]] = {
    "bundle": {"bundle": replace(BUNDLE, digest="60" * 32)},
    "decision": {"bundle": replace(BUNDLE, decision=Decision(0.51, 0.4, 0.6))},
    "calibration": {"bundle": replace(BUNDLE, calibration="none")},
    "time": {"content_datetime": NOON + timedelta(microseconds=1)},
    "settings": {"settings": ReportSettings(series_number=9002)},
    "predecessor": {"predecessor": Instance(Comprehensive3DSRStorage, "2.25.7.1", "2.25.7")},
    "regions": {"illustrations": {cr().SOPInstanceUID: Illustration(REGIONS)}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_shapes_a_report_shapes_its_uids(change: str) -> None:
    one, other = report([cr()], "positive"), report([cr()], "positive", **CHANGES[change])
    assert one.SOPInstanceUID != other.SOPInstanceUID


def test_a_corrected_name_makes_another_report() -> None:
    one, other = report([cr()], "positive"), report([cr(PatientName="Roe^Janet")], "positive")
    assert one.SOPInstanceUID != other.SOPInstanceUID


def test_an_image_keeps_its_tracking_uid_in_a_later_report() -> None:
    one, other = (
        report([cr()], "positive", content_datetime=NOON + timedelta(days=days)) for days in (0, 1)
    )
    name = "Tracking Unique Identifier"
    assert items(one, name)[0].UID == items(other, name)[0].UID


def test_uids_are_our_own_and_valid() -> None:
    built = report([cr()], "positive")
    for uid in (
        built.SOPInstanceUID,
        built.SeriesInstanceUID,
        built.file_meta.ImplementationClassUID,
    ):
        assert uid.is_valid
        assert uid.startswith("2.25.")


def test_the_other_form_has_its_own_uid_and_names_its_own_predecessor() -> None:
    first = report([cr()], "indeterminate")
    earlier = Instance(first.SOPClassUID, first.SOPInstanceUID, first.SeriesInstanceUID)
    second = report([cr()], "positive", predecessor=earlier)
    other = sr.as_comprehensive_sr(second)
    assert other.SOPInstanceUID not in (second.SOPInstanceUID, first.SOPInstanceUID)
    (reference,) = other.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0][
        "ReferencedSOPSequence"
    ]
    assert reference.ReferencedSOPClassUID == ComprehensiveSRStorage
    assert reference.ReferencedSOPInstanceUID == sr.as_comprehensive_sr(first).SOPInstanceUID
    assert second.SOPClassUID == Comprehensive3DSRStorage


@each_source
def test_the_other_form_is_the_same_whether_made_before_or_after_a_file(source: str) -> None:
    built = report(SOURCES[source](), "negative")
    after = header.encode(sr.as_comprehensive_sr(reread(built)))
    assert after == header.encode(sr.as_comprehensive_sr(built))


def test_a_predecessor_of_another_class_is_named_as_it_is() -> None:
    earlier = Instance(EnhancedSRStorage, "2.25.7.1", "2.25.7")
    other = sr.as_comprehensive_sr(report([cr()], "positive", predecessor=earlier))
    (series,) = other.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.7.1"
