"""A patient's export has everything about that patient, and nothing about anybody else."""

import json
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from aging import age, asked
from browsing import Site
from gateway import Gateway
from ledger import eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from test_proof import ALWAYS, OBJECTS
from ward import PERSONS, Ward, of_study

ANNA = {"PatientID": "ID-4711", "IssuerOfPatientID": "NORTH", "PatientName": "Annasdottir^Anna"}
BERTA = {"PatientID": "ID-4711", "IssuerOfPatientID": "SOUTH", "PatientName": "Bertasdottir^Berta"}
CLARA = {"PatientID": "ID-9000", "IssuerOfPatientID": "NORTH", "PatientName": "Clarasdottir^Clara"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("subject")
    with Pacs("ARCHIVE", OBJECTS) as archive:
        gateway = Gateway(
            folder,
            archive,
            report={"sc": ALWAYS},
            web={"port": free_port()},
            lists={"hl7": [{"name": "ris", "host": "127.0.0.1", "port": free_port()}]},
        )
        with gateway, Site(folder, config=gateway.config, persons=PERSONS) as site:
            ward = Ward(gateway, archive, site)
            ward.studies = {
                "anna": ward.send(*of_study(2, AccessionNumber="ACC-ANNA", **ANNA)),
                "anna later": ward.send(*of_study(1, AccessionNumber="ACC-LATER", **ANNA)),
                "berta": ward.send(*of_study(1, AccessionNumber="ACC-BERTA", **BERTA)),
            }
            mixed = str(generate_uid())
            for of in (CLARA, ANNA):
                image = chest(StudyInstanceUID=mixed, AccessionNumber="ACC-MIXED", **of)
                assert send(gateway.port, image).status == 0x0000
            done = "SELECT 1 FROM analysis WHERE study_instance_uid = ? AND state = 'done'"
            eventually(lambda: len(rows(gateway, done, mixed)) == 2)
            ward.studies["mixed"] = mixed
            judge(ward, "anna", "Agreed about Anna.")
            judge(ward, "berta", "Agreed about Berta.")
            yield ward


def judge(ward: Ward, name: str, comment: str) -> None:
    study = ward.studies[name]
    statement = "SELECT sop_instance_uid FROM result WHERE study_instance_uid = ? AND kind = 'sr'"
    report = rows(ward.gateway, statement, study)[-1]["sop_instance_uid"]
    with ward.site.client("reader") as client:
        assert client.get(f"/study/{study}").status_code == 200
        form = {"opinion": "agree", "report": report, "comment": comment}
        assert client.post(f"/study/{study}/verdict", data=form).status_code == 303


def exported(ward: Ward, target: Path, *arguments: str) -> Path:
    asked(ward.gateway, "subject-export", str(target), *arguments)
    return target


@pytest.fixture(scope="module")
def folder(here: Ward, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("anna") / "export"
    return exported(here, target, "--patient", "ID-4711", "--issuer", "NORTH")


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    """Return study.json by Study Instance UID."""
    found = [json.loads(one.read_text()) for one in folder.glob("studies/*/study.json")]
    return {one["instance"][0]["study_instance_uid"]: one for one in found}


def test_everything_of_the_patient_is_there(here: Ward, folder: Path) -> None:
    found = documents(folder)
    assert set(found) == {here.studies[name] for name in ("anna", "anna later", "mixed")}
    anna = found[here.studies["anna"]]
    assert len(anna["instance"]) == 2
    assert len(anna["reading"]) >= 2
    assert anna["worklist"][0]["patient_name"] == ANNA["PatientName"]
    assert [one["comment"] for one in anna["verdict"]] == ["Agreed about Anna."]
    states = {(one["kind"], one["state"]) for one in anna["outbox"]}
    assert states == {("dicom", "delivered"), ("hl7", "waiting")}  # nobody answers for the latter
    assert {one["peer"] for one in anna["outbox"] if one["kind"] == "hl7"} == {"ris"}
    files = [
        one
        for study in found.values()
        for kind in ("instance", "result", "outbox")
        for one in study[kind]
        if kind != "outbox" or one["kind"] == "hl7"
    ]
    named = [one["path"] for one in files if one.get("kind") != "original"]
    assert None not in named
    assert len(list(folder.rglob("*.dcm")) + list(folder.rglob("*.hl7"))) == len(named)
    images = [dcmread(one) for one in folder.rglob("*.dcm")]
    assert {(one.PatientID, str(one.PatientName)) for one in images} == {
        ("ID-4711", ANNA["PatientName"])
    }
    assert "not for a diagnosis" in (folder / "README.txt").read_text()


def test_the_log_has_what_happened_to_the_patient(here: Ward, folder: Path) -> None:
    lines = (folder / "audit.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    study = here.studies["anna"]
    told = here.gateway.events(study=study)
    until = max(one["id"] for one in events)
    mine = {one["id"] for one in events if one["study_instance_uid"] == study}
    assert mine == {one["id"] for one in told if one["id"] <= until}
    assert len(mine) > 10
    assert {"instance stored", "image read", "study viewed", "verdict given"} <= {
        one["event"] for one in events
    }
    export = [one for one in events if one["event"] == "exported"][-1]  # deliveries go on
    assert (export["patient_id"], export["issuer_of_patient_id"]) == ("ID-4711", "NORTH")
    theirs = sorted(here.studies[name] for name in ("anna", "anna later", "mixed"))
    assert export["detail"]["studies"] == theirs


def test_nothing_of_anybody_else_is_there(here: Ward, folder: Path) -> None:
    content = b"".join(one.read_bytes() for one in folder.rglob("*") if one.is_file())
    others = [
        *("SOUTH", "Berta", "ACC-BERTA", here.studies["berta"]),
        *("ID-9000", "Clara"),
    ]
    statement = (
        "SELECT sop_instance_uid FROM instance "
        "WHERE patient_id = 'ID-9000' OR issuer_of_patient_id = 'SOUTH'"
    )
    others += [row["sop_instance_uid"] for row in rows(here.gateway, statement)]
    assert len(others) == 8
    for one in others:
        assert one.encode() not in content, one
    assert "also has images of somebody else" in (folder / "README.txt").read_text()


def test_an_id_of_several_issuers_needs_one(here: Ward, tmp_path: Path) -> None:
    for arguments, said in (
        (("--patient", "ID-4711"), "found 2 issuers of this ID"),
        (("--patient", "ID-4711", "--issuer", "WEST"), "found no patient of this ID from it"),
        (("--patient", "NOBODY"), "found no patient with this ID"),
    ):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            exported(here, tmp_path / "export", *arguments)
        assert said in refused.value.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_zip_has_the_same_and_says_what_is_gone(here: Ward, tmp_path: Path) -> None:
    study = here.studies["berta"]
    age(here.gateway.data_folder, study, 8)
    statement = "UPDATE outbox SET state = 'delivered' WHERE kind = 'hl7'"
    store = sqlite3.connect(here.gateway.data_folder / "thoracle.sqlite", timeout=30)
    with closing(store), store:
        store.execute(statement)
    age(here.gateway.data_folder, study, 8)
    asked(here.gateway, "retention", "run")
    eventually(lambda: rows(here.gateway, "SELECT 1 FROM instance WHERE file_state = 'gone'"))
    target = exported(here, tmp_path / "berta.zip", "--patient", "ID-4711", "--issuer", "SOUTH")
    assert target.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["berta.zip"]
    with zipfile.ZipFile(target) as file:
        names = file.namelist()
        (row,) = json.loads(file.read("studies/1/study.json"))["instance"]
    assert (row["file_state"], row["path"]) == ("gone", None)
    assert not any(name.startswith("studies/1/image") for name in names)
    assert any(name.startswith("studies/1/result") for name in names)
