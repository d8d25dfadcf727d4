"""The straight line as its users see it: images in, reports in the archive, rows in the audit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from demo import answer
from gateway import Gateway
from pacs import Pacs
from radiographs import FULL_12_BIT, lungs, radiograph
from sender import Sender


@pytest.fixture(scope="module")
def archive() -> Iterator[Pacs]:
    with Pacs() as pacs:
        yield pacs


@pytest.fixture(scope="module")
def gateway(archive: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), archive) as running:
        yield running


def image(study: str, **attributes: object) -> Dataset:
    """Return a frontal chest radiograph of a study."""
    return radiograph(lungs(), **FULL_12_BIT, StudyInstanceUID=study, **attributes)


def send(gateway: Gateway, *images: Dataset) -> None:
    with Sender(gateway.port) as sender:
        for ds in images:
            assert sender.store(ds).status == 0x0000


def reports(archive: Pacs, study: str, number: int) -> list[Dataset]:
    """Wait for so many reports on a study and return them, oldest first."""
    archive.wait_until(lambda: len(archive.reports_on(study)) >= number, seconds=180)
    return archive.reports_on(study)


def test_one_report_answers_for_every_image_of_a_study(gateway: Gateway, archive: Pacs) -> None:
    study = generate_uid()
    frontal = image(study)
    lateral = image(study, ViewPosition="LL", PatientOrientation=["A", "F"])
    send(gateway, frontal, lateral)
    (report,) = reports(archive, study, 1)
    assert "probability" in answer(report, frontal.SOPInstanceUID)
    assert "NOT-FRONTAL" in answer(report, lateral.SOPInstanceUID)


def test_a_late_image_makes_a_report_that_names_its_predecessor(
    gateway: Gateway, archive: Pacs
) -> None:
    study = generate_uid()
    send(gateway, image(study))
    (first,) = reports(archive, study, 1)
    send(gateway, image(study))
    second = reports(archive, study, 2)[1]
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first
    evidence = second.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert len(evidence) == 3  # two of the modality, one of our pictures


def test_the_same_study_sent_again_is_analysed_once(gateway: Gateway, archive: Pacs) -> None:
    study = generate_uid()
    ds = image(study)
    send(gateway, ds)
    reports(archive, study, 1)
    send(gateway, ds)
    other = generate_uid()  # goes through the same queues, behind it
    send(gateway, image(other))
    reports(archive, other, 1)
    events = [event["event"] for event in gateway.events(study=study)]
    assert events.count("instance duplicate") == 1
    assert events.count("study complete") == 1
    assert len(archive.reports_on(study)) == 1


def audit(gateway: Gateway, *options: str) -> list[dict[str, Any]]:
    """Return what the command says."""
    return [json.loads(line) for line in gateway.run("audit", "--json", *options).splitlines()]


def test_the_audit_tells_a_study_from_reception_to_delivery(
    gateway: Gateway, archive: Pacs
) -> None:
    study = generate_uid()
    ds = image(study, AccessionNumber="ACC-7", PatientID="PAT-7")
    send(gateway, ds)
    (report,) = reports(archive, study, 1)
    gateway.wait_for_event("delivery succeeded", study)
    for option in (("--study", study), ("--accession", "ACC-7"), ("--patient", "PAT-7")):
        events = [e for e in audit(gateway, *option) if e["event"] != "audit read"]
        assert [event["event"] for event in events] == [
            "instance stored",
            "study complete",
            "image read",
            "result created",  # the report
            "result created",  # the picture, which this archive does not take
            "delivery sent",
            "proof requested",
            "proof answered",  # that it offers none
            "delivery succeeded",
        ]
    read, proven = events[2], events[-1]
    assert read["sop_instance_uid"] == ds.SOPInstanceUID
    assert set(read["detail"]["seconds"]) == {"select", "pixels", "classify"}
    assert proven["result_sop_instance_uid"] == report.SOPInstanceUID
    assert (proven["proof"], proven["status"]) == ("status", "0x0000")
    assert audit(gateway, "--study", study, "--until", "2020-01-01") == []


def test_reading_the_audit_is_itself_audited(gateway: Gateway) -> None:
    audit(gateway, "--patient", "SOMEBODY")
    row = audit(gateway, "--patient", "SOMEBODY")[0]
    assert (row["event"], row["event_id"]) == ("audit read", "110101")


def test_status_says_what_is_where(gateway: Gateway, archive: Pacs) -> None:
    study = generate_uid()
    send(gateway, image(study))
    reports(archive, study, 1)
    gateway.wait_for_event("delivery succeeded", study)
    said = json.loads(gateway.run("status", study, "--json"))
    (row,) = said["studies"]
    assert row["state"] == "done"
    assert [(one["peer"], one["state"], one["proof"]) for one in row["outbox"]] == [
        ("pacs", "delivered", "status")
    ]
    assert study in gateway.run("status")


def test_the_gateway_and_the_command_line_read_alike(gateway: Gateway, archive: Pacs) -> None:
    path = str(get_testdata_file("RG1_UNCR.dcm", download=False))
    ds = dcmread(path)
    send(gateway, ds)
    (report,) = reports(archive, ds.StudyInstanceUID, 1)
    said = json.loads(gateway.run("analyse", path, "--json"))
    text = answer(report, ds.SOPInstanceUID)
    assert text.startswith(said["outcome"])
    assert float(text.split()[-2]) == pytest.approx(said["probability"] * 100, abs=0.01)


def test_no_word_of_the_patient_is_in_the_log(gateway: Gateway, archive: Pacs) -> None:
    study = generate_uid()
    send(gateway, image(study, PatientName="SECRETNAME^X", PatientID="SECRETID"))
    reports(archive, study, 1)
    assert "SECRET" not in gateway.log.read_text()


def test_names_of_stored_files_are_ours(gateway: Gateway) -> None:
    names = [path.stem for path in Path(gateway.data_folder, "images").glob("*/*")]
    assert names
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)
