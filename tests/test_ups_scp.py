"""Our workitems on real associations: every change and refusal, and what subscribers hear of it."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
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
from sqlalchemy import Engine, select

import sources
from gateway import Gateway, destination
from ledger import concluded, eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from thoracle.errors import SettingsError
from thoracle.image.decoder import Decoder
from thoracle.receive import negotiation, storescp
from thoracle.receive.duplicates import Frames
from thoracle.receive.inbox import Inbox
from thoracle.report import context
from thoracle.routing import rules as routing_rules
from thoracle.settings import Receive, Settings, parse
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.object_files import Objects
from thoracle.store.tables import audit_event, outbox, workitem_subscription
from thoracle.study import instances
from thoracle.study.instances import Received
from thoracle.ups import review
from thoracle.ups import workitems as audited
from thoracle.ups.scp import Workitems
from thoracle.ups.states import GLOBAL_SUBSCRIPTION, STATUSES
from workflow import Reader, Station, coded, data, everything, performed

NOBODY = "2.25.4711"
ALL = ["positive", "negative", "indeterminate", "rejected"]


class Listener:
    """A listener with workitems, on a database of its own; nothing is analysed."""

    def __init__(self, folder: Path, **tables: Any) -> None:
        self.folder, self.port = folder, free_port()
        self.settings = parse({"receive": {"port": self.port}, "ups": {"offer": True}, **tables})
        self.told: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        self.database: Engine = open_database(sqlite_url(self.folder))
        inbox = Inbox(self.folder, self.settings.receive)
        services = Workitems(self.settings, self.database.begin, self.told.extend)
        self._listener = storescp.Listener(
            self.settings.receive,
            inbox,
            Frames(Objects(self.folder), Decoder(2048, 60), self.settings.receive.budget),
            self.database,
            lambda *_: None,
            lambda *_: False,
            services.support,
        )
        self._listener.start()

    def stop(self) -> None:
        self._listener.stop(1)
        self.database.dispose()

    def offer(self, image: Dataset | None = None, **attributes: Any) -> str:
        """Return the UID of a new workitem about a study of one image."""
        image = image or sources.dx(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
        reading = sources.positive(image)
        uid = str(generate_uid())
        ds = review.build(
            context.study_context(image),
            context.referenced_requests([image]),
            [reading],
            sources.BUNDLE,
            sop_instance_uid=uid,
            worklist_label="THORACLE",
            scheduled="20261124101500+0000",
        )
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        values = {
            "sop_instance_uid": uid,
            "study_instance_uid": str(image.StudyInstanceUID),
            "generation": 1,
            "bundle_digest": "d",
            "attributes": ds.to_json_dict(),
        }
        with self.database.begin() as connection:
            received = _received(image)
            instances.lock_study(connection, received)
            if instances.latest(connection, received.sop_instance_uid) is None:
                instances.add(connection, received, generation=1)
            self.told += audited.offer(connection, values, held=False, workflow_id="test")
        return uid

    def changes(self, uid: str) -> list[tuple[Any, ...]]:
        """Return event, caller, old and new state of each row of the audit on a workitem."""
        statement = (
            select(audit_event)
            .where(audit_event.c.sop_instance_uid == uid, audit_event.c.event.like("workitem%"))
            .order_by(audit_event.c.id)
        )
        with self.database.connect() as connection:
            return [
                (row.event, row.calling_ae_title, row.detail["from"], row.detail["to"])
                for row in connection.execute(statement)
            ]

    def reports(self, ae_title: str) -> list[tuple[str, int, dict[str, Any]]]:
        """Return what a station is to be told: workitem, event type and information."""
        statement = (
            select(outbox.c.content)
            .where(outbox.c.kind == "ups", outbox.c.peer == ae_title)
            .order_by(outbox.c.id)
        )
        with self.database.connect() as connection:
            return [
                (one["workitem"], one["event_type_id"], one["information"])
                for one in connection.execute(statement).scalars()
            ]

    def subscriptions(self, ae_title: str) -> dict[str, int]:
        statement = select(workitem_subscription).where(
            workitem_subscription.c.ae_title == ae_title
        )
        with self.database.connect() as connection:
            return {
                row.sop_instance_uid: row.deletion_lock for row in connection.execute(statement)
            }


def _received(image: Dataset) -> Received:
    return Received(
        sop_class_uid=str(image.SOPClassUID),
        sop_instance_uid=str(image.SOPInstanceUID),
        study_instance_uid=str(image.StudyInstanceUID),
        series_instance_uid=str(image.SeriesInstanceUID),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id="P1",
        issuer_of_patient_id="",
        accession_number="A1",
        priority=100,
        path="images/none.dcm",
        size=1,
        sha256="0",
        calling_ae_title="PACS",
        peer_address="127.0.0.1",
    )


SUBSCRIBERS = [
    {"ae_title": "STATION", "host": "127.0.0.1", "port": 11112},
    {"ae_title": "OTHER", "host": "127.0.0.1", "port": 11113},
]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listening = Listener(tmp_path, subscriber=SUBSCRIBERS)
    yield listening
    listening.stop()


@pytest.fixture
def reader(listener: Listener) -> Iterator[Reader]:
    with Reader(listener.port) as one:
        yield one


# ---- the state machine -----------------------------------------------------------------------


def scheduled(reader: Reader, uid: str) -> None:
    pass


def in_progress(reader: Reader, uid: str) -> None:
    assert reader.claim(uid) == 0


def completed(reader: Reader, uid: str) -> None:
    in_progress(reader, uid)
    assert reader.complete(uid) == 0


def canceled(reader: Reader, uid: str) -> None:
    in_progress(reader, uid)
    assert reader.cancel(uid) == 0


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


# ---- cancel requests -------------------------------------------------------------------------


def test_a_request_cancels_what_nobody_has_begun_by_way_of_in_progress(
    listener: Listener, reader: Reader
) -> None:
    uid = listener.offer()
    assert reader.subscribe("STATION", uid) == 0
    assert reader.act(uid, 2, ReasonForCancellation="read already") == 0
    states = [info["00741000"]["Value"][0] for _, kind, info in listener.reports("STATION")]
    assert states == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    ds = reader.get(uid)[1]
    assert ds is not None
    progress = ds.ProcedureStepProgressInformationSequence[0]
    assert progress.ReasonForCancellation == "read already"
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
    assert listener.changes(uid)[-1] == ("workitem changed", "READER", "SCHEDULED", "CANCELED")
    assert reader.act(uid, 2) == 0xB304


def test_a_request_to_cancel_what_is_in_progress_is_told_to_who_subscribes(
    listener: Listener, reader: Reader
) -> None:
    uid = listener.offer()
    in_progress(reader, uid)
    assert reader.act(uid, 2) == 0xC312, "nobody could learn of it"
    assert reader.subscribe("STATION", uid) == 0
    with Reader(listener.port, ae_title="BOSS") as boss:
        assert boss.act(uid, 2, ReasonForCancellation="why", ContactDisplayName="Desk") == 0
    kind, information = listener.reports("STATION")[-1][1:]
    assert kind == 2
    told = Dataset.from_json(information)
    assert told.ReasonForCancellation == "why"
    assert told.RequestingAE == "BOSS"
    assert told.ContactDisplayName == "Desk"
    ds = reader.get(uid)[1]
    assert ds is not None
    assert ds.ProcedureStepState == "IN PROGRESS"


def test_what_is_completed_cannot_be_canceled(listener: Listener, reader: Reader) -> None:
    uid = listener.offer()
    completed(reader, uid)
    assert reader.act(uid, 2) == 0xC311


# ---- subscriptions ---------------------------------------------------------------------------


def test_who_is_no_subscriber_of_the_settings_cannot_subscribe(
    listener: Listener, reader: Reader
) -> None:
    assert reader.subscribe("STRANGER") == 0xC308
    assert reader.subscribe("STATION", lock="MAYBE") == 0x0115
    assert listener.subscriptions("STATION") == {}


def test_without_subscribers_in_the_settings_there_are_no_event_reports(tmp_path: Path) -> None:
    listening = Listener(tmp_path)
    with Reader(listening.port) as reader:
        assert reader.subscribe("STATION") == 0xC315
    listening.stop()


def test_a_global_subscription_is_to_what_is_there_and_to_what_comes(
    listener: Listener, reader: Reader
) -> None:
    old, ended = listener.offer(), listener.offer()
    completed(reader, ended)
    assert reader.subscribe("STATION", lock="TRUE") == 0
    assert listener.subscriptions("STATION") == {GLOBAL_SUBSCRIPTION: 1, old: 1}
    new = listener.offer()
    assert listener.subscriptions("STATION") == {GLOBAL_SUBSCRIPTION: 1, old: 1, new: 1}
    assert [(uid, kind) for uid, kind, _ in listener.reports("STATION")] == [(old, 1), (new, 1)]
    assert listener.told[-1]["peer"] == "STATION"


def test_suspending_keeps_the_present_and_unsubscribing_ends_all(
    listener: Listener, reader: Reader
) -> None:
    old = listener.offer()
    assert reader.subscribe("STATION") == 0
    assert reader.act(GLOBAL_SUBSCRIPTION, 5, ReceivingAE="STATION") == 0
    listener.offer()
    assert listener.subscriptions("STATION") == {old: 0}
    assert reader.act(old, 5, ReceivingAE="STATION") == 0xC314
    assert reader.act(GLOBAL_SUBSCRIPTION, 1, ProcedureStepState="CANCELED") == 0xC314
    assert reader.act(GLOBAL_SUBSCRIPTION, 4, ReceivingAE="STATION") == 0
    assert listener.subscriptions("STATION") == {}


def test_one_workitem_can_be_subscribed_to_and_left(listener: Listener, reader: Reader) -> None:
    one, two = listener.offer(), listener.offer()
    assert reader.subscribe("STATION", one, "TRUE") == 0
    assert reader.subscribe("STATION", one, "FALSE") == 0
    assert listener.subscriptions("STATION") == {one: 0}
    assert reader.claim(one) == 0
    assert reader.claim(two) == 0
    progress = data(ProcedureStepProgress="10")
    assert reader.set(one, ProcedureStepProgressInformationSequence=[progress]) == 0
    station = coded("ROOM1", "99TEST")
    assert reader.set(one, ScheduledStationNameCodeSequence=[station]) == 0
    heard = [(uid, kind) for uid, kind, _ in listener.reports("STATION")]
    assert heard == [(one, 1), (one, 1), (one, 1), (one, 3), (one, 5)]
    assert reader.act(one, 4, ReceivingAE="STATION") == 0
    assert reader.complete(one) == 0
    assert len(listener.reports("STATION")) == 5


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
    text = (
        Path(__file__).read_text().upper()
        + (Path(__file__).parent / "test_ups_matching.py").read_text().upper()
    )
    named = {one.code for one in STATUSES} - {0x0110, 0x0118}
    assert [f"0X{code:04X}" for code in named if f"0X{code:04X}" not in text] == []


# ---- the gateway -----------------------------------------------------------------------------


def gateway_of(folder: Path, station: Station, *archives: Any, **more: Any) -> Gateway:
    subscriber = {"ae_title": station.ae_title, "host": "127.0.0.1", "port": station.port}
    lists = {"subscriber": [subscriber], **more.pop("lists", {})}
    return Gateway(folder, *archives, lists=lists, ups={"offer": True, "outcomes": ALL}, **more)


def workitems_of(gateway: Gateway, study: str) -> list[dict[str, Any]]:
    statement = "SELECT * FROM workitem WHERE study_instance_uid = ? ORDER BY created_at"
    return rows(gateway, statement, study)


def test_a_study_becomes_a_workitem_that_a_reader_finds_claims_and_completes(
    tmp_path: Path,
) -> None:
    with Station() as station, Pacs() as pacs, gateway_of(tmp_path, station, pacs) as gateway:
        with Reader(gateway.port) as reader:
            assert reader.subscribe("STATION") == 0
        image = chest(PatientName="Müller^Änne", SpecificCharacterSet="ISO_IR 100")
        study = image.StudyInstanceUID
        assert send(gateway.port, image).status == 0
        concluded(gateway, study)
        delivered = "SELECT 1 FROM outbox WHERE state = 'delivered' AND peer = 'pacs'"
        eventually(lambda: rows(gateway, delivered))
        with Reader(gateway.port) as reader:
            identifier = everything()
            identifier.SpecificCharacterSet = "ISO_IR 192"
            identifier.PatientName = "müller*"
            identifier.ReferencedRequestSequence = []
            (found,) = reader.find(identifier)
            uid = found.SOPInstanceUID
            assert f"workitem {uid} SCHEDULED" in gateway.run("status", study)
            assert found.SpecificCharacterSet == "ISO_IR 192"
            assert found.PatientName == "Müller^Änne"
            assert found.ProcedureStepLabel.startswith("Chest XR - AI: COVID-19 ")
            assert found.ProcedureStepLabel.endswith(" % (research)")
            assert found.ScheduledProcedureStepPriority == "HIGH"
            assert found.ReferencedRequestSequence[0].AccessionNumber == "A1"
            inputs = {
                reference.ReferencedSOPInstanceUID: [
                    one.RetrieveAETitle for one in item.get("DICOMRetrievalSequence", [])
                ]
                for item in found.InputInformationSequence
                for reference in item.ReferencedSOPSequence
            }
            (report,) = pacs.kept
            assert inputs[image.SOPInstanceUID] == []
            assert inputs[report] == ["PACS"]
            assert reader.claim(uid) == 0
            gateway.kill()
            gateway.start()
            lock = reader.transaction_uid
        with Reader(gateway.port) as reader:
            reader.transaction_uid = lock
            assert reader.complete(uid) == 0
        assert f"workitem {uid} COMPLETED by READER" in gateway.run("status", study)
        assert lock not in gateway.run("status", "--json", study)
        station.wait(uid, [(1, "SCHEDULED"), (1, "IN PROGRESS"), (1, "COMPLETED")])
        eventually(lambda: (4, "") in station.of(GLOBAL_SUBSCRIPTION))
        reviewed = "SELECT reviewed_at, verdict FROM worklist WHERE study_instance_uid = ?"
        (row,) = rows(gateway, reviewed, study)
        assert row["reviewed_at"]
        assert row["verdict"] is None
        assert datetime.fromisoformat(row["reviewed_at"])


def test_a_station_that_is_away_hears_everything_later_and_in_order(tmp_path: Path) -> None:
    station = Station()
    with gateway_of(tmp_path, station) as gateway:
        with Reader(gateway.port) as reader:
            assert reader.subscribe("STATION") == 0
        image = chest()
        assert send(gateway.port, image).status == 0
        concluded(gateway, image.StudyInstanceUID)
        with Reader(gateway.port) as reader:
            (found,) = reader.find()
            uid = found.SOPInstanceUID
            assert reader.claim(uid) == 0
            assert reader.cancel(uid) == 0
        tried = "SELECT 1 FROM outbox WHERE kind = 'ups' AND attempts > 0"
        eventually(lambda: rows(gateway, tried))
        station.status = lambda number: 0x0110 if number == 0 else 0x0000
        with station:
            heard = [(1, "SCHEDULED"), (1, "IN PROGRESS"), (3, ""), (1, "CANCELED")]
            station.wait(uid, heard)


def test_a_new_image_replaces_the_workitem_and_one_in_progress_is_named(tmp_path: Path) -> None:
    with Station() as station, gateway_of(tmp_path, station) as gateway:
        first = chest()
        study = first.StudyInstanceUID

        def add() -> list[dict[str, Any]]:
            before = len(workitems_of(gateway, study))
            image = first if before == 0 else chest(StudyInstanceUID=study)
            assert send(gateway.port, image).status == 0
            return (
                eventually(
                    lambda: (
                        (found := workitems_of(gateway, study)) and len(found) > before and found
                    )
                )
                or []
            )

        (one,) = add()
        old, two = add()
        assert (old["state"], two["state"]) == ("CANCELED", "SCHEDULED")
        with Reader(gateway.port) as reader:
            ds = reader.get(one["sop_instance_uid"])[1]
            assert ds is not None
            progress = ds.ProcedureStepProgressInformationSequence[0]
            reason = progress.ProcedureStepDiscontinuationReasonCodeSequence[0]
            assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("110528", "DCM")
            assert reader.claim(two["sop_instance_uid"]) == 0
            _, kept, three = add()
            assert (kept["state"], three["state"]) == ("IN PROGRESS", "SCHEDULED")
            (found,) = reader.find(
                data(ProcedureStepState="SCHEDULED", ReplacedProcedureStepSequence=[])
            )
            replaced = found.ReplacedProcedureStepSequence[0]
            assert replaced.ReferencedSOPInstanceUID == two["sop_instance_uid"]
        eventually(lambda: gateway.run("withdraw", study, "--reason", "test"))
        eventually(lambda: workitems_of(gateway, study)[2]["state"] == "CANCELED")
        assert workitems_of(gateway, study)[1]["state"] == "IN PROGRESS"


def test_rules_say_for_which_studies_there_is_a_workitem(tmp_path: Path) -> None:
    rules = [
        {"name": "men", "when": 'PatientSex == "M"', "notify": ["ups"]},
        {"name": "held", "when": 'PatientID == "HELD"', "hold": True, "notify": ["ups"]},
        {"name": "shadow", "when": 'PatientID == "SHADOW"', "shadow": True},
    ]
    with (
        Station() as station,
        gateway_of(tmp_path, station, destination(Pacs("NONE")), lists={"rule": rules}) as gateway,
    ):
        images = {
            "none": chest(PatientSex="F"),
            "man": chest(PatientSex="M"),
            "held": chest(PatientSex="F", PatientID="HELD"),
            "shadow": chest(PatientSex="M", PatientID="SHADOW"),
        }
        for image in images.values():
            assert send(gateway.port, image).status == 0
            concluded(gateway, image.StudyInstanceUID)
        found = {
            name: [row["state"] for row in workitems_of(gateway, image.StudyInstanceUID)]
            for name, image in images.items()
        }
        assert found == {"none": [], "man": ["SCHEDULED"], "held": ["HELD"], "shadow": []}
        with Reader(gateway.port) as reader:
            (seen,) = reader.find()
            assert seen.StudyInstanceUID == images["man"].StudyInstanceUID
            held = images["held"].StudyInstanceUID
            uid = workitems_of(gateway, held)[0]["sop_instance_uid"]
            assert reader.claim(uid) == 0xC307
            gateway.run("release", held)
            eventually(lambda: workitems_of(gateway, held)[0]["state"] == "SCHEDULED")
            assert reader.claim(uid) == 0


def test_a_rule_cannot_name_workitems_that_are_not_offered() -> None:
    rule = {"name": "r", "when": "true", "notify": ["ups"]}
    assert list(routing_rules.faults(parse({"rule": [rule], "ups": {"offer": True}}))) == []
    (fault,) = routing_rules.faults(parse({"rule": [rule]}))
    assert fault == ("r", "notify: found ups while ups.offer is false, required: true")
    hl7 = {"name": "ups", "host": "h", "port": 1}
    with pytest.raises(
        SettingsError, match="name: found ups among the receivers, required: another name"
    ):
        parse({"hl7": [hl7]})


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
