"""reconcile: a person says whether the patients in one study are the same one.

``same``: images that came under another identifier become a new version with what the surviving
patient's images say of the patient, as if the archive had corrected them; then the study is read
again, and its report replaces what was said before. ``different``: the reports stand as they are,
and versions that came under another patient are refused.
"""

import hashlib
import secrets
from io import BytesIO
from typing import Any

from dbos import DBOS
from pydicom import Dataset, dcmread, dcmwrite
from sqlalchemy import Connection

from thoracle.pipeline import route
from thoracle.pipeline.analyse import enqueue_analyse
from thoracle.store import engine, files, trail
from thoracle.store.tables import now
from thoracle.study import analyses, instances, reading_list, reconciliation, results
from thoracle.study.line import parts
from thoracle.study.reconciliation import Patient

OF_PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("TypeOfPatientID", "OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames"),
    *("PatientBirthDate", "PatientBirthTime", "PatientBirthName", "PatientSex"),
)
"""What identifies a patient (PS3.3 Section C.7.1.1)."""
UTF_8 = "ISO_IR 192"


@DBOS.workflow(name="reconcile", max_recovery_attempts=5)
def reconcile(
    study_instance_uid: str, decision: str, patient_id: str, issuer: str, user_id: str
) -> None:
    """Settle whose images a study has: all those of one patient, or of several."""
    survivor = [patient_id, issuer] if decision == reconciliation.SAME else None
    begun = engine.transaction(_begin, study_instance_uid, survivor)
    if begun is None:
        return
    corrected = [_correct(path, begun["model"]) for path in begun["others"]]
    versions = list(zip(begun["others"], corrected, strict=True))
    plans = engine.transaction(
        _settle, study_instance_uid, survivor, versions, user_id, str(DBOS.workflow_id)
    )
    for plan in plans:
        priority = route.priority_of(study_instance_uid, plan)
        enqueue_analyse(
            study_instance_uid, parts().reader.bundle.digest, plan["generation"], priority
        )


def _begin(connection: Connection, study: str, survivor: list[str] | None) -> dict[str, Any] | None:
    """Return the path of an image of the survivor and those of the others; ``None``: settled."""
    row = reconciliation.row_of(connection, study)
    if row is None or row.state != reconciliation.OPEN:
        return None
    if survivor is None:
        return {"model": "", "others": []}
    patient = Patient(*survivor)
    rows = reconciliation.newest(connection, study)
    mine = [one for one in rows if Patient.of(one).is_same(patient)]
    if not mine:
        return None
    uids = {one.sop_instance_uid for one in mine}
    others = [one.path for one in rows if one.sop_instance_uid not in uids]
    return {"model": mine[-1].path, "others": others}


@DBOS.step(name="correct patient")
def _correct(path: str, model: str) -> dict[str, Any]:
    """Return path, size and digest of an image's new version, with the patient of another image."""
    line = parts()
    ds = dcmread(line.path(path))
    as_patient_of(ds, dcmread(line.path(model), stop_before_pixels=True))
    written = BytesIO()
    dcmwrite(written, ds, enforce_file_format=True)
    content = written.getvalue()
    data_set = content[144 + int.from_bytes(content[140:144], "little") :]
    name = secrets.token_hex(16)
    below = f"images/{name[:2]}/{name}.dcm"
    files.keep_patiently(line.path(below), content)
    digest = hashlib.sha256(data_set).hexdigest()
    return {"path": below, "size": len(data_set), "sha256": digest}


def as_patient_of(ds: Dataset, model: Dataset) -> None:
    """Give an image the patient of another one, and note what it said before (PS3.3 C.12.1.1.9)."""
    before = Dataset()
    if ds.get("SpecificCharacterSet") != model.get("SpecificCharacterSet"):
        ds.decode()
        ds.SpecificCharacterSet = UTF_8
    for keyword in OF_PATIENT:
        if keyword in ds:
            before[keyword] = ds[keyword]
            del ds[keyword]
        if keyword in model:
            ds[keyword] = model[keyword]
    change = Dataset()
    change.ModifiedAttributesSequence = [before]
    change.AttributeModificationDateTime = now()[:19].translate({ord(one): None for one in "-:T"})
    change.ModifyingSystem = "THORACLE"
    change.SourceOfPreviousValues = ""
    change.ReasonForTheAttributeModification = "COERCE"
    ds.OriginalAttributesSequence = [*(ds.get("OriginalAttributesSequence") or []), change]


def _settle(
    connection: Connection,
    study: str,
    survivor: list[str] | None,
    versions: list[tuple[str, dict[str, Any]]],
    user_id: str,
    workflow_id: str,
) -> list[dict[str, Any]]:
    """Record what a person said, and return the generations that are to be read."""
    patient = None if survivor is None else Patient(*survivor)
    state = reconciliation.DIFFERENT if patient is None else reconciliation.SAME
    columns = analyses.of_study(connection, study)
    detail = {"decision": state, "patients": reconciliation.named(connection, study)}
    reconciliation.settle(connection, study, state, user_id)
    reconciliation.settle_versions(connection, study, patient)
    if patient is not None:
        for path, made in versions:
            instances.add_corrected(connection, path, made, patient)
        instances.set_patient(connection, study, patient)
        results.supersede(connection, study)
        detail["patient"] = [patient.patient_id, patient.issuer]
        columns = analyses.of_study(connection, study)
    told: trail.Columns = {**columns, "user_id": user_id, "correlation_id": workflow_id}
    trail.record(connection, trail.Event.PATIENTS_RECONCILED, {**told, "detail": detail})
    if patient is None:
        return []
    newest = reconciliation.newest(connection, study)[-1]
    header = parts().header(study, newest.path)
    reading_list.set_patient(
        connection, study, patient.patient_id, str(header.get("PatientName") or "")
    )
    bundle = parts().reader.bundle
    return analyses.plan(connection, study, bundle.digest, bundle.finding.key, workflow_id, user_id)
