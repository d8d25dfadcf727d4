"""A bundle with another finding, through all that the service says: no word of the shipped one.

The second bundle has the weights of the shipped one, and metadata of its own (bundles.py).
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from api_tokens import token
from browsing import Site
from bundles import PNEUMONIA, second
from gateway import Gateway
from ledger import concluded, eventually, rows
from orthanc import Orthanc
from pacs import free_port
from radiographs import chest, saved
from sender import send
from test_finding import NAMED
from test_mllp import serving
from test_proof import EVERYTHING
from thoracle.classify import bundle
from thoracle.records import Outcome
from validators import dciodvfy, pixelmed

IODS = {
    "sr": "SR",
    "sc": "SCImage",
    "pr": "GrayscaleSoftcopyPresentationState",
    "ko": "KeyObjectSelectionDocument",
}
"""Kind of object -> how the name ends under which dciodvfy knows it."""
ALL = [one.value for one in Outcome]
TOKEN_SCOPES = ("fhir:read", "results:read", "worklist:read", "audit:read")


def texts(ds: Dataset) -> str:
    """Return all that an object says, of its pictures too as far as it is text."""
    return "\n".join(
        f"{element.keyword}: {element.value!r}"
        for element in ds.iterall()
        if element.VR not in ("SQ", "OB", "OW")
    )


def says_nothing_else(text: str, what: str) -> None:
    """Fail when a text has a word or code of the shipped bundle's finding."""
    found = NAMED.search(text)
    around = text[max(0, found.start() - 100) : found.end() + 100] if found else ""
    assert found is None, f"{what}: ...{around}..."


@pytest.fixture(scope="module")
def classify(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings that name the second bundle."""
    folder = second(tmp_path_factory.mktemp("bundle"))
    return {"bundle": str(folder), "digest": bundle.digest(folder)}


# ---- Without a network --------------------------------------------------------------------------


def test_analyse_says_and_writes_what_the_second_bundle_finds(
    classify: dict[str, str], tmp_path: Path
) -> None:
    gateway = Gateway(tmp_path, classify=classify, report=EVERYTHING)
    study = generate_uid()
    grown = saved(chest(StudyInstanceUID=study, PatientAge="044Y"), tmp_path / "grown.dcm")
    young = saved(chest(StudyInstanceUID=study, PatientAge="015Y"), tmp_path / "young.dcm")
    out = tmp_path / "out"
    said = gateway.run("analyse", str(grown), str(young), "--out", str(out), "--json")
    answers = [json.loads(line) for line in said.splitlines()]
    assert answers[0]["finding"] == {
        "code": "233604007",
        "scheme": "SCT",
        "meaning": "Pneumonia",
        "name": "Pneumonia",
    }
    assert answers[0]["threshold"] == 0.4
    assert answers[1]["reason"]["code"] == "TOO-YOUNG", "this one is for patients of 16 and more"
    assert "required: 16 years" in answers[1]["detail"]
    says_nothing_else(said, "analyse")
    made = {path.name.partition("-")[0]: path for path in sorted(out.iterdir())}
    assert made.keys() == IODS.keys()
    for kind, path in made.items():
        assert dciodvfy(path, IODS[kind]) == [], kind
        says_nothing_else(f"{path.name}\n{texts(dcmread(path))}", kind)
    assert pixelmed(made["sr"]) == []
    report = dcmread(made["sr"])
    assert report.SeriesDescription == "AI Pneumonia report (research, not verified)"
    outcome = Outcome(answers[0]["outcome"])
    statement = PNEUMONIA.outcomes.of(outcome)
    content = texts(report)
    for text in (statement.sentence, "decision threshold 40 %", statement.code.meaning):
        assert text in content
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99SITE"


# ---- Through the gateway ------------------------------------------------------------------------


@dataclass
class Here:
    """A gateway with the second bundle, and all who hear of its results."""

    gateway: Gateway
    orthanc: Orthanc
    site: Site
    messages: list[str]
    study: str
    outcome: str
    """Of that study, which has one image that is analysed and one of a patient too young."""


@pytest.fixture(scope="module")
def here(classify: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("second")
    with ExitStack() as stack:
        port, messages = stack.enter_context(serving())
        receiver = {"name": "ris", "host": "127.0.0.1", "port": port, "outcomes": ALL}
        orthanc = Orthanc(folder)
        gateway = Gateway(
            folder,
            orthanc,
            lists={"hl7": [receiver], "subscriber": []},
            classify=classify,
            report=EVERYTHING,
            ups={"offer": True, "outcomes": ALL},
            web={"port": free_port()},
        )
        orthanc.modalities = {"THORACLE": gateway.port}
        stack.enter_context(orthanc)
        stack.enter_context(gateway)
        persons = {"chief": ["reader", "administrator", "auditor"]}
        site = stack.enter_context(Site(folder, config=gateway.config, persons=persons))
        study = generate_uid()
        for number, age in enumerate(("044Y", "015Y"), 1):
            image = chest(StudyInstanceUID=study, PatientAge=age, InstanceNumber=number)
            assert send(gateway.port, image).status == 0x0000
        answer = concluded(gateway, study, 240)
        statement = (
            "SELECT state FROM outbox JOIN result USING (sop_instance_uid) "
            "WHERE study_instance_uid = ?"
        )
        eventually(
            lambda: {one["state"] for one in rows(gateway, statement, study)} == {"delivered"}
        )
        eventually(lambda: messages)
        outcome = rows(gateway, "SELECT outcome FROM analysis")[0]["outcome"]
        assert answer["finding"] == PNEUMONIA.key
        yield Here(gateway, orthanc, site, messages, str(study), outcome)


def test_the_archive_gets_no_word_of_another_finding(here: Here, tmp_path: Path) -> None:
    identifiers = here.orthanc.instances()
    assert len(identifiers) == len(IODS)
    for identifier in identifiers:
        content = here.orthanc.get(f"/instances/{identifier}/file")
        ds = dcmread(BytesIO(content))
        says_nothing_else(texts(ds), ds.Modality)
        assert ds.ContributingEquipmentSequence[0].ContributionDescription.endswith(": Pneumonia")
        kind = next(
            row["kind"]
            for row in rows(here.gateway, "SELECT kind, sop_instance_uid FROM result")
            if row["sop_instance_uid"] == ds.SOPInstanceUID
        )
        path = tmp_path / "kept.dcm"
        path.write_bytes(content)
        assert dciodvfy(path, IODS[kind]) == []
        if kind == "sr":
            assert pixelmed(path) == []


def test_the_message_tells_the_second_finding(here: Here) -> None:
    (message,) = here.messages
    says_nothing_else(message, "HL7")
    observed = [line.split("|") for line in message.splitlines() if line.startswith("OBX")]
    assert observed[0][3] == "233604007^Pneumonia^SCT"
    code = PNEUMONIA.outcomes.of(Outcome(here.outcome)).code
    assert observed[0][5] == f"{code.value}^{code.meaning}^99SITE"


def test_the_workitem_tells_the_second_finding(here: Here) -> None:
    (item,) = rows(here.gateway, "SELECT attributes FROM workitem")
    says_nothing_else(str(item["attributes"]), "UPS")
    label = json.loads(item["attributes"])["00741204"]["Value"][0]
    assert label.startswith(f"Chest XR - AI: Pneumonia {here.outcome}")


def test_fhir_and_json_tell_the_second_finding(here: Here) -> None:
    key = token(here.site.database, "chief", *TOKEN_SCOPES)
    with here.site.visitor() as client:
        client.headers["Authorization"] = f"Bearer {key}"
        for type_ in ("DiagnosticReport", "Observation", "ImagingStudy", "Task"):
            answer = client.get(f"/fhir/{type_}/{here.study}")
            assert answer.status_code == 200, answer.text
            says_nothing_else(answer.text, type_)
            if type_ == "Observation":
                observation = answer.json()
        assert observation["code"]["coding"] == [
            {"system": "http://snomed.info/sct", "code": "233604007", "display": "Pneumonia"}
        ]
        code = PNEUMONIA.outcomes.of(Outcome(here.outcome)).code
        (value,) = observation["valueCodeableConcept"]["coding"]
        assert value == {"code": code.value, "display": code.meaning}, "its scheme has no URI"
        found = client.get(f"/api/studies/{here.study}").json()
        assert found["result"]["finding"]["name"] == "Pneumonia"
        (listed,) = client.get("/api/worklist", params={"review": "all"}).json()["studies"]
        assert (listed["finding"], listed["finding_name"]) == (PNEUMONIA.key, "Pneumonia")
        audited = client.get("/api/audit/events", params={"finding": PNEUMONIA.key})
        says_nothing_else(audited.text, "audit")
        verbs = {one["event"] for one in audited.json()["events"]}
        assert {"image read", "result created", "application started"} <= verbs


def test_no_page_has_a_word_of_another_finding(here: Here) -> None:
    with here.site.client("chief") as client:
        for path in (
            "/",
            "/?review=all",
            f"/study/{here.study}",
            "/audit",
            "/dashboard",
            "/model-card",
            "/about",
            "/metrics",
        ):
            answer = client.get(path)
            assert answer.status_code in (200, 404, 401), path
            says_nothing_else(answer.text, path)
        text = client.get(f"/study/{here.study}").text
        assert f"Pneumonia: {here.outcome}" in text
        assert "Pneumonia finder 3.1.0" in text


def test_commands_and_the_rows_of_the_audit_tell_the_second_finding(here: Here) -> None:
    for command in (
        ("status",),
        ("audit", "why", here.study),
        ("audit", "--study", here.study),
        ("audit", "stats", "--by", "bundle"),
    ):
        says_nothing_else(here.gateway.run(*command), " ".join(command))
    assert f"as Pneumonia {here.outcome}" in here.gateway.run("audit", "why", here.study)
    said = here.gateway.run("audit", "--json", "--finding", PNEUMONIA.key)
    read = [json.loads(line) for line in said.splitlines()]
    assert {"image read", "result created"} <= {one["event"] for one in read}
    kept = rows(here.gateway, "SELECT DISTINCT finding FROM reading")
    assert [row["finding"] for row in kept] == [PNEUMONIA.key]
    says_nothing_else(here.gateway.log.read_text(), "log")


def test_a_result_is_withdrawn_in_the_words_of_the_bundle_that_made_it(here: Here) -> None:
    """The last test here: it exchanges the bundle."""
    assert here.gateway.terminate() == 0
    text = here.gateway.config.read_text()
    section = text[text.index("[classify]") : text.index("[", text.index("[classify]") + 1)]
    here.gateway.config.write_text(text.replace(section, ""))
    here.gateway.start()
    before = len(here.messages)
    here.gateway.run("withdraw", here.study, "--reason", "Wrong film")
    eventually(lambda: len(here.messages) > before)
    message = here.messages[-1]
    says_nothing_else(message.replace("COVID-19 chest", ""), "HL7")
    statement = "SELECT path FROM result WHERE kind = 'sr' ORDER BY created_at DESC LIMIT 1"
    (row,) = eventually(lambda: rows(here.gateway, statement))
    report = dcmread(here.gateway.data_folder / row["path"])
    assert report.get("PredecessorDocumentsSequence")
    says_nothing_else(texts(report), "withdrawal")
    assert "Nothing is said about pneumonia" in texts(report)
    with here.site.client("chief") as client:
        page = client.get(f"/study/{here.study}").text
    assert "Pneumonia finder 3.1.0" in page
