"""The JSON interface over real HTTP: what the pipeline made and an archive got."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydicom.uid import generate_uid

from api_tokens import token
from browsing import Site
from documents import DOCS
from gateway import Gateway
from ledger import eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from stored_studies import concluded
from thoracle.records import Reason

HOSTILE = '<script>alert(1)</script>"; DROP TABLE study; --'


@dataclass
class Served:
    """A gateway that has sent results, its pages, and a token for them."""

    gateway: Gateway
    site: Site
    token: str
    studies: dict[str, str]

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return httpx.get(
            f"{self.site.url}/api/{path}",
            params=parameters,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
        )

    def study(self, name: str) -> dict[str, Any]:
        answer = self.get(f"studies/{self.studies[name]}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["research_use_only"] == "Research use only, not for diagnosis"
        return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("api")
    rules = [
        {"name": "held", "when": 'AccessionNumber == "HELD"', "hold": True},
        {"name": "shadow", "when": 'AccessionNumber == "SHADOW"', "shadow": True},
    ]
    images: dict[str, dict[str, Any]] = {
        "read": {"PatientID": "P7", "IssuerOfPatientID": "HOSPITAL"},
        "rejected": {"BodyPartExamined": "HAND", "PatientID": HOSTILE},
        "withdrawn": {},
        "held": {"AccessionNumber": "HELD"},
        "shadow": {"AccessionNumber": "SHADOW"},
    }
    studies = {name: str(generate_uid()) for name in images}
    with ExitStack() as stack:
        archive = stack.enter_context(Pacs(query=True))
        gateway = Gateway(
            folder, archive, lists={"rule": rules}, web={"port": free_port()}, report={"sc": []}
        )
        stack.enter_context(gateway)
        for name, attributes in images.items():
            ds = chest(StudyInstanceUID=studies[name], **attributes)
            assert send(gateway.port, ds).status == 0x0000
        for name in ("read", "rejected", "withdrawn"):
            gateway.wait_for_event("delivery succeeded", studies[name])
        for name in ("held", "shadow"):
            gateway.wait_for_event("result created", studies[name])
        gateway.run("withdraw", studies["withdrawn"], "--reason", "wrong patient")
        gateway.wait_for_event("result withdrawn", studies["withdrawn"])
        eventually(
            lambda: not rows(gateway, "SELECT 1 FROM outbox WHERE state IN ('waiting', 'sent')")
        )
        gateway.terminate()
        site = Site(folder, config=gateway.config)
        for name, number in (("failed", 1), ("waiting", 2)):
            studies[name] = f"1.2.840.66.{number}"
        concluded(site.database, studies["failed"], None, patient_id="P66")
        concluded(site.database, studies["waiting"], patient_id="P66")
        key = token(site.database, "reader", "results:read")
        yield Served(gateway, stack.enter_context(site), key, studies)


def test_a_study_tells_its_result_the_model_and_what_was_proven(served: Served) -> None:
    found = served.study("read")
    (row,) = rows(
        served.gateway,
        "SELECT * FROM analysis JOIN reading USING (study_instance_uid, generation) "
        "WHERE study_instance_uid = ?",
        served.studies["read"],
    )
    assert (found["state"], found["accession_number"]) == ("done", "A1")
    assert (found["patient_id"], found["issuer_of_patient_id"]) == ("P7", "HOSPITAL")
    result = found["result"]
    assert (result["outcome"], result["probability"]) == (row["outcome"], row["probability"])
    assert result["threshold"] == row["threshold"]
    assert result["bundle"]["digest"] == row["bundle_digest"]
    assert result["reasons"] == []
    (report,) = [one for one in found["deliveries"] if one["kind"] == "sr"]
    assert report["sop_instance_uid"] == result["report_sop_instance_uid"]
    assert (report["destination"], report["state"], report["proof"]) == (
        "pacs",
        "delivered",
        "query",
    )


def test_a_rejected_study_has_coded_reasons_and_no_probability(served: Served) -> None:
    found = served.study("rejected")
    reason = Reason.NOT_CHEST.code
    assert found["result"]["outcome"] == "rejected"
    assert found["result"]["probability"] is None
    assert found["result"]["reasons"] == [
        {"code": reason.value, "scheme": reason.scheme, "meaning": reason.meaning}
    ]
    assert found["patient_id"] == HOSTILE


@pytest.mark.parametrize("name", ["withdrawn", "held", "shadow", "failed", "waiting"])
def test_what_does_not_stand_or_is_told_to_nobody_has_no_result(served: Served, name: str) -> None:
    found = served.study(name)
    assert found["state"] == name
    assert found["result"] is None
    states = {one["state"] for one in found["deliveries"]}
    assert states == {"withdrawn": {"delivered"}}.get(name, set())


def test_studies_are_found_by_order_and_by_patient(served: Served) -> None:
    def found(**parameters: str) -> set[str]:
        answer = served.get("studies", **parameters)
        assert answer.status_code == 200, answer.text
        return {one["study_instance_uid"] for one in answer.json()["studies"]}

    studies = served.studies
    assert found(accession="HELD") == {studies["held"]}
    assert found(patient_id="P66") == {studies["failed"], studies["waiting"]}
    assert found(patient_id="P7", issuer_of_patient_id="HOSPITAL") == {studies["read"]}
    assert found(patient_id="P7", issuer_of_patient_id="OTHER") == set()
    assert found(patient_id="P7", accession="HELD") == set()
    assert found(patient_id=HOSTILE) == {studies["rejected"]}
    assert found(patient_id="' OR 1=1 --") == found(patient_id="%") == set()


def test_pages_follow_each_other_by_what_they_say(served: Served) -> None:
    first = served.get("studies", patient_id="P66", limit=1).json()
    second = served.get("studies", patient_id="P66", limit=1, after=first["after"]).json()
    assert [one["studies"][0]["study_instance_uid"] for one in (first, second)] == [
        served.studies["waiting"],
        served.studies["failed"],
    ]
    assert second["after"] is None


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("studies", 400, "neither accession nor patient_id"),
        ("studies?patientid=P7&accession=HELD", 422, "patientid"),
        ("studies?accession=", 422, "accession"),
        ("studies?accession=A&limit=0", 422, "limit"),
        ("studies?accession=A&after=x", 422, "after"),
        (f"studies?accession={'x' * 65}", 422, "accession"),
        ("studies/1.2.3", 404, "no study"),
        ("studies/abc", 422, "study_instance_uid"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    served: Served, path: str, status: int, words: str
) -> None:
    answer = httpx.get(
        f"{served.site.url}/api/{path}", headers={"Authorization": f"Bearer {served.token}"}
    )
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_only_readers_and_tokens_with_the_scope_may_read(served: Served) -> None:
    path = f"/api/studies/{served.studies['read']}"
    other = token(served.site.database, "reader", "fhir:read")
    with served.site.visitor() as client:
        assert client.get(path).status_code == 401
        headers = {"Authorization": f"Bearer {other}"}
        assert client.get(path, headers=headers).status_code == 403
    for name, status in (("reader", 200), ("auditor", 403)):
        with served.site.client(name) as client:
            answer = client.get(path)
            assert answer.status_code == status
            assert answer.headers["cache-control"] == "no-store"


def test_each_call_is_one_row_of_the_audit(served: Served) -> None:
    verbs = ("list viewed", "study viewed")
    before = len(served.site.events(*verbs))
    served.study("read")
    served.get("studies", patient_id="P66")
    served.get("studies/1.2.3")
    served.get("studies")
    study, listed, missed = served.site.events(*verbs)[before:]
    assert (study.event, study.patient_id) == ("study viewed", "P7")
    assert study.study_instance_uid == served.studies["read"]
    assert study.detail["means"] == "GET /api/studies/{study_instance_uid}"
    assert (listed.event, listed.patient_id) == ("list viewed", "P66")
    assert set(listed.detail["studies"]) == {served.studies[one] for one in ("failed", "waiting")}
    assert missed.event_outcome == 4


def test_the_interface_is_described_by_openapi(served: Served) -> None:
    described = served.get("openapi.json").json()
    for path in ("/api/studies", "/api/studies/{study_instance_uid}"):
        assert set(described["paths"][path]) == {"get"}
    schema = described["components"]["schemas"]["StudyAnswer"]["properties"]
    assert set(schema) == set(served.study("read"))


def test_the_document_shows_a_real_answer(served: Served) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    shown, real = json.loads(example), served.study("read")
    assert shown.keys() == real.keys()
    assert shown["result"].keys() == real["result"].keys()
    assert shown["deliveries"][0].keys() == real["deliveries"][0].keys()
    parameters = served.get("openapi.json").json()["paths"]["/api/studies"]["get"]["parameters"]
    assert all(f"`{one['name']}`" in text for one in parameters)
