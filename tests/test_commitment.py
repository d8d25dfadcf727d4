"""Storage Commitment: asked of Orthanc, DCMTK and an archive that errs; answered at a listener."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from associations import delivered
from dcmqrscp import running_dcmqrscp
from ledger import eventually
from orthanc import Orthanc
from pacs import Pacs, free_port, smallest_report
from thoracle.deliver.association import Peer
from thoracle.deliver.commitment import (
    LARGEST_INFORMATION,
    CommitmentAnswer,
    NotAnAnswer,
    Reference,
    Requested,
    parse,
    request,
)
from thoracle.errors import ArchiveRefused, ArchiveUnavailable
from thoracle.receive import negotiation

OURS = "THORACLE"
NO_SUCH_OBJECT = 0x0112


def peer(archive: Any, seconds: float = 10) -> Peer:
    return Peer(archive.ae_title, "127.0.0.1", archive.port, OURS, seconds)


def refused(_answer: CommitmentAnswer) -> bool:
    raise AssertionError("no answer was expected here")


class Listener:
    """A listener of ours with nothing but Storage Commitment."""

    def __init__(self) -> None:
        self.port = free_port()
        self.answers: list[tuple[str, CommitmentAnswer]] = []
        self.outcome: Callable[[], bool] = lambda: True

    def _on_answer(self, calling_ae_title: str, answer: CommitmentAnswer) -> bool:
        well = self.outcome()
        if well:
            self.answers.append((calling_ae_title, answer))
        return well

    @contextmanager
    def listening(self) -> Iterator["Listener"]:
        ae = AE(ae_title=OURS)
        negotiation.support_commitment(ae)
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_N_EVENT_REPORT, negotiation.commitment_handler(self._on_answer))
        ]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield self
        finally:
            server.shutdown()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener().listening() as running:
        yield running


@pytest.fixture
def stored(tmp_path: Path) -> Reference:
    """An object as a file, ``stored.dcm``."""
    ds = smallest_report()
    ds.save_as(tmp_path / "stored.dcm", enforce_file_format=True)
    return Reference(ds.SOPClassUID, ds.SOPInstanceUID)


def bogus() -> Reference:
    return Reference(Comprehensive3DSRStorage, generate_uid())


def send(archive: Any, path: Path) -> None:
    delivered(peer(archive), path)


# ---- Real archives -----------------------------------------------------------------------------


def test_orthanc_commits_to_what_it_has_and_names_a_bogus_uid_as_failed_on_a_new_association(
    tmp_path: Path, listener: Listener, stored: Reference
) -> None:
    with Orthanc(tmp_path, {OURS: listener.port}) as orthanc:
        send(orthanc, tmp_path / "stored.dcm")
        first, second, missing = generate_uid(), generate_uid(), bogus()
        assert request(peer(orthanc), first, [stored], refused, 0) is Requested.ASKED
        eventually(lambda: listener.answers, 10)
        both = [stored, missing]
        assert request(peer(orthanc), second, both, refused, 0) is Requested.ASKED
        eventually(lambda: len(listener.answers) == 2, 10)
    committed = (stored.sop_instance_uid,)
    assert listener.answers == [
        ("ORTHANC", CommitmentAnswer(first, committed, ())),
        (
            "ORTHANC",
            CommitmentAnswer(second, committed, ((missing.sop_instance_uid, NO_SUCH_OBJECT),)),
        ),
    ]


def test_orthanc_knows_its_objects_again_after_it_was_killed(
    tmp_path: Path, listener: Listener, stored: Reference
) -> None:
    with Orthanc(tmp_path, {OURS: listener.port}) as orthanc:
        send(orthanc, tmp_path / "stored.dcm")
        orthanc.kill()
        with pytest.raises(ArchiveUnavailable, match="not reached"):
            request(peer(orthanc), generate_uid(), [stored], refused, 0)
        orthanc.start()
        assert request(peer(orthanc), generate_uid(), [stored], refused, 0) is Requested.ASKED
        eventually(lambda: listener.answers, 10)
        assert orthanc.sop_instance_uids() == [stored.sop_instance_uid]
    assert listener.answers[0][1].committed == (stored.sop_instance_uid,)


def test_an_archive_that_does_not_know_us_is_asked_again_later(
    tmp_path: Path, stored: Reference
) -> None:
    with Orthanc(tmp_path) as orthanc, pytest.raises(ArchiveUnavailable, match="ORTHANC"):
        request(peer(orthanc), generate_uid(), [stored], refused, 0)


def test_dcmqrscp_offers_no_commitment(tmp_path: Path, stored: Reference) -> None:
    with running_dcmqrscp(tmp_path) as archive:
        answer = request(peer(archive), generate_uid(), [stored], refused, 0)
        assert answer is Requested.NOT_OFFERED


# ---- An archive that does as it is told --------------------------------------------------------


def test_the_answer_on_the_same_association_is_taken_and_ends_the_wait(
    tmp_path: Path, stored: Reference
) -> None:
    answers: list[CommitmentAnswer] = []

    def on_answer(answer: CommitmentAnswer) -> bool:
        answers.append(answer)
        return True

    with Pacs(commitment=True) as pacs:
        pacs.report_after = 0.3
        send(pacs, tmp_path / "stored.dcm")
        missing, transaction = bogus(), generate_uid()
        started = time.monotonic()
        asked = request(peer(pacs), transaction, [stored, missing], on_answer, 20)
        assert (asked, time.monotonic() - started < 5) == (Requested.ASKED, True)
        pacs.wait_until(lambda: pacs.report_statuses == [0x0000], 5)
        assert pacs.requests[0].TransactionUID == transaction
    failed = ((missing.sop_instance_uid, NO_SUCH_OBJECT),)
    assert answers == [CommitmentAnswer(transaction, (stored.sop_instance_uid,), failed)]


def test_a_report_that_overtakes_the_response_of_the_n_action_is_taken(
    stored: Reference,
) -> None:
    answers: list[CommitmentAnswer] = []

    def on_answer(answer: CommitmentAnswer) -> bool:
        answers.append(answer)
        return True

    with Pacs(commitment=True) as pacs:
        pacs.report_after, pacs.reports_first = None, True
        request(peer(pacs), "2.25.7", [stored], on_answer, 5)
    assert answers == [CommitmentAnswer("2.25.7", (), ((stored.sop_instance_uid, NO_SUCH_OBJECT),))]


def test_the_archive_gets_our_response_before_our_release(stored: Reference) -> None:
    def slowly(_answer: CommitmentAnswer) -> bool:
        time.sleep(1)
        return True

    with Pacs(commitment=True) as pacs:
        request(peer(pacs), generate_uid(), [stored], slowly, 0.5)  # patience ends meanwhile
        pacs.wait_until(lambda: pacs.report_statuses == [0x0000], 5)


def test_patience_may_be_longer_than_the_timeout_of_an_answer(
    tmp_path: Path, stored: Reference
) -> None:
    came = threading.Event()

    def on_answer(_answer: CommitmentAnswer) -> bool:
        came.set()
        return True

    with Pacs(commitment=True) as pacs:
        pacs.report_after = 2.5
        request(peer(pacs, seconds=1), generate_uid(), [stored], on_answer, 20)
        assert came.is_set()


def test_without_an_answer_the_association_is_released_when_patience_ends(
    stored: Reference,
) -> None:
    with Pacs(commitment=True) as pacs:
        pacs.report_after = None
        started = time.monotonic()
        asked = request(peer(pacs), generate_uid(), [stored], refused, 0.5)
    assert asked is Requested.ASKED
    assert 0.5 <= time.monotonic() - started < 5


def test_a_late_answer_comes_to_the_listener_on_an_association_of_the_archive(
    listener: Listener, stored: Reference
) -> None:
    with Pacs(commitment=True) as pacs:
        pacs.report_after, pacs.reports_to = 0.5, (OURS, listener.port)
        transaction = generate_uid()
        request(peer(pacs), transaction, [stored], refused, 0)
        pacs.wait_until(lambda: pacs.report_statuses == [0x0000], 10)
    failed = ((stored.sop_instance_uid, NO_SUCH_OBJECT),)
    assert listener.answers == [("PACS", CommitmentAnswer(transaction, (), failed))]


def test_a_wrong_answer_on_the_same_association_is_refused_and_no_answer(
    stored: Reference,
) -> None:
    with Pacs(commitment=True) as pacs:
        pacs.report = lambda _request: (1, NO_TRANSACTION)
        asked = request(peer(pacs), generate_uid(), [stored], refused, 1)
        assert asked is Requested.ASKED
        pacs.wait_until(lambda: pacs.report_statuses == [0x0115], 5)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0110, ArchiveUnavailable),  # processing failure
        (0x0213, ArchiveUnavailable),  # resource limitation
        (0x0124, ArchiveUnavailable),  # not authorised: somebody can mend it
        (0x0115, ArchiveRefused),  # invalid argument value
        (0x0123, Requested.NOT_OFFERED),  # no such action
        (0x0211, Requested.NOT_OFFERED),  # unrecognized operation
    ],
)
def test_the_status_of_the_n_action_says_whether_asking_again_helps(
    stored: Reference, status: int, outcome: Any
) -> None:
    with Pacs(commitment=True) as pacs:
        pacs.commitment_status = status
        expected = (
            nullcontext()
            if isinstance(outcome, Requested)
            else pytest.raises(outcome, match=f"PACS answered the N-ACTION with 0x{status:04X}")
        )
        with expected:
            assert request(peer(pacs), generate_uid(), [stored], refused, 5) is outcome


def test_an_archive_without_the_context_offers_no_commitment(stored: Reference) -> None:
    with Pacs() as pacs:
        asked = request(peer(pacs), generate_uid(), [stored], refused, 5)
    assert asked is Requested.NOT_OFFERED


# ---- What the listener answers -----------------------------------------------------------------


def reported(
    port: int,
    event_type: int,
    information: Dataset | None,
    sop_class: str = StorageCommitmentPushModel,
) -> int:
    """Send an N-EVENT-REPORT as an archive, and return the status of its response."""
    ae = AE(ae_title="ARCHIVE")
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    assoc = ae.associate("127.0.0.1", port, ae_title=OURS, ext_neg=[role])
    assert assoc.is_established
    try:
        status, _ = assoc.send_n_event_report(
            information,
            event_type,
            sop_class,
            StorageCommitmentPushModelInstance,
            meta_uid=StorageCommitmentPushModel,
        )
        return int(status.Status)
    finally:
        assoc.release()


def information(*committed: str, failed: dict[str, int] | None = None) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = "2.25.7"
    ds.ReferencedSOPSequence = [_item(uid) for uid in committed]
    if failed:
        ds.FailedSOPSequence = [_item(uid, reason) for uid, reason in failed.items()]
    return ds


def _item(sop_instance_uid: str | None, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = Comprehensive3DSRStorage
    if sop_instance_uid is not None:
        item.ReferencedSOPInstanceUID = sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def changed(**values: Any) -> Dataset:
    ds = information("2.25.1")
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


NO_TRANSACTION = information("2.25.1")
del NO_TRANSACTION.TransactionUID


@pytest.mark.parametrize(
    ("event_type", "ds", "status"),
    [
        (1, information("2.25.1"), 0x0000),
        (2, information("2.25.1", failed={"2.25.2": 0x0112}), 0x0000),
        (3, information("2.25.1"), 0x0113),
        (1, None, 0x0115),
        (1, NO_TRANSACTION, 0x0115),
        (1, changed(TransactionUID=""), 0x0115),
        (1, changed(ReferencedSOPSequence=[_item(None)]), 0x0115),
        (2, changed(FailedSOPSequence=[_item(None, 0x0112)]), 0x0115),
        (1, information(*(f"2.25.{10**37 + n}" for n in range(50_000))), 0x0115),
    ],
    ids=["all", "some", "type", "nothing", "missing", "empty", "item", "failed item", "too much"],
)
def test_the_listener_answers_every_report_with_the_status_of_the_standard(
    listener: Listener, event_type: int, ds: Dataset | None, status: int
) -> None:
    assert reported(listener.port, event_type, ds) == status
    assert len(listener.answers) == (status == 0x0000)


def test_a_report_of_another_sop_class_is_no_answer(listener: Listener) -> None:
    other = "1.2.840.10008.5.1.4.34.6.4"  # Unified Procedure Step - Event
    assert reported(listener.port, 1, information("2.25.1"), other) == 0x0118
    assert listener.answers == []


def test_success_is_answered_only_when_the_answer_was_recorded(listener: Listener) -> None:
    def fails() -> bool:
        raise OSError("disk full")

    listener.outcome = lambda: False
    assert reported(listener.port, 1, information("2.25.1")) == 0x0115
    listener.outcome = fails
    assert reported(listener.port, 1, information("2.25.1")) == 0x0110
    listener.outcome = lambda: True
    assert reported(listener.port, 1, information("2.25.1")) == 0x0000
    assert [answer.committed for _, answer in listener.answers] == [("2.25.1",)]


def test_bytes_that_are_no_data_set_are_answered_not_raised(listener: Listener) -> None:
    ds = information("2.25.1")
    ds.add_new(0x00081199, "OB", b"\xfe\xff\x00\xe0\xff\xff\xff\x7f")  # a sequence cut short
    assert reported(listener.port, 1, ds) == 0x0115
    assert listener.answers == []


# ---- What a report says ------------------------------------------------------------------------


def test_an_object_named_both_ways_has_failed() -> None:
    answer = parse(2, information("2.25.1", "2.25.2", failed={"2.25.2": 0x0213}))
    assert answer == CommitmentAnswer("2.25.7", ("2.25.1",), (("2.25.2", 0x0213),))


def test_a_failure_in_a_report_of_success_is_a_failure() -> None:
    answer = parse(1, information("2.25.1", failed={"2.25.2": 0x0119}))
    assert (answer.committed, answer.failed) == (("2.25.1",), (("2.25.2", 0x0119),))


def test_a_failure_without_reason_counts_as_processing_failure() -> None:
    answer = parse(2, changed(FailedSOPSequence=[_item("2.25.2")]))
    assert answer.failed == (("2.25.2", 0x0110),)


def test_the_error_names_what_was_found_and_what_is_required() -> None:
    with pytest.raises(NotAnAnswer, match="found event type 7, required: 1 or 2"):
        parse(7, information())
    with pytest.raises(NotAnAnswer, match="found none, required: a UID"):
        parse(1, NO_TRANSACTION)
    with pytest.raises(NotAnAnswer, match="found 20 characters that are no UID"):
        parse(1, changed(TransactionUID=["2.25.1", "2.25.2"]))


def test_a_report_on_ten_thousand_objects_is_still_read() -> None:
    uids = [generate_uid() for _ in range(10_000)]
    assert len(uids) * 200 < LARGEST_INFORMATION
    assert parse(1, information(*uids)).committed == tuple(uids)
