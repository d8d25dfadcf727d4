"""A site that answers FHIR, of a gateway that has read studies; each answer is validated.

fhir.resources knows R4B, fhirkit R4 (4.0.1) itself: unknown elements, wrong types and numbers of
elements fail there. Neither knows the required value sets, which are in :data:`REQUIRED`.
"""

import json
from dataclasses import dataclass
from typing import Any

import fhirkit
import httpx
from fhir.resources.R4B import get_fhir_model_class
from pydicom.uid import generate_uid
from sqlalchemy import Engine

from browsing import Site
from gateway import Gateway
from ledger import eventually, rows
from radiographs import chest
from sender import send
from stored_studies import concluded, said
from thoracle.records import Outcome, Reason
from thoracle.study.instances import Description
from thoracle.web.api import fhir_search

TYPES = ("DiagnosticReport", "ImagingStudy", "Observation", "Task")
REQUIRED = {
    # Required bindings of R4 for what we write (hl7.org/fhir/R4/valueset-*.html).
    **{(type_, "status"): set(codes.split()) for type_, codes in fhir_search.STATUSES.items()},
    ("Task", "intent"): {"proposal", "plan", "order", "original-order"},  # and more
    ("Task", "priority"): {"routine", "urgent", "asap", "stat"},
}
HOSTILE = {
    "PatientName": "<script>alert('x')</script>^\"; DROP TABLE study; --",
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientID": "=1+1|a,b$&_id=x",
    "IssuerOfPatientID": "http://evil.example/ <b>",
    "AccessionNumber": "A|1,'--",
    "StudyDescription": "Thorax \N{RIGHT-TO-LEFT OVERRIDE} {{191*193}} \N{SNOWMAN}",
}


@dataclass
class Served:
    """A gateway that has read studies, its pages, and a token for FHIR."""

    gateway: Gateway
    site: Site
    token: str
    studies: dict[str, str]
    """What became of it -> Study Instance UID."""

    def get(self, path: str, **parameters: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(
            f"{self.site.url}/fhir/{path}", params=parameters or None, headers=headers, timeout=60
        )

    def read(self, type_: str, name: str) -> dict[str, Any]:
        answer = self.get(f"{type_}/{self.studies[name]}")
        assert answer.status_code == 200, answer.text
        return checked(answer)

    def found(self, type_: str, **parameters: str) -> list[str]:
        """Return the ids that a search finds, on one page."""
        bundle = checked(self.get(type_, **parameters))
        assert bundle["total"] == len(bundle.get("entry", []))
        return [entry["resource"]["id"] for entry in bundle.get("entry", [])]


def checked(answer: httpx.Response) -> dict[str, Any]:
    """Return a resource that both libraries take."""
    assert answer.headers["content-type"] == "application/fhir+json"
    assert answer.headers["cache-control"] == "no-store"
    resource: dict[str, Any] = json.loads(answer.content)
    model = get_fhir_model_class(resource["resourceType"]).model_validate_json(answer.content)
    assert json.loads(model.model_dump_json()) == resource
    assert [str(issue) for issue in fhirkit.validate(answer.content)] == []
    for one in [resource, *(entry["resource"] for entry in resource.get("entry", []))]:
        for (type_, element), codes in REQUIRED.items():
            if one["resourceType"] == type_:
                assert one[element] in codes
    return resource


def pipelined(gateway: Gateway) -> dict[str, str]:
    """Have the gateway read studies; return their UIDs by what became of them."""
    images: dict[str, dict[str, Any]] = {
        "read": {"RequestedProcedurePriority": "STAT"},
        "rejected": {"BodyPartExamined": "HAND"},
        "corrected": {},
        "withdrawn": {},
        "held": {"AccessionNumber": "HELD"},
        "released": {"AccessionNumber": "HELD"},
        "shadow": {"AccessionNumber": "SHADOW"},
        "hostile": HOSTILE,
    }
    studies = {name: str(generate_uid()) for name in images}
    for name, attributes in images.items():
        store(gateway, StudyInstanceUID=studies[name], **attributes)
    for study in studies.values():
        done(gateway, study, 1)
    store(gateway, StudyInstanceUID=studies["corrected"])
    gateway.run("withdraw", studies["withdrawn"], "--reason", "wrong patient")
    gateway.run("release", studies["released"])
    done(gateway, studies["corrected"], 2)
    for name, event_ in (("withdrawn", "result withdrawn"), ("released", "study released")):
        gateway.wait_for_event(event_, studies[name])
    return studies


def store(gateway: Gateway, **attributes: Any) -> None:
    assert send(gateway.port, chest(**attributes)).status == 0x0000


def done(gateway: Gateway, study: str, generation: int) -> None:
    statement = (
        "SELECT 1 FROM analysis WHERE study_instance_uid = ? AND generation = ? AND state = 'done'"
    )
    eventually(lambda: rows(gateway, statement, study, generation))


def synthetic(database: Engine, studies: dict[str, str]) -> None:
    """Add what this radiograph does not make the pipeline say."""
    for number, outcome in enumerate((Outcome.POSITIVE, Outcome.NEGATIVE, Outcome.INDETERMINATE)):
        study = studies[outcome] = f"1.2.840.77.{number}"
        reading = said(study, outcome, probability=(0.9312, 0.0512, 0.5)[number])
        concluded(database, study, reading)
    study = studies["mixed"] = "1.2.840.77.5"
    lateral = said(study, Outcome.REJECTED, 2, reason=Reason.NOT_FRONTAL, detail="View is LL")
    concluded(database, study, said(study, Outcome.POSITIVE, probability=0.8), lateral)
    study = studies["broken"] = "1.2.840.77.6"
    concluded(database, study, said(study, Outcome.REJECTED, reason=Reason.SOFTWARE_FAILURE))
    studies["failed"], studies["queued"] = "1.2.840.77.7", "1.2.840.77.8"
    concluded(database, studies["failed"], None)
    concluded(database, studies["queued"])
    study = studies["controls"] = "1.2.840.77.9"
    name = "".join(map(chr, range(1, 0x20))) + "\x9b<b>" + "n" * 60000
    concluded(
        database,
        study,
        patient_id="P\x1b[2J",
        accession_number="x" * 60000,
        description=Description(name, "C\nR<b>", "Th\x00\x07" + "x" * 60000, "99999999", "x"),
    )
