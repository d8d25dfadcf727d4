"""Selection by the rest of the header: SOP class, Image Type, size, age, our own output."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from radiographs import chest, coded, radiograph, silent
from sources import FINDING
from thoracle.errors import NotAnalysable
from thoracle.image import selection
from thoracle.records import Population, Reason
from thoracle.settings import Select

ADULTS = FINDING.population


def verdict(ds: Dataset, meant: Population = ADULTS, **settings: Any) -> Reason | None:
    try:
        selection.check(ds, Select(**settings), meant)
    except NotAnalysable as error:
        return error.reason
    return None


def detail(ds: Dataset, **settings: Any) -> str:
    with pytest.raises(NotAnalysable) as refusal:
        selection.check(ds, Select(**settings), ADULTS)
    return refusal.value.detail


def test_a_frontal_chest_radiograph_is_taken_without_limitations() -> None:
    assert verdict(chest()) is None
    assert selection.limitations(chest(), Select(), ADULTS) == ()


def test_what_is_missing_refuses_nothing_but_is_a_limitation() -> None:
    ds = silent(PatientBirthDate=None, Modality=None, ImageType=None)
    assert verdict(ds) is None
    assert selection.limitations(ds, Select(), ADULTS) == (
        "The body part is not stated in the image.",
        "The view is not stated in the image.",
        "The patient's age is not stated.",
    )


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        (ComputedRadiographyImageStorage, None),
        (DigitalXRayImageStorageForPresentation, None),
        (DigitalXRayImageStorageForProcessing, Reason.FOR_PROCESSING),
        (SecondaryCaptureImageStorage, None),
        (MultiFrameGrayscaleByteSecondaryCaptureImageStorage, None),
        (CTImageStorage, Reason.NOT_A_RADIOGRAPH),
        (DigitalMammographyXRayImageStorageForPresentation, Reason.NOT_A_RADIOGRAPH),
        (XRayAngiographicImageStorage, Reason.NOT_A_RADIOGRAPH),
        (XRayRadiofluoroscopicImageStorage, Reason.NOT_A_RADIOGRAPH),
        (EnhancedSRStorage, Reason.NOT_A_RADIOGRAPH),
        (KeyObjectSelectionDocumentStorage, Reason.NOT_A_RADIOGRAPH),
    ],
    ids=lambda value: value.keyword if isinstance(value, UID) else None,
)
def test_sop_classes_of_radiographs_are_taken(uid: UID, expected: Reason | None) -> None:
    assert verdict(chest(SOPClassUID=uid)) is expected


@pytest.mark.parametrize("modality", ["CR", "DX", "DR", "RG", "OT"])
def test_modalities_of_radiographs_are_taken(modality: str) -> None:
    assert verdict(chest(Modality=modality)) is None


@pytest.mark.parametrize("modality", ["CT", "MR", "MG", "US", "XA", "RF", "PX", "IO", "SR", "KO"])
def test_other_modalities_are_refused(modality: str) -> None:
    assert verdict(chest(Modality=modality)) is Reason.NOT_A_RADIOGRAPH


@pytest.mark.parametrize(
    ("image_type", "expected"),
    [
        (["ORIGINAL", "PRIMARY"], None),
        (["DERIVED", "PRIMARY"], None),
        (["DERIVED", "SECONDARY", "POST_PROCESSED"], None),
        (["ORIGINAL", "PRIMARY", "LOCALIZER"], Reason.DERIVED),
        (["DERIVED", "PRIMARY", "", "STITCHED"], Reason.DERIVED),
        (["DERIVED", "PRIMARY", "SUBTRACTED"], Reason.DERIVED),
        (["DERIVED", "PRIMARY", "BONE_SUPPRESSED"], Reason.DERIVED),
        (["DERIVED", "PRIMARY", "SOFT_TISSUE"], Reason.DERIVED),
        (["DERIVED", "SECONDARY", "CAD"], Reason.DERIVED),
        (["DERIVED", "SECONDARY", "AI"], Reason.DERIVED),
        (["DERIVED", "SECONDARY", "AI_HEATMAP"], Reason.OWN_OUTPUT),
        (["DERIVED", "AI_X"], Reason.OWN_OUTPUT),
    ],
    ids=lambda value: "/".join(value) if isinstance(value, list) else None,
)
def test_localizers_and_computed_images_are_refused(
    image_type: list[str], expected: Reason | None
) -> None:
    assert verdict(chest(ImageType=image_type)) is expected


def test_our_own_output_is_never_analysed_again() -> None:
    assert verdict(chest(Manufacturer="Thoracle ")) is Reason.OWN_OUTPUT
    equipment = Dataset()
    equipment.Manufacturer = "Thoracle"
    assert verdict(chest(ContributingEquipmentSequence=[equipment])) is Reason.OWN_OUTPUT
    equipment.Manufacturer = "Oracle"
    assert verdict(chest(ContributingEquipmentSequence=[equipment])) is None


def test_raw_data_are_taken_where_the_settings_say_so() -> None:
    ds = chest(
        SOPClassUID=DigitalXRayImageStorageForProcessing, PresentationIntentType="FOR PROCESSING"
    )
    assert verdict(ds) is Reason.FOR_PROCESSING
    assert verdict(ds, for_processing=True) is None
    assert any("Raw data" in sentence for sentence in selection.limitations(ds, Select(), ADULTS))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"NumberOfFrames": 1}, None),
        ({"NumberOfFrames": 2}, Reason.GEOMETRY),
        ({"Rows": 511}, Reason.GEOMETRY),
        ({"Columns": 511}, Reason.GEOMETRY),
        ({"Rows": 870}, None),  # 870 / 512 = 1.699
        ({"Rows": 871}, Reason.GEOMETRY),  # 1.701
        ({"Columns": 853}, None),  # 512 / 853 = 0.6002
        ({"Columns": 854}, Reason.GEOMETRY),  # 0.5995
        ({"Rows": None}, Reason.NO_IMAGE),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, Reason.NOT_A_RADIOGRAPH),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.NOT_A_RADIOGRAPH),
        ({"PhotometricInterpretation": "MONOCHROME1"}, None),
        ({"BitsStored": 8}, None),
        ({"BitsStored": 7}, Reason.NOT_A_RADIOGRAPH),
    ],
)
def test_size_shape_and_depth_have_limits(
    attributes: dict[str, Any], expected: Reason | None
) -> None:
    assert verdict(chest(**attributes)) is expected


@pytest.mark.parametrize(
    ("age", "birth", "expected"),
    [
        ("045Y", "", 45),
        ("006M", "", 0.5),
        ("010D", "", pytest.approx(0.027, abs=0.001)),
        ("026W", "", pytest.approx(0.5, abs=0.01)),
        ("", "20020401", 18),  # on the birthday; the study is of 2020-04-01
        ("", "20020402", 17),
        ("", "20200401", 0),
        ("", "", None),
        ("", "20300101", None),
        ("old", "", None),
    ],
)
def test_age_comes_from_the_stated_age_or_the_dates(
    age: str, birth: str, expected: float | None
) -> None:
    ds = chest(PatientBirthDate=birth)
    ds.add_new("PatientAge", "LO", age)  # as text, which pydicom does not hold against "old"
    assert selection.age_years(ds) == expected


def test_patients_known_to_be_too_young_are_refused_without_saying_their_age() -> None:
    child = chest(PatientAge="004Y")
    assert verdict(child) is Reason.TOO_YOUNG, "the bundle is meant for adults"
    assert "4" not in detail(child)
    assert verdict(chest(PatientBirthDate="")) is None
    assert verdict(child, minimum_age_years=5) is Reason.TOO_YOUNG
    assert verdict(child, minimum_age_years=4) is None, "the site takes it on itself"
    said = "The patient is younger than 18 years, which the model is not meant for."
    assert said in selection.limitations(child, Select(), ADULTS)


def test_whom_a_bundle_is_meant_for_is_asked_of_the_header() -> None:
    meant = replace(ADULTS, modalities=("DX",), views=("PA",), least_age_years=0)
    cases = {
        Reason.NOT_A_RADIOGRAPH: chest(Modality="CR"),
        Reason.OTHER_VIEW: chest(Modality="DX", ViewPosition="AP"),
        None: chest(Modality="DX", ViewPosition="PA", PatientAge="004Y"),
    }
    for reason, ds in cases.items():
        assert verdict(ds, ADULTS if reason else meant) is None
        assert verdict(ds, meant) is reason


@pytest.mark.parametrize(
    "attributes",
    [
        {"ViewPosition": "AP"},
        {"ViewPosition": "A-P"},
        {"ViewPosition": None, "ViewCodeSequence": [coded(codes.SCT.AnteroPosterior)]},
    ],
)
def test_an_antero_posterior_view_is_a_limitation(attributes: dict[str, Any]) -> None:
    (sentence,) = selection.limitations(chest(**attributes), Select(), ADULTS)
    assert sentence.startswith("Antero-posterior")


def test_secondary_capture_is_a_limitation() -> None:
    (sentence,) = selection.limitations(
        chest(SOPClassUID=SecondaryCaptureImageStorage), Select(), ADULTS
    )
    assert sentence.startswith("Secondary capture")


def test_a_refusal_names_what_was_found_and_what_is_required() -> None:
    assert detail(chest(BodyPartExamined="KNEE")) == (
        "found Body Part Examined 'KNEE', required: the chest"
    )
    assert detail(chest(Rows=100)) == "found 100 x 512 pixels, required: at least 512 x 512"


def test_text_of_a_sender_can_neither_flood_nor_forge_a_detail() -> None:
    long = detail(chest(BodyPartExamined="KNEE " * 1000))
    assert len(long) < 100
    forged = detail(chest(ImageType=["DERIVED", "PRIMARY", "CAD\nroot: all is well"]))
    assert "\n" not in forged


def test_descriptions_are_never_quoted() -> None:
    assert "DOE" not in detail(silent(StudyDescription="KNEE OF JANE DOE")).upper()


def test_a_malformed_header_is_refused() -> None:
    ds = chest()
    ds.add_new("NumberOfFrames", "LO", "several")
    assert verdict(ds) is Reason.UNDECODABLE


def test_selection_needs_no_pixel_data() -> None:
    ds = radiograph(np.zeros((512, 512), np.uint8))
    del ds.PixelData
    assert verdict(ds) is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"Modality": "XRAY"}, "Modality: found 'XRAY', which is not known; the pixels decide."),
        (
            {"PresentationIntentType": "FOR REVIEW"},
            "Presentation Intent Type: found 'FOR REVIEW', which is not known; the pixels decide.",
        ),
        (
            {"ImageLaterality": "L"},
            "Image Laterality: found 'L', a chest radiograph has none; the pixels decide.",
        ),
        (
            {"PatientAge": "45", "PatientBirthDate": None},
            "The patient's age is not stated in a form that is known.",
        ),
    ],
)
def test_what_is_not_understood_refuses_nothing_but_is_a_limitation(
    attributes: dict[str, Any], expected: str
) -> None:
    ds = chest(**attributes)
    assert verdict(ds) is None
    assert selection.limitations(ds, Select(), ADULTS) == (expected,)


@pytest.mark.parametrize("side", ["U", "B", ""])
def test_a_chest_has_no_side(side: str) -> None:
    assert selection.limitations(chest(ImageLaterality=side), Select(), ADULTS) == ()


def test_dates_with_points_are_dates_too() -> None:
    assert selection.age_years(chest(PatientBirthDate="2000.01.01", StudyDate="20200401")) == 20
