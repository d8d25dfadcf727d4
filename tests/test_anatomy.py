"""Body parts and views over the standard's own enumerations, and the words of makers."""

from typing import Any

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
        "\u80f8\u90e8", "CHEST RIBS", "", "UNKNOWN", "OTHER", "NONE", "N/A", "XXX",
    ],
)  # fmt: skip
def test_body_parts_of_many_makers_that_mean_or_leave_open_the_chest_are_taken(words: str) -> None:
    assert verdict(chest(BodyPartExamined=words)) is None


@pytest.mark.parametrize(
    "words",
    [
        "ABDOMEN", "RIB", "RIBS", "CLAVICLE", "STERNUM", "TSPINE", "THORACIC SPINE", "CHESTABDOMEN",
        "CHESTABDPELVIS", "SHOULDER", "HEART", "BREAST", "NECK", "SKULL", "HAND",
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
        ds, Select(), FINDING.population
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
        ({"StudyDescription": "Breast cancer, follow-up"}, None),
        ({"StudyDescription": "Abdullah"}, None),
        ({"StudyDescription": "Abdomen erect"}, Reason.NOT_CHEST),
        ({"ProtocolName": "手动"}, None),  # by hand
        ({"StudyDescription": "吸气不足"}, None),  # not enough
        ({"StudyDescription": "右手"}, Reason.NOT_CHEST),
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
        any(
            "mirrored" in sentence
            for sentence in selection.limitations(ds, Select(), FINDING.population)
        )
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


# ---- what is not understood --------------------------------------------------------------------


def limited(ds: Dataset, **settings: Any) -> tuple[str, ...]:
    site = Select(**settings)
    selection.check(ds, site, FINDING.population)
    return selection.limitations(ds, site, FINDING.population)


@pytest.mark.parametrize(
    "words",
    [
        "BRUST", "Brustkorb", "BORST", "Borstkas", "BRYST", "BR\u00d6ST", "POITRINE", "PECHO",
        "PEITO", "PETTO", "TORACE", "KLP", "KLATKA PIERSIOWA", "P\u0141UCA", "HRUDN\u00cdK",
        "MELLKAS", "G\u00d6\u011e\u00dcS", "GOGUS", "AKC\u0130\u011eER", "KEUHKOT", "NGUC", "CHST",
        "\u0398\u03a9\u03a1\u0391\u039a\u0391\u03a3", "\u041e\u0413\u041a",
        "\u0413\u0420\u0423\u0414\u041d\u0410\u042f \u041a\u041b\u0415\u0422\u041a\u0410",
        "\u80f8\u7247", "\ud749\ubd80", "\u0635\u062f\u0631", "\u05d7\u05d6\u05d4",
    ],
)  # fmt: skip
def test_the_chest_is_known_in_many_languages(words: str) -> None:
    assert limited(chest(BodyPartExamined=words)) == ()


@pytest.mark.parametrize(
    "words",
    ["KNIE", "HUEFTE", "GENOU", "RODILLA", "BRUSTWIRBELS\u00c4ULE", "\u8179\u90e8"],
)
def test_other_regions_are_known_in_many_languages(words: str) -> None:
    assert verdict(chest(BodyPartExamined=words)) is Reason.NOT_CHEST


@pytest.mark.parametrize("words", ["BETT 3", "HEART LUNG", "CHEST RIBS", "ZUSATZ"])
def test_a_body_part_that_is_not_understood_is_a_limitation(words: str) -> None:
    (sentence,) = limited(chest(BodyPartExamined=words))
    assert sentence == (
        f"The body part is not stated in a term that is known: found Body Part Examined '{words}'; "
        "the pixels decide."
    )


@pytest.mark.parametrize("scheme", ["SRT", "SNM3", "99SDM"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("R-10214", None),
        ("R-40888", None),
        ("R-10206", None),
        ("R-10202", None),
        ("R-10236", Reason.NOT_FRONTAL),
        ("R-10228", Reason.NOT_FRONTAL),
    ],
)
def test_views_have_all_the_codes_that_the_standard_ever_had(
    scheme: str, value: str, expected: Reason | None
) -> None:
    ds = silent(ViewCodeSequence=[coded(Code(value, scheme, ""))])
    assert verdict(ds) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (Code("RID43594", "RADLEX", ""), None),
        (Code("RID43583", "RadLex", ""), None),
        (Code("RID45780", "RADLEX", ""), Reason.NOT_FRONTAL),
        (Code("399348003", "SCT", "", "20200131"), None),
    ],
)
def test_views_of_radlex_are_known(code: Code, expected: Reason | None) -> None:
    assert verdict(silent(ViewCodeSequence=[coded(code)])) is expected


def test_a_code_that_is_not_known_contradicts_nothing() -> None:
    unknown = [coded(Code("PA", "99VENDOR", ""))]
    (sentence,) = limited(chest(ViewCodeSequence=unknown))
    assert sentence.endswith("found View Code 'PA^99VENDOR'; another element states it.")
    (_, sentence) = limited(silent(ViewCodeSequence=unknown))
    assert sentence.endswith("the pixels decide.")
    region = [coded(Code("X1", "99VENDOR", ""))]
    assert verdict(silent(AnatomicRegionSequence=region)) is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("DORSOVENTRAL", None),
        ("de face", None),
        ("\u6b63\u9762", None),
        ("\u041f\u0440\u044f\u043c\u0430\u044f", None),
        ("SEITLICH", Reason.NOT_FRONTAL),
        ("PERFIL", Reason.NOT_FRONTAL),
        ("PROFIL", Reason.NOT_FRONTAL),
        ("\u5074\u9762", Reason.NOT_FRONTAL),
        ("\u0411\u043e\u043a\u043e\u0432\u0430\u044f", Reason.NOT_FRONTAL),
        ("PA/LAT", None),
        ("Q", None),
    ],
)
def test_views_are_known_in_many_languages(words: str, expected: Reason | None) -> None:
    assert verdict(silent(ViewPosition=words)) is expected


def test_a_site_has_words_and_codes_of_its_own() -> None:
    site = {
        "chest_words": ("Thx Bett", "R17^99MAKER"),
        "other_region_words": ("ZUSATZ",),
        "frontal_words": ("Q", "PA^99VENDOR"),
        "other_view_words": ("Q-2",),
    }
    assert limited(chest(BodyPartExamined="THX_BETT", ViewPosition="Q"), **site) == ()
    ds = silent(
        AnatomicRegionSequence=[coded(Code("R17", "99MAKER", ""))],
        ViewCodeSequence=[coded(Code("PA", "99VENDOR", ""))],
    )
    assert limited(ds, **site) == ()
    for ds, reason in (
        (chest(BodyPartExamined="ZUSATZ"), Reason.NOT_CHEST),
        (chest(ViewPosition="Q 2"), Reason.NOT_FRONTAL),
    ):
        with pytest.raises(NotAnalysable) as refusal:
            limited(ds, **site)
        assert refusal.value.reason is reason


def test_a_site_s_word_comes_before_ours() -> None:
    assert limited(chest(BodyPartExamined="HEART"), chest_words=("HEART",)) == ()


@pytest.mark.parametrize("orientation", [["L"], ["X", "Y"], ["L/F", "?"]])
def test_an_orientation_that_is_not_understood_contradicts_nothing(orientation: list[str]) -> None:
    assert verdict(chest(PatientOrientation=orientation)) is None
