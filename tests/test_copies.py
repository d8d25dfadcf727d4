"""Local copies of objects in a bucket: none stays that nobody names, none goes while it is read."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from thoracle.outbox import rows
from thoracle.settings import Settings, parse
from thoracle.store import copies, database, sqlite, trail
from thoracle.store.copies import Copies
from thoracle.store.object_files import Objects

COPY = "results/12/1.2.dcm"
DAY = 86400.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return parse({"data_folder": str(tmp_path)})


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = database.open_database(sqlite.url(tmp_path))
    yield found
    found.dispose()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], float]:
    """Let time go by, for what looks after copies; return the time of then."""
    passed = [0.0]
    clocks = {"time": time.time, "monotonic": time.monotonic}

    class Clock:
        def __getattr__(self, name: str) -> Callable[[], float]:
            return lambda: clocks[name]() + passed[0]

    def go_on(seconds: float) -> float:
        passed[0] += seconds
        return clocks["time"]() + passed[0]

    monkeypatch.setattr(copies, "time", Clock())
    return go_on


def copy(folder: Path, age: float = 0.0) -> Path:
    """Return a copy that was read so many seconds ago."""
    path = folder / COPY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"object")
    os.utime(path, (time.time() - age,) * 2)
    return path


def delete_something(engine: Engine) -> None:
    with engine.begin() as connection:
        trail.record(connection, trail.Event.RETENTION_DELETED, {})


def test_a_copy_that_is_read_meanwhile_stays(
    engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket is asked for many objects, one after the other; somebody reads one of them."""
    path = copy(tmp_path, 30 * DAY)
    with engine.begin() as connection:
        rows.add(connection, "hl7", "ris", "1", path=COPY)

    def asked(_objects: Objects, _below: str) -> bool:
        os.utime(path)
        return True

    monkeypatch.setattr(Objects, "exists", asked)
    assert Copies(engine, settings).look() == 0
    assert path.exists()
    os.utime(path, (time.time() - 30 * DAY,) * 2)
    monkeypatch.setattr(Objects, "exists", lambda *_: True)
    assert Copies(engine, settings).look() == 1
    assert not path.exists()


@pytest.mark.parametrize("minutes", [1, 3])
def test_a_copy_that_came_while_its_object_was_deleted_goes_too(
    engine: Engine,
    settings: Settings,
    tmp_path: Path,
    later: Callable[[float], float],
    minutes: int,
) -> None:
    """Its fetch had begun before, and ended behind the first look, or still later."""
    delete_something(engine)
    looked = Copies(engine, settings)
    part = tmp_path / "results" / "12" / "fetched.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"obj")
    for _ in range(minutes):
        looked.look()
        os.utime(part, (later(5),) * 2)
        later(copies.GRACE_SECONDS - 5)
    part.rename(tmp_path / COPY)
    for _ in range(3):
        looked.look()
        later(copies.GRACE_SECONDS)
    assert not (tmp_path / COPY).exists()


def test_a_deletion_by_a_machine_whose_clock_is_behind_is_seen(
    engine: Engine,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = Copies(engine, settings)
    with monkeypatch.context() as ahead:
        ahead.setattr(trail, "now", lambda: "2100-01-01T00:00:00.000000Z")
        delete_something(engine)
    looked.look()
    path = copy(tmp_path, 2 * copies.GRACE_SECONDS)
    looked.look()
    assert path.exists()
    delete_something(engine)
    looked.look()
    assert not path.exists()


def test_a_file_that_vanishes_meanwhile_keeps_no_other(
    engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages write pictures, and a fetch renames its part, while files are looked through."""
    album = tmp_path / "cache" / "pictures" / "ab"
    album.mkdir(parents=True)
    part = copy(tmp_path).with_suffix(".part")
    for path in (album / "1.png", album / "2.png", album / "3.png", part):
        path.write_bytes(b"made")
        os.utime(path, (time.time() - 30 * DAY,) * 2)
    look = os.stat
    vanished: list[object] = []

    def vanishing(path: Any, **more: Any) -> os.stat_result:
        if str(path).endswith(".png") and not vanished:
            vanished.append(path)
            os.unlink(path, dir_fd=more["dir_fd"])
        if str(path).endswith(".part"):
            part.unlink(missing_ok=True)
        return look(path, **more)

    monkeypatch.setattr(os, "stat", vanishing)
    assert Copies(engine, settings).look() == 2
    assert list(album.iterdir()) == []
