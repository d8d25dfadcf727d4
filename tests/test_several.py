"""Several gateways on one database: nothing acknowledged is lost, and no study has two reports."""

import gc
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import processes
from fleet import LEASE_SECONDS, Fleet, Relay
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs
from postgres import Server, server
from radiographs import chest
from sender import Sender, send
from test_crash import (
    PATIENCE,
    UNFINISHED,
    Modality,
    assert_nothing_lost_or_done_twice,
    random_moment,
    report,
    say_where_it_stands,
)
from thoracle.store import lease

DELIVERED = "SELECT 1 FROM outbox WHERE state <> 'delivered'"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server() as one:
        yield one


@pytest.fixture
def url(running: Server) -> str:
    return running.create("TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'")


def wait_for_the_end(pacs: Pacs, gateway: Gateway, studies: int) -> None:
    """Return when all studies are in the archive and nothing is left to do."""
    eventually(lambda: len(pacs.kept) >= studies, PATIENCE + studies)
    eventually(lambda: not rows(gateway, DELIVERED), PATIENCE)
    eventually(lambda: not rows(gateway, UNFINISHED), PATIENCE)


def stop(fleet: Fleet) -> None:
    assert [one.terminate() for one in fleet.gateways] == [0] * len(fleet.gateways)
    assert rows(fleet.gateways[0], "SELECT 1 FROM gateway_lease") == []


def alarms(gateway: Gateway) -> list[str]:
    """Return of which gateways there is an alarm that they are gone."""
    statement = (
        "SELECT subject FROM alarm WHERE level = 'alarm' "
        "AND subject ~ '^gateway ' AND subject !~ ' fault$'"
    )
    return [row["subject"] for row in rows(gateway, statement)]


def raised(gateway: Gateway) -> set[str]:
    statement = "SELECT detail ->> 'subject' AS subject FROM audit_event WHERE event = ?"
    return {row["subject"] for row in rows(gateway, statement, "alarm raised")}


def stopped(gateway: Gateway) -> list[int]:
    """Return the outcomes of the ends that the audit has, oldest first."""
    statement = "SELECT event_outcome FROM audit_event WHERE event = ? ORDER BY id"
    return [row["event_outcome"] for row in rows(gateway, statement, "application stopped")]


# ---- roles -----------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_one_that_receives_and_one_that_reads_answer_a_study_and_outlast_a_restart_of_the_server(
    running: Server, url: str, tmp_path: Path
) -> None:
    images = [chest() for _ in range(2)]
    patient = {"lease_seconds": 30}  # a server takes seconds to start on a busy machine
    with Pacs(commitment=True) as pacs:
        roles = ("receive", "read")
        with Fleet(tmp_path, [url, url], pacs, roles=roles, gateway=patient) as fleet:
            receives, reads = fleet.gateways
            pacs.reports_to = ("THORACLE", receives.port)  # the one that asked does not listen
            assert send(receives.port, images[0]).status == 0x0000
            concluded(receives, str(images[0].StudyInstanceUID))
            eventually(lambda: rows(reads, "SELECT 1 FROM outbox WHERE proof = 'commitment'"))
            said = receives.run("status")
            assert f"gateway gateway-0: receive, listens on 127.0.0.1:{receives.port}" in said
            assert "gateway gateway-1: read (process " in said
            checked = processes.run("check", "--config", str(receives.config)).stdout
            assert "OK    gateway gateway-1: read (process " in checked
            assert f"127.0.0.1:{receives.port} is in use by the running service" in checked
            running.stop("immediate")
            running.start()
            with Sender(receives.port) as sender:
                eventually(lambda: sender.store(images[1]).status == 0x0000)
            eventually(lambda: len(pacs.kept) == 2 and not rows(reads, DELIVERED))
            assert "classifier loaded" not in receives.log.read_text()
            stop(fleet)
        assert len(pacs.kept) == 2


def test_a_study_that_comes_to_two_gateways_is_complete_when_both_have_all(
    url: str, tmp_path: Path
) -> None:
    """The one that is released first must not end the wait for what comes to the other."""
    first, second = chest(), chest()
    second.StudyInstanceUID = first.StudyInstanceUID
    quiet = {"quiet_otherwise_seconds": 8}  # not to wait half a minute at the end
    with Fleet(tmp_path, [url, url], roles=("receive", "receive"), complete=quiet) as fleet:
        one, other = fleet.gateways
        with Sender(other.port) as slow:
            assert slow.store(first).status == 0x0000
            with Sender(one.port) as quick:
                assert quick.store(second).status == 0x0000
            pause = 3 * 0.5  # of the quiet time after a release in tests
            time.sleep(pause)
            assert rows(one, "SELECT 1 FROM analysis") == []
        eventually(lambda: rows(one, "SELECT 1 FROM analysis"))
        assert rows(one, "SELECT generation FROM instance") == [{"generation": 1}] * 2
        stop(fleet)


# ---- what happens to them --------------------------------------------------------------------


def stream_and_kill(folder: Path, url: str, kills: int, studies: int, size: int = 3) -> None:
    """Stream studies through gateways that are killed; each second one is missed for a while."""
    seed = int(os.environ.get("THORACLE_SEED") or random.SystemRandom().getrandbits(32))
    print(f"THORACLE_SEED={seed} repeats the choice of moments")
    random_ = random.Random(seed)
    seconds = []
    each = studies // (kills + 1)
    with Pacs() as pacs, Fleet(folder, [url] * size, pacs) as fleet:
        with Relay(*(one.port for one in fleet.gateways)) as balancer:
            modality = Modality(balancer)
            try:
                with modality.sending():
                    for turn in range(kills):
                        modality.queue(each)
                        random_moment(random_, turn, modality, pacs, each)
                        seconds.append(kill_one(fleet, random_, missed=turn % 2 == 1))
                    modality.queue(studies - kills * each)
                wait_for_the_end(pacs, fleet.gateways[0], studies)
            except TimeoutError:
                for one in fleet.gateways:
                    say_where_it_stands(one)
                raise
        eventually(lambda: alarms(fleet.gateways[0]) == [])
        eventually(lambda: len(stopped(fleet.gateways[0])) == kills)
        stop(fleet)
        assert len(modality.acknowledged) == studies
        assert_nothing_lost_or_done_twice(fleet.gateways[0], modality, pacs)
        # That gateways compete for work is no error of the database.
        said = raised(fleet.gateways[0])
        assert [one for one in said if one == "database" or one.endswith(" fault")] == []
        found = stopped(fleet.gateways[0])
        assert (found.count(0), len(found) - found.count(0)) == (size, kills)
    report(fleet.gateways[0], modality, pacs, seconds)
    gc.collect()  # sockets of associations that died


def kill_one(fleet: Fleet, random_: random.Random, *, missed: bool) -> float:
    """Kill a gateway and start it again, when it is missed or at once; return how long it took."""
    one = random_.choice(fleet.gateways)
    one.kill()
    began = time.monotonic()
    if missed:
        eventually(lambda: alarms(one) == [f"gateway {one.folder.name}"])
    one.start()
    return time.monotonic() - began


@pytest.mark.timeout(600)
def test_three_kills_among_three_gateways(url: str, tmp_path: Path) -> None:
    stream_and_kill(tmp_path, url, kills=3, studies=16)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_twenty_kills_among_three_gateways(url: str, tmp_path: Path) -> None:
    stream_and_kill(tmp_path, url, kills=20, studies=200)


@pytest.mark.timeout(300)
def test_a_gateway_that_stands_still_for_three_leases_ends_itself_and_nothing_is_done_twice(
    url: str, tmp_path: Path
) -> None:
    with Pacs() as pacs, Fleet(tmp_path, [url, url], pacs) as fleet:
        frozen, other = fleet.gateways
        assert frozen.process is not None
        with Relay(frozen.port, other.port) as balancer:
            modality = Modality(balancer)
            with modality.sending():
                modality.queue(8)
                eventually(lambda: at_work(frozen))
                frozen.process.send_signal(signal.SIGSTOP)
                began = time.monotonic()
                eventually(lambda: alarms(other) == ["gateway gateway-0"])
            wait_for_the_end(pacs, other, 8)
        time.sleep(max(0.0, began + 3 * LEASE_SECONDS - time.monotonic()))
        frozen.process.send_signal(signal.SIGCONT)
        assert frozen.process.wait(30) == 1
        assert any(one in frozen.log.read_text() for one in (lease.RAN_OUT, lease.TAKEN))
        frozen.start()
        eventually(lambda: alarms(other) == [])
        stop(fleet)
        assert_nothing_lost_or_done_twice(other, modality, pacs)
        assert stopped(other).count(8) == 1


def at_work(gateway: Gateway) -> list[dict[str, Any]]:
    """Return what a gateway is at work on."""
    statement = (
        "SELECT 1 FROM workflow_status JOIN gateway_lease USING (executor_id) "
        "WHERE gateway_lease.name = ? AND workflow_status.status = 'PENDING'"
    )
    return rows(gateway, statement, gateway.folder.name)


@pytest.mark.timeout(300)
def test_a_gateway_that_is_cut_off_from_the_database_ends_itself_after_a_lease_not_before(
    running: Server, url: str, tmp_path: Path
) -> None:
    with Pacs() as pacs, Relay(running.port) as network:
        far = url.replace(str(running.port), str(network.port))
        with Fleet(tmp_path, [url, far], pacs, roles=("all", "receive")) as fleet:
            near, cut = fleet.gateways
            assert cut.process is not None
            modality = Modality(cut)
            with modality.sending():
                modality.queue(2)
                eventually(lambda: len(pacs.kept) == 2)  # so it has begun to work, too
                network.cut()
                time.sleep(LEASE_SECONDS / 4)  # less than what it can do without
                network.mend()
                modality.queue(2)
                eventually(lambda: len(modality.acknowledged) == 4)
                network.cut()
                assert cut.process.wait(30) == 1
                assert lease.RAN_OUT in cut.log.read_text()
                eventually(lambda: alarms(near) == ["gateway gateway-1"])
                network.mend()
                cut.start()
                modality.queue(2)
            wait_for_the_end(pacs, near, 6)
            stop(fleet)
        assert_nothing_lost_or_done_twice(near, modality, pacs)
