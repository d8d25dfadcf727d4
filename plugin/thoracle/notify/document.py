"""What webhooks and e-mails say of a result or an alarm, as plain values.

Without the setting ``patient_data`` nothing in it tells whose study it is: no name, no identifier
of patient, order or study, and no words that a person has typed.
"""

import json
from typing import Any

from pydicom import Dataset

from thoracle.outbox.senders import AlarmNotice, ResultNotice
from thoracle.records import Outcome, study_outcome
from thoracle.study.line import parts
from thoracle.wording import RESEARCH_USE_ONLY

_PATIENT = {
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "accession_number": "AccessionNumber",
    "study_instance_uid": "StudyInstanceUID",
}


def of_result(notice: ResultNotice, *, patient_data: bool) -> dict[str, Any]:
    """Return the document of a result: ``outcome``, ``probability``, ``model`` and so on."""
    bundle, found = notice.bundle, notice.bundle.finding
    withdrawn = notice.status == "withdrawn"
    outcome = None if withdrawn else study_outcome(notice.readings)
    document: dict[str, Any] = {
        "type": "result",
        "research_use_only": RESEARCH_USE_ONLY,
        "made_at": notice.made.isoformat(),
        "status": notice.status,
        "finding": {
            "name": found.name,
            "code": found.code.value,
            "scheme": found.code.scheme,
        },
        "outcome": outcome,
        "probability": None if outcome is None else _probability(notice, outcome),
        "report_sop_instance_uid": notice.report_sop_instance_uid,
        "model": {"name": bundle.name, "version": bundle.version, "digest": bundle.digest},
    }
    if patient_data:
        document |= _patient(notice.source)
    if patient_data or not withdrawn:  # the reason of a withdrawal is what somebody typed
        document["sentence"] = notice.sentence
    return document


def _probability(notice: ResultNotice, outcome: Outcome) -> float | None:
    """Return the highest probability of the images that made the outcome, 0 to 1."""
    found = [one.probability for one in notice.readings if one.outcome is outcome]
    return max((one for one in found if one is not None), default=None)


def _patient(source: Dataset) -> dict[str, str]:
    return {name: str(source.get(keyword) or "") for name, keyword in _PATIENT.items()}


def of_alarm(alarm: AlarmNotice, *, patient_data: bool) -> dict[str, Any]:
    """Return the document of an alarm: ``subject``, ``level``, ``sentence`` and ``since``."""
    document: dict[str, Any] = {
        "type": "alarm",
        "research_use_only": RESEARCH_USE_ONLY,
        "subject": alarm.subject,
        "level": alarm.level,
        "sentence": alarm.sentence,
        "since": alarm.since,
    }
    if patient_data:
        document["sentence"] = alarm.in_full or alarm.sentence
        if alarm.study_instance_uid is not None:
            document["study_instance_uid"] = alarm.study_instance_uid
    return document


def write(document: dict[str, Any], name: str) -> str:
    """Write a document durably; return its path below the data folder.

    It is a file, and not a value of a row or of a workflow, so that it goes with the results when
    their time is over.
    """
    below = f"messages/{name[-2:]}/{name}.json"
    content = json.dumps(document, ensure_ascii=True, indent=1).encode()
    parts().objects.write(below, content)
    return below
