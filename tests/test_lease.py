"""What a gateway of several writes is committed while its lease is its own, or not at all."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import alembic.command
import pytest
from alembic.config import Config
from sqlalchemy import Engine, func, select, text

from postgres import Server, server
from thoracle.audit import query, starts
from thoracle.audit.sentences import sentence
from thoracle.errors import DataFolderInUse, LeaseLost, SettingsError, ThoracleError
from thoracle.monitoring import conditions
from thoracle.monitoring.duties import of_gateway as of_gateway_columns
from thoracle.receive.inbox import Inbox
from thoracle.settings import Receive, Settings, parse
from thoracle.store import database, lease, move, trail
from thoracle.store.database import of_gateway
from thoracle.store.lease import Alone, Lease
from thoracle.store.tables import audit_event

Begin = Callable[..., Lease]
PACS: dict[str, object] = {
    "destination": [{"name": "pacs", "ae_title": "PACS", "host": "192.0.2.1", "port": 104}]
}
BUNDLE, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server() as one:
        yield one


@pytest.fixture
def url(running: Server) -> str:
    return running.create()


@pytest.fixture
def begin(url: str) -> Iterator[Begin]:
    """Begin as a gateway of some name; all end with the test. What they lost is in ``lost``."""
    with ExitStack() as stack:

        def begin(name: str, **more: object) -> Lease:
            _, held = stack.enter_context(of_gateway(several(url, name, **more), lost.append))
            assert isinstance(held, Lease)
            held.begun()
            return held

        lost.clear()
        yield begin


lost: list[str] = []


def several(url: str, name: str, **more: object) -> Settings:
    return parse(
        {"database": {"url": url}, "gateway": {"one_of_several": True, "name": name}, **more}
    )


def let_run_out(engine: Engine, name: str) -> None:
    """Let a gateway not have been heard of for longer than its lease."""
    statement = (
        "UPDATE gateway_lease SET expires_at = '2026-01-01T00:00:00.000000Z' WHERE name = :name"
    )
    with engine.begin() as connection:
        connection.execute(text(statement), {"name": name})


def write(engine: Engine) -> None:
    with engine.begin() as connection:
        trail.record(connection, trail.Event.AUDIT_READ, {})


def written(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(audit_event)).scalar_one()


# ---- what is taken over ----------------------------------------------------------------------


def test_the_first_leads_until_it_is_gone_or_ends_in_order(begin: Begin) -> None:
    first, second, third = (begin(name) for name in ("one", "two", "three"))
    assert [one.leads() for one in (first, second, third)] == [True, False, False]
    assert [one.is_first() for one in (first, second, third)] == [True, False, False]
    let_run_out(first._database, "one")
    third.take_over()
    assert [one.leads() for one in (first, second, third)] == [False, True, False]
    assert second.alive() == {second.executor_id, third.executor_id}
    second.release()
    assert third.leads()
    assert lost == []


def test_who_was_taken_over_writes_nothing_more_and_ends(begin: Begin) -> None:
    first, second = begin("one"), begin("two")
    before = written(first._database)
    write(first._database)
    let_run_out(first._database, "one")
    second.take_over()
    with pytest.raises(LeaseLost):
        write(first._database)
    write(second._database)
    assert written(second._database) == before + 2
    first.renew()
    assert lost == [lease.TAKEN, lease.TAKEN]


def test_what_still_runs_when_the_lease_is_given_up_ends_without_an_error(begin: Begin) -> None:
    """The engine takes an ``Exception`` for the end of a workflow, which others go on with."""
    first = begin("one")
    first.release()
    for use in (first.require, partial(write, first._database)):
        with pytest.raises(SystemExit):
            use()
    assert written(first._database) == 0
    assert lost == []


def test_nobody_takes_over_while_a_transaction_of_the_other_is_open(begin: Begin) -> None:
    """However long a process stands still between its last statement and its commit."""
    first, second = begin("one"), begin("two")
    with first._database.begin() as connection:
        trail.record(connection, trail.Event.AUDIT_READ, {})
        let_run_out(second._database, "one")
        second.take_over()
        assert first.executor_id in second.alive()
        first.renew()  # meanwhile it can be renewed
        let_run_out(second._database, "one")
    assert written(first._database) == 1
    second.take_over()
    assert first.executor_id not in second.alive()
    assert lost == []


def test_a_gateway_that_cannot_renew_ends_itself(url: str, running: Server) -> None:
    told = threading.Event()
    settings = several(url, "one", gateway={"one_of_several": True, "lease_seconds": 2})
    with of_gateway(settings, lambda _: told.set()) as (engine, held):
        running.execute(f"ALTER DATABASE {engine.url.database} ALLOW_CONNECTIONS false")
        running.end(f"datname = '{engine.url.database}'")
        assert told.wait(30)
        with pytest.raises(LeaseLost):
            held.require()
        running.execute(f"ALTER DATABASE {engine.url.database} ALLOW_CONNECTIONS true")


def test_a_slow_migration_is_not_ended_by_the_limit_of_transactions(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = alembic.command.upgrade

    def slow(config: Config, revision: str) -> None:
        upgrade(config, "0001")
        time.sleep(1.5)
        upgrade(config, revision)

    monkeypatch.setattr(alembic.command, "upgrade", slow)
    engine = database.connect(url, idle_seconds=0.5)
    database.migrate(engine)
    database.require_schema(engine)
    engine.dispose()


def test_the_lease_of_a_dead_process_of_this_machine_is_not_waited_for(
    url: str, begin: Begin
) -> None:
    first = begin("one")
    dead = "UPDATE gateway_lease SET pid = 4194305"  # above the highest that there can be
    with first._database.begin() as connection:
        connection.execute(text(dead))
    again = begin("one")
    assert again.leads()
    assert again.is_first()
    assert first.executor_id not in again.alive()


# ---- who may begin ---------------------------------------------------------------------------


def test_several_and_one_alone_refuse_each_other(url: str, begin: Begin) -> None:
    alone = parse({"database": {"url": url}})
    with of_gateway(alone, lost.append) as (_, held):
        assert type(held) is Alone
        with pytest.raises(DataFolderInUse, match=r"alone, required: gateways with gateway.one_of"):
            begin("one")
    first = begin("one")
    with (
        pytest.raises(DataFolderInUse, match=r"found gateway one on .+ at work, heard of"),
        of_gateway(alone, lost.append),
    ):
        pass
    let_run_out(first._database, "one")
    with of_gateway(alone, lost.append) as (engine, _):  # its lease has run out, and is forgotten
        assert lease.rows(engine) == []


def test_no_rows_are_moved_under_gateways_at_work(url: str, begin: Begin, tmp_path: Path) -> None:
    first = begin("one")
    away = parse({"database": {"url": url}, "data_folder": str(tmp_path)})
    with pytest.raises(DataFolderInUse, match=r"found gateway one on .+: none, of several"):
        move.move(away, move.Direction.TO_SQLITE, {}, lambda _: None)
    assert first.alive() == {first.executor_id}


def test_none_begins_with_another_bundle(begin: Begin) -> None:
    begin("one").declare_bundle(BUNDLE)
    second = begin("two")
    with pytest.raises(ThoracleError, match=r"found digest b+, and gateway one at work with a+,"):
        second.declare_bundle(OTHER)
    second.declare_bundle(BUNDLE)


def test_the_schema_is_not_changed_under_gateways_at_work(
    url: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begin("one")
    config = database._migrations()
    with first._database.begin() as connection:  # as if this version had one more
        config.attributes["connection"] = connection
        alembic.command.stamp(config, "0023")
    with pytest.raises(DataFolderInUse, match="required: none while the schema is brought to"):
        begin("two")


@pytest.mark.parametrize(
    ("gateway", "expected"),
    [
        ({"one_of_several": True}, "gateway.one_of_several: found true without database.url"),
        ({"role": "read"}, "gateway.role: found read without gateway.one_of_several"),
        ({"lease_seconds": 1}, "gateway.lease_seconds: found 1, required: at least 2"),
        ({"name": "a b"}, "gateway.name: found 'a b'"),
    ],
)
def test_settings_that_do_not_fit_are_named(gateway: dict[str, object], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        parse({"gateway": gateway})


# ---- what is told of it ----------------------------------------------------------------------


def alarms(held: Lease) -> dict[str, str]:
    with held._database.connect() as connection:
        return {one.subject: one.sentence for one in conditions._gateways(connection)}


def test_a_gateway_that_is_gone_is_an_alarm_until_it_is_back_or_stopped(begin: Begin) -> None:
    first, second = begin("one"), begin("two")
    assert alarms(second) == {}
    let_run_out(first._database, "one")
    second.take_over()
    assert "Gateway one on " in alarms(second)["gateway one"]
    second.cleared(first.executor_id)
    again = begin("one")
    assert alarms(second) == {}
    let_run_out(again._database, "one")
    second.take_over()
    second.cleared(again.executor_id)
    assert set(alarms(second)) == {"gateway one"}
    begin("one").release()
    assert alarms(second) == {}
    assert [row.name for row in lease.rows(second._database)] == ["two"]


def test_a_gateway_that_can_store_nothing_or_has_other_settings_is_an_alarm(begin: Begin) -> None:
    first = begin("one")
    second = begin("two", report={"sc": []})
    second.fault = "0 MB free, required 1024"
    second.renew()
    assert set(alarms(first)) == {"gateway two fault", "gateway settings"}
    assert "Settings of two differ from those of one." in alarms(first)["gateway settings"]


def test_what_is_a_gateways_own_makes_no_difference(begin: Begin) -> None:
    first = begin("one", receive={"port": 11113}, log_level="DEBUG")
    begin("two", receive={"host": "::1"})
    assert alarms(first) == {}


def test_the_audit_says_in_words_which_gateway_began_and_which_was_gone(begin: Begin) -> None:
    first = begin("one")
    named = of_gateway_columns(first)["detail"]
    assert sentence([{"event": "application stopped", "detail": named}]) == (
        "Thoracle, gateway one, stopped."
    )
    gone = {**named, "heard_at": "2026-11-30T12:00:00.000000Z", "files_cleared": 0}
    assert sentence([{"event": "application stopped", "detail": gone}]) == (
        "Thoracle, gateway one, ended without stopping: it was heard of last at "
        "2026-11-30T12:00:00.000000Z, and others took up its work."
    )


def test_what_is_a_gateways_own_is_no_change_of_the_settings(url: str, begin: Begin) -> None:
    first = begin("one")
    found = []
    for name, more in (("one", {}), ("two", {"receive": {"port": 11113}}), ("two", PACS)):
        with first._database.begin() as connection:
            starts.record(connection, several(url, name, **more), {})
            events = query.events(connection, query.Question(event="configuration changed"))
            found.append(list(events)[-1]["detail"]["changed"])
    assert found[:2] == [[], []]
    assert "destination.pacs.port" in found[2]
    assert all(one.startswith("destination") for one in found[2])


# ---- files -----------------------------------------------------------------------------------


def stored(inbox: Inbox) -> str:
    file = inbox.open()
    file.write(b"an image")
    path = inbox.keep(file)
    file.close()
    return path


def test_files_of_gateways_at_work_are_not_cleared_away(tmp_path: Path) -> None:
    here, there, gone = (
        Inbox(tmp_path, Receive(reserve_megabytes=1), f"host-{number}-{mark}")
        for number, mark in ((1, "aaaaaaaa"), (2, "bbbbbbbb"), (3, "cccccccc"))
    )
    unrowed, orphan, rowed = stored(there), stored(gone), stored(gone)
    arriving, left = there.open(), gone.open()
    number = here.clear_of_others(lambda: {"host-1-aaaaaaaa", "host-2-bbbbbbbb"}, lambda: {rowed})
    assert number == 2
    assert (tmp_path / unrowed).exists()
    assert (tmp_path / rowed).exists()
    assert (tmp_path / "orphans" / Path(orphan).name).exists()
    assert Path(arriving.name).exists()
    assert not Path(left.name).exists()
    for one in (arriving, left):
        one.close()
    there.close()
    assert [path.name for path in (tmp_path / "incoming").iterdir()] == ["host-1-aaaaaaaa"]


def test_one_alone_clears_away_what_several_left(tmp_path: Path) -> None:
    other = Inbox(tmp_path, Receive(reserve_megabytes=1), "host-1-aaaaaaaa")
    left = other.open()
    left.close()
    orphan = stored(other)
    assert Inbox(tmp_path, Receive(reserve_megabytes=1)).clear_unfinished(set()) == 2
    assert not (tmp_path / orphan).exists()
    assert list((tmp_path / "incoming").iterdir()) == []
