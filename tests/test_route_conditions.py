"""Conditions of rules: what they see of a header and the result, and that no header harms them."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from radiographs import chest, saved
from route_decisions import EVERYTHING, configured, decide, fires
from sources import cr, dx, named
from thoracle import settings
from thoracle.cli import machine
from thoracle.errors import SettingsError
from thoracle.routing import expression, rank
from thoracle.routing import rules as routing_rules
from thoracle.routing.expression import LONGEST, condition
from thoracle.settings import Rank

HOSTILE = [
    '" || true || "',
    "' == '' || true || '",
    '"; true',
    '\\" || true //',
    "a\r\nb || true",
    "${true}{{true}}$(true)",
    "Ünï^çødé=漢字=\u202e",
    "A" * 60_000,
    "(" * 1000,
    "\udcff\ud800",
    "\x00\x01",
    "x\x00",
]


# ---- conditions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("true", True),
        ('Modality == "DX"', True),
        ('Modality == "CR"', False),
        ('StudyDescription.startsWith("Che")', True),
        ('StudyDescription.matches("(?i)^chest$")', True),
        ('PatientName.contains("Roe")', True),
        ("PatientAge >= 55", True),
        ("PatientAge >= 55.5", True),
        ("56 <= PatientAge && PatientAge < 57", True),
        ("Rows > 1999 && Columns < 1801", True),
        ("Rows > 1999.5", True),
        ('StudyDate >= "20260101"', True),
        ('"PRIMARY" in ImageType', True),
        ('ImageType.exists(value, value.startsWith("PRIM"))', True),
        ("PixelSpacing[0] < 0.2", True),
        ('CallingAETitle == "PACS"', True),
        ('result.outcome == "positive" && result.probability >= 0.9', True),
        ('result.bundle.name == "covid_cxr" && result.bundle.version == "0.1.0"', True),
        ('result.reason == ""', True),
        ("known.PatientAge && known.Modality", True),
        ("known.StationAETitle || known.InstitutionName", False),
        ('StationAETitle == ""', True),
    ],
)
def test_a_condition_sees_texts_numbers_lists_and_the_result(when: str, expected: bool) -> None:
    image = dx(ImageType=["DERIVED", "PRIMARY"], PixelSpacing=[0.15, 0.15])
    assert fires(when, image) is expected


def test_every_example_of_a_text_of_another_language_is_seen_as_letters() -> None:
    greek = named(("ISO_IR 126", "Δημητριάδης^Ξένια", "Ακτινογραφία θώρακος"))
    assert fires('StudyDescription.contains("θώρακος") && PatientName.startsWith("Δ")', greek)


def test_one_image_for_which_it_holds_is_enough() -> None:
    assert fires('Modality == "CR"', dx(1), cr(2))
    assert not fires('Modality == "CR" && Modality == "DX"', dx(1), cr(2))


def test_a_number_that_the_header_lacks_leaves_a_rule_undecided() -> None:
    unknown = dx(PatientBirthDate=None)
    decision = decide(configured({"when": "PatientAge < 16", "send": ["second"]}), unknown)
    assert decision.failed[0].problem == "found no value of PatientAge, required: one"
    assert not decision.fired
    assert decision.sends.kinds == {"pacs": EVERYTHING}
    assert not fires("known.PatientAge && PatientAge < 16", unknown)
    assert fires('PatientAge < 16 || Modality == "DX"', unknown)


def test_several_values_where_the_standard_has_one_are_undecided() -> None:
    image = dx()
    image.InstanceNumber = [1, 2]
    assert decide(configured({"when": "InstanceNumber == 1", "hold": True}), image).failed


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("PatientWeight", "DS", "1e999"),
        ("PatientWeight", "DS", "nan"),
        ("PatientWeight", "LO", "heavy"),
        ("InstanceNumber", "UV", 2**64 - 1),
        ("InstanceNumber", "LO", "9" * 400),
        ("InstanceNumber", "SQ", [Dataset()]),
    ],
)
def test_a_number_that_is_none_is_unknown(keyword: str, vr: str, value: Any) -> None:
    image = dx()
    image[keyword] = DataElement(keyword, vr, value, validation_mode=0)
    decision = decide(
        configured(
            {"when": f"!known.{keyword} || {keyword} > 2", "hold": True},
            {"when": f"{keyword} > 2", "hold": True},
        ),
        image,
    )
    assert [one.rule for one in decision.fired] == ["rule0"]
    assert decision.failed[0].problem == f"found no value of {keyword}, required: one"


@pytest.mark.parametrize(
    ("when", "fault"),
    [
        ('Modalty == "DX"', "line 1, column 1: unknown name Modalty; did you mean Modality?"),
        ("true &&\n  known.Modalty", "line 2, column 8: unknown name known.Modalty"),
        ('result.outcom == "x"', "unknown name result.outcom; did you mean result.outcome?"),
        ("Modality == 3", "line 1, column 10: found no matching overload for '_==_'"),
        ('true ||\n PatientAge < "x"', "line 2, column 13: found no matching overload for '_<_'"),
        ("PatientAge == 3", "line 1, column 12: found == or != between a broken and a whole"),
        ("Modality", "line 1, column 1: found string, required: true or false"),
        ("PixelData == ''", "line 1, column 1: PixelData is OB or OW, required: a text or a"),
        ("known.RequestAttributesSequence", "RequestAttributesSequence is SQ, required:"),
        ("Modality == ", "line 1, column 13: Syntax error: mismatched input '<EOF>'"),
        ('Modality == "DX', "line 1, column 13: Syntax error: token recognition error"),
        ('Modality.matches("(")', "line 1, column 18: invalid regular expression: missing )"),
        ("has(Modality.x)", "column 1: found has(), required: known.KEYWORD"),
        ("has(result.outcome)", "column 1: found has(), required: known.KEYWORD"),
        ("__import__('os').system('x') == 0", "line 1, column 11: unknown name __import__"),
        ("(" * 100 + "true" + ")" * 100, "recursion limit"),
        (" " * LONGEST + "true", f"found {LONGEST + 4} characters, required: at most {LONGEST}"),
    ],
)
def test_a_faulty_condition_is_named_with_line_and_column(when: str, fault: str) -> None:
    chosen = configured({"when": when, "hold": True})
    found = dict(routing_rules.faults(chosen))
    assert fault in found["rule0"]
    with pytest.raises(SettingsError, match=re.escape(fault)):
        condition(when)
    assert decide(chosen).held  # nobody looked at `thoracle check`


@pytest.mark.parametrize(
    ("when", "found"),
    [
        ("result.probability > 90", "result.probability > 90, which is never true"),
        ("90.0 <= result.probability", "result.probability >= 90.0, which is never true"),
        ("result.probability < 0", "result.probability < 0, which is never true"),
        ("PatientAge >= 200", "PatientAge >= 200, which is never true"),
        ('result.outcome == "postive"', "did you mean positive?"),
        ('result.outcome in ["positive", "unsure"]', 'result.outcome "unsure", which is never'),
        ('result.reason == "NOT-CHST"', "did you mean NOT-CHEST?"),
        ('Modality == "cr"', 'did you mean "CR"?'),
        ('StudyDate == "2026-11-22"', "a date is written 20261122"),
        ("result.probability >= 0.9", ""),
        ("result.probability > 0.0 && PatientAge < 90", ""),
        ('result.outcome == "positive" || result.reason == "NOT-CHEST" || Modality == "CR"', ""),
        ('StudyDescription == "result.probability > 90" && StudyDate >= "20200101"', ""),
        ('result.reason == "" && SeriesDescription == "ap"', ""),
    ],
)
def test_a_comparison_that_is_never_true_is_warned_of(when: str, found: str) -> None:
    chosen = settings.parse(
        {
            "rule": [{"name": "one", "when": when, "shadow": True}],
            "rank": [{"name": "two", "when": when, "head_start_minutes": 1}],
        }
    )
    checked = [*machine._rules(chosen), *machine._ranks(chosen)]
    assert {one.well for one in checked} == {True}
    assert [one.level == machine.CheckLevel.WARN for one in checked] == [bool(found)] * 2
    assert all(found in one.text for one in checked)


# ---- hostile headers -------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:16]))
def test_what_a_header_says_is_data_and_never_code(text: str) -> None:
    image = Dataset()
    image.SOPInstanceUID = "2.25.1"
    for keyword in ("PatientName", "StudyDescription", "StationAETitle"):
        image.add_new(keyword, "UT", text)
    chosen = configured(
        {"when": 'StudyDescription == "x" || StationAETitle == "x"', "hold": True},
        {"when": 'PatientName.contains("|| TRUE")', "shadow": True},
        {"when": "PatientName != ''", "priority": "stat"},
    )
    decision = decide(chosen, image, sender=text)
    assert [one.rule for one in decision.fired] == ["rule2"]
    assert not decision.failed
    assert len(json.dumps(decision.to_json())) < 2000


@pytest.mark.parametrize(
    "when",
    [
        'PatientComments.matches("^(a+)+$")',
        'PatientComments.matches("(a|aa)+$") || PatientComments.matches("(.*)(.*)(.*)(.*)b")',
        'ImageType.all(a, ImageType.all(b, ImageType.all(c, a + b + c != "")))',
        "ImageType.map(a, ImageType.map(b, PatientComments + PatientComments)).size() == 0",
    ],
)
def test_no_condition_takes_long_whatever_the_header_says(when: str) -> None:
    image = dx(PatientComments="a" * 9_000 + "!", ImageType=["A" * 16] * 900)
    chosen = configured({"when": when, "hold": True})
    started = time.thread_time()  # whatever else the machine does
    decide(chosen, image)
    assert time.thread_time() - started < 2  # 0.01 to 0.4 s seen; without bounds it is for ever


def test_a_study_of_very_many_images_leaves_a_rule_undecided() -> None:
    images = []
    for number in range(expression.MOST_IMAGES + 1):
        image = Dataset()
        image.SOPInstanceUID = f"2.25.{number}"
        image.InstanceNumber = number
        images.append(image)
    chosen = configured({"when": "InstanceNumber < 0", "hold": True})
    assert decide(chosen, *images).held
    assert not decide(chosen, *images[1:]).held


ASKED = {
    "US": ("Rows", "Rows > 0"),
    "IS": ("InstanceNumber", "InstanceNumber > 0"),
    "DS": ("PatientWeight", "PatientWeight > 0"),
    "FD": ("RevolutionTime", "RevolutionTime > 0.0"),
    "FL": ("RecommendedDisplayFrameRateInFloat", "RecommendedDisplayFrameRateInFloat > 0.0"),
    "CS": ("BodyPartExamined", 'BodyPartExamined == "HAND"'),
    "PN": ("PatientName", 'PatientName == "VIP"'),
    "known": ("SmallestImagePixelValue", "known.SmallestImagePixelValue"),
}
RAW = [b"", b"a", b"abc", b"\xff" * 7, b"9" * 400, b"1,5", b"nan", b"\\" * 300, b"\x1b$B\x00"]


@pytest.mark.parametrize("stop", ["hold", "shadow"])
@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("asked", ASKED)
def test_a_rule_over_a_value_of_any_bytes_is_decided_or_holds(
    asked: str, raw: bytes, stop: str
) -> None:
    keyword, when = ASKED[asked]
    tag = Tag(keyword)
    broken = dx()
    vr = "US" if asked == "known" else asked
    broken[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True, is_buffered=True)
    decision = decide(configured({"when": when, stop: True}), broken)
    assert decision.failed == () or decision.held_by == ("rule0",)
    if raw == b"abc" and asked in ("US", "FD", "FL"):  # BytesLengthException of pydicom
        assert decision.held_by == ("rule0",)
    found = rank.head_start([Rank(name="r", when=when, head_start_minutes=9)], [broken], {})
    assert found.minutes in (0, 9)


@pytest.mark.parametrize("stop", ["hold", "shadow"])
def test_a_rule_over_a_file_whose_header_cannot_be_read_holds(stop: str, tmp_path: Path) -> None:
    gone = routing_rules.header(tmp_path / "gone.dcm")
    path = saved(chest(), tmp_path / "a.dcm")
    broken = path.read_bytes().replace(b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00FD")
    path.write_bytes(broken)  # the length is no multiple of 8
    for ds in (gone, routing_rules.header(path)):
        for when in ('PatientName == "VIP^X"', 'PatientName.startsWith("VIP")'):
            assert decide(configured({"when": when, stop: True}), ds).held_by == ("rule0",)
    assert decide(configured({"when": "known.PatientName", stop: True}), gone).held_by == ("rule0",)
