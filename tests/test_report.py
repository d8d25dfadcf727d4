"""The reports: valid by the validators of others, true to the source, the same each time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta, timezone
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

import thoracle
from sources import ARABIC, BUNDLE, GREEK, JAPANESE, KOREAN, NOON, STUDY, cr, dx, named, real
from thoracle.errors import ReportError
from thoracle.records import Box, Decision, Outcome, Reading, Reason, Region, SaliencyKind
from thoracle.report import header, sentences, sr
from thoracle.report.content import Illustration
from thoracle.report.header import Instance
from thoracle.settings import Report as ReportSettings
from thoracle.wording import DISCLAIMER
from validators import dciodvfy, dsr2html, pixelmed

SAID: dict[str, dict[str, Any]] = {
    "positive": {"outcome": Outcome.POSITIVE, "probability": 0.91},
    "negative": {
        "outcome": Outcome.NEGATIVE,
        "probability": 0.0825,
        "limitations": ("The image was compressed with loss.",),
    },
    "indeterminate": {"outcome": Outcome.INDETERMINATE, "probability": 0.5},
    "flat": {
        "outcome": Outcome.REJECTED,
        "reason": Reason.FLAT,
        "detail": "Found one value, required: several.",
    },
    "lateral": {"outcome": Outcome.REJECTED, "reason": Reason.NOT_FRONTAL},
}
SOURCES: dict[str, Callable[[], list[Dataset]]] = {
    "CR MONOCHROME1": lambda: [cr()],
    "DX MONOCHROME2": lambda: [dx()],
    "no Accession Number": lambda: [dx(AccessionNumber=None, RequestAttributesSequence=None)],
    "no Study Description": lambda: [cr(StudyDescription=None)],
    "JPEG 2000": lambda: [real("RG1_J2KR.dcm")],
    "three images": lambda: [dx(1), dx(2, SeriesInstanceUID=f"{STUDY}.2"), cr(3)],
    "Greek": lambda: [named(GREEK)],
    "Japanese": lambda: [named(JAPANESE)],
    "Arabic": lambda: [named(ARABIC)],
    "Korean": lambda: [named(KOREAN)],
}
HEAT_MAP = Instance(SecondaryCaptureImageStorage, "2.25.8.1", "2.25.8")
OUTLINES = Instance(GrayscaleSoftcopyPresentationStateStorage, "2.25.9.1", "2.25.9")
REGIONS = (
    Region(((700.0, 900.5), (880.25, 940.0), (760.0, 1210.75), (700.0, 900.5)), 0.73146),
    Region(((1200.0, 800.0), (1290.0, 830.0), (1190.0, 900.0), (1200.0, 800.0)), 0.5),
)
each_said = pytest.mark.parametrize("said", SAID)
each_source = pytest.mark.parametrize("source", SOURCES)


def read(source: Dataset, said: str) -> Reading:
    return Reading(str(source.SOPClassUID), str(source.SOPInstanceUID), **SAID[said])


def report(sources: Sequence[Dataset], *said: str, **changes: Any) -> Dataset:
    """Return the report of sources; what was said of the last is said of the rest too."""
    names = [*said, *[said[-1]] * (len(sources) - len(said))]
    readings = [read(source, name) for source, name in zip(sources, names, strict=True)]
    arguments = {"content_datetime": NOON, "settings": ReportSettings(), **changes}
    bundle = arguments.pop("bundle", BUNDLE)
    return sr.build(sources, readings, bundle, **arguments)


def mixed_study() -> Dataset:
    sources = [dx(number) for number in range(1, 1 + len(SAID))]
    earlier = Instance(Comprehensive3DSRStorage, "2.25.7.1", "2.25.7")
    return report(sources, *SAID, predecessor=earlier)


def illustrated(sources: Sequence[Dataset]) -> Dataset:
    """Return a positive report whose first image, of all, has regions and what shows them."""
    shown = Illustration(REGIONS, HEAT_MAP, OUTLINES)
    return report(sources, "positive", illustrations={sources[0].SOPInstanceUID: shown})


def withdrawn(sources: Sequence[Dataset], reason: str = "Wrong film", **changes: Any) -> Dataset:
    arguments = {"content_datetime": NOON, "settings": ReportSettings(), **changes}
    earlier = header.instance(report(sources, "positive"))
    return sr.withdrawal(sources, earlier, reason, BUNDLE, **arguments)


def written(dataset: Dataset, folder: Path) -> Path:
    path = folder / "report.dcm"
    path.write_bytes(header.encode(dataset))
    return path


def reread(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(BytesIO(header.encode(dataset)))


def items(dataset: Dataset, name: str) -> list[Dataset]:
    """Return the content items with this concept name, wherever they stand in the tree."""
    found = []
    for item in dataset.get("ContentSequence", []):
        if item.ConceptNameCodeSequence[0].CodeMeaning == name:
            found.append(item)
        found += items(item, name)
    return found


def values(dataset: Dataset, name: str) -> list[str]:
    return [item.ConceptCodeSequence[0].CodeMeaning for item in items(dataset, name)]


def texts(dataset: Dataset, name: str) -> list[str]:
    return [item.TextValue for item in items(dataset, name)]


# Validity


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


# Meaning


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("positive", "Present"),
        ("negative", "Absent"),
        ("indeterminate", "Undetermined"),
        ("flat", "Undetermined"),
        ("lateral", "Undetermined"),
    ],
)
def test_each_outcome_is_coded(said: str, value: str) -> None:
    assert values(report([cr()], said), "COVID-19") == [value]


@each_said
def test_only_a_positive_image_has_the_finding(said: str) -> None:
    expected = ["COVID-19"] if said == "positive" else []
    assert values(report([cr()], said), "Finding") == expected


def test_the_probability_is_in_percent_without_binary_noise() -> None:
    (number,) = items(report([cr()], "negative"), "Probability")
    measured = number.MeasuredValueSequence[0]
    assert str(measured.NumericValue) == "8.25"
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "%"


def test_a_rejected_image_has_its_reason_and_no_probability() -> None:
    built = report([cr()], "lateral")
    assert values(built, "Reason for no result") == ["View is not frontal"]
    assert items(built, "Quality Assessment") == []
    assert items(built, "Probability") == []
    assert built.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99THORACLE"


def test_an_image_of_no_quality_says_so_in_the_standard_code() -> None:
    built = report([cr()], "flat")
    assert values(built, "Quality Assessment") == ["Unusable - Quality renders image unusable"]
    assert texts(built, "Comment") == ["Image 1 (Instance Number 1, PA): " + SAID["flat"]["detail"]]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("positive", "COVID-19 finding suggested: probability 91 %, decision threshold 50 %."),
        (
            "negative",
            "probability 8.25 %, decision threshold 50 %. This does not exclude COVID-19.",
        ),
        ("indeterminate", "the model is not confident: probability 50 %"),
        ("flat", "Image not analysed: Image without contrast. This says nothing about COVID-19."),
    ],
)
def test_the_conclusion_is_a_sentence_for_people(said: str, sentence: str) -> None:
    (conclusion,) = texts(report([cr()], said), "Conclusion")
    assert conclusion.startswith("AI result for research, not verified by a physician, not for di")
    assert sentence in conclusion


def test_the_conclusion_states_the_rule() -> None:
    one = sentences.conclusion([read(cr(), "positive")], BUNDLE)
    assert one.endswith("Rule: positive from 60 %, negative below 40 %, indeterminate between.")
    sharp = replace(BUNDLE, decision=Decision(threshold=0.5, lower=0.5, upper=0.5))
    assert sentences.conclusion([read(cr(), "positive")], sharp).endswith("negative below 50 %.")


def test_a_study_takes_the_most_telling_outcome_of_its_images() -> None:
    conclusion, *_ = texts(mixed_study(), "Conclusion")
    assert "COVID-19 finding suggested: probability 91 %" in conclusion
    assert "positive before indeterminate before negative" in conclusion
    assert "Images analysed: 3 of 5." in conclusion


def test_a_study_without_an_analysed_image_is_never_negative() -> None:
    built = report([dx(1), dx(2)], "flat", "lateral")
    (conclusion,) = texts(built, "Conclusion")
    assert "None of the 2 images analysed: Image without contrast; View is not" in conclusion
    assert "Absent" not in values(built, "COVID-19")


def test_limitations_stand_in_the_report() -> None:
    _, comment = texts(report([dx()], "negative"), "Comment")
    assert comment.endswith("Limitation: The image was compressed with loss.")


def test_the_header_says_research_unverified_preliminary() -> None:
    built = report([dx()], "positive")
    assert built.ContentQualification == "RESEARCH"
    assert built.CompletionFlag == "COMPLETE"
    assert built.VerificationFlag == "UNVERIFIED"
    assert built.PreliminaryFlag == "PRELIMINARY"
    assert "research" in built.SeriesDescription


def test_the_model_is_named_with_what_decides() -> None:
    built = report([dx()], "positive")
    (equipment,) = built.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert equipment.DeviceUID == items(built, "Device Observer UID")[0].UID
    assert built.SoftwareVersions == thoracle.__version__
    assert texts(built, "Algorithm Parameters") == [
        f"bundle_sha256={BUNDLE.digest}",
        "decision_threshold=0.5",
        "indeterminate_from=0.4",
        "indeterminate_below=0.6",
        "calibration=temperature(1.300)",
    ]


def test_a_salient_region_is_outlined_and_is_no_finding_of_disease() -> None:
    built = reread(illustrated([cr()]))
    assert values(built, "Finding") == ["COVID-19", "Selected region", "Selected region"]
    for region, group in zip(REGIONS, items(built, "Share seen as opacity"), strict=True):
        (shape,) = items(group, "Source")[:1]
        assert shape.RelationshipType == "INFERRED FROM"
        assert shape.GraphicType == "POLYLINE"
        assert shape.GraphicData == [number for corner in region.outline for number in corner]
        (image,) = shape.ContentSequence
        assert image.RelationshipType == "SELECTED FROM"
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == cr().SOPInstanceUID
    first, _ = items(built, "Share seen as opacity")
    assert first.MeasuredValueSequence[0].NumericValue == 0.7315
    assert first.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert values(first, "Derivation") == ["Mean"]


def test_a_viewer_is_told_the_heat_map_and_the_image_under_its_outlines() -> None:
    heat_map, shown = (
        item.ReferencedSOPSequence[0]
        for item in items(illustrated([cr()]), "Key Images")[0].ContentSequence
    )
    assert heat_map.ReferencedSOPInstanceUID == HEAT_MAP.sop_instance_uid
    assert shown.ReferencedSOPInstanceUID == cr().SOPInstanceUID
    (state,) = shown.ReferencedSOPSequence
    assert state.ReferencedSOPInstanceUID == OUTLINES.sop_instance_uid


def test_an_image_with_regions_alone_has_no_key_images() -> None:
    only = {cr().SOPInstanceUID: Illustration(REGIONS)}
    built = report([cr()], "positive", illustrations=only)
    assert items(built, "Key Images") == []
    assert len(items(built, "Share seen as opacity")) == 2


def test_the_key_object_selection_is_a_leaf_of_the_report() -> None:
    selection = Instance(KeyObjectSelectionDocumentStorage, "2.25.10.1", "2.25.10")
    built = report([cr()], "positive", key_objects=[selection])
    (leaf,) = items(built, "Key Images")[0].ContentSequence
    assert leaf.ValueType == "COMPOSITE"
    assert leaf.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.10.1"
    evidence = built.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {series.SeriesInstanceUID for series in evidence} == {f"{STUDY}.1", "2.25.10"}


@each_said
def test_every_measurement_group_has_coordinates_on_its_image(said: str) -> None:
    sources = [dx(1), dx(2, SeriesInstanceUID=f"{STUDY}.2")]
    built = report(sources, "positive", said)
    groups = items(built, "Measurement Group")
    assert len(groups) == (1 if "reason" in SAID[said] else 2)
    for group, source in zip(groups, sources, strict=False):
        (number,) = items(group, "Probability")
        (shape,) = number.ContentSequence
        assert (shape.ValueType, shape.GraphicType) == ("SCOORD", "POLYLINE")
        (image,) = shape.ContentSequence
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_the_probability_stands_on_the_box_of_the_lungs_inside_the_image_by_a_margin() -> None:
    source = cr()  # 2000 rows, 1800 columns
    for box, shown in {
        Box(300, 200.5, 1500.25, 1700): (300, 200.5, 1500.25, 1700),
        Box(0, 0, 1800, 2000): (72, 80, 1728, 1920),
        None: (72, 80, 1728, 1920),
    }.items():
        reading = replace(read(source, "negative"), lung_box=box)
        built = sr.build(
            [source], [reading], BUNDLE, content_datetime=NOON, settings=ReportSettings()
        )
        (number,) = items(built, "Probability")
        left, top, right, bottom = shown
        corners = [left, top, right, top, right, bottom, left, bottom, left, top]
        assert number.ContentSequence[0].GraphicData == corners


@each_said
def test_what_was_analysed_is_a_measurement_report_and_what_was_not_is_text(said: str) -> None:
    built = report([cr()], said)
    title = built.ConceptNameCodeSequence[0].CodeMeaning
    template = built.ContentTemplateSequence[0].TemplateIdentifier
    if "reason" in SAID[said]:
        assert (title, template) == ("Diagnostic Imaging Report", "2000")
        assert items(built, "Imaging Measurements") == items(built, "Measurement Group") == []
    else:
        assert (title, template) == ("Imaging Measurement Report", "1500")


@pytest.mark.parametrize("built", [mixed_study, lambda: report([cr()], "flat")])
def test_no_container_runs_its_items_together(built: Callable[[], Dataset]) -> None:
    containers = [item for item in built().iterall() if item.keyword == "ContinuityOfContent"]
    assert len(containers) >= 3
    assert {item.value for item in containers} == {"SEPARATE"}


def test_the_reason_of_a_rejected_image_beside_an_analysed_one_refers_to_it() -> None:
    built = report([dx(1), dx(2)], "positive", "lateral")
    (reason,) = items(built, "Reason for no result")
    assert reason.ConceptCodeSequence[0].CodeMeaning == "View is not frontal"
    (image,) = reason.ContentSequence
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dx(2).SOPInstanceUID


@pytest.mark.parametrize("regions", [0, 1, 2])
def test_reports_with_any_number_of_regions_follow_their_templates(
    regions: int, tmp_path: Path
) -> None:
    only = {cr().SOPInstanceUID: Illustration(REGIONS[:regions])}
    assert pixelmed(written(report([cr()], "positive", illustrations=only), tmp_path)) == []


def test_the_withdrawal_of_a_result_never_reads_as_negative() -> None:
    built = withdrawn([dx(1), dx(2)], made=NOON)
    assert values(built, "COVID-19") == ["Undetermined", "Undetermined"]
    assert values(built, "Reason for no result") == ["Result withdrawn", "Result withdrawn"]
    assert values(built, "Finding") == items(built, "Probability") == []
    assert texts(built, "Conclusion") == [
        f"{DISCLAIMER} The earlier AI result of 2026-01-02 12:00+00:00 on this study is "
        'withdrawn and must not be used. Reason stated: "Wrong film". This says nothing about '
        "COVID-19."
    ]
    assert "not analysed" not in " ".join(texts(built, "Comment"))
    assert (built.VerificationFlag, built.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert built.ContentQualification == "RESEARCH"


def test_a_withdrawal_names_what_it_withdraws() -> None:
    (study,) = withdrawn([cr()]).PredecessorDocumentsSequence
    named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == report([cr()], "positive").SOPInstanceUID


def test_the_reason_of_a_withdrawal_is_text_and_never_markup(tmp_path: Path) -> None:
    reason = "<script>alert(1)</script> & \\ ^ Λάθος ακτινογραφία\nsecond line"
    built = withdrawn([cr()], reason)
    assert f'"{reason}"' in texts(reread(built), "Conclusion")[0]
    path = written(built, tmp_path)
    assert dciodvfy(path) == []
    assert "<script>" not in dsr2html(path)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (" \n", "found 0 characters, required: 1 to 1024"),
        ("x" * 1025, "found 1025 characters"),
        ("a\x1bb", r"found U\+001B, required: text"),
        ("a\udcffb", r"found U\+DCFF, required: text"),
    ],
)
def test_a_reason_that_no_report_can_hold_is_refused(reason: str, message: str) -> None:
    with pytest.raises(ReportError, match=message):
        withdrawn([cr()], reason)


# Context


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


def test_an_image_of_another_class_is_reported_too(tmp_path: Path) -> None:
    source = cr(SOPClassUID=DigitalMammographyXRayImageStorageForPresentation)
    assert dciodvfy(written(report([source], "lateral"), tmp_path)) == []


# Identity


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


# Refusals


@pytest.mark.parametrize(
    ("sources", "readings", "message"),
    [
        ([], [], "found none, required: at least one image"),
        ([dx(1), dx(2, StudyInstanceUID="2.25.9")], None, "StudyInstanceUID: found 2"),
        ([dx(1), dx(2, PatientID="A-2")], None, "PatientID: found 2"),
        ([dx(SeriesInstanceUID=None)], None, "SeriesInstanceUID: found none"),
        ([dx(1)], [], "required: one for each source"),
        ([dx(1)], [read(dx(2), "positive")], "required: one for each source"),
        ([dx(1)], [read(dx(1), "positive"), read(dx(1), "negative")], "one for each source"),
        ([dx(1)], [replace(read(dx(1), "flat"), reason=None)], "required: a reason"),
        ([dx(1)], [replace(read(dx(1), "positive"), probability=None)], "else a probability"),
        ([dx(1)], [replace(read(dx(1), "positive"), probability=91.0)], "required: 0 to 1"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    sources: list[Dataset], readings: list[Reading] | None, message: str
) -> None:
    if readings is None:
        readings = [read(source, "positive") for source in sources]
    with pytest.raises(ReportError, match=message):
        sr.build(sources, readings, BUNDLE, content_datetime=NOON, settings=ReportSettings())


def test_an_illustration_of_an_image_that_is_not_reported_is_refused() -> None:
    with pytest.raises(ReportError, match="illustrations: found"):
        report([cr()], "positive", illustrations={"2.25.3": Illustration(REGIONS)})


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ReportError, match="required: a time zone"):
        report([cr()], "positive", content_datetime=NOON.replace(tzinfo=None))


def test_a_map_of_opacities_is_told_as_such() -> None:
    finding = replace(BUNDLE.finding, saliency=SaliencyKind.OPACITIES)
    made = report(
        [cr()],
        "positive",
        bundle=replace(BUNDLE, finding=finding),
        illustrations={cr().SOPInstanceUID: Illustration(REGIONS)},
    )
    assert len(items(made, "Share seen as opacity")) == len(REGIONS)
    assert texts(made, "Comment").count("AI: opacity seen by the model") == len(REGIONS)
    (scheme,) = made.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99THORACLE"
    assert "rests on" not in str(made)
