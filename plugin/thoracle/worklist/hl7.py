"""A result as an HL7 v2.5.1 message ORU^R01, unsolicited and preliminary (Chapter 7.3.1).

Fields are written by their numbers in the standard. python-hl7 is not used for it: its ``escape``
pads the number of a control character with a blank and gives other letters more digits than bytes,
so that neither is read back.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as Concept

from thoracle.errors import ReportError
from thoracle.records import SCHEME, BundleIdentity, Outcome, Reading, Reason, study_outcome
from thoracle.settings import HL7

Status = Literal["preliminary", "corrected", "withdrawn"]

PRELIMINARY, CORRECTED, WITHDRAWN, NOT_OBTAINED = "P", "C", "W", "X"
"""OBX-11 (HL7 Table 0085). Withdrawn is W, "post original as wrong", not D, "delete": somebody may
have acted on the result, so the record has to show that it stood there. Never F: no physician
verified it."""
RESULT_STATUS = {"preliminary": PRELIMINARY, "corrected": CORRECTED, "withdrawn": CORRECTED}
"""Of what a message says now; of the value that is withdrawn, ``WITHDRAWN``."""
NULL = '""'
"""The null value of Chapter 2.5.3: takes away what an earlier message said; empty would keep it."""
ENCODINGS = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1", "ASCII": "ascii"}
"""Of the names in HL7 Table 0211 that ``character_set`` takes."""
LONGEST = 199
"""Characters of a component: ST of Chapter 2.A.75. DICOM allows at most 64."""
LONGEST_TEXT = 4000
"""Characters of a sentence; TX takes 65536, many screens do not."""
NOTICE = "AI result for research, not verified by a physician, not for diagnosis."

_ESCAPED = str.maketrans(
    {"|": r"\F" "\\", "^": r"\S" "\\", "~": r"\R" "\\", "\\": r"\E" "\\", "&": r"\T" "\\"}
    | {chr(number): rf"\X{number:02X}" "\\" for number in (*range(0x20), 0x7F)}
)
"""Chapter 2.7.4 and 2.7.5; also what MLLP and segments end with."""
_SEX = ("M", "F", "O")
_CLOCK = re.compile(r"((?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d|60)?)?)(?:\.(\d{1,4})\d*)?", re.ASCII)

_COVID_19 = Concept("840539006", "SCT", "COVID-19")
_CHEST_RADIOGRAPH = Concept("399208008", "SCT", "Plain X-ray of chest")
_IMPRESSION = Concept("19005-8", "LN", "Impression")
_NO_RESULT_REASON = Concept("NO-RESULT-REASON", SCHEME, "Reason for no result")
# The meaning that IHE Radiology uses; DICOM has shortened it to "Study" since.
_STUDY = Concept("113014", "DCM", "DICOM Study")
_SERIES = Concept("112002", "DCM", "Series Instance UID")
_REPORT = Concept("SR-INSTANCE-UID", SCHEME, "SR Instance UID")
_FINDINGS = {
    Outcome.POSITIVE: (codes.cid240.Present, "A"),
    Outcome.NEGATIVE: (codes.cid240.Absent, "N"),
    Outcome.INDETERMINATE: (codes.cid240.Undetermined, ""),
}
"""What is said of COVID-19 (CID 240), and the abnormal flag (HL7 Table 0078). Indeterminate has
none: both flags would say more than is known."""


@dataclass(frozen=True, slots=True)
class ReportReference:
    """The structured report that a message tells of, in the source's study."""

    series_instance_uid: str
    sop_instance_uid: str


def oru(
    source: Dataset,
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    report: ReportReference,
    receiver: HL7,
    *,
    sentence: str,
    control_id: str,
    made: datetime,
    status: Status,
) -> bytes:
    """Return the message, without the frame of MLLP; the same bytes for the same arguments.

    Each message on a study has the same observations, so that a later one replaces an earlier one
    wholly: what no longer holds is null.

    Parameters
    ----------
    source
        Header of one of the images that were read.
    readings
        What is said of each image; of a withdrawn result its values are not repeated.
    bundle
        Which model said it.
    report
        The structured report with the same result.
    receiver
        Who is told; names, processing id and character set.
    sentence
        The conclusion in plain words, as in the report. Cut at 4000 characters.
    control_id
        MSH-10, 1 to 20 of letters, digits, ``.``, ``_`` and ``-``; the acknowledgement repeats it.
    made
        When the result was made, with a zone.
    status
        ``corrected`` when an earlier message on the study has been sent.

    Raises
    ------
    ReportError
        The control id or the time is none that the message can carry.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,20}", control_id):
        raise ReportError(
            f"control_id: found {control_id!r}, required are 1 to 20 letters, digits, '.', '_', '-'"
        )
    if made.tzinfo is None:
        raise ReportError(f"made: found {made}, required is a time zone")
    observed = _observations(source, readings, bundle, report, sentence, made, status)
    segments = [_header(receiver, control_id, made), _patient(source), *_visit(source)]
    for number, request in enumerate(_requests(source), 1):
        segments += [*_order(source, request, number, made), *observed]
    encoding = ENCODINGS[receiver.character_set]
    if lost := _lost("".join(segments), encoding):
        segments.insert(2, _note(f"{lost} characters are not in {receiver.character_set}: see '?'"))
    return "".join(f"{segment}\r" for segment in segments).encode(encoding, "replace")


# ---- Segments ----------------------------------------------------------------------------------


def _header(receiver: HL7, control_id: str, made: datetime) -> str:
    return _segment(
        "MSH",
        {
            2: r"^~\&",
            3: receiver.sending_application,
            4: receiver.sending_facility,
            5: receiver.receiving_application,
            6: receiver.receiving_facility,
            7: _time(made),
            9: "ORU^R01^ORU_R01",
            10: control_id,
            11: receiver.processing_id,
            12: "2.5.1",
            # 15 and 16 stay empty: original mode, the receiving application itself answers.
            18: receiver.character_set,
        },
    )


def _patient(source: Dataset) -> str:
    identifier = _identifier(source, "PatientID", "IssuerOfPatientID")
    sex = _value(source, "PatientSex").upper()
    return _segment(
        "PID",
        {
            1: "1",
            3: f"{identifier}^MR" if identifier else "",
            5: _name(_value(source, "PatientName")),
            7: _day(_value(source, "PatientBirthDate")),
            8: sex if sex in _SEX else "",
        },
    )


def _visit(source: Dataset) -> list[str]:
    """Return PV1, which may be left out, where the visit is known: some RIS match by it."""
    identifier = _identifier(source, "AdmissionID", "IssuerOfAdmissionID")
    if not identifier:
        return []
    return [_segment("PV1", {1: "1", 2: "U", 19: f"{identifier}^VN"})]  # U: class not known


def _order(source: Dataset, request: Dataset, number: int, made: datetime) -> list[str]:
    accession = _exact(_value(request, "AccessionNumber") or _value(source, "AccessionNumber"))
    placer, filler = (
        _exact(_value(request, keyword) or _value(source, keyword))
        for keyword in (
            "PlacerOrderNumberImagingServiceRequest",
            "FillerOrderNumberImagingServiceRequest",
        )
    )
    order = {2: placer, 3: filler or accession}
    service = {
        1: str(number),
        **order,
        4: _procedure(source, request),
        7: _study_time(source),
        # 18 to 20: as IHE Radiology Scheduled Workflow fills them.
        18: accession,
        19: _exact(_value(request, "RequestedProcedureID")),
        20: _exact(_value(request, "ScheduledProcedureStepID")),
        22: _time(made),
        24: "RAD",
        25: "P",
    }
    return [_segment("ORC", {1: "RE", **order}), _segment("OBR", service)]


def _observations(
    source: Dataset,
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    report: ReportReference,
    sentence: str,
    made: datetime,
    status: Status,
) -> list[str]:
    outcome = study_outcome(readings)
    withdrawn = status == "withdrawn"
    analysed = not withdrawn and outcome is not Outcome.REJECTED
    said = RESULT_STATUS[status]
    finding, flag, probability, reasons, note = NULL, "", NULL, NULL, NOTICE
    if analysed:
        concept, flag = _FINDINGS[outcome]
        finding = _coded(concept)
        highest = max(one.probability or 0.0 for one in readings if one.outcome is outcome)
        probability = _percent(highest)
    elif withdrawn:
        reasons, note = _reasons([Reason.WITHDRAWN]), f"{NOTICE} Withdrawn: it must not be used."
    else:
        reasons, note = _reasons([one.reason for one in readings]), _explained(readings)
    of_value = WITHDRAWN if withdrawn else said if analysed else NOT_OBTAINED
    result = {11: of_value, 14: _study_time(source), 17: _method(bundle)}
    result |= {18: _exact(bundle.digest), 19: _time(made)}
    range_ = {6: _coded(codes.UCUM.Percent), 7: f"<{_percent(bundle.decision.lower)}"}
    rows: list[tuple[str, Concept, dict[int, str]]] = [
        ("CWE", _COVID_19, {5: finding, 8: flag, **result}),
        ("NM", codes.DCM.Probability, {5: probability, **range_, **result}),
        ("CWE", _NO_RESULT_REASON, {5: reasons, 11: said}),
        ("TX", _IMPRESSION, {5: _text(sentence, LONGEST_TEXT), 11: said}),
        ("ST", _STUDY, {5: _exact(_value(source, "StudyInstanceUID")), 11: said}),
        ("ST", _SERIES, {5: _exact(report.series_instance_uid), 11: said}),
        ("ST", _REPORT, {5: _exact(report.sop_instance_uid), 11: said}),
    ]
    segments = [
        _segment("OBX", {1: str(number), 2: kind, 3: _coded(concept), **fields})
        for number, (kind, concept, fields) in enumerate(rows, 1)
    ]
    segments.insert(1, _note(note))
    return segments


def _note(text: str) -> str:
    return _segment("NTE", {1: "1", 2: "L", 3: _text(text, LONGEST_TEXT)})


def _segment(name: str, fields: dict[int, str]) -> str:
    """Return a segment of fields that are encoded already, each by its number."""
    first = 2 if name == "MSH" else 1  # MSH-1 is the separator itself
    return "|".join([name, *(fields.get(one, "") for one in range(first, max(fields) + 1))]).rstrip(
        "|"
    )


# ---- Fields ------------------------------------------------------------------------------------


def _requests(source: Dataset) -> list[Dataset]:
    """Return the requests that the image answers, one for each order; at least one."""
    found: dict[tuple[str, str], Dataset] = {}
    for item in source.get("RequestAttributesSequence") or [Dataset()]:
        key = (_value(item, "AccessionNumber"), _value(item, "RequestedProcedureID"))
        found.setdefault(key, item)
    return list(found.values())


def _procedure(source: Dataset, request: Dataset) -> str:
    for owner, keyword in (
        (request, "RequestedProcedureCodeSequence"),
        (source, "RequestedProcedureCodeSequence"),
        (source, "ProcedureCodeSequence"),
    ):
        for item in owner.get(keyword) or []:
            value = next(
                filter(None, (_value(item, f"{kind}CodeValue") for kind in ("", "Long", "URN"))),
                _value(item, "CodeValue"),
            )
            scheme, meaning = _value(item, "CodingSchemeDesignator"), _value(item, "CodeMeaning")
            if value:
                return _coded(Concept(value, scheme, meaning))
    return _coded(_CHEST_RADIOGRAPH)


def _coded(concept: Concept) -> str:
    """Return a code as CE or CWE: identifier, text, name of the coding system."""
    return "^".join(
        (_exact(concept.value), _text(concept.meaning), _exact(concept.scheme_designator))
    )


def _method(bundle: BundleIdentity) -> str:
    """Return OBX-17: what made the observation, and with the alternate code which model."""
    model = Concept(bundle.version, SCHEME, bundle.name)
    return f"{_coded(codes.cid7162.ArtificialIntelligence)}^{_coded(model)}"


def _identifier(source: Dataset, keyword: str, issuer_keyword: str) -> str:
    """Return components 1 to 4 of a CX; empty when there is no identifier."""
    identifier = _exact(_value(source, keyword))
    if not identifier:
        return ""
    qualifiers = (
        source.get(f"{issuer_keyword}QualifiersSequence")
        or source.get(f"{issuer_keyword}Sequence")
        or [Dataset()]
    )[0]
    namespace = _value(source, issuer_keyword) or _value(qualifiers, "LocalNamespaceEntityID")
    authority = (
        namespace,
        _value(qualifiers, "UniversalEntityID"),
        _value(qualifiers, "UniversalEntityIDType"),
    )
    return f"{identifier}^^^{'&'.join(map(_exact, authority)).rstrip('&')}"


def _name(name: str) -> str:
    """Return a Person Name as XPN, one repetition for each component group (PS3.5 Section 6.2.1).

    DICOM has the prefix before the suffix, HL7 after it. Without ideographic and phonetic groups
    the representation is not said.
    """
    groups = name.split("=", 2)
    repetitions = []
    for group, representation in zip(groups, "AIP", strict=False):
        # What follows a fifth "^" is against the rules, and belongs to a name all the same.
        family, given, middle, prefix, suffix = (*group.split("^", 4), *[""] * 4)[:5]
        parts = [_text(part.strip()) for part in (family, given, middle, suffix, prefix)]
        if any(parts):
            parts += ["", "", representation] if len(groups) > 1 else []
            repetitions.append("^".join(parts).rstrip("^"))
    return "~".join(repetitions)


def _study_time(source: Dataset) -> str:
    """Return date and time of the study as TS, with the zone where the image states it."""
    day = _day(_value(source, "StudyDate"))
    clock = _CLOCK.fullmatch(_value(source, "StudyTime"))
    if not day or not clock:
        return day
    hours = clock[1].ljust(4, "0")  # TS has no hours without minutes
    fraction = f".{clock[2]}" if clock[2] and len(hours) == 6 else ""
    zone = re.fullmatch(r"[+-][0-9]{4}", _value(source, "TimezoneOffsetFromUTC"))
    return f"{day}{hours}{fraction}{zone[0] if zone else ''}"


def _day(value: str) -> str:
    """Return a date of DICOM, which HL7 writes alike; empty when it is none."""
    try:
        datetime.strptime(value, "%Y%m%d")  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return ""
    return value


def _time(value: datetime) -> str:
    return f"{value:%Y%m%d%H%M%S%z}"


def _percent(probability: float) -> str:
    return f"{round(probability * 100, 2):g}"


def _reasons(reasons: Iterable[Reason | None]) -> str:
    """Return coded reasons as repetitions, each once; several images may have the same."""
    found = dict.fromkeys(reason.code for reason in reasons if reason)
    return "~".join(_coded(Concept(one.value, one.scheme, one.meaning)) for one in found)


def _explained(readings: Sequence[Reading]) -> str:
    meanings = dict.fromkeys(
        f"{one.reason.code.meaning}: {one.detail}" if one.detail else one.reason.code.meaning
        for one in readings
        if one.reason
    )
    return f"{NOTICE} Not analysed, which says nothing about COVID-19. {'; '.join(meanings)}."


# ---- Text --------------------------------------------------------------------------------------


def _value(source: Dataset, keyword: str) -> str:
    """Return a value as text, without padding; empty when there is none."""
    value: Any = source.get(keyword)
    if isinstance(value, MultiValue):
        value = "\\".join(map(str, value))
    return "" if value is None else str(value).strip(" \0")


def _text(value: str, longest: int = LONGEST) -> str:
    """Return a text that people read, cut where it is longer, and escaped."""
    if len(value) > longest:
        value = f"{value[: longest - 3]}..."
    return value.translate(_ESCAPED)


def _exact(value: str) -> str:
    """Return an identifier, escaped, or nothing: a part of it might be another one's."""
    return value.translate(_ESCAPED) if len(value) <= LONGEST else ""


def _lost(text: str, encoding: str) -> int:
    """Return how many characters the encoding does not hold."""
    if encoding == "utf-8":  # only halves of surrogate pairs, which broken values may have
        return sum("\ud800" <= one <= "\udfff" for one in text)
    return sum(ord(one) > (0x7F if encoding == "ascii" else 0xFF) for one in text)
