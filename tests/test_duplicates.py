"""What a SOP Instance UID that has been here before is: a repetition, a correction or an error."""

from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from gateway import Gateway
from ledger import concluded, events, residue, rows
from sender import Sender, send, small

SUCCESS, CANNOT_UNDERSTAND = 0x0000, 0xC000


def versions(gateway: Gateway, sop_instance_uid: str) -> list[dict[str, Any]]:
    """The rows of an instance, by version."""
    statement = "SELECT * FROM instance WHERE sop_instance_uid = ? ORDER BY version"
    return rows(gateway, statement, sop_instance_uid)


def test_the_same_bytes_again_are_the_same_object(gateway: Gateway) -> None:
    ds = small()
    assert [send(gateway.port, ds).status for _ in range(3)] == [SUCCESS] * 3
    assert len(versions(gateway, ds.SOPInstanceUID)) == 1
    assert len(events(gateway, "instance stored", ds.SOPInstanceUID)) == 1
    assert len(events(gateway, "instance duplicate", ds.SOPInstanceUID)) == 2
    assert residue(gateway) == []


def test_a_corrected_header_is_a_second_version_and_no_second_analysis(gateway: Gateway) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    concluded(gateway, ds.StudyInstanceUID)
    ds.PatientName = "Doe^Janet"
    assert send(gateway.port, ds).status == SUCCESS
    first, second = versions(gateway, ds.SOPInstanceUID)
    assert (first["version"], second["version"]) == (1, 2)
    assert first["generation"] == second["generation"] == 1
    assert len(events(gateway, "instance corrected", ds.SOPInstanceUID)) == 1
    later = small()  # when its study is complete, the other one's quiet period is over too
    assert send(gateway.port, later).status == SUCCESS
    concluded(gateway, later.StudyInstanceUID)
    statement = "SELECT * FROM analysis WHERE study_instance_uid = ?"
    assert len(rows(gateway, statement, ds.StudyInstanceUID)) == 1


def test_a_correction_before_the_analysis_is_what_gets_analysed(gateway: Gateway) -> None:
    ds = small()
    with Sender(gateway.port) as sender:
        assert sender.store(ds).status == SUCCESS
        ds.BodyPartExamined = "HAND"
        assert sender.store(ds).status == SUCCESS
    assert concluded(gateway, ds.StudyInstanceUID)["reason_code"] == "NOT-CHEST"


@pytest.mark.parametrize(
    "change",
    [
        {"PatientID": "P2"},
        {"IssuerOfPatientID": "OTHER"},
        {"StudyInstanceUID": generate_uid()},
        {"PixelData": bytes(32 * 32 * 2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_known_uid_with_another_patient_study_or_picture_is_refused(
    gateway: Gateway, change: dict[str, Any]
) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    answer = send(gateway.port, ds)
    assert answer.status == CANNOT_UNDERSTAND
    assert answer.comment.startswith("SOP Instance UID is known with ")
    assert len(versions(gateway, ds.SOPInstanceUID)) == 1
    assert residue(gateway) == []


def test_the_same_object_in_another_transfer_syntax_is_another_version(gateway: Gateway) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert send(gateway.port, ds).status == SUCCESS
    syntaxes = [row["transfer_syntax_uid"] for row in versions(gateway, ds.SOPInstanceUID)]
    assert syntaxes == [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@pytest.mark.parametrize(
    ("attributes", "priority"),
    [({"RequestedProcedurePriority": "STAT"}, 1), ({"StudyPriorityID": "HIGH"}, 1), ({}, 100)],
    ids=["STAT", "HIGH", "none"],
)
def test_a_study_marked_urgent_goes_first(
    gateway: Gateway, attributes: dict[str, str], priority: int
) -> None:
    ds = small(**attributes)
    assert send(gateway.port, ds).status == SUCCESS
    assert concluded(gateway, ds.StudyInstanceUID)["priority"] == priority
