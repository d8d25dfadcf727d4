"""Requests to cancel our workitems, and subscriptions: who hears what of which workitem."""

from pathlib import Path

from pydicom import Dataset

from thoracle.ups.states import GLOBAL_SUBSCRIPTION
from workflow import Reader, coded, data
from workitem_listener import Listener, completed, in_progress

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
