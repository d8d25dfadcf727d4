"""A result can be withdrawn long after its images and files have gone by the rules of retention."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

import processes
from aging import age, asked
from browsing import Site
from gateway import Gateway, destination
from ledger import eventually, rows
from pacs import Pacs, free_port
from sender import send
from test_mllp import serving
from test_proof import ALWAYS, OBJECTS
from thoracle.classify import bundle
from thoracle.hl7 import oru
from thoracle.hl7.oru import ReportReference
from thoracle.image.header import header_of
from thoracle.report import header, keyobject, sentences, sr
from thoracle.report.header import Instance
from thoracle.settings import load
from ward import PERSONS, Ward, of_study
from workflow import Station

REASON = "Wrong side: see the letter of 2026-01-02"
NAME = "Müller^Jürgen"


@dataclass
class Long(Ward):
    """A ward whose archive takes rejection notes, and an information system that is told."""

    messages: list[str] | None = None

    def purged(self, *images: Dataset, days: int = 8) -> str:
        """Return a study of which everything is proven, so many days ago, and purged."""
        study = self.send(*images)
        eventually(lambda: self.told(study) == {"delivered"})
        age(self.gateway.data_folder, study, days)
        asked(self.gateway, "retention", "run")
        return study

    def told(self, study: str) -> set[str]:
        """Return the states of the messages about a study."""
        statement = (
            "SELECT DISTINCT state FROM outbox JOIN result USING (sop_instance_uid) "
            "WHERE study_instance_uid = ? AND outbox.kind = 'hl7'"
        )
        return {row["state"] for row in rows(self.gateway, statement, study)}

    def files(self, table: str, study: str) -> list[dict[str, Any]]:
        """Return the rows of a study's images or results."""
        statement = f"SELECT * FROM {table} WHERE study_instance_uid = ?"
        return rows(self.gateway, statement, study)

    def content(self, row: dict[str, Any]) -> bytes:
        """Return the file of a row."""
        path: Path = self.gateway.data_folder / row["path"]
        return path.read_bytes()

    def headers(self, study: str) -> list[dict[str, Any]]:
        """Return the headers that are kept."""
        statement = "SELECT * FROM header WHERE study_instance_uid = ? ORDER BY sop_instance_uid"
        return rows(self.gateway, statement, study)

    def corrected(self, study: str) -> dict[str, list[dict[str, Any]]]:
        """Return what a withdrawal made, by kind, when it is there, sent and told."""
        self.gateway.wait_for_event("result withdrawn", study)
        eventually(lambda: not self.states(study) & {"waiting", "sent"})
        eventually(lambda: self.told(study) == {"delivered"})
        statement = "SELECT * FROM result WHERE study_instance_uid = ? ORDER BY created_at"
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows(self.gateway, statement, study):
            found.setdefault(row["kind"], []).append(row)
        return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Long]:
    folder = tmp_path_factory.mktemp("later")
    with ExitStack() as stack:
        archive = stack.enter_context(Pacs("ARCHIVE", OBJECTS))
        port, messages = stack.enter_context(serving())
        station = stack.enter_context(Station())
        subscriber = {"ae_title": station.ae_title, "host": "127.0.0.1", "port": station.port}
        gateway = Gateway(
            folder,
            destination(archive, rejection_note=True),
            report={"sc": ALWAYS, "pr": ALWAYS},
            web={"port": free_port()},
            ups={"offer": True, "outcomes": [*ALWAYS, "rejected"]},
            lists={
                "hl7": [{"name": "ris", "host": "127.0.0.1", "port": port}],
                "subscriber": [subscriber],
            },
        )
        stack.enter_context(gateway)
        site = stack.enter_context(Site(folder, config=gateway.config, persons=PERSONS))
        yield Long(gateway, archive, site, messages=messages)


def test_a_withdrawal_after_the_images_has_the_bytes_of_one_before(
    here: Long, tmp_path: Path
) -> None:
    study = here.send(
        *of_study(2, PatientID="P1", PatientName=NAME, SpecificCharacterSet="ISO_IR 100")
    )
    eventually(lambda: here.told(study) == {"delivered"})
    statement = "SELECT path FROM instance WHERE study_instance_uid = ? ORDER BY sop_instance_uid"
    paths = [here.gateway.data_folder / row["path"] for row in rows(here.gateway, statement, study)]
    images = [Path(shutil.copy(path, tmp_path)) for path in paths]
    # Nothing but rows is left: neither images nor results.
    age(here.gateway.data_folder, study, 40)
    asked(here.gateway, "retention", "run")
    assert not any(path.exists() for path in paths)
    assert {row["file_state"] for row in here.files("result", study)} == {"gone"}
    assert len(here.headers(study)) == 2
    before = {row["sop_instance_uid"] for row in here.files("result", study)}

    here.gateway.run("withdraw", study, "--reason", REASON)
    made = here.corrected(study)
    first, report = made["sr"]
    (note,) = made["rejection"]
    assert {row["kind"] for row in here.files("result", study)} >= {"sr", "rejection", "sc", "pr"}

    # The same, of the images.
    sources = [header_of(path) for path in images]
    sent = dcmread(here.gateway.data_folder / report["path"])
    moment = sent.ContributingEquipmentSequence[0].ContributionDateTime
    common: dict[str, Any] = {
        "content_datetime": datetime.strptime(moment, "%Y%m%d%H%M%S.%f%z").astimezone(),
        "settings": load(here.gateway.config).report,
    }
    identity = bundle.identify(load(here.gateway.config).classify)
    predecessor = Instance(
        first["sop_class_uid"], first["sop_instance_uid"], first["series_instance_uid"]
    )
    when = datetime.fromisoformat(first["created_at"]).astimezone()
    again = sr.withdrawal(sources, predecessor, REASON, identity, made=when, **common)
    assert here.content(report) == header.encode(again)
    assert str(sent.PatientName) == NAME

    statement = (
        "SELECT delivered_sop_class_uid, delivered_sop_instance_uid, series_instance_uid "
        "FROM outbox JOIN result USING (sop_instance_uid) WHERE study_instance_uid = ? "
        "AND outbox.kind = 'dicom'"
    )
    named = [Instance(*row.values()) for row in rows(here.gateway, statement, study)]
    ours = [one for one in named if one.sop_instance_uid in before]
    again = keyobject.rejection(ours, sources, identity, **common)
    assert here.content(note) == header.encode(again)

    statement = "SELECT * FROM outbox WHERE kind = 'hl7' AND item = ?"
    (message,) = rows(here.gateway, statement, report["sop_instance_uid"])
    (receiver,) = load(here.gateway.config).hl7
    assert here.content(message) == oru.oru(
        sources[0],
        sr.withdrawn(sources),
        identity,
        ReportReference(report["series_instance_uid"], report["sop_instance_uid"]),
        receiver,
        sentence=sentences.withdrawal(REASON, when, identity.finding),
        control_id=Path(message["path"]).stem,
        made=common["content_datetime"],
        status="withdrawn",
    )
    assert here.messages is not None
    assert any(REASON in one and "Müller" in one for one in here.messages)
    # Everybody hears of it: who reads worklists, and who asks.
    statement = "SELECT state FROM workitem WHERE study_instance_uid = ?"
    assert rows(here.gateway, statement, study) == [{"state": "CANCELED"}]
    with here.site.client("reader") as client:
        answer = client.get(f"/fhir/DiagnosticReport/{study}")
        assert answer.json()["status"] == "entered-in-error"
    sentence = "2 files deleted by the rule for images after 7 days."
    said = asked(here.gateway, "audit", "why", study)
    assert f"{sentence} 2 headers kept, so that the result can be withdrawn." in said


def test_the_page_withdraws_without_images_and_reading_again_says_why_it_needs_them(
    here: Long,
) -> None:
    image = of_study(1, PatientID="P2")[0]
    study = here.purged(image)
    with here.site.client("administrator") as client:
        answer = client.post(f"/study/{study}/reanalyse")
        assert answer.status_code == 409
        assert "no longer kept, required: the pixels of all, to read them:" in answer.text
        assert "withdrawing its result needs no images" in answer.text
        answer = client.post(f"/study/{study}/withdraw", data={"reason": REASON})
        assert answer.status_code == 303
        assert len(here.corrected(study)["sr"]) == 2
        assert REASON in client.get(f"/study/{study}").text
    (said,) = asked_of_replay(here.gateway, study)
    assert said == "found 0 of 1 images kept, required: all; images are gone by retention"
    # Withdrawn once, it is withdrawn; and sent again, it can be read again.
    with pytest.raises(subprocess.CalledProcessError) as refused:
        here.gateway.run("withdraw", study, "--reason", REASON)
    assert "found no active result" in refused.value.stderr
    assert send(here.gateway.port, image).status == 0x0000
    here.gateway.run("reanalyse", study)
    eventually(lambda: len(here.files("analysis", study)) == 2)


def asked_of_replay(gateway: Gateway, study: str) -> list[str]:
    """Return why an analysis cannot be run again, without the time."""
    done = processes.run("audit", "replay", "--json", study, "--config", str(gateway.config))
    found = json.loads(done.stdout)
    assert (done.returncode, found["outcome"]) == (1, "impossible")
    return [found["what"].split(" since ")[0]]


def test_what_was_purged_by_an_earlier_version_needs_its_images_again(here: Long) -> None:
    image = of_study(1, PatientID="P3")[0]
    study = here.purged(image)
    with changed(here.gateway.data_folder) as store:  # that version kept no headers
        store.execute("DELETE FROM header WHERE study_instance_uid = ?", (study,))
    for command in (("reanalyse", study), ("withdraw", study, "--reason", REASON)):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            here.gateway.run(*command)
        assert "found 1 images that are no longer kept" in refused.value.stderr
        assert "have the archive send them again, then repeat the request\n" in refused.value.stderr
    assert send(here.gateway.port, image).status == 0x0000
    here.gateway.run("withdraw", study, "--reason", REASON)
    assert len(here.corrected(study)["sr"]) == 2


def test_a_corrected_header_is_the_one_that_is_kept(here: Long) -> None:
    image = of_study(1, PatientID="P4", PatientName="Before")[0]
    study = here.purged(image)
    image.PatientName = "Behind"
    assert send(here.gateway.port, image).status == 0x0000
    age(here.gateway.data_folder, study, 8)
    asked(here.gateway, "retention", "run")
    (kept,) = here.headers(study)
    assert kept["version"] == 2
    assert str(dcmread(BytesIO(kept["content"])).PatientName) == "Behind"
    here.gateway.run("withdraw", study, "--reason", REASON)
    report = here.corrected(study)["sr"][-1]
    assert str(dcmread(here.gateway.data_folder / report["path"]).PatientName) == "Behind"


def planned(here: Long, study: str) -> dict[str, Any]:
    """Return what the plan says of the headers of a study."""
    lines = asked(here.gateway, "retention", "plan", "--json", "--limit", "1000").splitlines()
    (found,) = (
        one
        for one in map(json.loads, lines)
        if (one["what"], one.get("study_instance_uid")) == ("headers", study)
    )
    return dict(found)


def test_headers_stay_while_the_result_stands_and_go_with_the_files_of_a_withdrawn_one(
    here: Long,
) -> None:
    study = here.purged(*of_study(2, PatientID="P5"), days=4000)
    assert len(here.headers(study)) == 2
    assert planned(here, study) == {
        "what": "headers",
        "study_instance_uid": study,
        "files": 2,
        "goes": False,
        "stays_because": ["the setting keeps them for ever"],
    }
    here.gateway.run("withdraw", study, "--reason", REASON)
    here.corrected(study)
    age(here.gateway.data_folder, study, 29)
    (why,) = planned(here, study)["stays_because"]
    assert why.endswith("required: 30 days")
    # The hold first: the gateway looks for what is due by itself.
    held = asked(here.gateway, "hold", "add", "--patient", "P5", "--reason", "case").split()[1]
    age(here.gateway.data_folder, study, 2)
    asked(here.gateway, "retention", "run")
    assert planned(here, study)["stays_because"] == [f"legal hold {held}"]
    asked(here.gateway, "hold", "release", held)
    asked(here.gateway, "retention", "run")
    assert here.headers(study) == []
    event = here.gateway.events("retention deleted", study)[-1]
    assert {name: event["detail"][name] for name in ("what", "files", "days")} == {
        "what": "headers",
        "files": 2,
        "days": 30,
    }
    assert (event["patient_id"], event["action"]) == ("P5", "D")
    said = asked(here.gateway, "audit", "why", study)
    assert "2 headers deleted by the rule for headers after 30 days." in said
    assert asked(here.gateway, "audit", "verify").startswith("OK")


def test_a_hospital_that_wants_them_gone_says_so(here: Long) -> None:
    study = here.purged(*of_study(1, PatientID="P6"), days=4000)
    config = here.gateway.folder / "shorter.toml"
    config.write_text(
        here.gateway.config.read_text() + "[retention]\nheaders_days_after_proof = 3999\n"
    )
    done = processes.run("retention", "run", "--config", str(config), check=True)
    assert "headers of 1 studies" in done.stdout
    assert here.headers(study) == []
    with pytest.raises(subprocess.CalledProcessError) as refused:
        here.gateway.run("withdraw", study, "--reason", REASON)
    assert "found 1 images that are no longer kept" in refused.value.stderr


def test_the_export_of_a_patient_has_what_is_kept_of_images(here: Long, tmp_path: Path) -> None:
    study = here.purged(*of_study(1, PatientID="P7", PatientName=NAME))
    asked(here.gateway, "subject-export", str(tmp_path / "export"), "--patient", "P7")
    (document,) = (tmp_path / "export").glob("studies/*/study.json")
    (row,) = json.loads(document.read_text())["header"]
    assert (row["path"], row["study_instance_uid"]) == ("header-1.dcm", study)
    kept = dcmread(document.with_name("header-1.dcm"))
    assert (str(kept.PatientName), kept.StudyInstanceUID) == (NAME, study)
    assert "header-1.dcm" in (tmp_path / "export" / "README.txt").read_text()


@contextmanager
def changed(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield the database, and commit."""
    with closing(sqlite3.connect(folder / "thoracle.sqlite", timeout=30)) as store, store:
        yield store
