"""FHIR over real HTTP: what the pipeline made, read back with two libraries of others."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import fhirkit
import httpx
import pytest

from api_tokens import token
from browsing import Site
from documents import DOCS
from fhir_server import HOSTILE, TYPES, Served, checked, pipelined, synthetic
from gateway import Gateway
from ledger import rows
from pacs import free_port
from thoracle.fhir import elements
from thoracle.web.api import fhir_search
from thoracle.web.api.fhir_search import SearchError


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


# ---- The documentation ---------------------------------------------------------------------------


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
