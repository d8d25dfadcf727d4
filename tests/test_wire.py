"""The wire suite on a gateway: every case has its right outcome, and the next caller is served."""

from collections.abc import Iterator

import pytest

import wire
from gateway import Gateway
from ledger import eventually, residue, rows
from rawpeer import Target
from wirecases import Case, cases, is_right

LARGEST_GROWTH = 64
"""Megabytes that one object or association may cost."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Target]]:
    """A gateway with the default limits that has done its loading, and where it listens."""
    with Gateway(tmp_path_factory.mktemp("wire")) as gateway:
        eventually(lambda: "classifier loaded" in gateway.log.read_text(), 120)
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


def test_forty_idle_associations_cost_next_to_nothing(target: tuple[Gateway, Target]) -> None:
    gateway, where = target
    assert gateway.process is not None
    pid = gateway.process.pid
    with wire.crowd(where, 0):
        alone = wire.cpu_share(pid)
    with wire.crowd(where, 40) as established:
        assert established == 40
        assert wire.cpu_share(pid) - alone < 0.05  # of a core, as the issue of this bound has it
