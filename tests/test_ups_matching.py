"""Matching of workitems: each kind of PS3.4 Section C.2.2.2, on values and on an association."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.uid import generate_uid
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    UnifiedProcedureStepPull,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)
from sqlalchemy import select

import sources
from thoracle.store.tables import audit_event
from thoracle.ups.matching import answer, matches
from workflow import Reader, coded, data, everything
from workitem_listener import Listener

ITEM = data(
    SOPInstanceUID="1.2.3",
    ProcedureStepState="SCHEDULED",
    ProcedureStepLabel="Chest XR - AI: COVID-19 positive 91 % (research)",
    WorklistLabel="THORACLE",
    PatientName="Müller^Änne",
    PatientID="P1*",
    PatientBirthDate="19600315",
    StudyTime="101530",
    ScheduledProcedureStepStartDateTime="20261124101500+0000",
    ScheduledWorkitemCodeSequence=[coded("110005"), coded("110003")],
    InputReadinessState="READY",
    ReferencedRequestSequence=[
        data(AccessionNumber="A1", RequestedProcedureID="R1"),
        data(AccessionNumber="A2", RequestedProcedureID="R2"),
    ],
    ReplacedProcedureStepSequence=[],
    AdmissionID=None,
)
MATCHING: list[dict[str, Any]] = [
    {},
    {"PatientID": ""},
    {"AdmissionID": ""},
    {"ReplacedProcedureStepSequence": []},
    {"ReferencedRequestSequence": [Dataset()]},
    {"PatientID": "P1*"},
    {"PatientID": "P?*"},
    {"PatientID": "*"},
    {"ProcedureStepLabel": "*AI: COVID-19*"},
    {"ProcedureStepLabel": "Chest?XR*(research)"},
    {"PatientName": "müller^änne"},
    {"PatientName": "MÜLLER*"},
    {"PatientName": "Müller^Änne^^^"},
    {"SOPInstanceUID": "1.2.3"},
    {"SOPInstanceUID": ["1.2.4", "1.2.3"]},
    {"PatientBirthDate": "19600315"},
    {"PatientBirthDate": "19600101-19601231"},
    {"PatientBirthDate": "-19600315"},
    {"PatientBirthDate": "19600315-"},
    {"StudyTime": "10-11"},
    {"StudyTime": "1015-"},
    {"ScheduledProcedureStepStartDateTime": "20261124101500+0000"},
    {"ScheduledProcedureStepStartDateTime": "20261124111500+0100"},
    {"ScheduledProcedureStepStartDateTime": "20261124051500-0500"},
    {"ScheduledProcedureStepStartDateTime": "20261124+0000"},
    {"ScheduledProcedureStepStartDateTime": "20261124101500+0000-20261124101501+0000"},
    {"ScheduledProcedureStepStartDateTime": "20261124051459-0500-20261124051501-0500"},
    {"ScheduledProcedureStepStartDateTime": "2026+0000-"},
    {"ScheduledProcedureStepStartDateTime": "-20261124+0000"},
    {"ScheduledProcedureStepStartDateTime": "20261001-202611"},
    {"ScheduledProcedureStepStartDateTime": "202611241115-", "TimezoneOffsetFromUTC": "+0100"},
    {"ScheduledWorkitemCodeSequence": [coded("110003", meaning="x")]},
    {
        "ScheduledWorkitemCodeSequence": [
            data(CodeValue="110005", CodingSchemeDesignator="DCM", CodeMeaning="")
        ]
    },
    {"ReferencedRequestSequence": [data(AccessionNumber="A2", RequestedProcedureID="R2")]},
    {"SpecificCharacterSet": "ISO_IR 192", "ProcedureStepState": "SCHEDULED"},
]
NOT_MATCHING: list[dict[str, Any]] = [
    {"PatientID": "P1"},
    {"PatientID": "p1*"},
    {"ProcedureStepLabel": "*ai: covid-19*"},
    {"ProcedureStepLabel": "AI*"},
    {"AdmissionID": "*x"},
    {"AdmissionID": "X"},
    {"AccessionNumber": "A1"},
    {"PatientName": "Muller*"},
    {"SOPInstanceUID": "1.2"},
    {"SOPInstanceUID": ["1.2.4", "1.2.5"]},
    {"PatientBirthDate": "19600316-"},
    {"PatientBirthDate": "-19600314"},
    {"StudyTime": "11-"},
    {"ScheduledProcedureStepStartDateTime": "20261124101501+0000-"},
    {"ScheduledProcedureStepStartDateTime": "-20261124101459+0000"},
    {"ScheduledProcedureStepStartDateTime": "20261124101500+0100"},
    {"ScheduledProcedureStepStartDateTime": "202611241116-", "TimezoneOffsetFromUTC": "+0100"},
    {"ScheduledProcedureStepStartDateTime": "20261001-202610"},
    {"ScheduledWorkitemCodeSequence": [coded("110003", "99X")]},
    {"ReferencedRequestSequence": [data(AccessionNumber="A1", RequestedProcedureID="R2")]},
    {"ReplacedProcedureStepSequence": [data(ReferencedSOPInstanceUID="1.2")]},
    {"ProcedureStepState": "SCHEDULED", "InputReadinessState": "INCOMPLETE"},
]


@pytest.mark.parametrize("keys", MATCHING, ids=str)
def test_what_is_meant_to_match_does(keys: dict[str, Any]) -> None:
    assert matches(data(**keys), ITEM)


@pytest.mark.parametrize("keys", NOT_MATCHING, ids=str)
def test_what_is_not_meant_to_match_does_not(keys: dict[str, Any]) -> None:
    assert not matches(data(**keys), ITEM)


def test_an_answer_has_what_was_asked_for_and_nothing_else() -> None:
    asked = data(
        PatientName="",
        AccessionNumber="",
        ProcedureStepState="",
        ReferencedRequestSequence=[data(AccessionNumber="", PlacerOrderNumberProcedure="")],
        ScheduledWorkitemCodeSequence=[],
    )
    found = answer(asked, ITEM)
    assert {one.keyword for one in found} == {one.keyword for one in asked}
    assert found.PatientName == "Müller^Änne"
    assert found.AccessionNumber in (None, "")
    assert [one.AccessionNumber for one in found.ReferencedRequestSequence] == ["A1", "A2"]
    assert "RequestedProcedureID" not in found.ReferencedRequestSequence[0]
    assert [one.CodeValue for one in found.ScheduledWorkitemCodeSequence] == ["110005", "110003"]


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    item = data(ProcedureStepLabel="a" * 64)
    assert not matches(data(ProcedureStepLabel="*a" * 31 + "*b"), item)


@pytest.mark.parametrize(
    "sop_class",
    [UnifiedProcedureStepPull, UnifiedProcedureStepWatch, UnifiedProcedureStepQuery],
    ids=lambda one: one.name[-20:],
)
def test_workitems_are_found_by_each_service_that_has_a_query(
    tmp_path: Path, sop_class: Any
) -> None:
    listener = Listener(tmp_path)
    greek = sources.named(sources.GREEK, StudyInstanceUID=generate_uid())
    one, two = listener.offer(greek), listener.offer()
    with Reader(listener.port) as reader:
        assert {ds.SOPInstanceUID for ds in reader.find(sop_class=sop_class)} == {one, two}
        assert set(reader.statuses) == {0xFF00, 0x0000}
        asked = everything()
        asked.SpecificCharacterSet = "ISO_IR 126"
        asked.PatientName = "ΔΗΜΗΤΡΙΆΔΗΣ*"
        (found,) = reader.find(asked, sop_class)
        assert found.SOPInstanceUID == one
        assert found.SpecificCharacterSet == "ISO_IR 192"
        assert found.PatientName == sources.GREEK[1]
        assert found.SOPClassUID.name == "Unified Procedure Step - Push SOP Class"
        assert reader.claim(two) == 0
        (found,) = reader.find(data(ProcedureStepState="IN PROGRESS"), sop_class)
        assert found.SOPInstanceUID == two
        assert found.ProcedureStepState == "IN PROGRESS"
        assert reader.find(data(SOPInstanceUID=[one, "1.2.3"]), sop_class)[0].SOPInstanceUID == one
    with listener.database.connect() as connection:
        views = connection.execute(
            select(audit_event).where(audit_event.c.event == "list viewed")
        ).all()
    assert (views[0].calling_ae_title, views[0].detail["workitems"]) == ("READER", 2)
    assert len(views[0].detail["studies"]) == 2
    listener.stop()


def test_a_query_can_be_canceled_while_matches_come(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    for _ in range(300):
        listener.offer()
    with Reader(listener.port) as reader:
        statuses = []
        for status, _ in reader.assoc.send_c_find(everything(), UnifiedProcedureStepPull, msg_id=7):
            statuses.append(status.Status)
            if len(statuses) == 5:
                reader.assoc.send_c_cancel(7, query_model=UnifiedProcedureStepPull)
        assert statuses[-1] == 0xFE00
        assert len(statuses) < 300
        assert len(reader.find()) == 300, "more than one page of the database"
    listener.stop()


def test_an_identifier_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    listener.offer()
    asked = data(ProcedureStepState="")
    asked.add_new(0x00741004, "DS", "")
    with Reader(listener.port) as reader:
        broken = Dataset()
        broken.add(DataElement(0x00200011, "LO", "abc"))  # Series Number is an IS
        reader.find(broken)
        assert reader.statuses == [0xA900]
        assert len(reader.find(asked)) == 1
    listener.stop()
