"""ORU^R01: read back with python-hl7, and validated against v2.5.1 with hl7apy."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import hl7  # type: ignore[import-untyped]  # has no annotations
import pytest
from hl7apy.consts import VALIDATION_LEVEL  # type: ignore[import-untyped]  # has no annotations
from hl7apy.parser import parse_message  # type: ignore[import-untyped]  # has no annotations
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from documents import DOCS
from sources import BUNDLE, JAPANESE, NOON, cr, dx, each_source, named, positive
from thoracle import settings
from thoracle.errors import ReportError, SettingsError
from thoracle.hl7.oru import ENCODINGS, ReportReference, Status, oru
from thoracle.records import Outcome, Reading, Reason
from thoracle.settings import HL7

RIS = HL7(
    name="ris",
    host="ris",
    port=2575,
    sending_facility="SITE",
    receiving_application="RIS^2.25.1^ISO",
    receiving_facility="SITE",
)
REPORT = ReportReference("2.25.2001", "2.25.2002")
OUTCOME, PROBABILITY, REASON, IMPRESSION, STUDY, SERIES, SR = range(7)
"""Which OBX says what."""

HOSTILE = {
    "separators": r"A|^~\&|Z",
    "escapes": r"A\F\ \X0D\ \.br\ \H\ \Z",
    "segment": "A\rOBX|9|ST|X||forged||||||F\rZ",
    "frame": "A\x1c\r\x0bMSH|Z",
    "controls": "A" + "".join(map(chr, range(0x20))) + "\x7fZ",
    "separators of other programs": "A\u0085\u2028\u2029Z",
    "letters": "Aé Ω 山 😀Z",
    "markup": "A<script>alert('x')</script>\"; DROP TABLE study; --Z",
    "null": '""',
}
FIELDS = {
    "PatientID": "PID.F3.R1.C1",
    "IssuerOfPatientID": "PID.F3.R1.C4.S1",
    "PatientName": "PID.F5.R1.C1",
    "AdmissionID": "PV1.F19.R1.C1",
    "AccessionNumber": "OBR.F18",
    "PlacerOrderNumberImagingServiceRequest": "OBR.F2",
    "FillerOrderNumberImagingServiceRequest": "OBR.F3",
    "RequestedProcedureID": "OBR.F19",
    "ScheduledProcedureStepID": "OBR.F20",
    "CodeValue": "OBR.F4.R1.C1",
    "CodeMeaning": "OBR.F4.R1.C2",
    "CodingSchemeDesignator": "OBR.F4.R1.C3",
}
NEWER = (
    r"Value (SCT|UCUM|99THORACLE) not in table HL70396 in element .*|"
    r"Value CWE not in table HL70125 in element OBX\.OBX_2"
)
"""What hl7apy's tables of v2.5.1 lack: coding schemes that were registered later, and CWE, which
Chapter 2.A.13 defines and Table 0125 of that version forgot."""


def message(source: Dataset, *readings: Reading, **changes: Any) -> bytes:
    given: dict[str, Any] = {
        "bundle": BUNDLE,
        "report": REPORT,
        "receiver": RIS,
        "sentence": "COVID-19 finding suggested: probability 91 %.",
        "control_id": "0123456789abcdef.1_-",
        "made": NOON,
        "status": "preliminary",
    }
    return oru(source, readings or [positive(source)], **{**given, **changes})


def read(sent: bytes, encoding: str = "utf-8") -> Any:
    return hl7.parse(sent.decode(encoding))


def rejected(source: Dataset, reason: Reason = Reason.NOT_FRONTAL) -> Reading:
    return Reading(
        str(source.SOPClassUID),
        str(source.SOPInstanceUID),
        Outcome.REJECTED,
        reason=reason,
        detail="found LL, required: PA or AP",
    )


def scored(source: Dataset, outcome: Outcome, probability: float) -> Reading:
    return replace(positive(source), outcome=outcome, probability=probability)


def values(parsed: Any, field: int) -> list[str]:
    """Return one field of each OBX, as it stands in the message."""
    return [str(obx[field]) if len(obx) > field else "" for obx in parsed.segments("OBX")]


def put(ds: Dataset, keyword: str, value: str) -> None:
    ds[keyword] = DataElement(keyword, dictionary_VR(keyword), value, validation_mode=config.IGNORE)


def filled(value: str) -> Dataset:
    """Return a header that has ``value`` wherever a message takes text from."""
    source, request, procedure = dx(), Dataset(), Dataset()
    for keyword in FIELDS:
        owner = source
        if keyword.startswith("Cod"):
            owner = procedure
        elif keyword.startswith(("Req", "Sched")):
            owner = request
        put(owner, keyword, value)
    request.RequestedProcedureCodeSequence = [procedure]
    source.RequestAttributesSequence = [request]
    return source


# ---- Validity ----------------------------------------------------------------------------------


def assert_valid(sent: bytes, folder: Path, encoding: str = "utf-8") -> None:
    parsed = parse_message(sent.decode(encoding), validation_level=VALIDATION_LEVEL.STRICT)
    findings = folder / "findings.txt"
    parsed.validate(report_file=str(findings))
    for line in findings.read_text().splitlines():
        assert re.fullmatch(f"Warning: ({NEWER})", line), line


@each_source
@pytest.mark.parametrize("status", ["preliminary", "corrected", "withdrawn"])
@pytest.mark.parametrize("outcome", Outcome)
def test_each_message_is_valid(
    arrive: Any, status: Status, outcome: Outcome, tmp_path: Path
) -> None:
    source = arrive()
    rejects = outcome is Outcome.REJECTED
    reading = rejected(source) if rejects else scored(source, outcome, 0.5)
    assert_valid(message(source, reading, status=status), tmp_path)


def test_the_validation_finds_a_fault(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="HL70085"):
        assert_valid(message(cr()).replace(b"||||||P\r", b"||||||Q\r"), tmp_path)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_message_with_hostile_text_is_valid(value: str, tmp_path: Path) -> None:
    source = filled(value)
    del source.IssuerOfPatientID  # sent whole though HD.1 has 20 characters: docs/hl7.md
    parsed = parse_message(
        message(source, sentence=value).decode(), validation_level=VALIDATION_LEVEL.STRICT
    )
    assert parsed.validate(report_file=str(tmp_path / "findings.txt"))
    assert [one.name for one in parsed.children] == ["MSH", "ORU_R01_PATIENT_RESULT"]


# ---- What it says ------------------------------------------------------------------------------


def test_a_positive_result_has_every_field() -> None:
    source = dx(TimezoneOffsetFromUTC="+0100", StudyTime="101500.123456")
    digest = BUNDLE.digest
    common = (
        "20260102101500.1234+0100|||123110^Artificial Intelligence^DCM^0.1.0^covid_cxr^99THORACLE|"
        f"{digest}|20260102120000+0000"
    )
    assert message(source).decode().split("\r") == [
        r"MSH|^~\&|THORACLE|SITE|RIS^2.25.1^ISO|SITE|20260102120000+0000||ORU^R01^ORU_R01"
        "|0123456789abcdef.1_-|P|2.5.1||||||UNICODE UTF-8",
        str(read(message(source)).segment("PID")),
        "ORC|RE||ACC1",
        "OBR|1||ACC1|399208008^Plain X-ray of chest^SCT|||20260102101500.1234+0100|||||||||||ACC1"
        "|RP1|SPS1||20260102120000+0000||RAD|P",
        f"OBX|1|CWE|840539006^COVID-19^SCT||52101004^Present^SCT|||A|||P|||{common}",
        "NTE|1|L|AI result for research, not verified by a physician, not for diagnosis.",
        f"OBX|2|NM|122157^Probability^DCM||91|%^Percent^UCUM|<40||||P|||{common}",
        'OBX|3|CWE|NO-RESULT-REASON^Reason for no result^99THORACLE||""||||||P',
        "OBX|4|TX|19005-8^Impression^LN||COVID-19 finding suggested: probability 91 %.||||||P",
        "OBX|5|ST|113014^DICOM Study^DCM||2.25.1001||||||P",
        "OBX|6|ST|112002^Series Instance UID^DCM||2.25.2001||||||P",
        "OBX|7|ST|SR-INSTANCE-UID^SR Instance UID^99THORACLE||2.25.2002||||||P",
        "",
    ]


def test_the_documentation_shows_such_a_message() -> None:
    page = (DOCS / "hl7.md").read_text(encoding="utf-8")
    assert message(dx()).decode().replace("\r", "\n") in page


@pytest.mark.parametrize(
    ("outcome", "code", "flag"),
    [
        (Outcome.POSITIVE, "52101004^Present^SCT", "A"),
        (Outcome.NEGATIVE, "272519000^Absent^SCT", "N"),
        (Outcome.INDETERMINATE, "373068000^Undetermined^SCT", ""),
    ],
)
def test_the_abnormal_flag_follows_the_outcome(outcome: Outcome, code: str, flag: str) -> None:
    source = cr()
    parsed = read(message(source, scored(source, outcome, 0.4321)))
    assert values(parsed, 5)[:2] == [code, "43.21"]
    assert values(parsed, 8)[OUTCOME] == flag


def test_of_several_images_the_most_telling_one_counts() -> None:
    source = cr()
    images = [
        scored(source, Outcome.POSITIVE, 0.7),
        scored(source, Outcome.NEGATIVE, 0.1),
        rejected(source),
        scored(source, Outcome.POSITIVE, 0.8),
    ]
    assert values(read(message(source, *images)), 5)[:3] == ["52101004^Present^SCT", "80", '""']


def test_a_study_that_cannot_be_analysed_says_why_and_is_not_negative() -> None:
    source = cr()
    images = [rejected(source), rejected(source), rejected(source, Reason.FLAT)]
    parsed = read(message(source, *images))
    assert values(parsed, 5)[:3] == [
        '""',
        '""',
        "NOT-FRONTAL^View is not frontal^99THORACLE~FLAT^Image without contrast^99THORACLE",
    ]
    assert values(parsed, 8)[OUTCOME] == ""
    assert values(parsed, 11) == [*"XX", *"PPPPP"]
    note = parsed["NTE.F3"]
    assert "View is not frontal: found LL, required: PA or AP; Image without contrast" in note
    assert "says nothing about COVID-19" in note


def test_a_correction_replaces_what_was_said_before() -> None:
    source = cr()
    before, after = (
        read(message(source)),
        read(message(source, rejected(source), status="corrected")),
    )
    for name, number in (("ORC", 2), ("ORC", 3), ("OBR", 2), ("OBR", 3), ("OBR", 4)):
        assert str(before.segment(name)[number]) == str(after.segment(name)[number])
    assert values(before, 3) == values(after, 3)
    assert values(after, 11) == [*"XX", *"CCCCC"]
    assert values(after, 5)[:2] == ['""', '""']
    assert values(read(message(source, status="corrected")), 11) == ["C"] * 7


def test_a_withdrawn_result_is_posted_as_wrong_and_not_repeated() -> None:
    source = cr()
    parsed = read(message(source, status="withdrawn", sentence="Withdrawn: wrong patient."))
    assert values(parsed, 11) == [*"WW", *"CCCCC"]
    assert values(parsed, 5)[:4] == [
        '""',
        '""',
        "WITHDRAWN^Result withdrawn^99THORACLE",
        "Withdrawn: wrong patient.",
    ]
    assert values(parsed, 8)[OUTCOME] == ""


@pytest.mark.parametrize("status", ["preliminary", "corrected", "withdrawn"])
def test_nothing_is_ever_final(status: Status) -> None:
    parsed = read(message(cr(), status=status))
    assert str(parsed.segment("OBR")[25]) == "P"
    assert "F" not in values(parsed, 11)
    assert "not for diagnosis" in parsed["NTE.F3"]


def test_the_same_arguments_make_the_same_bytes() -> None:
    assert message(cr()) == message(cr())


@pytest.mark.parametrize("control_id", ["", "x" * 21, "a|b", "a\rb", "é"])
def test_a_control_id_that_no_acknowledgement_could_repeat_is_refused(control_id: str) -> None:
    with pytest.raises(ReportError, match="control_id: found"):
        message(cr(), control_id=control_id)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ReportError, match="required: a time zone"):
        message(cr(), made=datetime(2026, 1, 2))  # noqa: DTZ001 - the fault that is tested


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sending_application": "A|B"}, ".sending_application: found 'A|B', required: "),
        ({"receiving_facility": "Klinik\rMSH"}, ".receiving_facility: found 'Klinik"),
        ({"character_set": "UTF-8"}, ".character_set: found 'UTF-8', required: "),
        ({"outcomes": ["maybe"]}, ".outcomes 1: found 'maybe', required: "),
        ({"name": "pacs"}, "audit.witness: found pacs twice"),
    ],
)
def test_a_receiver_that_cannot_be_is_named(changes: dict[str, Any], expected: str) -> None:
    archive = {"name": "pacs", "ae_title": "PACS", "host": "h", "port": 104}
    ris = {"name": "ris", "host": "h", "port": 2575, **changes}
    with pytest.raises(SettingsError) as caught:
        settings.parse({"destination": [archive], "hl7": [ris]})
    assert expected in str(caught.value)


# ---- Patient, visit and order ------------------------------------------------------------------


def test_a_name_keeps_its_components_and_groups() -> None:
    parsed = read(message(named(JAPANESE)))
    assert str(parsed.segment("PID")[5]) == (
        "Yamada^Tarou^^^^^^A~山田^太郎^^^^^^I~やまだ^たろう^^^^^^P"
    )
    western = read(message(cr(PatientName="Doe^Jane^Mary Ann^Dr.^PhD")))
    assert str(western.segment("PID")[5]) == "Doe^Jane^Mary Ann^PhD^Dr."


def test_an_identifier_says_who_issued_it() -> None:
    source = cr(IssuerOfPatientID="HOSPITAL")
    qualifiers = Dataset()
    qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = "2.25.9", "ISO"
    source.IssuerOfPatientIDQualifiersSequence = [qualifiers]
    source.AdmissionID = "V7"
    parsed = read(message(source))
    assert str(parsed.segment("PID")[3]) == f"{source.PatientID}^^^HOSPITAL&2.25.9&ISO^MR"
    assert str(parsed.segment("PV1")) == f"PV1|1|U{'|' * 17}V7^^^^VN"


def test_a_patient_without_name_and_identifier_makes_a_valid_message(tmp_path: Path) -> None:
    source = cr(PatientID="", PatientName="", PatientSex="", PatientBirthDate="")
    assert str(read(message(source)).segment("PID")) == 'PID|1||""||""'
    assert_valid(message(source), tmp_path)


def test_an_order_number_of_the_image_is_repeated() -> None:
    source = dx()
    source.PlacerOrderNumberImagingServiceRequest = "P-1"
    source.FillerOrderNumberImagingServiceRequest = "F-1"
    parsed = read(message(source))
    assert str(parsed.segment("ORC")) == "ORC|RE|P-1|F-1"
    assert [str(parsed.segment("OBR")[one]) for one in (2, 3, 18)] == ["P-1", "F-1", "ACC1"]


def test_an_image_of_several_requests_is_told_to_each() -> None:
    source, requests = dx(), []
    for number in ("1", "2"):
        request = Dataset()
        request.AccessionNumber, request.RequestedProcedureID = f"ACC{number}", f"RP{number}"
        requests.append(request)
    source.RequestAttributesSequence = requests
    source.FillerOrderNumberImagingServiceRequest = "F-1"  # of one of them, nobody knows which
    parsed = read(message(source))
    assert [str(one[3]) for one in parsed.segments("ORC")] == ["ACC1", "ACC2"]
    assert [str(one[1]) for one in parsed.segments("OBR")] == ["1", "2"]
    assert values(parsed, 5)[:7] == values(parsed, 5)[7:]


def test_what_is_no_date_is_left_out() -> None:
    source = cr()
    for keyword, value in (
        ("PatientBirthDate", "19701332"),
        ("StudyDate", "2026.1.2"),
        ("StudyTime", "250000"),
    ):
        put(source, keyword, value)
    parsed = read(message(source))
    assert str(parsed.segment("PID")[7]) == ""
    assert str(parsed.segment("OBR")[7]) == ""


# ---- Text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_comes_back_from_every_field(value: str) -> None:
    sent = message(filled(value), sentence=value)
    parsed = read(sent)
    assert [str(one[0]) for one in parsed] == [
        *("MSH", "PID", "PV1", "ORC", "OBR", "OBX", "NTE"),
        *["OBX"] * 6,
    ]
    for keyword, place in FIELDS.items():
        if keyword == "PatientName":  # "^" there is a separator of DICOM, too
            components = str(parsed.segment("PID")[5]).split("^")
            found = "^".join(parsed.unescape(one) for one in components)
        else:
            found = parsed[place]
        assert found == value, keyword
    assert parsed["OBX4.F5"] == value
    assert not set(sent) & {*range(0x20)} - {0x0D}


def test_overlong_texts_are_cut_and_overlong_identifiers_left_out(tmp_path: Path) -> None:
    sent = message(filled("é" * 60_000), sentence="x" * 60_000)
    parsed = read(sent)
    assert parsed["PID.F5.R1.C1"] == "é" * 196 + "..."
    assert str(parsed.segment("PID")[3]) == '""'
    assert str(parsed.segment("ORC")) == "ORC|RE"
    assert str(parsed.segment("OBR")[4]) == "399208008^Plain X-ray of chest^SCT"
    assert len(parsed["OBX4.F5"]) == 4000
    # hl7apy reads a TX as ST while it parses, and so refuses more than 199 characters.
    assert_valid(message(filled("é" * 60_000)), tmp_path)


def test_an_escape_is_never_cut() -> None:
    parsed = read(message(filled("é|" * 30_000)))
    assert parsed["PID.F5.R1.C1"] == "é|" * 98 + "..."


@pytest.mark.parametrize(
    ("character_set", "name", "count"),
    [("8859/1", "Müller-??????????", 10), ("ASCII", "M?ller-??????????", 11)],
)
def test_what_a_character_set_does_not_hold_is_counted(
    character_set: str, name: str, count: int, tmp_path: Path
) -> None:
    encoding = ENCODINGS[character_set]
    source = cr(SpecificCharacterSet="ISO_IR 192", PatientName="Müller-Δημητριάδη")
    receiver = RIS.model_copy(update={"character_set": character_set})
    sent = message(source, receiver=receiver)
    parsed = read(sent, encoding)
    assert parsed["PID.F5.R1.C1"] == name
    assert str(parsed[2]) == f"NTE|1|L|{count} characters are not in {character_set}: see '?'"
    assert str(parsed.segment("MSH")[18]) == character_set
    assert_valid(sent, tmp_path, encoding)


def test_a_character_set_that_holds_all_has_no_remark() -> None:
    receiver = RIS.model_copy(update={"character_set": "8859/1"})
    source = cr(SpecificCharacterSet="ISO_IR 100", PatientName="Müller")
    sent = message(source, receiver=receiver)
    assert b"|M\xfcller" in sent
    assert b"characters are not" not in sent
