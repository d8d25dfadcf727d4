"""What a report takes from its images: patient, request, character set, time and evidence."""

from datetime import timedelta, timezone
from typing import Any

import pytest
from pydicom.dataset import Dataset

from sources import ARABIC, GREEK, JAPANESE, KOREAN, NOON, STUDY, cr, dx, named
from structured_reports import HEAT_MAP, OUTLINES, SOURCES, illustrated, report, reread
from thoracle.settings import Report as ReportSettings


@pytest.mark.parametrize("language", [GREEK, JAPANESE, ARABIC, KOREAN], ids=lambda it: str(it[0]))
def test_a_name_stays_the_same_in_every_component(language: tuple[Any, str, str]) -> None:
    source = named(language)
    built = reread(report([source], "negative"))
    assert built.SpecificCharacterSet == "ISO_IR 192"
    for part in ("alphabetic", "ideographic", "phonetic", "family_name", "given_name"):
        assert getattr(built.PatientName, part) == getattr(source.PatientName, part)
    assert str(built.PatientName) == language[1]
    assert built.StudyDescription == source.StudyDescription == language[2]
    assert built.OtherPatientIDsSequence[0].IssuerOfPatientID == language[2]


@pytest.mark.parametrize("declared", [None, "ISO_IR 100", ["", "ISO 2022 IR 87"], "ISO_IR 192"])
def test_the_character_set_of_the_source_stays_while_it_suffices(declared: Any) -> None:
    source = cr(SpecificCharacterSet=declared)
    built = reread(report([source], "negative"))
    assert built.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")


def test_our_own_text_beyond_the_default_repertoire_makes_it_utf_8() -> None:
    settings = ReportSettings(institution_name="Klinikum München")
    built = reread(report([cr()], "negative", settings=settings))
    assert built.SpecificCharacterSet == "ISO_IR 192"
    assert built.InstitutionName == "Klinikum München"


def test_text_in_an_undeclared_character_set_leaves_in_utf_8() -> None:
    source = cr(PatientName="Müller")  # written in Latin-1, which nothing declares
    built = reread(report([source], "negative"))
    assert built.SpecificCharacterSet == "ISO_IR 192"
    assert built.PatientName == "Müller"


def test_context_is_copied_and_nothing_is_invented() -> None:
    source = cr(
        AccessionNumber=None, StudyDescription=None, PatientSex=None, TimezoneOffsetFromUTC="-0400"
    )
    built = reread(report([source], "negative"))
    for keyword in ("PatientID", "IssuerOfPatientID", "StudyID", "StudyDate", "StudyTime"):
        assert built[keyword].value == source[keyword].value
    assert built.AccessionNumber == built.PatientSex == ""
    for keyword in ("StudyDescription", "ReferencedRequestSequence", "PatientAge"):
        assert keyword not in built


def test_the_source_is_left_as_it_was() -> None:
    source = dx()
    before = source.to_json()
    built = report([source], "negative")
    for element in built:
        element.clear()
    assert source.to_json() == before


def test_the_content_time_is_in_the_zone_of_the_source() -> None:
    built = report([cr(TimezoneOffsetFromUTC="-0400")], "negative")
    assert (built.ContentDate, built.ContentTime) == ("20260102", "080000.000000")
    east = NOON.astimezone(timezone(timedelta(hours=13)))
    built = report([cr()], "negative", content_datetime=east)
    assert (built.ContentDate, built.ContentTime) == ("20260103", "010000.000000")


def test_the_request_is_named_once_for_each_requested_procedure() -> None:
    built = report([dx(1), dx(2), dx(3, RequestAttributesSequence=None)], "negative")
    requests = [
        (item.AccessionNumber, item.RequestedProcedureID or "")
        for item in built.ReferencedRequestSequence
    ]
    assert requests == [("ACC1", "RP1"), ("ACC1", "")]


def test_the_number_of_a_request_goes_before_that_of_the_image() -> None:
    request = Dataset()
    request.AccessionNumber = "ACC2"
    request.StudyInstanceUID = "2.25.9"
    (item,) = report(
        [dx(RequestAttributesSequence=[request])], "negative"
    ).ReferencedRequestSequence
    assert (item.AccessionNumber, item.StudyInstanceUID) == ("ACC2", "2.25.9")


def test_every_image_is_evidence_below_its_series() -> None:
    built = report(SOURCES["three images"](), "negative")
    (study,) = built.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == STUDY
    assert [
        (
            series.SeriesInstanceUID,
            [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence],
        )
        for series in study.ReferencedSeriesSequence
    ] == [(f"{STUDY}.1", [f"{STUDY}.1.1", f"{STUDY}.1.3"]), (f"{STUDY}.2", [f"{STUDY}.1.2"])]


def test_what_illustrates_an_image_is_evidence_too() -> None:
    (study,) = illustrated([cr()]).CurrentRequestedProcedureEvidenceSequence
    assert {
        item.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    } == {cr().SOPInstanceUID, HEAT_MAP.sop_instance_uid, OUTLINES.sop_instance_uid}
