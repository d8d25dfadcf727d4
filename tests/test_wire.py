"""The wire suite on a gateway: every case has its right outcome, and the next caller is served."""

import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

import hostile
import wire
from browsing import PASSWORD, Site, log_in
from gateway import Gateway
from ledger import eventually, residue, rows
from pacs import free_port
from rawpeer import Outcome, RawPeer, Target
from wirecases import Case, cases, is_right

LARGEST_GROWTH = 64
"""Megabytes that one object or association may cost."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Target]]:
    """A gateway with the default limits that has done its loading, and where it listens."""
    with Gateway(tmp_path_factory.mktemp("wire"), web={"port": free_port()}) as gateway:
        eventually(lambda: "classifier loaded" in gateway.log.read_text())
        yield gateway, Target("127.0.0.1", gateway.port, "THORACLE")


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_is_sent_has_its_outcome_and_stops_nobody(
    target: tuple[Gateway, Target], case: Case
) -> None:
    gateway, where = target
    assert gateway.process is not None
    with wire.measured(gateway.process.pid) as cost:
        outcome, seconds = wire.play(case, where)
    assert is_right(case, outcome), outcome
    assert seconds <= case.seconds
    assert wire.echo_seconds(where) is not None
    assert cost.megabytes is not None
    assert cost.megabytes < LARGEST_GROWTH
    eventually(lambda: residue(gateway) == [], 10)


def test_what_the_wire_said_is_what_the_audit_says(target: tuple[Gateway, Target]) -> None:
    gateway, where = target
    (case,) = [one for one in cases() if one.name == "no data set"]
    outcome, _ = wire.play(case, where)
    statement = "SELECT * FROM audit_event WHERE event = 'instance refused' ORDER BY id DESC"
    row = rows(gateway, statement)[0]
    assert (row["status"], outcome.comment) == (
        f"0x{outcome.status:04X}",
        "C-STORE-RQ without a data set",
    )
    assert outcome.comment in row["detail"]


def test_nothing_wakes_each_millisecond_for_an_idle_association(
    target: tuple[Gateway, Target],
) -> None:
    """How often their threads wake; pynetdicom's own look for something each millisecond.

    ``python -m tests.wire`` measures what that costs: less than 5 % of a core.
    """
    gateway, where = target
    assert gateway.process is not None
    pid = gateway.process.pid
    others = wire.threads(pid)
    with wire.crowd(where, 40) as established:
        assert established == 40
        theirs = wire.threads(pid) - others
        assert len(theirs) >= 40
        assert wire.wake_ups(pid, theirs) < 40 * 10


def test_a_log_in_is_answered_while_the_costliest_objects_are_taken_and_compared(
    target: tuple[Gateway, Target],
) -> None:
    """Within a second; five times as long as at rest where the machine is busy with others."""
    gateway, where = target
    with Site(gateway.folder, config=gateway.config) as site:
        at_rest = _seconds_of_log_ins(site)
        ended, outcomes = threading.Event(), list[Outcome]()
        senders = [
            threading.Thread(target=_send_until, args=(ended, where, made, outcomes))
            for made in (_refused(), _compared())
        ]
        for one in senders:
            one.start()
        try:
            eventually(lambda: len(outcomes) >= 4)
            meanwhile = _seconds_of_log_ins(site)
        finally:
            ended.set()
            for one in senders:
                one.join()
    assert {one.what for one in outcomes} == {"status"}
    assert {one.status for one in outcomes} >= {0, 0xC000}
    assert meanwhile < max(1.0, 5 * at_rest)


def _seconds_of_log_ins(site: Site) -> float:
    """Return how long a log-in takes, the median of five."""
    found = []
    for _ in range(5):
        with site.visitor() as client:
            began = time.monotonic()
            assert log_in(client, "reader", PASSWORD).status_code == 303
            found.append(time.monotonic() - began)
    return statistics.median(found)


def _refused() -> list[hostile.Hostile]:
    """Return objects that are costly until a budget ends it."""
    return [
        hostile.nested(3000),
        hostile.items(1_000_000),
        hostile.elements_of_item(1_000_000),
        hostile.elements(1_000_000),
        hostile.deflated(100),
    ]


def _compared() -> list[hostile.Hostile]:
    """Return versions of one object, each as costly as the budget allows, that differ."""
    names = {"uid": "2.25.77003", "study": "2.25.77004"}
    many = hostile.element(9, 0x10, "LO", b"MAKER")
    many += hostile.element(9, 0x1001, "LO", b"x") * 19_000
    image = partial(hostile.image, many, rows=3000, columns=3000, **names)  # type: ignore[arg-type]  # all are text
    return [image(behind=hostile.element(0x40, 0x2400, "LT", text)) for text in (b"one ", b"two ")]


def _send_until(
    ended: threading.Event, where: Target, made: list[hostile.Hostile], outcomes: list[Outcome]
) -> None:
    while not ended.is_set():
        for one in made:
            with RawPeer(where, 60) as peer:
                outcomes.append(peer.store(one))
                peer.release()
