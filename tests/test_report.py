"""What the reports say: outcome, conclusion, measurements and regions, and what is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

import thoracle
from sources import BUNDLE, NOON, STUDY, cr, dx
from structured_reports import (
    HEAT_MAP,
    OUTLINES,
    REGIONS,
    SAID,
    each_said,
    illustrated,
    items,
    mixed_study,
    read,
    report,
    reread,
    texts,
    values,
)
from thoracle.errors import ReportError
from thoracle.records import Box, Decision, Reading, SaliencyKind
from thoracle.report import sentences, sr
from thoracle.report.content import Illustration
from thoracle.report.header import Instance
from thoracle.settings import Report as ReportSettings


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
