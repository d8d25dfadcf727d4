"""Local copies of objects in a bucket: none stays that nobody names, none goes while it is read."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from thoracle.outbox import rows
from thoracle.settings import Settings, parse
from thoracle.store import database, sqlite
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


def copy(folder: Path, age: float = 0.0) -> Path:
    """Return a copy that was read so many seconds ago."""
    path = folder / COPY
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"object")
    os.utime(path, (time.time() - age,) * 2)
    return path


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
