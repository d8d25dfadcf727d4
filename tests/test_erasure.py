"""The erasure of a patient by a gateway at work: nothing names the patient afterwards."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread

import processes
from aging import asked
from browsing import Site
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from test_mllp import serving
from test_proof import ALWAYS, OBJECTS
from ward import PERSONS, Ward, of_study

ANNA = {"PatientID": "NOR-4711", "IssuerOfPatientID": "NORTH", "PatientName": "Ännasdottir^Anna"}
BERTA = {"PatientID": "SOU-4712", "IssuerOfPatientID": "NORTH", "PatientName": "Bertasdottir^B"}
NEEDLES = re.compile(rb"NOR-4711|nnasdottir|ACC-A1|ACC-A2", re.IGNORECASE)
"""The name as it is in ASCII, whatever the character set and the case."""
CHARACTERS = {"SpecificCharacterSet": "ISO_IR 100"}


@dataclass
class Hospital(Ward):
    """A ward whose results a RIS gets, too."""

    messages: list[str] | None = None


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("erasure")
    key = folder / "erasure.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    with Pacs("ARCHIVE", OBJECTS) as archive, serving() as (port, messages):
        gateway = Gateway(
            folder,
            archive,
            report={"sc": ALWAYS, "pr": ALWAYS},
            ups={"offer": True},
            erasure={"key_file": str(key)},
            web={"port": free_port()},
            lists={"hl7": [{"name": "ris", "host": "127.0.0.1", "port": port}]},
        )
        with gateway, Site(folder, config=gateway.config, persons=PERSONS) as site:
            yield Hospital(gateway, archive, site, messages=messages)


def erase(
    ward: Ward, *arguments: str, patient: str = "NOR-4711"
) -> subprocess.CompletedProcess[str]:
    config = str(ward.gateway.config)
    named = ("--patient", patient, "--reason", "request 12/2026")
    return processes.run("erase", "--config", config, *named, *arguments)


def naming(*folders: Path) -> dict[str, set[bytes]]:
    """Return the files in which something names the patient, as text or within DICOM."""
    found = {}
    for folder in folders:
        for path in [folder] if folder.is_file() else folder.rglob("*"):
            if path.is_file() and (there := set(NEEDLES.findall(path.read_bytes()))):
                found[path.name] = there
    return found


def state(ward: Ward) -> tuple[set[Path], list[int]]:
    tables = ("study", "instance", "result", "outbox", "worklist", "verdict", "workitem")
    files = set(ward.gateway.data_folder.rglob("*.dcm"))
    counts = [rows(ward.gateway, f"SELECT count(*) AS n FROM {one}")[0]["n"] for one in tables]
    return files, counts


def live(ward: Ward, study: str) -> None:
    """Have a day's work name the patient wherever it can."""
    statement = "SELECT sop_instance_uid FROM result WHERE study_instance_uid = ? AND kind = 'sr'"
    report = rows(ward.gateway, statement, study)[-1]["sop_instance_uid"]
    with ward.site.client("reader") as client:
        assert client.get("/", params={"text": "Ännasdottir"}).status_code == 200
        page = client.get(f"/study/{study}").text
        for address in re.findall(r'"(/study/[^"]+\.png\?view=[^"]+)"', page):
            client.get(address.replace("&amp;", "&"))
        form = {"opinion": "agree", "report": report, "comment": "Anna Ännasdottir, NOR-4711"}
        assert client.post(f"/study/{study}/verdict", data=form).status_code == 303
    with ward.site.client("auditor") as client:
        assert client.get("/audit", params={"patient_id": "NOR-4711"}).status_code == 200
    asked(ward.gateway, "status", "ACC-A1")
    held = ("--reason", "Ms. Ännasdottir, Anna (NOR-4711) wants it")
    asked(ward.gateway, "hold", "add", "--patient", "NOR-4711", *held)
    orphans = ward.gateway.data_folder / "orphans"
    orphans.mkdir(exist_ok=True)
    chest(**ANNA, **CHARACTERS).save_as(orphans / "1.dcm", enforce_file_format=True)
    chest(**BERTA).save_as(orphans / "2.dcm", enforce_file_format=True)


def test_nothing_names_an_erased_patient_and_the_audit_still_verifies(here: Hospital) -> None:
    gateway, folder = here.gateway, here.gateway.data_folder
    images = of_study(2, AccessionNumber="ACC-A1", **CHARACTERS, **ANNA)
    anna = here.send(*images)
    here.send(*of_study(1, AccessionNumber="ACC-A2", BodyPartExamined="HAND", **CHARACTERS, **ANNA))
    berta = here.send(*of_study(1, AccessionNumber="ACC-B1", **BERTA))
    live(here, anna)
    assert {"thoracle.sqlite", "1.dcm"} <= set(naming(folder))

    before = state(here)
    listed = erase(here)
    assert listed.returncode == 0, listed.stderr
    assert f"study {anna}, its result is at a destination" in listed.stdout
    assert "nothing was changed" in listed.stdout
    (seen,) = [one for one in gateway.events("list viewed") if one.get("patient_id") == "NOR-4711"]
    assert anna in seen["detail"]["studies"]
    assert state(here) == before

    refused = erase(here, "--execute")
    assert refused.returncode == 1
    assert "not erased: legal hold 1" in refused.stderr
    assert state(here) == before
    asked(gateway, "hold", "release", "1")

    messages = len(here.messages or [])
    done = erase(here, "--execute")
    assert done.returncode == 0, done.stdout + done.stderr
    pseudonym = re.findall(r"erased as (erased-[0-9a-f]{32})", done.stdout)[0]

    # Nothing that the gateway keeps: database, its log, free pages, files, logs. It still runs.
    assert naming(folder, gateway.log, here.site.log) == {}
    assert (folder / "orphans" / "2.dcm").exists()
    assert not rows(gateway, "SELECT 1 FROM study WHERE study_instance_uid = ?", anna)
    engine = "SELECT 1 FROM workflow_status WHERE inputs LIKE ? OR workflow_uuid LIKE ?"
    assert not rows(gateway, engine, f"%{anna}%", f"%{anna}%")
    # Destinations were told.
    arrived = [one for kept in here.archive.kept.values() for one in kept]
    assert any(b"erased from the system" in one for one in arrived)
    assert any("erased from the system" in one for one in (here.messages or [])[messages:])
    # The audit holds, and answers by the pseudonym.
    assert "OK:" in asked(gateway, "audit", "verify")
    told = asked(gateway, "audit", "--patient", pseudonym, "--json").splitlines()
    events = {json.loads(one)["event"] for one in told}
    assert {"instance stored", "image read", "delivery succeeded", "patient erased"} <= events
    (question,) = asked(gateway, "audit", "--patient", "NOR-4711", "--json").splitlines()
    assert json.loads(question)["event"] == "audit read"  # this one
    # Nobody else has lost anything.
    assert rows(gateway, "SELECT 1 FROM worklist WHERE study_instance_uid = ?", berta)
    assert gateway.events("image read", berta)[0]["patient_id"] == "SOU-4712"
    assert all(dcmread(one) for one in (folder / "images").rglob("*.dcm"))

    # The same images may come again, and are read again.
    for image in images:
        assert send(gateway.port, image).status == 0x0000
    assert concluded(gateway, anna)["state"] == "done"
    assert eventually(lambda: not here.states(anna) & {"waiting", "sent"})


def test_without_a_key_or_a_known_patient_nothing_is_begun(here: Hospital) -> None:
    unknown = erase(here, "--execute", patient="NOBODY-1")
    assert unknown.returncode == 1
    assert "found no patient with this ID" in unknown.stderr
    other = here.gateway.folder / "without.toml"
    other.write_text(here.gateway.config.read_text().replace("[erasure]\nkey_file", "[erasure]\n#"))
    named = ("--patient", "SOU-4712", "--reason", "x")
    done = processes.run("erase", "--config", str(other), *named)
    assert done.returncode == 1
    assert "erasure.key_file: found none, required: a file with 32 random bytes" in done.stderr


def test_a_study_of_two_patients_goes_only_when_that_is_said(here: Hospital) -> None:
    mixed = of_study(2, AccessionNumber="ACC-M1", PatientID="MIX-1", PatientName="One^Mix")
    mixed[1].PatientID, mixed[1].PatientName = "MIX-2", "Two^Mix"
    study = str(mixed[0].StudyInstanceUID)
    for image in mixed:
        assert send(here.gateway.port, image).status == 0x0000
    done = "SELECT 1 FROM analysis WHERE study_instance_uid = ? AND state = 'done'"
    eventually(lambda: len(rows(here.gateway, done, study)) == 2)
    eventually(lambda: not here.states(study) & {"waiting", "sent"})
    refused = erase(here, "--execute", "--without-notice", patient="MIX-1")
    assert refused.returncode == 1
    assert f"found images of another patient in {study}, required: --mixed" in refused.stderr
    erased = erase(here, "--execute", "--without-notice", "--mixed", patient="MIX-1")
    assert erased.returncode == 0, erased.stdout + erased.stderr
    assert not rows(here.gateway, "SELECT 1 FROM instance WHERE study_instance_uid = ?", study)
    kept = {one.get("patient_id") for one in here.gateway.events(study=study)}
    assert "MIX-1" not in kept
    assert "MIX-2" in kept
    assert "OK:" in asked(here.gateway, "audit", "verify")
