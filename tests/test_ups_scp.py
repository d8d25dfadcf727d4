"""Our workitems on real associations: read, set and refused, whatever is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
    Verification,
)
from sqlalchemy import select

import sources
from thoracle.receive import negotiation
from thoracle.settings import Receive, Settings
from thoracle.store.tables import audit_event
from thoracle.ups.states import STATUSES
from workflow import Reader, data
from workitem_listener import (
    NOBODY,
    Listener,
    canceled,
    completed,
    in_progress,
    scheduled,
)

# ---- N-GET and N-SET -------------------------------------------------------------------------


def test_the_transaction_uid_is_never_told(listener: Listener, reader: Reader) -> None:
    uid = listener.offer()
    in_progress(reader, uid)
    for answer in (reader.get(uid), reader.get(uid, 0x00081195, 0x00741000)):
        assert answer[0] == 0
        assert answer[1] is not None
        assert "TransactionUID" not in answer[1]
    (found,) = reader.find(data(TransactionUID="", SOPInstanceUID=uid))
    assert not found.get("TransactionUID")
    assert reader.find(data(TransactionUID=reader.transaction_uid)) == []
    with listener.database.connect() as connection:
        events = connection.execute(select(audit_event)).all()
    assert reader.transaction_uid not in json.dumps([row.detail for row in events])


def test_an_attribute_list_is_heeded(listener: Listener, reader: Reader) -> None:
    uid = listener.offer()
    status, ds = reader.get(uid, 0x00741204, 0x00100010, 0x00104000)
    assert status == 0
    assert ds is not None
    assert [element.keyword for element in ds] == ["PatientName", "ProcedureStepLabel"]
    _, ds = reader.get(uid, 0x00741000)
    assert ds is not None
    assert [element.keyword for element in ds] == ["ProcedureStepState"]


def test_what_a_performer_says_of_progress_is_kept(listener: Listener, reader: Reader) -> None:
    uid = listener.offer()
    in_progress(reader, uid)
    progress = data(ProcedureStepProgress="40", ProcedureStepProgressDescription="Lüngen 胸")
    assert (
        reader.set(
            uid,
            SpecificCharacterSet="ISO_IR 192",
            ProcedureStepProgressInformationSequence=[progress],
        )
        == 0
    )
    ds = reader.get(uid)[1]
    assert ds is not None
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    item = ds.ProcedureStepProgressInformationSequence[0]
    assert item.ProcedureStepProgress == 40
    assert item.ProcedureStepProgressDescription == "Lüngen 胸"


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"ProcedureStepState": "SCHEDULED"}, 0xC303),
        ({"ProcedureStepState": "COMPLETED"}, 0x0105),
        ({"PatientName": "Other^Name"}, 0x0105),
        ({"InputInformationSequence": []}, 0x0105),
        ({"SOPInstanceUID": "2.25.1"}, 0x0105),
        ({"ScheduledProcedureStepPriority": "URGENT"}, 0x0106),
        (
            {
                "ProcedureStepProgressInformationSequence": [
                    data(ProcedureStepProgress="101"),
                ]
            },
            0x0106,
        ),
        ({"ScheduledProcedureStepModificationDateTime": "20200101"}, 0xB305),
    ],
    ids=str,
)
def test_what_may_not_be_set_is_not(
    listener: Listener, reader: Reader, attributes: dict[str, Any], status: int
) -> None:
    uid = listener.offer()
    in_progress(reader, uid)
    before = reader.get(uid)[1]
    assert f"0x{reader.set(uid, **attributes):04X}" == f"0x{status:04X}"
    after = reader.get(uid)[1]
    if status != 0xB305:
        assert after == before
    else:
        assert after is not None
        assert not after.ScheduledProcedureStepModificationDateTime.startswith("2020")


@pytest.mark.parametrize(
    ("reach", "lock", "status"),
    [
        (scheduled, "", 0xC310),
        (in_progress, None, 0xC301),
        (in_progress, "2.25.1", 0xC301),
        (completed, "", 0xC300),
        (canceled, "", 0xC300),
    ],
)
def test_only_who_claimed_a_workitem_sets_its_attributes_and_only_until_its_end(
    listener: Listener,
    reader: Reader,
    reach: Callable[[Reader, str], None],
    lock: str | None,
    status: int,
) -> None:
    uid = listener.offer()
    reach(reader, uid)
    assert reader.set(uid, lock, ScheduledProcedureStepPriority="LOW") == status


def test_what_does_not_exist_is_refused_everywhere(listener: Listener, reader: Reader) -> None:
    assert reader.get(NOBODY)[0] == 0xC307
    assert reader.set(NOBODY, ScheduledProcedureStepPriority="LOW") == 0xC307
    assert reader.claim(NOBODY) == 0xC307
    assert reader.act(NOBODY, 2) == 0xC307
    assert reader.subscribe("STATION", NOBODY) == 0xC307
    assert reader.act(NOBODY, 4, ReceivingAE="STATION") == 0xC307


def test_a_transaction_uid_that_is_none_claims_nothing(listener: Listener, reader: Reader) -> None:
    uid = listener.offer()
    with disable_value_validation():
        for lock in ("'; DROP TABLE workitem; --", "1" * 65):
            assert reader.change(uid, "IN PROGRESS", lock) == 0x0115
    assert reader.claim(uid) == 0


def test_an_unknown_action_and_a_huge_data_set_are_refused(
    listener: Listener, reader: Reader
) -> None:
    uid = listener.offer()
    assert reader.act(uid, 6) == 0x0123
    in_progress(reader, uid)
    huge = "x" * 1_100_000
    progress = data(ProcedureStepProgressDescription="x")
    progress.add_new(0x00741238, "UT", huge)
    assert reader.set(uid, ProcedureStepProgressInformationSequence=[progress]) == 0x0213


def test_push_is_not_offered(listener: Listener) -> None:
    ae = AE(ae_title="READER")
    contexts = [build_context(UnifiedProcedureStepPush), build_context(Verification)]
    assoc = ae.associate("127.0.0.1", listener.port, contexts, "THORACLE")
    assert assoc.is_established
    accepted = [one.abstract_syntax for one in assoc.accepted_contexts]
    assoc.release()
    assert accepted == [Verification]


def test_workitems_are_not_offered_unless_the_settings_say_so() -> None:
    ae = negotiation.application_entity(Receive())
    offered = {one.abstract_syntax for one in ae.supported_contexts}
    assert not offered & {
        UnifiedProcedureStepPull,
        UnifiedProcedureStepWatch,
        UnifiedProcedureStepQuery,
    }
    assert not Settings().ups.offer


@pytest.mark.parametrize(
    ("query", "claim", "answers"),
    [("READER", "OTHER", (0, 0x0124)), ("OTHER", "READER", (0x0124, 0))],
)
def test_who_may_ask_and_who_may_claim_is_set_apart(
    tmp_path: Path, query: str, claim: str, answers: tuple[int, int]
) -> None:
    ups = {"offer": True, "query_ae_titles": [query], "claim_ae_titles": [claim]}
    listening = Listener(tmp_path, ups=ups)
    uid = listening.offer()
    with Reader(listening.port) as reader:
        assert (reader.get(uid)[0], reader.claim(uid)) == answers
    listening.stop()


def test_every_refusal_of_the_table_is_given_by_a_test_here() -> None:
    files = ("scp", "states", "subscriptions", "matching")
    folder = Path(__file__).parent
    text = "".join((folder / f"test_ups_{name}.py").read_text().upper() for name in files)
    named = {one.code for one in STATUSES} - {0x0110, 0x0118}
    assert [f"0X{code:04X}" for code in named if f"0X{code:04X}" not in text] == []


HOSTILE = {
    "PatientName": "<script>alert(1)</script>'; DROP TABLE workitem; --=" * 3 + "x" * 60_000,
    "PatientID": "=cmd|' /C calc'!A0\x07|^~\\&",
    "PatientBirthDate": "not a date",
    "PatientSex": "\x00F<b>",
    "IssuerOfPatientID": "*?*" * 30,
    "AccessionNumber": "A" * 300,
}


def test_hostile_values_are_kept_as_they_are_and_do_no_harm(
    listener: Listener,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    image = sources.dx(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    with disable_value_validation():
        for keyword, value in HOSTILE.items():
            setattr(image, keyword, value)
    uid = listener.offer(image)
    other = listener.offer()
    assert {ds.SOPInstanceUID for ds in reader.find()} == {uid, other}
    status, ds = reader.get(uid)
    assert status == 0
    assert ds is not None
    assert str(ds.PatientName).startswith("<script>")
    assert ds.PatientBirthDate == HOSTILE["PatientBirthDate"]
    assert reader.find(data(PatientID="'; DELETE FROM workitem; --")) == []
    found = reader.find(data(PatientBirthDate="00010101-"))
    assert [ds.SOPInstanceUID for ds in found] == [other]
    in_progress(reader, uid)
    assert reader.complete(uid) == 0
    assert not [one for one in caplog.records if one.name.startswith("thoracle")]
