"""What the page of a study says, put together from its rows and files; nothing here is HTML."""

from dataclasses import dataclass, replace
from functools import cache

from pydicom import Dataset

from thoracle.classify import bundle
from thoracle.errors import BundleError
from thoracle.image.codecs import MALFORMED
from thoracle.records import BundleIdentity, Kind
from thoracle.settings import Classify, Settings
from thoracle.study.rows import StudyRows
from thoracle.web.pages import content, pictures
from thoracle.web.pages.worklist import reason
from thoracle.web.wording import date, person_name, plain


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image of the study, with what is said of it."""

    number: int
    sop_instance_uid: str
    name: str
    facts: str
    state: str
    """Its outcome, or ``not read``."""
    reason: str
    code: str
    detail: str
    probability: float | None
    radiograph: str
    """Address; empty when it cannot be shown."""
    overlay: str
    key_image: str
    kept: bool = True
    """Its file is still here (docs/retention.md)."""
    is_first: bool = False
    """Shown first: the image that made the study's outcome."""


def ai_state(rows: StudyRows, now: str) -> str:
    """Return what the AI says, or does: an outcome, queued, running, failed or withdrawn.

    ``now`` is what it does, as ``studies.state`` tells.
    """
    if now != "done" or rows.analysis is None:
        return now
    return str(rows.analysis.outcome if rows.analysis.state == "done" else rows.analysis.state)


@dataclass(frozen=True, slots=True)
class ResultView:
    """The result of the study, and the rule that made it."""

    outcome: str
    probability: float | None
    threshold: float | None
    band: tuple[float, float] | None
    """Within it the outcome is indeterminate; ``None`` when the bundle in use is another."""
    reason: str
    bundle: str
    """Name and version."""
    digest: str
    withdrawn: bool
    sending: str
    """``held`` or ``shadow``: it is sent to nobody, or not yet; else empty."""
    generation: int


def result(settings: Settings, rows: StudyRows) -> ResultView | None:
    """Return the newest result, withdrawn or not; ``None`` when there is none yet."""
    shown = rows.shown
    if shown is None:
        return None
    readings = list(rows.readings.values())
    known = identity(settings.classify, shown.bundle_digest)
    named = f"{known.name} {known.version}" if known else ""
    if not named and rows.listed is not None:
        named = plain(rows.listed.bundle_version)
    return ResultView(
        outcome=shown.outcome,
        probability=shown.probability,
        threshold=readings[0].threshold if readings else None,
        band=(known.decision.lower, known.decision.upper) if known else None,
        reason=reason(readings[0].reason_code) if readings else "",
        bundle=named,
        digest=shown.bundle_digest,
        withdrawn=shown.state == "withdrawn",
        sending=shown.sending if shown.sending in ("held", "shadow") else "",
        generation=shown.generation,
    )


def illustrated(settings: Settings) -> tuple[str, ...]:
    """Return the outcomes of which images get something that can lie on them."""
    wanted = {*settings.report.pr, *settings.report.seg}
    return tuple(one for one in ("positive", "indeterminate", "negative") if one in wanted)


def person_of(rows: StudyRows, header: Dataset) -> dict[str, str]:
    """Return who the patient is and what was done, as the newest header and the worklist say."""
    listed = rows.listed

    def said(keyword: str, of_list: str = "") -> str:
        return plain(getattr(listed, of_list, None) if of_list and listed else "") or plain(
            _element(header, keyword)
        )

    moment = said("", "study_datetime").replace("T", " ")
    return {
        "name": person_name(
            (listed.patient_name if listed else "") or _element(header, "PatientName")
        ),
        "id": plain(rows.study.patient_id),
        "issuer": plain(rows.study.issuer_of_patient_id),
        "born": date(_element(header, "PatientBirthDate")),
        "sex": plain(_element(header, "PatientSex"), 16),
        "age": plain(_element(header, "PatientAge"), 16),
        "accession": plain(rows.study.accession_number),
        "modality": said("Modality", "modality"),
        "description": said("StudyDescription", "study_description"),
        "time": moment or date(_element(header, "StudyDate")),
        "device": said("StationName", "device"),
    }


def images(settings: Settings, rows: StudyRows, view: str) -> list[ImageView]:
    """Return the images of the study; ``view`` is the pass of the page."""
    uid = rows.study.study_instance_uid
    found = []
    for number, row in enumerate(rows.images, 1):
        header = pictures.header(settings.data_folder / row.path)
        reading = rows.readings.get(row.sop_instance_uid)
        addresses = {
            kind: pictures.address(uid, kind, number, view)
            if pictures.order(settings, rows, row, kind) is not None
            else ""
            for kind in (pictures.RADIOGRAPH, pictures.OVERLAY, pictures.KEY_IMAGE)
        }
        view_position = plain(_element(header, "ViewPosition"), 16)
        found.append(
            ImageView(
                number=number,
                sop_instance_uid=row.sop_instance_uid,
                kept=row.file_state == "kept",
                name=f"Image {number}" + (f", {view_position}" if view_position else ""),
                facts=_facts(header),
                state="not read" if reading is None else reading.outcome,
                reason="" if reading is None else reason(reading.reason_code),
                code="" if reading is None else plain(reading.reason_code),
                detail="" if reading is None else plain(reading.detail),
                probability=None if reading is None else reading.probability,
                radiograph=addresses[pictures.RADIOGRAPH],
                overlay=addresses[pictures.OVERLAY],
                key_image=addresses[pictures.KEY_IMAGE],
            )
        )
    first = max(found, key=_telling, default=None)
    return [replace(one, is_first=one is first) for one in found]


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


def report(settings: Settings, rows: StudyRows) -> content.Item | None:
    """Return the content of the newest report on the study; ``None`` when there is none."""
    found = [one for one in rows.results if one.kind == Kind.SR]
    if not found:
        return None
    if found[-1].file_state != "kept":
        return content.Item("", "The report is no longer kept here; the archive has it.", "")
    try:
        return content.read(settings.data_folder / found[-1].path)
    except (*MALFORMED, OSError):
        return content.Item("", "The file of the report cannot be read.", "")


@cache
def _identity(settings: Classify) -> BundleIdentity | None:
    try:
        return bundle.identify(settings)
    except BundleError:
        return None


def identity(settings: Classify, digest: str) -> BundleIdentity | None:
    """Return the bundle in use, if it is the one that made a result.

    It is looked at once: the gateway too has to be started again for another.
    """
    found = _identity(settings)
    return found if found is not None and found.digest == digest else None
