"""Studies with a result on the pages of a site, made without a gateway: seconds, not minutes."""

import hashlib
from pathlib import Path

import numpy as np
from pydicom import Dataset

from browsing import Site
from radiographs import saved
from sources import BUNDLE, NOON
from thoracle.image import pixels
from thoracle.records import Outcome, Reading, Reason, Saliency
from thoracle.report import result_set
from thoracle.report.result_set import Picture, encoded
from thoracle.settings import parse
from thoracle.store import bundles
from thoracle.study import analyses, instances, reading_list
from thoracle.study.instances import Description, Received
from thoracle.study.results import AnalysisKey, ResultObject

ILLUSTRATED = ("positive", "indeterminate", "negative")
PROBABILITIES = {Outcome.POSITIVE: 0.91, Outcome.INDETERMINATE: 0.5, Outcome.NEGATIVE: 0.12}


def add(
    site: Site,
    image: Dataset,
    outcome: Outcome | None = Outcome.POSITIVE,
    *,
    illustrated: bool = False,
) -> str:
    """Put a study of one image on the list with a result; return its UID.

    An ``outcome`` of ``None``: its analysis failed. ``illustrated``: with picture and outlines.
    """
    folder = site.settings.data_folder
    received = _received(image, folder)
    study = received.study_instance_uid
    with site.database.begin() as connection:
        bundles.remember(connection, BUNDLE)
        instances.lock_study(connection, received)
        instances.add(connection, received)
        reading_list.arrive(connection, received)
        analyses.plan(connection, study, BUNDLE.digest, BUNDLE.finding.key, "test")
        key = AnalysisKey(study, 1, BUNDLE.digest)
        if outcome is None:
            text = f"the stored file is missing: {received.path}"
            analyses.fail(connection, key, Reason.FILE_MISSING, text, "test")
            return study
        reading = _reading(image, outcome)
        made = _made(image, reading, folder, illustrated)
        analyses.conclude(connection, key, BUNDLE, [reading], made, "test")
        minutes = 240 if outcome is Outcome.POSITIVE else 0
        reading_list.set_head_start(connection, study, minutes, outcome.value if minutes else "")
    return study


def _received(image: Dataset, folder: Path) -> Received:
    path = Path("images") / f"{image.SOPInstanceUID}.dcm"
    (folder / "images").mkdir(exist_ok=True)
    content = saved(image, folder / path).read_bytes()

    def text(keyword: str) -> str:
        return str(image.get(keyword, ""))

    return Received(
        sop_class_uid=text("SOPClassUID"),
        sop_instance_uid=text("SOPInstanceUID"),
        study_instance_uid=text("StudyInstanceUID"),
        series_instance_uid=text("SeriesInstanceUID"),
        transfer_syntax_uid=str(image.file_meta.TransferSyntaxUID),
        patient_id=text("PatientID"),
        issuer_of_patient_id=text("IssuerOfPatientID"),
        accession_number=text("AccessionNumber"),
        priority=100,
        path=str(path),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        calling_ae_title="SENDER",
        peer_address="127.0.0.1",
        description=Description(
            text("PatientName"),
            text("Modality"),
            text("StudyDescription"),
            text("StudyDate"),
            text("StudyTime"),
            text("StationName"),
            text("PatientBirthDate"),
            text("PatientSex"),
            text("PatientAge"),
        ),
    )


def _reading(image: Dataset, outcome: Outcome) -> Reading:
    uids = str(image.SOPClassUID), str(image.SOPInstanceUID)
    if outcome is Outcome.REJECTED:
        return Reading(*uids, outcome, reason=Reason.NOT_FRONTAL, detail="found LL, required PA")
    return Reading(*uids, outcome, probability=PROBABILITIES[outcome])


def _made(image: Dataset, reading: Reading, folder: Path, illustrated: bool) -> list[ResultObject]:
    """Write the objects of a result as the gateway does; return their rows."""
    shown = {}
    if illustrated:
        array = pixels.radiograph(image, image.pixel_array)
        shown[reading.sop_instance_uid] = Picture(array, Saliency(hot_spot()))
    report = parse({"data_folder": ".", "report": {"sc": ILLUSTRATED, "pr": ILLUSTRATED}}).report
    objects = result_set.build(
        [image], [reading], shown, BUNDLE, content_datetime=NOON, settings=report
    )
    found = []
    for kind, ds in objects:
        one = encoded(kind, ds)
        path = f"results/{one.sop_instance_uid}.dcm"
        (folder / "results").mkdir(exist_ok=True)
        (folder / path).write_bytes(one.content)
        digest = hashlib.sha256(one.content).hexdigest()
        uids = one.sop_instance_uid, one.sop_class_uid, one.series_instance_uid
        found.append(ResultObject(*uids, kind, path, digest))
    return found


def hot_spot() -> np.ndarray:
    """Return a map of 512 x 512 places with one round spot, its middle at row 300, column 170."""
    y, x = np.mgrid[:512, :512]
    spot: np.ndarray = np.exp(-((y - 300) ** 2 + (x - 170) ** 2) / (2 * 50**2)).astype(np.float32)
    return np.where(spot > 0.05, spot, 0).astype(np.float32)
