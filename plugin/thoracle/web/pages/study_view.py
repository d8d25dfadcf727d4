"""What the page of a study says, put together from its rows and files; nothing here is HTML."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset
from sqlalchemy import Connection

from thoracle.audit import query
from thoracle.errors import ObjectsAway
from thoracle.image.codecs import MALFORMED
from thoracle.records import Kind, Outcome, Reason
from thoracle.report import sentences
from thoracle.settings import Settings
from thoracle.store import objects
from thoracle.store.trail import Event
from thoracle.study import published
from thoracle.study.rows import StudyRows
from thoracle.web.pages import pictures, report_view
from thoracle.web.pages.worklist import reason
from thoracle.web.session.access import Person, Role
from thoracle.web.wording import age, date, person_names, plain
from thoracle.wording import MAPS


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image of the study, with what is said of it."""

    number: int
    sop_instance_uid: str
    name: str
    facts: str
    state: str
    """Its outcome, ``not analysed``, or ``held`` or ``shadow`` where no more may be told."""
    reason: str
    code: str
    detail: str
    probability: float | None
    radiograph: str
    """Address; empty when it cannot be shown."""
    overlay: str
    key_image: str
    pixels: str
    """Address of its grey values; empty when it cannot be shown."""
    columns: str = ""
    rows: str = ""
    spacing: str = ""
    """Distance of rows and columns in mm, as DICOM has it: ``0.143\\0.143``; empty: not stated."""
    calibration: str = ""
    """How distances are calibrated; empty: they are not."""
    kept: bool = True
    """Its file is still here (docs/retention.md)."""
    missing: str = ""
    """Why it cannot be shown now, for a while; else empty."""
    is_first: bool = False
    """Shown first: the image that made the study's outcome."""


def ai_state(rows: StudyRows, now: str) -> str:
    """Return what the AI says, or does: an outcome, queued, running, failed or withdrawn.

    Also ``held`` or ``shadow``, where no more may be told of the newest result.

    ``now`` is what it does, as ``studies.state`` tells.
    """
    if now != "done" or rows.analysis is None:
        return now
    if rows.withheld and rows.analysis.state == "done":
        return rows.withheld
    return str(rows.analysis.outcome if rows.analysis.state == "done" else rows.analysis.state)


@dataclass(frozen=True, slots=True)
class ResultView:
    """The result of the study, and the rule that made it."""

    outcome: str
    probability: float | None
    threshold: float | None
    band: tuple[float, float] | None
    """Within it the outcome is indeterminate; ``None`` when it is not known any more."""
    reason: str
    bundle: str
    """Name and version."""
    finding: str
    """Its name; empty for a model of which nothing is kept."""
    caution: str
    """What the outcome does not mean; may be empty."""
    digest: str
    withdrawn: bool
    sending: str
    """``held`` or ``shadow``: it is sent to nobody, or not yet; else empty."""
    generation: int
    rule: str
    """By which the probability became the outcome; empty when it is not known any more."""


def result(rows: StudyRows) -> ResultView | None:
    """Return the newest result, withdrawn or not; ``None`` when there is none yet."""
    shown = rows.shown
    if shown is None:
        return None
    readings = list(rows.readings.values())
    model = rows.model
    identity = model.identity if model else None
    return ResultView(
        outcome=shown.outcome,
        probability=shown.probability,
        threshold=readings[0].threshold if readings else None,
        band=(identity.decision.lower, identity.decision.upper) if identity else None,
        reason=reason(readings[0].reason_code) if readings else "",
        bundle=f"{model.name} {model.version}" if model else "",
        finding=model.finding.name if model else "",
        caution=model.finding.outcomes.of(Outcome(shown.outcome)).caution if model else "",
        digest=shown.bundle_digest,
        withdrawn=shown.state == "withdrawn",
        sending=shown.sending if shown.sending in ("held", "shadow") else "",
        generation=shown.generation,
        rule=sentences.rule(identity.decision) if identity else "",
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a study has no result, and what to do."""

    cause: str
    detail: str
    advice: str


ADVICE = {
    Reason.FILE_MISSING: "Send the study again from the modality or the archive.",
    Reason.UNDECODABLE: "Send the study again, uncompressed if possible.",
}
"""What to do about a failed analysis, where analysing again does not help."""
AGAIN = (
    "An administrator can choose Analyse again on this page; the log of the gateway has the error."
)


def failure(connection: Connection, rows: StudyRows) -> Failure | None:
    """Return why the newest analysis failed; ``None`` when it did not."""
    if rows.analysis is None or rows.analysis.state != "failed":
        return None
    code = rows.listed.reason_code if rows.listed else None
    question = query.Question(rows.study.study_instance_uid, event=Event.ANALYSIS_FAILED.verb)
    told = deque(query.events(connection, question), 1)
    detail = (told[0].get("detail") or {}).get("detail", "") if told else ""
    known = next((one for one in ADVICE if one.code.value == code), None)
    return Failure(
        cause=reason(code) or "not known",
        detail=plain(detail),
        advice=f"Read the study without AI. {ADVICE[known] if known else AGAIN}",
    )


def withdrawal_reason(connection: Connection, rows: StudyRows) -> str:
    """Return why the newest result was withdrawn; empty when it was not, or the log has no row."""
    shown = rows.shown
    if shown is None or shown.state != "withdrawn":
        return ""
    question = query.Question(rows.study.study_instance_uid, event=Event.RESULT_WITHDRAWN.verb)
    told = deque(query.events(connection, question), 1)
    return plain((told[0].get("detail") or {}).get("reason", "")) if told else ""


def map_caution(rows: StudyRows) -> str:
    """Return what colours and outlines on the images do not show; empty when there are no maps."""
    found = MAPS.get(rows.model.finding.saliency) if rows.model else None
    return found.caution if found else ""


def illustrated(settings: Settings) -> tuple[str, ...]:
    """Return the outcomes of which images get something that can lie on them."""
    outcomes = ("positive", "indeterminate", "negative")
    return tuple(one for one in outcomes if one in settings.report.pr)


def person_of(rows: StudyRows, header: Dataset) -> dict[str, Any]:
    """Return who the patient is and what was done, as the newest header and the worklist say."""
    listed = rows.listed

    def said(keyword: str, of_list: str = "") -> str:
        return plain(getattr(listed, of_list, None) if of_list and listed else "") or plain(
            _element(header, keyword)
        )

    moment = said("", "study_datetime").replace("T", " ")
    return {
        "names": person_names(
            (listed.patient_name if listed else "") or _element(header, "PatientName")
        ),
        "id": plain(rows.study.patient_id),
        "issuer": plain(rows.study.issuer_of_patient_id),
        "born": date(_element(header, "PatientBirthDate")),
        "sex": plain(_element(header, "PatientSex"), 16),
        "age": age((listed.patient_age if listed else "") or _element(header, "PatientAge")),
        "accession": plain(rows.study.accession_number),
        "modality": said("Modality", "modality"),
        "description": said("StudyDescription", "study_description"),
        "time": moment or date(_element(header, "StudyDate")),
        "device": said("StationName", "device"),
    }


AWAY = "It cannot be shown now: the object store does not answer. Try again later."


def fetch(settings: Settings, rows: StudyRows) -> None:
    """Have local copies of what the page of a study reads.

    Before a transaction begins: in it others would wait for a bucket, too.
    """
    kept = objects.of(settings)
    with suppress(ObjectsAway):
        for row in (*rows.images, *rows.results):
            if row.file_state == "kept":
                kept.local(row.path)


def images(settings: Settings, rows: StudyRows, view: str) -> list[ImageView]:
    """Return the images of the study; ``view`` is the pass of the page."""
    found = []
    for number, row in enumerate(rows.images, 1):
        header = pictures.header(settings, row)
        reading = rows.readings.get(row.sop_instance_uid)
        addresses, missing = _addresses(settings, rows, number, view)
        spacing, calibration = _scale(header)
        view_position = plain(_element(header, "ViewPosition"), 16)
        found.append(
            ImageView(
                number=number,
                sop_instance_uid=row.sop_instance_uid,
                kept=row.file_state == "kept",
                name=f"Image {number}" + (f", {view_position}" if view_position else ""),
                facts=_facts(header),
                state=(rows.withheld or "not analysed") if reading is None else reading.outcome,
                reason="" if reading is None else reason(reading.reason_code),
                code="" if reading is None else plain(reading.reason_code),
                detail="" if reading is None else plain(reading.detail),
                probability=None if reading is None else reading.probability,
                radiograph=addresses[pictures.RADIOGRAPH],
                overlay=addresses[pictures.OVERLAY],
                key_image=addresses[pictures.KEY_IMAGE],
                pixels=addresses[pictures.PIXELS],
                missing=missing,
                columns=plain(_element(header, "Columns"), 8),
                rows=plain(_element(header, "Rows"), 8),
                spacing=spacing,
                calibration=calibration,
            )
        )
    first = max(found, key=_telling, default=None)
    return [replace(one, is_first=one is first) for one in found]


def _addresses(
    settings: Settings, rows: StudyRows, number: int, view: str
) -> tuple[dict[str, str], str]:
    """Return the addresses of an image's pictures, and why there are none for a while."""
    uid, row = rows.study.study_instance_uid, rows.images[number - 1]
    kinds = (pictures.RADIOGRAPH, pictures.OVERLAY, pictures.KEY_IMAGE, pictures.PIXELS)
    try:
        if row.file_state == "kept":
            objects.of(settings).local(row.path)
        found = [pictures.order(settings, rows, row, kind) for kind in kinds]
    except ObjectsAway:
        return dict.fromkeys(kinds, ""), AWAY
    return {
        kind: "" if order is None else pictures.address(uid, kind, number, view)
        for kind, order in zip(kinds, found, strict=True)
    }, ""


def _scale(header: Dataset) -> tuple[str, str]:
    """Return the spacing of an image and how it is calibrated (PS3.3 Section 10.7.1.3).

    Pixel Spacing of a projection is a calibrated size only where its type says so, or where it
    differs from the spacing at the detector.
    """
    spacing, imager = _pair(header, "PixelSpacing"), _pair(header, "ImagerPixelSpacing")
    kind = plain(_element(header, "PixelSpacingCalibrationType"), 16)
    if spacing and (kind or (imager and spacing != imager)):
        return spacing, f"calibrated ({kind or 'Pixel Spacing'})"
    return imager or spacing, ""


def _pair(header: Dataset, keyword: str) -> str:
    try:
        values = [f"{float(one):g}" for one in header.get(keyword) or ()]
    except (*MALFORMED, TypeError):
        return ""
    return "\\".join(values) if len(values) == 2 else ""


def _telling(image: ImageView) -> tuple[bool, float, int]:
    """Return by what the image that made the outcome is the greatest; of equals, the first."""
    return (image.probability is not None, image.probability or 0, -image.number)


def _facts(header: Dataset) -> str:
    size = [_element(header, keyword) for keyword in ("Columns", "Rows")]
    parts = [
        plain(_element(header, "SeriesDescription"), 64),
        " x ".join(size) if all(size) else "",
    ]
    return ", ".join(part for part in parts if part)


def _element(header: Dataset, keyword: str) -> str:
    """Return the value of an element, empty when there is none or it makes no sense."""
    try:
        value = header.get(keyword) if keyword else None
        return "" if value is None else str(value)
    except MALFORMED:
        return ""


def report(settings: Settings, rows: StudyRows) -> report_view.ContentItem | None:
    """Return the content of the newest report on the study; ``None`` when there is none."""
    found = [one for one in rows.results if one.kind == Kind.SR]
    if not found:
        return None
    if found[-1].file_state != "kept":
        return report_view.ContentItem(
            "", "The report is no longer kept here; the archive has it.", ""
        )
    try:
        return report_view.read(objects.of(settings).local(found[-1].path))
    except ObjectsAway:
        return report_view.ContentItem("", f"The report: {AWAY}", "")
    except (*MALFORMED, OSError):
        return report_view.ContentItem("", "The file of the report cannot be read.", "")


# ---- what was done with it -----------------------------------------------------------------------
# What was done with a study: what was sent where, how it is known, and the trail.

LONGEST_TRAIL = 200
"""Events that are shown, the newest."""
VIEWS = frozenset(
    one.verb for one in (Event.STUDY_VIEWED, Event.LIST_VIEWED, Event.AUDIT_READ, Event.EXPORTED)
)
"""Who looked at what: for auditors alone."""
BEFORE_RESULT = frozenset(
    one.verb
    for one in (
        Event.INSTANCE_STORED,
        Event.INSTANCE_DUPLICATE,
        Event.INSTANCE_CORRECTED,
        Event.INSTANCE_REFUSED,
        Event.PATIENTS_DIFFER,
        Event.PATIENTS_RECONCILED,
        Event.STUDY_COMPLETE,
    )
)
"""What happens to the images of a study: it tells nothing of a result."""


@dataclass(frozen=True, slots=True)
class TrailLine:
    """An event of the audit."""

    at: str
    event: str
    who: str
    what: str
    address: str
    """Network address: for auditors alone."""


def trail(
    connection: Connection, study_instance_uid: str, person: Person, sees: bool
) -> Sequence[TrailLine]:
    """Return what happened to the study, oldest first.

    Everybody sees what was done and by whom; who looked, and from which address, auditors alone.
    ``sees``: also what happened with results that a rule keeps back.
    """
    auditor = Role.AUDITOR in person.roles
    events = query.events(connection, query.Question(study_instance_uid))
    if not sees and (hidden := published.generations(connection, study_instance_uid)):
        told = published.objects(connection, study_instance_uid)
        events = (one for one in events if _is_told(one, told, hidden))
    return deque(_lines(events, auditor), LONGEST_TRAIL)


def _is_told(event: dict[str, Any], told: set[str], hidden: set[int]) -> bool:
    """Return whether an event of a study may be told to who must not know what is kept back.

    ``told`` are the objects that may be told, ``hidden`` the generations that may not. Of what is
    of no known object or generation, only what comes before a result is told.
    """
    if event["event"] in BEFORE_RESULT:
        return True
    if made := event.get("result_sop_instance_uid"):
        return made in told
    generation = (event.get("detail") or {}).get("generation")
    return generation is not None and generation not in hidden


def _lines(events: Iterable[dict[str, Any]], auditor: bool) -> Iterator[TrailLine]:
    for event in events:
        if auditor or event["event"] not in VIEWS:
            yield TrailLine(
                at=event["recorded_at"],
                event=event["event"],
                who=plain(event.get("user_id") or event.get("calling_ae_title")),
                what=", ".join(_told(event)),
                address=plain(event.get("network_address")) if auditor else "",
            )


def _told(event: dict[str, Any]) -> Iterator[str]:
    """Yield what is worth saying of an event, in a few words each."""
    if outcome := event.get("outcome"):
        share = event.get("probability")
        yield outcome if share is None else f"{outcome} {100 * share:.1f} %"
    if code := event.get("reason_code"):
        yield reason(code)
    if destination := event.get("destination"):
        yield f"to {plain(destination)}"
    if proof := event.get("proof"):
        yield f"proof: {proof}"
    if status := event.get("status"):
        yield f"status {plain(status)}"
    detail = event.get("detail") or {}
    for name in (
        "kind",
        "opinion",
        "reason",
        "images",
        "generation",
        "deliveries",
        "dicom",
        "means",
    ):
        if detail.get(name) not in (None, "", []):
            yield f"{name} {plain(detail[name])}"
