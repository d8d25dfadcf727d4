"""A result as an HL7 v2.5.1 message ORU^R01, unsolicited and preliminary (Chapter 7.3.1).

Fields stand by their numbers in the standard.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as Concept

from thoracle.errors import ReportError
from thoracle.hl7 import fields
from thoracle.records import (
    SCHEME,
    BundleIdentity,
    Code,
    Finding,
    Outcome,
    Reading,
    Reason,
    study_outcome,
)
from thoracle.settings import HL7
from thoracle.wording import DISCLAIMER

Status = Literal["preliminary", "corrected", "withdrawn"]

PRELIMINARY, CORRECTED, WITHDRAWN, NOT_OBTAINED = "P", "C", "W", "X"
"""OBX-11 (HL7 Table 0085). Withdrawn is W, "post original as wrong", not D, "delete": somebody may
have acted on the result, so the record has to show that it stood there. Never F: no physician
verified it."""
RESULT_STATUS = {"preliminary": PRELIMINARY, "corrected": CORRECTED, "withdrawn": CORRECTED}
"""Of what a message says now; of the value that is withdrawn, ``WITHDRAWN``."""
ENCODINGS = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1", "ASCII": "ascii"}
"""Of the names in HL7 Table 0211 that ``character_set`` takes."""

_SEX = ("M", "F", "O")
_CODE_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")

_CHEST_RADIOGRAPH = Concept("399208008", "SCT", "Plain X-ray of chest")
_IMPRESSION = Concept("19005-8", "LN", "Impression")
_NO_RESULT_REASON = Concept("NO-RESULT-REASON", SCHEME, "Reason for no result")
# The meaning that IHE Radiology uses; DICOM has shortened it to "Study" since.
_STUDY = Concept("113014", "DCM", "DICOM Study")
_SERIES = Concept("112002", "DCM", "Series Instance UID")
_REPORT = Concept("SR-INSTANCE-UID", SCHEME, "SR Instance UID")
_FLAGS = {Outcome.POSITIVE: "A", Outcome.NEGATIVE: "N", Outcome.INDETERMINATE: ""}
"""Abnormal flag (HL7 Table 0078). Indeterminate has none: both would say more than is known."""


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
            f"control_id: found {control_id!r}, required: 1 to 20 letters, digits, '.', '_', '-'"
        )
    if made.tzinfo is None:
        raise ReportError(f"made: found {made}, required: a time zone")
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
    return fields.segment(
        "MSH",
        {
            2: r"^~\&",
            3: receiver.sending_application,
            4: receiver.sending_facility,
            5: receiver.receiving_application,
            6: receiver.receiving_facility,
            7: fields.ts(made),
            9: "ORU^R01^ORU_R01",
            10: control_id,
            11: receiver.processing_id,
            12: "2.5.1",
            # 15 and 16 stay empty: original mode, the receiving application itself answers.
            18: receiver.character_set,
        },
    )


def _patient(source: Dataset) -> str:
    sex = fields.value(source, "PatientSex").upper()
    return fields.segment(
        "PID",
        {
            1: "1",
            # Both are required; without them a receiver can match by the order all the same.
            3: fields.cx(source, "PatientID", "IssuerOfPatientID", "MR") or fields.NULL,
            5: fields.xpn(fields.value(source, "PatientName")) or fields.NULL,
            7: fields.ts_date(fields.value(source, "PatientBirthDate")),
            8: sex if sex in _SEX else "",
        },
    )


def _visit(source: Dataset) -> list[str]:
    """Return PV1, which may be left out, where the visit is known: some RIS match by it."""
    identifier = fields.cx(source, "AdmissionID", "IssuerOfAdmissionID", "VN")
    if not identifier:
        return []
    return [fields.segment("PV1", {1: "1", 2: "U", 19: identifier})]  # U: class not known


def _order(source: Dataset, request: Dataset, number: int, made: datetime) -> list[str]:
    # Of several requests, those at the top are the numbers of one or none (PS3.3 Section 10.6).
    top = source if len(source.get("RequestAttributesSequence") or []) < 2 else Dataset()
    accession, placer, filler = (
        fields.exact(fields.value(request, keyword) or fields.value(top, keyword))
        for keyword in (
            "AccessionNumber",
            "PlacerOrderNumberImagingServiceRequest",
            "FillerOrderNumberImagingServiceRequest",
        )
    )
    order = {2: placer, 3: filler or accession}
    service = {
        1: str(number),
        **order,
        4: _procedure(source, request),
        7: fields.ts_study(source),
        # 18 to 20: as IHE Radiology Scheduled Workflow fills them.
        18: accession,
        19: fields.exact(fields.value(request, "RequestedProcedureID")),
        20: fields.exact(fields.value(request, "ScheduledProcedureStepID")),
        22: fields.ts(made),
        24: "RAD",
        25: "P",
    }
    return [fields.segment("ORC", {1: "RE", **order}), fields.segment("OBR", service)]


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
    found = bundle.finding
    finding, flag, probability, reasons, note = (
        fields.NULL,
        "",
        fields.NULL,
        fields.NULL,
        DISCLAIMER,
    )
    if analysed:
        finding, flag = fields.ce(_concept(found.outcomes.of(outcome).code)), _FLAGS[outcome]
        highest = max(one.probability or 0.0 for one in readings if one.outcome is outcome)
        probability = _percent(highest)
    elif withdrawn:
        reasons, note = (
            _reasons([Reason.WITHDRAWN]),
            f"{DISCLAIMER} Withdrawn: it must not be used.",
        )
    else:
        reasons, note = _reasons([one.reason for one in readings]), _explained(readings, found)
    of_value = WITHDRAWN if withdrawn else said if analysed else NOT_OBTAINED
    result = {11: of_value, 14: fields.ts_study(source), 17: _method(bundle)}
    result |= {18: fields.exact(bundle.digest), 19: fields.ts(made)}
    range_ = {6: fields.ce(codes.UCUM.Percent), 7: f"<{_percent(bundle.decision.lower)}"}
    rows: list[tuple[str, Concept, dict[int, str]]] = [
        ("CWE", _concept(found.code), {5: finding, 8: flag, **result}),
        ("NM", codes.DCM.Probability, {5: probability, **range_, **result}),
        ("CWE", _NO_RESULT_REASON, {5: reasons, 11: said}),
        ("TX", _IMPRESSION, {5: fields.text(sentence, fields.LONGEST_TEXT), 11: said}),
        ("ST", _STUDY, {5: fields.exact(fields.value(source, "StudyInstanceUID")), 11: said}),
        ("ST", _SERIES, {5: fields.exact(report.series_instance_uid), 11: said}),
        ("ST", _REPORT, {5: fields.exact(report.sop_instance_uid), 11: said}),
    ]
    segments = [
        fields.segment("OBX", {1: str(number), 2: kind, 3: fields.ce(concept), **others})
        for number, (kind, concept, others) in enumerate(rows, 1)
    ]
    segments.insert(1, _note(note))
    return segments


def _note(text: str) -> str:
    return fields.segment("NTE", {1: "1", 2: "L", 3: fields.text(text, fields.LONGEST_TEXT)})


# ---- Fields ------------------------------------------------------------------------------------


def _requests(source: Dataset) -> list[Dataset]:
    """Return the requests that the image answers, one for each order; at least one."""
    found: dict[tuple[str, str], Dataset] = {}
    for item in source.get("RequestAttributesSequence") or [Dataset()]:
        key = (fields.value(item, "AccessionNumber"), fields.value(item, "RequestedProcedureID"))
        found.setdefault(key, item)
    return list(found.values())


def _procedure(source: Dataset, request: Dataset) -> str:
    for owner, keyword in (
        (request, "RequestedProcedureCodeSequence"),
        (source, "RequestedProcedureCodeSequence"),
        (source, "ProcedureCodeSequence"),
    ):
        for item in owner.get(keyword) or []:
            value = next(filter(None, (fields.value(item, one) for one in _CODE_VALUES)), "")
            scheme = fields.value(item, "CodingSchemeDesignator")
            if fields.exact(value):
                return fields.ce(Concept(value, scheme, fields.value(item, "CodeMeaning")))
    return fields.ce(_CHEST_RADIOGRAPH)


def _method(bundle: BundleIdentity) -> str:
    """Return OBX-17: what made the observation, and with the alternate code which model."""
    model = Concept(bundle.version, SCHEME, bundle.name)
    return f"{fields.ce(codes.cid7162.ArtificialIntelligence)}^{fields.ce(model)}"


def _percent(probability: float) -> str:
    return f"{round(probability * 100, 2):g}"


def _reasons(reasons: Iterable[Reason | None]) -> str:
    """Return coded reasons as repetitions, each once; several images may have the same."""
    found = dict.fromkeys(reason.code for reason in reasons if reason)
    return "~".join(fields.ce(_concept(one)) for one in found)


def _concept(code: Code) -> Concept:
    return Concept(code.value, code.scheme, code.meaning)


def _explained(readings: Sequence[Reading], found: Finding) -> str:
    meanings = dict.fromkeys(
        f"{one.reason.code.meaning}: {one.detail}" if one.detail else one.reason.code.meaning
        for one in readings
        if one.reason
    )
    said = f"Not analysed: {'; '.join(meanings)}. {found.outcomes.rejected.sentence}."
    return f"{DISCLAIMER} {said}"


def _lost(text: str, encoding: str) -> int:
    """Return how many characters the encoding does not hold."""
    if encoding == "utf-8":  # only halves of surrogate pairs, which broken values may have
        return sum("\ud800" <= one <= "\udfff" for one in text)
    return sum(ord(one) > (0x7F if encoding == "ascii" else 0xFF) for one in text)
