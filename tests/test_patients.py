"""Whose images they are: several patients in one study, one patient under two identifiers."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from sqlalchemy import Engine, text

from gateway import Gateway
from ledger import eventually, rows
from sender import send, small
from sources import NOON
from thoracle.receive.inbox import Inbox, file_name
from thoracle.report.builder import Builder
from thoracle.settings import Receive
from thoracle.store import database, files
from thoracle.store import engine as durable
from thoracle.study import instances
from thoracle.study.reconciliation import Patient

STATUS = 0x0000


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway without destinations."""
    with Gateway(tmp_path_factory.mktemp("patients")) as gateway:
        yield gateway


def reports(gateway: Gateway, study: str, number: int) -> list[Dataset]:
    """Return the reports on a study, the oldest first, once there are so many."""
    statement = (
        "SELECT path FROM result WHERE study_instance_uid = ? AND kind = 'sr' "
        "ORDER BY generation, created_at"
    )
    found = eventually(lambda: _of(rows(gateway, statement, study), number))
    return [dcmread(gateway.data_folder / row["path"]) for row in found]


def _of(found: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return found if len(found) >= number else []


def images_of(report: Dataset) -> list[str]:
    """Return the SOP Instance UIDs that a report is about."""
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    return [one.ReferencedSOPInstanceUID for each in series for one in each.ReferencedSOPSequence]


def state_of(gateway: Gateway, study: str) -> str | None:
    """Return what is known of a study whose patients differ."""
    statement = "SELECT state FROM reconciliation WHERE study_instance_uid = ?"
    found = rows(gateway, statement, study)
    return found[0]["state"] if found else None


def pair(first: str, second: str) -> tuple[Dataset, Dataset]:
    """Return two images of one study, each of a patient of its own."""
    study = generate_uid()
    return (
        small(PatientID=first, PatientName="Test^First", StudyInstanceUID=study),
        small(PatientID=second, PatientName="Test^Second", StudyInstanceUID=study),
    )


def test_each_patient_in_a_study_gets_a_report_of_its_own_until_they_are_merged(
    here: Gateway,
) -> None:
    old, new = pair("OLD-1", "NEW-1")
    study = str(old.StudyInstanceUID)
    assert [send(here.port, one).status for one in (old, new)] == [STATUS] * 2
    found = {str(one.PatientID): images_of(one) for one in reports(here, study, 2)}
    assert found == {"OLD-1": [old.SOPInstanceUID], "NEW-1": [new.SOPInstanceUID]}
    assert state_of(here, study) == "open"
    assert len(here.events("patients differ", study)) == 1
    assert here.run("reconcile", study).split() == ["OLD-1", "NEW-1"]
    assert len(here.events("study viewed", study)) == 1
    here.run("reconcile", study, "--same", "NEW-1")
    *before, merged = reports(here, study, 3)
    assert (merged.PatientID, merged.PatientName) == ("NEW-1", "Test^Second")
    assert sorted(images_of(merged)) == sorted([old.SOPInstanceUID, new.SOPInstanceUID])
    (replaced,) = merged.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    (named,) = replaced.ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == before[-1].SOPInstanceUID
    assert state_of(here, study) == "same"
    (row,) = rows(here, "SELECT * FROM worklist WHERE study_instance_uid = ?", study)
    assert (row["patient_id"], row["patient_name"]) == ("NEW-1", "Test^Second")


def test_an_image_sent_again_after_a_merge_waits_and_then_corrects_the_report(
    here: Gateway,
) -> None:
    image = small(PatientID="OLD-2")
    study = str(image.StudyInstanceUID)
    assert send(here.port, image).status == STATUS
    (first,) = reports(here, study, 1)
    assert first.PatientID == "OLD-2"
    image.PatientID = "NEW-2"
    assert send(here.port, image).status == STATUS
    assert state_of(here, study) == "open"
    (row,) = rows(here, "SELECT patient_id FROM study WHERE study_instance_uid = ?", study)
    assert row["patient_id"] == "OLD-2"
    here.run("reconcile", study, "--same", "NEW-2")
    _, second = reports(here, study, 2)
    assert (second.PatientID, images_of(second)) == ("NEW-2", [image.SOPInstanceUID])
    assert "PredecessorDocumentsSequence" in second


def test_different_patients_keep_the_reports_that_they_have(here: Gateway) -> None:
    old, new = pair("A-3", "B-3")
    study = str(old.StudyInstanceUID)
    assert [send(here.port, one).status for one in (old, new)] == [STATUS] * 2
    reports(here, study, 2)
    here.run("reconcile", study, "--different")
    eventually(lambda: state_of(here, study) == "different")
    assert len(here.events("patients reconciled", study)) == 1
    assert len(reports(here, study, 2)) == 2
    another = small(PatientID="B-3", StudyInstanceUID=study)
    assert send(here.port, another).status == STATUS  # of these two it has been settled
    assert {str(one.PatientID) for one in reports(here, study, 3)[2:]} == {"B-3"}
    assert state_of(here, study) == "different"


def test_padding_and_an_issuer_that_is_not_said_make_no_other_patient(here: Gateway) -> None:
    # The report has the patient of the image with the lesser UID.
    first, second = sorted(pair("", ""), key=lambda ds: str(ds.SOPInstanceUID))
    first.PatientID, second.PatientID = " SAME-4", "SAME-4 "
    second.IssuerOfPatientID = "HOSPITAL"
    study = str(first.StudyInstanceUID)
    assert [send(here.port, one).status for one in (first, second)] == [STATUS] * 2
    (report, *_) = reports(here, study, 1)
    assert report.PatientID == "SAME-4"
    assert state_of(here, study) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("P", ""), ("P", "H"), True),
        (("P", "H"), ("P", "I"), False),
        (("P", ""), ("Q", ""), False),
        (("p", ""), ("P", ""), False),
        (("007", ""), ("7", ""), False),
        ((" P ", ""), ("P\0", ""), True),
        (("Mu\u0308", "H"), ("M\u00fc", "H"), True),
    ],
)
def test_who_is_the_same(one: tuple[str, str], other: tuple[str, str], same: bool) -> None:
    first, second = (
        Patient.of(SimpleNamespace(patient_id=patient_id, issuer_of_patient_id=issuer))
        for patient_id, issuer in (one, other)
    )
    assert first.is_same(second) is same


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_a_corrected_image_says_what_it_said_before_in_any_character_set(
    syntax: UID, tmp_path: Path
) -> None:
    image = small(PatientID="OLD", PatientName="M\xfcller", SpecificCharacterSet="ISO_IR 100")
    image.DataSetTrailingPadding = b"\1\2"
    model = small(PatientID="NEW", PatientName="\u5c71\u7530", SpecificCharacterSet="ISO_IR 192")
    before, after = tmp_path / "image.dcm", tmp_path / "model.dcm"
    for ds, path in ((image, before), (model, after)):
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path, enforce_file_format=True)
    with Builder(memory_megabytes=1024, timeout_seconds=60) as builder:
        begins = builder.with_patient_of(before, after, NOON)
    made = tmp_path / "made.dcm"
    digest = files.write_durably(made, begins.content, behind=(before, begins.offset))
    assert digest == hashlib.sha256(made.read_bytes()).hexdigest()
    read = dcmread(made)
    assert (read.PatientID, str(read.PatientName)) == ("NEW", "\u5c71\u7530")
    (noted,) = read.OriginalAttributesSequence[0].ModifiedAttributesSequence
    assert (noted.PatientID, str(noted.PatientName)) == ("OLD", "M\xfcller")
    assert (read.PixelData, read.DataSetTrailingPadding) == (image.PixelData, b"\1\2")


# ---- what a crash leaves in between --------------------------------------------------------------


def unfinished(folder: Path, owner: str) -> tuple[Engine, Inbox, list[Path]]:
    """Return files of a correction that a crash interrupted, and of one that has no workflow."""
    engine = database.open_database(database.sqlite_url(folder))
    durable.make_tables(engine)
    inbox = Inbox(folder, Receive(), owner)
    paths = []
    for number in range(2):
        name = file_name(owner)
        paths.append(folder / "images" / name[:2] / name)
        paths[-1].write_bytes(bytes([number]))
    made = json.dumps({"path": str(paths[0].relative_to(folder)), "size": 1})
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO workflow_status (workflow_uuid, status, name) "
                "VALUES ('reconcile:1', 'PENDING', 'reconcile')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, output) "
                "VALUES ('reconcile:1', 2, 'correct patient', :made)"
            ),
            {"made": made},
        )
    return engine, inbox, paths


@pytest.mark.parametrize("owner", ["", "host-1-abcd0123"])
def test_a_corrected_image_that_gets_its_row_after_a_crash_is_not_set_aside(
    tmp_path: Path, owner: str
) -> None:
    """The workflow goes on with the file that it has made: it makes no second one."""
    engine, inbox, (made, left) = unfinished(tmp_path, owner)

    def known() -> set[str]:
        with engine.connect() as connection:
            return instances.known_paths(connection)

    if owner:
        assert inbox.clear_of_others(lambda: {owner}, known) == 0
        number = inbox.clear_of_others(lambda: {"host-1-ffff"}, known)
    else:
        number = inbox.clear_unfinished(known())
    assert number == 1
    assert (made.exists(), left.exists()) == (True, False)
    with engine.begin() as connection:
        connection.execute(text("UPDATE workflow_status SET status = 'ERROR'"))
    assert known() == set()
    engine.dispose()
