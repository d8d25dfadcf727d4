"""Key Object Selections: valid, of interest, or rejecting what is ours and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from sources import (
    BUNDLE,
    COMMON,
    NOON,
    assert_same_context,
    cr,
    dx,
    each_source,
    positive,
    written,
)
from thoracle.errors import ReportError
from thoracle.report import header, keyobject
from thoracle.report.header import Instance
from validators import dciodvfy, dsr2html, pixelmed

HEAT_MAP = Instance(SecondaryCaptureImageStorage, "2.25.8.1", "2.25.8")
RESULTS = [
    Instance(Comprehensive3DSRStorage, "2.25.5.1", "2.25.5"),
    HEAT_MAP,
    Instance(GrayscaleSoftcopyPresentationStateStorage, "2.25.9.1", "2.25.9"),
    Instance(KeyObjectSelectionDocumentStorage, "2.25.10.1", "2.25.10"),
]
IOD = "KeyObjectSelectionDocument"


def selection(*sources: Dataset, **changes: Any) -> Dataset:
    arguments = {**COMMON, "context_source": sources[0], **changes}
    readings = [positive(source) for source in sources]
    return keyobject.build(sources, [HEAT_MAP], readings, BUNDLE, **arguments)


def rejection(source: Dataset, objects: list[Instance] = RESULTS, **changes: Any) -> Dataset:
    return keyobject.rejection(objects, [source], BUNDLE, **{**COMMON, **changes})


def named(document: Dataset, *value_types: str) -> list[str]:
    """Return the SOP Instance UIDs that the content names in items of these value types."""
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in document.ContentSequence
        if item.ValueType in value_types
    ]


def evidence(document: Dataset) -> set[str]:
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    return {
        item.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def text(document: Dataset) -> str:
    contained = (it for it in document.ContentSequence if it.RelationshipType == "CONTAINS")
    (found,) = (item.TextValue for item in contained if item.ValueType == "TEXT")
    return str(found)


@each_source
@pytest.mark.parametrize("build", [selection, rejection])
def test_a_selection_is_valid_and_in_the_study_of_the_source(
    build: Any, arrive: Callable[[], Dataset], tmp_path: Path
) -> None:
    source = arrive()
    document = build(source)
    path = written(document, tmp_path)
    assert dciodvfy(path, IOD) == []
    assert text(document) in " ".join(dsr2html(path).split())
    assert_same_context(source, document)
    assert "ReferencedRequestSequence" in document or not source.get("AccessionNumber")


@pytest.mark.parametrize("build", [selection, rejection])
@pytest.mark.parametrize("source", [cr(), dx()], ids=["CR", "DX"])
def test_a_selection_follows_its_template(build: Any, source: Dataset, tmp_path: Path) -> None:
    assert pixelmed(written(build(source), tmp_path)) == []


@pytest.mark.slow
@each_source
@pytest.mark.parametrize("build", [selection, rejection])
def test_each_selection_follows_its_template(
    build: Any, arrive: Callable[[], Dataset], tmp_path: Path
) -> None:
    assert pixelmed(written(build(arrive()), tmp_path)) == []


def test_a_named_image_is_against_the_template(tmp_path: Path) -> None:
    document = selection(cr())
    document.ContentSequence[-1].ConceptNameCodeSequence = [document.ConceptNameCodeSequence[0]]
    (error,) = pixelmed(written(document, tmp_path))
    assert "Purpose of Reference" in error


def test_images_and_their_heat_maps_are_of_interest_and_evidence() -> None:
    document = selection(dx(1), dx(2))
    assert document.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    images = [dx(1).SOPInstanceUID, dx(2).SOPInstanceUID, HEAT_MAP.sop_instance_uid]
    assert named(document, "IMAGE") == images
    assert evidence(document) == set(images)
    assert document.ReferencedRequestSequence[0].RequestedProcedureID == "RP1"


def test_the_description_says_what_and_by_whom_and_that_nobody_verified_it() -> None:
    assert text(selection(cr())) == (
        "AI result for research, not verified by a physician, not for diagnosis. COVID-19 finding "
        "suggested: probability 91 %, decision threshold 50 %. Model: covid_cxr 0.1.0."
    )


def test_a_rejection_names_our_results_and_no_image_of_a_modality() -> None:
    note = rejection(cr())
    assert sorted(named(note, "IMAGE")) == [HEAT_MAP.sop_instance_uid]
    assert sorted(named(note, "COMPOSITE")) == ["2.25.10.1", "2.25.5.1", "2.25.9.1"]
    assert evidence(note) == {made.sop_instance_uid for made in RESULTS}
    assert note.SeriesInstanceUID != selection(cr()).SeriesInstanceUID


def test_a_rejection_for_quality_has_a_reason_in_code_and_one_for_safety_has_none() -> None:
    def modifiers(note: Dataset) -> list[str]:
        return [
            item.ConceptCodeSequence[0].CodeMeaning
            for item in note.ContentSequence
            if item.RelationshipType == "HAS CONCEPT MOD"
        ]

    quality = rejection(cr())
    assert quality.ConceptNameCodeSequence[0].CodeMeaning == "Rejected for Quality Reasons"
    assert modifiers(quality) == ["English", "Other failure"]
    safety = rejection(cr(), title=codes.DCM.RejectedForPatientSafetyReasons)
    assert safety.ConceptNameCodeSequence[0].CodeMeaning == "Rejected for Patient Safety Reasons"
    assert modifiers(safety) == ["English"]


def test_an_image_of_a_modality_is_never_rejected() -> None:
    with pytest.raises(ReportError, match="required: classes of our results"):
        rejection(cr(), [*RESULTS, header.instance(cr())])


def test_a_selection_of_nothing_is_refused() -> None:
    with pytest.raises(ReportError, match="found none"):
        rejection(cr(), [])
    with pytest.raises(ReportError, match="found none"):
        keyobject.rejection(RESULTS, [], BUNDLE, **COMMON)
    with pytest.raises(ReportError, match="found none"):
        keyobject.build([], [HEAT_MAP], [], BUNDLE, context_source=cr(), **COMMON)


def test_a_rejection_is_the_same_in_whatever_order_images_come() -> None:
    sources = [dx(1), dx(2)]
    notes = [
        keyobject.rejection(RESULTS, order, BUNDLE, **COMMON) for order in (sources, sources[::-1])
    ]
    assert header.encode(notes[0]) == header.encode(notes[1])


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ReportError, match="required: a time zone"):
        selection(cr(), content_datetime=NOON.replace(tzinfo=None))


def test_the_same_content_has_the_same_uid_and_other_content_another() -> None:
    one = header.encode(rejection(cr(), RESULTS))
    assert one == header.encode(rejection(cr(), [*RESULTS[::-1], HEAT_MAP]))
    assert rejection(cr(), RESULTS).SOPInstanceUID != rejection(cr(), RESULTS[1:]).SOPInstanceUID
    assert header.encode(selection(cr())) == header.encode(selection(cr()))
    corrected = cr(PatientName="Roe^Janet")
    assert selection(cr()).SOPInstanceUID != selection(corrected).SOPInstanceUID
