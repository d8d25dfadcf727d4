"""The states of our workitems: each change as the standard tables it, claimed once, and kept."""

import threading
from collections.abc import Callable

import pytest
from pydicom.uid import generate_uid

from workflow import Reader, coded, data, performed
from workitem_listener import Listener, canceled, completed, in_progress, scheduled

STATES = (scheduled, in_progress, completed, canceled)
TABLE = {
    ("IN PROGRESS", "right"): (0x0000, 0xC302, 0xC300, 0xC300),
    ("IN PROGRESS", "none"): (0xC301, 0xC301, 0xC301, 0xC301),
    ("IN PROGRESS", "wrong"): (None, 0xC301, 0xC301, 0xC301),
    ("SCHEDULED", "right"): (0xC303, 0xC303, 0xC303, 0xC303),
    ("COMPLETED", "right"): (0xC310, 0xC304, 0xB306, 0xC300),
    ("COMPLETED", "none"): (0xC301, 0xC301, 0xC301, 0xC301),
    ("COMPLETED", "wrong"): (None, 0xC301, 0xC301, 0xC301),
    ("CANCELED", "right"): (0xC310, 0xC304, 0xC300, 0xB304),
    ("CANCELED", "none"): (0xC301, 0xC301, 0xC301, 0xC301),
    ("CANCELED", "wrong"): (None, 0xC301, 0xC301, 0xC301),
    ("FINISHED", "right"): (0x0115, 0x0115, 0x0115, 0x0115),
}
"""PS3.4 Table CC.1.1-2, with "SCHEDULED, IN PROGRESS, COMPLETED, CANCELED" as columns. A claim has
no wrong Transaction UID, for it is the one that makes it the right one."""


@pytest.mark.parametrize("reach", STATES, ids=lambda one: one.__name__)
@pytest.mark.parametrize(("wanted", "which"), TABLE, ids=lambda one: one.replace(" ", "-"))
def test_a_change_of_state_is_answered_as_the_standard_tables_it(
    listener: Listener,
    reader: Reader,
    reach: Callable[[Reader, str], None],
    wanted: str,
    which: str,
) -> None:
    uid = listener.offer()
    reach(reader, uid)
    required = TABLE[wanted, which][STATES.index(reach)]
    if required is None:
        return
    before = reader.get(uid)[1]
    lock = {"right": "", "none": None, "wrong": str(generate_uid())}[which]
    assert f"0x{reader.change(uid, wanted, lock):04X}" == f"0x{required:04X}"
    if required != 0x0000:
        assert reader.get(uid)[1] == before, "refused, and changed all the same"


def test_a_workitem_goes_from_scheduled_to_completed_and_the_audit_has_each_step(
    listener: Listener, reader: Reader
) -> None:
    uid = listener.offer()
    completed(reader, uid)
    status, ds = reader.get(uid)
    assert status == 0
    assert ds is not None
    assert ds.ProcedureStepState == "COMPLETED"
    assert listener.changes(uid) == [
        ("workitem created", None, None, "SCHEDULED"),
        ("workitem changed", "READER", "SCHEDULED", "IN PROGRESS"),
        ("workitem changed", "READER", "IN PROGRESS", "IN PROGRESS"),
        ("workitem changed", "READER", "IN PROGRESS", "COMPLETED"),
    ]


@pytest.mark.parametrize(
    "keyword",
    [
        "PerformedStationNameCodeSequence",
        "PerformedWorkitemCodeSequence",
        "PerformedProcedureStepStartDateTime",
        "PerformedProcedureStepEndDateTime",
        "OutputInformationSequence",
    ],
)
def test_a_completion_that_lacks_something_is_told_what(
    listener: Listener, reader: Reader, keyword: str
) -> None:
    uid = listener.offer()
    in_progress(reader, uid)
    item = performed()
    delattr(item, keyword)
    assert reader.set(uid, UnifiedProcedureStepPerformedProcedureSequence=[item]) == 0
    assert reader.change(uid, "COMPLETED") == 0xC304
    assert reader.comment == keyword


@pytest.mark.parametrize(
    "keyword",
    ["ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence"],
)
def test_a_cancellation_that_lacks_something_is_told_what(
    listener: Listener, reader: Reader, keyword: str
) -> None:
    uid = listener.offer()
    in_progress(reader, uid)
    item = data(
        ProcedureStepCancellationDateTime="20261124120000",
        ProcedureStepDiscontinuationReasonCodeSequence=[coded("110513")],
    )
    delattr(item, keyword)
    assert reader.set(uid, ProcedureStepProgressInformationSequence=[item]) == 0
    assert reader.change(uid, "CANCELED") == 0xC304
    assert reader.comment == keyword


def test_of_many_who_claim_at_once_exactly_one_wins(listener: Listener) -> None:
    uid = listener.offer()
    ready = threading.Barrier(6)
    answers: list[int] = []

    def claim(number: int) -> None:
        with Reader(listener.port, ae_title=f"READER{number}") as one:
            ready.wait()
            answers.append(one.claim(uid))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [0x0000] + [0xC301] * 5
    winners = [row for row in listener.changes(uid) if row[3] == "IN PROGRESS"]
    assert len(winners) == 1


def test_what_was_claimed_stays_claimed_when_the_listener_restarts(listener: Listener) -> None:
    uid = listener.offer()
    with Reader(listener.port) as first:
        assert first.claim(uid) == 0
        assert first.subscribe("STATION") == 0
        lock = first.transaction_uid
    listener.stop()
    listener.start()
    with Reader(listener.port) as again:
        assert again.claim(uid) == 0xC301
        again.transaction_uid = lock
        assert again.complete(uid) == 0
    assert (uid, 1) in [(one, kind) for one, kind, _ in listener.reports("STATION")]
