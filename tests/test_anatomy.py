"""Body parts and views over the standard's own enumerations, and the words of makers."""

import pytest
from pydicom import Dataset
from pydicom.sr._cid_dict import cid_concepts  # the only list of a context group's members
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from radiographs import chest, coded, silent
from sources import FINDING
from thoracle.errors import NotAnalysable
from thoracle.image import selection
from thoracle.records import Reason
from thoracle.settings import Select

FRONTAL = ("AnteroPosterior", "PosteroAnterior", "Frontal")
CHEST = ("Chest", "Lung")


def verdict(ds: Dataset) -> Reason | None:
    try:
        selection.check(ds, Select(), FINDING.population)
    except NotAnalysable as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    "words",
    [
        "CHEST", "Chest", "CHEST_PA", "CHEST PA", "W CHEST LAT/PA", "PORT CHEST", "THORAX",
        "Thorax pa", "TORAX", "T\u00d3RAX", "TORACE", "LUNG", "LUNGS", "POUMONS", "CXR",
        "\u80f8\u90e8", "", "UNKNOWN", "OTHER", "NONE", "N/A", "XXX",
    ],
)  # fmt: skip
def test_body_parts_of_many_makers_that_mean_or_leave_open_the_chest_are_taken(words: str) -> None:
    assert verdict(chest(BodyPartExamined=words)) is None


@pytest.mark.parametrize(
    "words",
    [
        "ABDOMEN", "RIB", "RIBS", "CLAVICLE", "STERNUM", "TSPINE", "THORACIC SPINE", "CHESTABDOMEN",
        "CHESTABDPELVIS", "CHEST RIBS", "SHOULDER", "HEART", "BREAST", "NECK", "SKULL", "HAND",
        "PELVIS", "KNEE", "WHOLEBODY", "EXTREMITY", "SSPINE", "LSPINE", "CSPINE", "HIP", "FOOT",
    ],
)  # fmt: skip
def test_other_body_parts_are_refused(words: str) -> None:
    assert verdict(chest(BodyPartExamined=words)) is Reason.NOT_CHEST


@pytest.mark.parametrize("name", cid_concepts[4031]["SCT"])
def test_of_the_common_anatomic_regions_only_chest_and_lung_are_taken(name: str) -> None:
    region = getattr(codes.SCT, name)
    expected = None if name in CHEST else Reason.NOT_CHEST
    assert verdict(silent(AnatomicRegionSequence=[coded(region)])) is expected


@pytest.mark.parametrize(
    "region",
    [Code("51185008", "SCT", ""), Code("T-D3000", "SRT", ""), Code("T-D3000", "SNM3", "")],
    ids=lambda region: f"{region.scheme_designator} {region.value}",
)
def test_older_codes_of_the_thorax_are_taken(region: Code) -> None:
    ds = silent(AnatomicRegionSequence=[coded(region)])
    assert verdict(ds) is None
    assert "The body part is not stated in the image." not in selection.limitations(
        ds, FINDING.population
    )


def test_every_element_that_states_a_region_must_state_the_chest() -> None:
    region = [coded(codes.SCT.Clavicle)]
    assert verdict(chest(AnatomicRegionSequence=region)) is Reason.NOT_CHEST


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"StudyDescription": "Thorax in 2 Ebenen"}, None),
        ({"StudyDescription": "XR KNEE LEFT"}, Reason.NOT_CHEST),
        ({"StudyDescription": "XR CHEST AND LEFT SHOULDER"}, None),
        ({"StudyDescription": "KNEE", "SeriesDescription": "Chest"}, None),
        ({"StudyDescription": "CHEST", "ProtocolName": "HAND AP"}, Reason.NOT_CHEST),
        ({"StudyDescription": "Control"}, None),
    ],
)
def test_descriptions_are_asked_when_no_element_states_a_region(
    attributes: dict[str, str], expected: Reason | None
) -> None:
    assert verdict(silent(**attributes)) is expected
    assert verdict(chest(**attributes)) is None


@pytest.mark.parametrize("name", cid_concepts[4010]["SCT"])
def test_of_the_views_of_context_group_4010_only_frontal_ones_are_taken(name: str) -> None:
    view = getattr(codes.SCT, name)
    expected = None if name in FRONTAL else Reason.NOT_FRONTAL
    assert verdict(silent(ViewCodeSequence=[coded(view)])) is expected


@pytest.mark.parametrize(
    "words",
    ["AP", "PA", "A-P", "P-A", "PA_CHEST", "AP SUPINE", "FRONTAL", "ap", "ERECT", "PORTABLE", ""],
)
def test_view_positions_that_mean_or_leave_open_a_frontal_view_are_taken(words: str) -> None:
    assert verdict(chest(ViewPosition=words)) is None


@pytest.mark.parametrize(
    "words",
    [
        "LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAT", "LATERAL", "L LAT", "LPO", "RPO", "LAO",
        "RAO", "OBLIQUE", "AP LORDOTIC", "AP DECUBITUS", "AXIAL", "LM", "ML",
    ],
)  # fmt: skip
def test_other_view_positions_are_refused(words: str) -> None:
    assert verdict(chest(ViewPosition=words, PatientOrientation=None)) is Reason.NOT_FRONTAL


@pytest.mark.parametrize(
    ("orientation", "expected", "limited"),
    [
        (["L", "F"], None, False),
        (["LH", "FL"], None, False),
        (["R", "F"], None, True),
        (["L", "H"], None, True),
        (["F", "R"], None, True),
        (["A", "F"], Reason.NOT_FRONTAL, True),
        (["P", "F"], Reason.NOT_FRONTAL, True),
        (["PR", "H"], Reason.NOT_FRONTAL, True),
    ],
)
def test_patient_orientation_tells_lateral_mirrored_and_rotated(
    orientation: list[str], expected: Reason | None, limited: bool
) -> None:
    ds = silent(PatientOrientation=orientation)
    assert verdict(ds) is expected
    assert (
        any("mirrored" in sentence for sentence in selection.limitations(ds, FINDING.population))
        is limited
    )


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"SeriesDescription": "Chest LAT"}, Reason.NOT_FRONTAL),
        ({"ProtocolName": "Thorax seitl. lateral"}, Reason.NOT_FRONTAL),
        ({"SeriesDescription": "Chest PA and lateral"}, None),
        ({"StudyDescription": "Chest lateral"}, None),
        ({"SeriesDescription": "Chest lateral", "ViewPosition": "PA"}, None),
    ],
)
def test_descriptions_are_asked_when_no_element_states_a_view(
    attributes: dict[str, str], expected: Reason | None
) -> None:
    assert verdict(silent(**attributes)) is expected
