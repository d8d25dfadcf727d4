"""FHIR over real HTTP: what the pipeline made, read back with two libraries of others.

fhir.resources knows R4B, fhirkit R4 (4.0.1) itself: unknown elements, wrong types and numbers of
elements fail there. Neither knows the required value sets, which are in :data:`REQUIRED`.
"""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fhirkit
import httpx
import pytest
from fhir.resources.R4B import get_fhir_model_class
from pydicom.uid import ComputedRadiographyImageStorage, generate_uid
from sqlalchemy import Engine, event

from browsing import Site
from documents import DOCS
from gateway import Gateway
from ledger import eventually, rows
from pacs import free_port
from radiographs import chest
from sender import send
from sources import BUNDLE
from thoracle.accounts import rows as people
from thoracle.fhir import elements
from thoracle.fhir import rows as fhir_rows
from thoracle.fhir.rows import Search
from thoracle.records import Kind, Outcome, Reading, Reason
from thoracle.store import bundles
from thoracle.store.database import open_database, sqlite_url
from thoracle.study import analyses, instances, reading_list
from thoracle.study.instances import Description, Received
from thoracle.study.results import AnalysisKey, ResultObject
from thoracle.web.api import fhir_search
from thoracle.web.api.fhir_search import SearchError
from thoracle.web.session import cookies

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
DIGEST = BUNDLE.digest


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


def token(database: Engine, person: str, *scopes: str) -> str:
    secret = secrets.token_urlsafe(32)
    values = {"label": "test", "scopes": list(scopes), "expires_at": None}
    with database.begin() as connection:
        people.add_token(connection, cookies.digest(secret), person, values)
    return secret


def received(study: str, number: int = 1, **changes: Any) -> Received:
    values: dict[str, Any] = {
        "sop_class_uid": ComputedRadiographyImageStorage,
        "sop_instance_uid": f"{study}.{number}",
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.0",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "patient_id": "P7",
        "issuer_of_patient_id": "2.16.840.1",
        "accession_number": "A7",
        "priority": 100,
        "path": f"images/{study}.{number}",
        "size": 1,
        "sha256": "0" * 64,
        "calling_ae_title": "PACS",
        "peer_address": "127.0.0.1",
        "description": Description("Doe^Jo", "CR", "Chest", "20261122", "184529"),
    }
    return Received(**values | changes)


def concluded(database: Engine, study: str, *readings: Reading | None, **changes: Any) -> None:
    """Put a study through the store as the pipeline does; ``None`` is an analysis that failed."""
    key = AnalysisKey(study, 1, DIGEST)
    with database.begin() as connection:
        for number in range(1, max(len(readings), 1) + 1):
            image = received(study, number, **changes)
            instances.lock_study(connection, image)
            reading_list.arrive(connection, image)
            instances.add(connection, image)
        bundles.remember(connection, BUNDLE)
        analyses.plan(connection, study, DIGEST, BUNDLE.finding.key, "by hand")
        said = [one for one in readings if one is not None]
        if said:
            made = ResultObject(f"{study}.9", "1.2", f"{study}.8", Kind.SR, "results/x", "0" * 64)
            analyses.conclude(connection, key, BUNDLE, said, [made], "by hand")
        elif readings:
            analyses.fail(connection, key, Reason.SOFTWARE_FAILURE, "no", "by hand")


def said(study: str, outcome: Outcome, number: int = 1, **values: Any) -> Reading:
    return Reading(ComputedRadiographyImageStorage, f"{study}.{number}", outcome, **values)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("fhir")
    rules = [
        {"name": "held", "when": 'AccessionNumber == "HELD"', "hold": True},
        {"name": "shadow", "when": 'AccessionNumber == "SHADOW"', "shadow": True},
    ]
    gateway = Gateway(folder, lists={"rule": rules}, web={"port": free_port()})
    with ExitStack() as stack:
        stack.enter_context(gateway)
        studies = pipelined(gateway)
        gateway.terminate()
        site = Site(folder, config=gateway.config)
        synthetic(site.database, studies)
        key = token(site.database, "reader", "fhir:read")
        yield Served(gateway, stack.enter_context(site), key, studies)


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


# ---- What resources say -------------------------------------------------------------------------


def test_every_resource_of_every_study_is_valid_r4(served: Served) -> None:
    for type_ in TYPES:
        bundle = checked(served.get(type_, _count="200"))
        ids = {entry["resource"]["id"] for entry in bundle["entry"]}
        assert len(ids) == bundle["total"]
        for entry in bundle["entry"]:
            answer = httpx.get(
                entry["fullUrl"], headers={"Authorization": f"Bearer {served.token}"}, timeout=60
            )
            assert checked(answer) == entry["resource"]


def test_the_capability_statement_names_each_search_parameter(served: Served) -> None:
    statement = checked(served.get("metadata"))
    assert (statement["resourceType"], statement["fhirVersion"]) == ("CapabilityStatement", "4.0.1")
    resources = {one["type"]: one for one in statement["rest"][0]["resource"]}
    assert set(resources) == {*TYPES, "AuditEvent"}
    for type_, one in resources.items():
        assert [i["code"] for i in one["interaction"]] == ["read", "search-type"]
        required = {"_id", "date"} if type_ == "AuditEvent" else {"_id", "identifier", "status"}
        assert {p["name"] for p in one["searchParam"]} >= required


def test_a_result_of_the_pipeline_is_a_preliminary_report_with_an_observation(
    served: Served,
) -> None:
    report, observation = (served.read(t, "read") for t in ("DiagnosticReport", "Observation"))
    study = served.studies["read"]
    (analysis,) = rows(served.gateway, "SELECT * FROM analysis WHERE study_instance_uid = ?", study)
    assert report["status"] == observation["status"] == "preliminary"
    assert report["imagingStudy"] == [{"reference": f"ImagingStudy/{study}"}]
    assert report["result"] == [{"reference": f"Observation/{study}"}]
    (sr,) = rows(
        served.gateway,
        "SELECT sop_instance_uid FROM result WHERE study_instance_uid = ? AND kind = 'sr'",
        study,
    )
    for resource in (report, observation):
        assert [one["value"] for one in resource["identifier"]] == [
            f"urn:oid:{study}",
            f"urn:oid:{sr['sop_instance_uid']}",
        ]
        assert resource["subject"]["identifier"]["value"] == "P1"
        assert resource["subject"]["display"] == "Doe^Jane"
        assert resource["basedOn"][0]["identifier"]["value"] == "A1"
        assert resource["effectiveDateTime"] == "2020-04-01"
    (component,) = observation["component"]
    assert component["code"]["coding"][0]["code"] == "122157"
    percent = component["valueQuantity"]["value"]
    assert percent == round(analysis["probability"] * 100, 2)
    assert re.fullmatch(r"Decision threshold [\d.]+ %", component["referenceRange"][0]["text"])
    assert f"probability {percent:g} %" in report["conclusion"]
    assert report["conclusion"].startswith("AI result for research, not verified by a physician")
    device = observation["contained"][0]
    assert device["version"][1]["value"] == analysis["bundle_digest"]
    assert device["deviceName"][0]["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", device["version"][0]["value"])
    assert "udiCarrier" not in device


@pytest.mark.parametrize(
    ("outcome", "code", "percent"),
    [
        ("positive", "52101004", 93.12),
        ("negative", "272519000", 5.12),
        ("indeterminate", "373068000", 50),
    ],
)
def test_each_outcome_is_a_coded_value(
    served: Served, outcome: str, code: str, percent: float
) -> None:
    observation = served.read("Observation", outcome)
    assert observation["valueCodeableConcept"]["coding"][0]["code"] == code
    assert observation["component"][0]["valueQuantity"]["value"] == percent
    assert "dataAbsentReason" not in observation
    assert "Research use only" in observation["meta"]["tag"][0]["display"]


@pytest.mark.parametrize(
    ("name", "general", "reason"),
    [("rejected", "not-performed", "NOT-CHEST"), ("broken", "error", "111218")],
)
def test_what_was_not_analysed_has_a_coded_reason_and_no_value(
    served: Served, name: str, general: str, reason: str
) -> None:
    observation, report = (served.read(t, name) for t in ("Observation", "DiagnosticReport"))
    assert [one["code"] for one in observation["dataAbsentReason"]["coding"]] == [general, reason]
    assert not {"valueCodeableConcept", "component"} & set(observation)
    assert report["status"] == "preliminary"
    assert "Not analysed" in report["conclusion"]
    assert served.read("Task", name)["statusReason"]["coding"][0]["code"] == reason


def test_a_lateral_beside_a_frontal_image_is_told_in_a_note(served: Served) -> None:
    observation = served.read("Observation", "mixed")
    assert observation["valueCodeableConcept"]["coding"][0]["code"] == "52101004"
    notes = [one["text"] for one in observation["note"]]
    assert any(note.startswith("Images analysed: 1 of 2.") for note in notes)
    assert "View is LL" in notes


@pytest.mark.parametrize(
    ("name", "report", "task"),
    [("failed", "cancelled", "failed"), ("queued", "registered", "requested")],
)
def test_without_a_result_there_is_a_report_that_says_so_and_no_observation(
    served: Served, name: str, report: str, task: str
) -> None:
    resource = served.read("DiagnosticReport", name)
    assert resource["status"] == report
    assert "result" not in resource
    assert "says nothing about COVID-19" in resource["conclusion"]
    assert served.read("Task", name)["status"] == task
    assert "output" not in served.read("Task", name)
    assert served.get(f"Observation/{served.studies[name]}").status_code == 404


def test_a_withdrawn_result_is_entered_in_error_and_its_value_not_repeated(served: Served) -> None:
    report, observation = (served.read(t, "withdrawn") for t in ("DiagnosticReport", "Observation"))
    assert report["status"] == observation["status"] == "entered-in-error"
    assert "must not be used" in report["conclusion"]
    assert "valueCodeableConcept" not in observation
    assert "component" not in observation
    codes = [one["code"] for one in observation["dataAbsentReason"]["coding"]]
    assert codes == ["unknown", "WITHDRAWN"]
    assert len(report["identifier"]) == 3  # the study, its report, and what withdrew that
    assert "%" not in report["conclusion"]


def test_a_later_result_stays_preliminary_and_names_the_one_it_replaces(served: Served) -> None:
    report = served.read("DiagnosticReport", "corrected")
    reports = rows(
        served.gateway,
        "SELECT sop_instance_uid FROM result WHERE study_instance_uid = ? AND kind = 'sr' "
        "ORDER BY generation",
        served.studies["corrected"],
    )
    first, second = (f"urn:oid:{row['sop_instance_uid']}" for row in reports)
    assert report["status"] == "preliminary"
    assert report["identifier"][1]["value"] == second
    (extension,) = report["extension"]
    assert extension["url"].endswith("/diagnosticReport-replaces")
    assert extension["valueReference"]["identifier"]["value"] == first


def test_what_a_rule_holds_or_shadows_is_told_to_nobody(served: Served) -> None:
    held = served.read("DiagnosticReport", "held")
    assert held["status"] == "registered"
    assert "%" not in json.dumps(held)
    assert served.read("Task", "held")["status"] == "on-hold"
    assert "output" not in served.read("Task", "held")
    for type_ in ("DiagnosticReport", "Observation"):
        assert served.get(f"{type_}/{served.studies['shadow']}").status_code == 404
    assert served.get(f"Observation/{served.studies['held']}").status_code == 404
    shadow = served.read("Task", "shadow")
    assert shadow["status"] == "completed"
    assert not {"output", "statusReason"} & set(shadow)
    assert served.read("Observation", "released")["status"] == "preliminary"
    assert served.read("DiagnosticReport", "released")["status"] == "preliminary"


def test_a_task_has_the_priority_of_the_order_and_leads_to_images_and_report(
    served: Served,
) -> None:
    task = served.read("Task", "read")
    study = served.studies["read"]
    assert (task["intent"], task["priority"], task["status"]) == ("order", "stat", "completed")
    assert task["focus"] == {"reference": f"ImagingStudy/{study}"}
    assert task["output"][0]["valueReference"] == {"reference": f"DiagnosticReport/{study}"}
    assert task["for"]["identifier"]["value"] == "P1"
    assert served.read("Task", "positive")["priority"] == "routine"
    assert task["authoredOn"] <= task["lastModified"]


def test_an_imaging_study_lists_the_images_that_came(served: Served) -> None:
    study = served.read("ImagingStudy", "corrected")
    assert study["numberOfInstances"] == 2
    assert study["numberOfSeries"] == len(study["series"]) == 2
    came = rows(
        served.gateway,
        "SELECT * FROM instance WHERE study_instance_uid = ?",
        served.studies["corrected"],
    )
    assert {i["uid"] for s in study["series"] for i in s["instance"]} == {
        row["sop_instance_uid"] for row in came
    }
    assert study["series"][0]["modality"]["code"] == "CR"
    assert study["started"] == "2020-04-01"


def test_hostile_values_are_data_or_left_out(served: Served) -> None:
    for type_ in TYPES:
        resource = served.read(type_, "hostile")
        patient = resource["for" if type_ == "Task" else "subject"]
        assert patient["display"] == HOSTILE["PatientName"]
        assert patient["identifier"]["value"] == HOSTILE["PatientID"]
        # With a blank it is no URI, and so no system.
        assert patient["identifier"]["assigner"]["display"] == HOSTILE["IssuerOfPatientID"]
    description = served.read("ImagingStudy", "hostile")["description"]
    assert description == HOSTILE["StudyDescription"]
    resource = served.read("ImagingStudy", "controls")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", json.dumps(resource, ensure_ascii=False))
    assert "identifier" not in resource["subject"]
    assert len(resource["identifier"]) == 1
    for shown in (resource["subject"]["display"], resource["description"]):
        assert len(shown) == elements.LONGEST_TEXT
    assert resource["series"][0]["modality"]["code"] == "CR"
    assert "started" not in resource


# ---- Searches -----------------------------------------------------------------------------------


def test_a_study_is_found_by_its_uid_with_and_without_its_system(served: Served) -> None:
    study = served.studies["read"]
    for type_ in TYPES:
        for value in (f"urn:dicom:uid|urn:oid:{study}", study, f"urn:oid:{study}"):
            assert served.found(type_, identifier=value) == [study]
        assert served.found(type_, _id=study) == [study]
        assert served.found(type_, identifier=f"http://other|{study}") == []
    assert served.found("Task", focus=f"ImagingStudy/{study}") == [study]
    assert served.found("Task", **{"focus:identifier": f"urn:dicom:uid|{study}"}) == [study]
    assert served.found("Observation", **{"derived-from": study}) == [study]


def test_a_report_is_found_by_the_uid_of_its_structured_report(served: Served) -> None:
    report = served.read("DiagnosticReport", "read")
    uid = report["identifier"][1]["value"]
    for type_ in ("DiagnosticReport", "Observation"):
        assert served.found(type_, identifier=f"urn:dicom:uid|{uid}") == [report["id"]]
    assert served.found("Task", identifier=f"urn:dicom:uid|{uid}") == []
    replaced = served.read("DiagnosticReport", "corrected")["extension"][0]["valueReference"]
    assert served.found("DiagnosticReport", identifier=replaced["identifier"]["value"]) == []


def test_an_order_is_found_by_its_accession_number(served: Served) -> None:
    studies = {served.studies["held"], served.studies["released"]}
    for type_, name in (
        ("DiagnosticReport", "based-on:identifier"),
        ("DiagnosticReport", "based-on.identifier"),
        ("Task", "based-on:identifier"),
        ("ImagingStudy", "basedon:identifier"),
        ("ImagingStudy", "identifier"),
        ("Task", "identifier"),
    ):
        assert set(served.found(type_, **{name: "HELD"})) == studies
        assert set(served.found(type_, **{name: "|HELD"})) == studies
        assert served.found(type_, **{name: "HELD2"}) == []
    hostile = HOSTILE["AccessionNumber"].replace("|", "\\|").replace(",", "\\,")
    assert served.found("Task", identifier=hostile) == [served.studies["hostile"]]


def test_a_patient_is_found_by_number_and_issuer(served: Served) -> None:
    mine = {uid for uid in served.studies.values() if uid.startswith("1.2.840.77.")}
    mine.discard(served.studies["controls"])
    for name in ("patient.identifier", "patient:identifier", "subject:identifier"):
        for value in ("P7", "urn:oid:2.16.840.1|P7", "2.16.840.1|P7", "P8,P7"):
            assert set(served.found("Task", **{name: value})) == mine
        for value in ("|P7", "urn:oid:2.16.840.2|P7", "P77"):
            assert served.found("Task", **{name: value}) == []
    hostile = HOSTILE["PatientID"].replace("|", "\\|").replace(",", "\\,")
    assert served.found("Task", **{"patient.identifier": hostile}) == [served.studies["hostile"]]
    for attack in ("P7' OR '1'='1", "%", "P_"):
        assert served.found("Task", **{"patient.identifier": attack}) == []


def test_statuses_and_times_restrict_together(served: Served) -> None:
    withdrawn = served.found("DiagnosticReport", status="entered-in-error")
    assert withdrawn == [served.studies["withdrawn"]]
    both = served.found("Task", status="failed,on-hold")
    assert set(both) == {served.studies["failed"], served.studies["held"]}
    assert served.found("DiagnosticReport", status="final") == []
    moment = served.read("Task", "positive")["meta"]["lastUpdated"]
    study = served.studies["positive"]
    assert study in served.found("Task", _lastUpdated=moment)
    assert study in served.found("Task", _lastUpdated=f"ge{moment}", status="completed")
    assert study in served.found("Task", _lastUpdated=f"le{moment[:10]}")
    assert study in served.found("Task", _lastUpdated=moment[:7])
    for value in (f"gt{moment}", f"lt{moment}", "gt9998", "lt1999-12-31"):
        assert study not in served.found("Task", _lastUpdated=value)
    query = "_lastUpdated=gt2020-01-01&_lastUpdated=lt2020-01-02"
    assert checked(served.get(f"Task?{query}"))["total"] == 0


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("Observation?patient=P1", "not-supported", "patient: not supported"),
        ("Task?" + "&".join(["_id=1"] * 17), "too-costly", "found more than 16 parameters"),
        ("Observation?subject:identifer=P1", "not-supported", "subject:identifer"),
        ("Task?code=x", "not-supported", "code: not supported"),
        ("ImagingStudy?based-on:identifier=A1", "not-supported", "basedon:identifier"),
        ("Task?_id=", "invalid", "_id: found no value"),
        ("Task?_id=a,,b", "invalid", "some may be empty"),
        ("Task?status=done", "invalid", "status: found 'done'"),
        ("Task?identifier=a|b|c", "invalid", "system|value"),
        ("Task?identifier=|", "invalid", "system|value"),
        ("Task?_lastUpdated=yesterday", "invalid", "found no date"),
        ("Task?_lastUpdated=2026-02-31", "invalid", "calendar date"),
        ("Task?_lastUpdated=ne2026", "invalid", "found no date"),
        ("Task?_count=-1", "invalid", "_count: found no number"),
        ("Task?_count=1&_count=2", "invalid", "found twice"),
        ("Task?_after=x", "invalid", "_after"),
        ("Task?_format=xml", "not-supported", "_format"),
        ("Task/1.2?_summary=true", "not-supported", "_summary"),
    ],
)
def test_a_search_that_is_not_understood_is_refused_by_name(
    served: Served, query: str, code: str, words: str
) -> None:
    answer = served.get(query)
    assert answer.status_code == 400
    (issue,) = checked(answer)["issue"]
    assert (issue["severity"], issue["code"]) == ("error", code)
    assert words in issue["diagnostics"]


def test_what_does_not_exist_is_not_found_and_nothing_is_changed(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.token}"}
    for path in ("Patient", "Patient/1", "Task/1.2.3", "Task/1.2/_history/1", "Task/%00", ""):
        answer = served.get(path)
        assert answer.status_code == 404, path
        assert checked(answer)["issue"][0]["code"] == "not-found"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("Task", f"Task/{served.studies['read']}", "metadata", "Task/_search"):
            answer = httpx.request(method, f"{served.site.url}/fhir/{path}", headers=headers)
            assert answer.status_code == 405, (method, path)
            assert checked(answer)["issue"][0]["code"] == "not-supported"
    answer = httpx.get(
        f"{served.site.url}/fhir/Task", headers={**headers, "Accept": "application/fhir+xml"}
    )
    assert answer.status_code == 406
    assert checked(answer)["resourceType"] == "OperationOutcome"


# ---- Who may ------------------------------------------------------------------------------------


def test_only_readers_and_tokens_with_the_scope_may_read(served: Served) -> None:
    site, path = served.site, f"/fhir/Observation/{served.studies['read']}"
    other = token(site.database, "reader", "worklist:read", "results:read")
    auditors = token(site.database, "auditor", "fhir:read", "audit:read")
    for path_ in (path, "/fhir/Observation"):
        with site.visitor() as client:
            for headers, status, code in (
                ({}, 401, "login"),
                ({"Authorization": "Bearer x"}, 401, "login"),
                ({"Authorization": f"Bearer {other}"}, 403, "forbidden"),
                ({"Authorization": f"Bearer {auditors}"}, 403, "forbidden"),
            ):
                answer = client.get(path_, headers=headers)
                assert answer.status_code == status
                assert checked(answer)["issue"][0]["code"] == code
        for name, status in (("reader", 200), ("administrator", 200), ("auditor", 403)):
            with site.client(name) as client:
                assert client.get(path_).status_code == status
                assert client.get("/fhir/metadata").status_code == 200
    with site.visitor() as client:
        assert client.get("/fhir/metadata").status_code == 401
        headers = {"Authorization": f"Bearer {auditors}"}
        assert client.get("/fhir/metadata", headers=headers).status_code == 200


def test_each_call_is_one_row_of_the_audit(served: Served) -> None:
    study = served.studies["positive"]
    verbs = ("list viewed", "study viewed", "exported")
    before = len(served.site.events(*verbs))
    served.get(f"Observation/{study}")
    served.get("Task", **{"patient.identifier": "P7"}, status="completed")
    served.get("Task/1.2.3")
    served.get("Task", status="nonsense")
    viewed, listed, missed = served.site.events(*verbs)[before:]
    assert (viewed.event, viewed.study_instance_uid, viewed.patient_id) == (
        "study viewed",
        study,
        "P7",
    )
    assert viewed.detail["means"] == "GET /fhir/{type_}/{id_}"
    assert viewed.detail["type"] == "Observation"
    assert viewed.user_id == "reader"
    assert listed.event == "list viewed"
    assert listed.patient_id == "P7"
    assert study in listed.detail["studies"]
    assert listed.detail["parameters"] == ["patient.identifier", "status"]
    assert missed.event_outcome == 4


# ---- Many ---------------------------------------------------------------------------------------

MANY = 1200


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    database = open_database(sqlite_url(tmp_path_factory.mktemp("many")))
    for number in range(MANY):
        study = f"1.2.840.88.{number}"
        if number % 3:
            concluded(database, study)
        else:
            concluded(database, study, said(study, Outcome.NEGATIVE, probability=0.1))
    return database


def statements(database: Engine, search: Search, limit: int) -> int:
    seen: list[str] = []

    def count(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    with database.connect() as connection:
        event.listen(database, "before_cursor_execute", count)
        found = fhir_rows.page(connection, search, limit)
        event.remove(database, "before_cursor_execute", count)
    assert len(found) == limit
    return len(seen)


def test_a_page_takes_the_same_number_of_statements_however_long_it_is(many: Engine) -> None:
    assert statements(many, Search("Observation"), 2) == statements(
        many, Search("Observation"), 200
    )


def test_links_lead_through_all_pages_once_and_in_order(many: Engine, tmp_path: Path) -> None:
    folder = Path(str(many.url.database)).parent
    config = tmp_path / "web.toml"
    config.write_text(
        f"data_folder = {json.dumps(str(folder))}\n[web]\nport = {free_port()}\n", encoding="utf-8"
    )
    with Site(tmp_path, config=config) as site:
        headers = {"Authorization": f"Bearer {token(site.database, 'reader', 'fhir:read')}"}
        url: str | None = f"{site.url}/fhir/Observation?status=preliminary&_count=150"
        pages: list[dict[str, Any]] = []
        while url is not None:
            pages.append(checked(httpx.get(url, headers=headers, timeout=60)))
            links = {one["relation"]: one["url"] for one in pages[-1]["link"]}
            url = links.get("next")
            if len(pages) == 1:  # one that comes meanwhile moves no page
                assert pages[0]["total"] == MANY // 3
                study = "1.2.840.99.1"
                concluded(site.database, study, said(study, Outcome.NEGATIVE, probability=0.1))
        assert len(pages) == 3
        seen = [entry["resource"]["id"] for page in pages for entry in page["entry"]]
        numbers = [int(uid.rpartition(".")[2]) for uid in seen]
        assert numbers == [n for n in reversed(range(MANY)) if n % 3 == 0]
        total = checked(httpx.get(f"{site.url}/fhir/Observation?_count=0", headers=headers))
        assert total["total"] == MANY // 3 + 1
        assert "entry" not in total
        largest = checked(httpx.get(f"{site.url}/fhir/Task?_count=100000", headers=headers))
        assert len(largest["entry"]) == fhir_search.LARGEST_COUNT


def test_dates_cover_the_span_of_their_precision() -> None:
    def updated(value: str) -> tuple[tuple[str, str], ...]:
        return fhir_search.parse_result_search("Task", [("_lastUpdated", value)]).search.updated

    assert updated("2026-12") == (
        (">=", "2026-12-01T00:00:00.000000Z"),
        ("<", "2027-01-01T00:00:00.000000Z"),
    )
    assert updated("gt2026") == ((">=", "2027-01-01T00:00:00.000000Z"),)
    assert updated("le2026-11-22T18:30:00.5+01:00") == (("<", "2026-11-22T17:30:00.600000Z"),)
    with pytest.raises(SearchError, match="calendar date"):
        updated("9999")


def test_the_document_shows_a_real_answer(served: Served) -> None:
    text = (DOCS / "fhir.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    resource = json.loads(example)
    assert fhirkit.validate(example) == []
    real = served.read("Observation", "positive")

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(one) for key, one in value.items()}
        return [shape(one) for one in value] if isinstance(value, list) else type(value)

    assert shape(resource) == shape(real)
    assert resource["valueCodeableConcept"] == real["valueCodeableConcept"]
    for type_ in TYPES:
        for parameter in fhir_search.parameters(type_):
            assert f"`{parameter.name}" in text
