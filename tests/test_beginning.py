"""A purge of the audit is proven by its event: a beginning that was cut off otherwise is found."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from test_chain import run
from thoracle.audit.verification import Verification, verify
from thoracle.retention import rules
from thoracle.retention.purge import Purge
from thoracle.settings import Retention, Settings
from thoracle.store import anchors, chain, database, trail
from thoracle.store.anchors import ANCHORS_FILE, Anchor
from thoracle.store.tables import timestamp
from thoracle.store.trail import Event

OLD, NEW = 60, 5
DAYS = 10


def at(ago: float) -> str:
    return timestamp(datetime.now(UTC) - timedelta(days=ago))


def written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, every: int = 15, old: int = OLD
) -> Engine:
    """Return a trail with rows of 30 days ago and of today, anchored every so many rows."""
    engine = database.open_database(database.sqlite_url(folder))
    for number in range(1, old + NEW + 1):
        moment = at(30 if number <= old else 0)
        monkeypatch.setattr(trail, "now", lambda moment=moment: moment)
        monkeypatch.setattr(anchors, "now", lambda moment=moment: moment)
        with engine.begin() as connection:
            trail.record(connection, Event.IMAGE_READ, {"study_instance_uid": f"1.2.{number}"})
        if not number % every:
            anchors.drop_anchor(engine, folder / ANCHORS_FILE)
    monkeypatch.undo()
    return engine


def purged(engine: Engine, folder: Path) -> int:
    given = Settings(data_folder=folder, retention=Retention(audit_days=DAYS))
    return Purge(engine, given).run().events


def verified(engine: Engine, kept: Sequence[Anchor]) -> Verification:
    with engine.connect() as connection:
        return verify(connection, kept)


def test_a_purge_is_told_with_its_event_and_fits_the_anchors_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = written(tmp_path, monkeypatch)
    kept = anchors.read_anchors(tmp_path / ANCHORS_FILE)
    assert [one.id for one in kept] == [15, 30, 45, 60]
    assert purged(engine, tmp_path) == OLD
    found = verified(engine, kept)
    assert found.well
    assert (found.beginning.rows, found.beginning.not_comparable) == (OLD, 0)
    last = found.beginning.last
    assert last is not None
    assert (last.up_to, last.event_id, last.reason) == (OLD, OLD + NEW + 1, "older than 10 days")
    code, said = run(tmp_path, "verify")
    assert code == 0
    assert f"purged: {OLD} rows up to row {OLD}\n" in said
    assert f"{OLD} rows by event {OLD + NEW + 1} of " in said


def test_a_beginning_that_was_cut_off_is_found_with_and_without_anchors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = written(tmp_path, monkeypatch, every=30)
    with engine.begin() as connection:  # no trigger is dropped
        connection.execute(
            text("INSERT INTO audit_checkpoint SELECT id, digest, id, '2026', 'older than 10 days'"
            " FROM audit_event WHERE id = 60")
        )  # fmt: skip
        connection.execute(text("DELETE FROM audit_event WHERE id <= 60"))
    for kept in ([], anchors.read_anchors(tmp_path / ANCHORS_FILE)[:1]):
        found = verified(engine, kept)
        assert found.broken_id == OLD
        assert found.fault.startswith("60 rows up to it were removed without an event")
    code, said = run(tmp_path, "verify")
    assert (code, said[:20]) == (1, "BROKEN at row 60: 60")


def forged(engine: Engine, **detail: Any) -> None:
    """Cut the beginning off as a purge would, with an event in the chain."""
    with engine.begin() as connection:
        values = {
            "after": 0,
            "up_to": OLD,
            "rows": OLD,
            "digest": chain.digest_at(connection, OLD),
            "reason": "older than 10 days",
            **detail,
        }
        connection.execute(
            text("INSERT INTO audit_checkpoint VALUES (60, :digest, 60, '2026', :reason)"),
            {"digest": values["digest"], "reason": values["reason"]},
        )
        trail.record(connection, Event.AUDIT_PURGED, {"detail": values})
        connection.execute(text("DELETE FROM audit_event WHERE id <= 60"))


def test_a_purge_with_a_forged_event_does_not_fit_an_anchor_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = written(tmp_path, monkeypatch)
    kept = anchors.read_anchors(tmp_path / ANCHORS_FILE)
    forged(engine, before=at(DAYS), anchors=[[one.id, one.digest] for one in kept if one.id != 30])
    found = verified(engine, kept)
    assert found.broken_id == 30
    assert "which does not name its anchor" in found.fault


def test_rows_younger_than_the_rule_of_their_purge_are_found_by_an_anchor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = written(tmp_path, monkeypatch)
    kept = anchors.read_anchors(tmp_path / ANCHORS_FILE)
    forged(engine, before=at(DAYS), anchors=[[one.id, one.digest] for one in kept])
    assert verified(engine, kept).well
    found = verified(engine, [replace(kept[0], recorded_at=at(1))])
    assert found.broken_id == 15
    assert "it was purged by row 66 as older than" in found.fault


@pytest.mark.parametrize("row", [30, OLD])
def test_an_anchor_below_with_another_digest_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    engine = written(tmp_path, monkeypatch)
    purged(engine, tmp_path)
    found = verified(engine, [Anchor(row, "f" * 64, at(30))])
    assert found.broken_id == row
    assert "with another digest than its anchor has" in found.fault


def test_a_purge_by_an_earlier_version_names_no_anchors_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = written(tmp_path, monkeypatch)
    forged(engine)
    kept = anchors.read_anchors(tmp_path / ANCHORS_FILE)
    found = verified(engine, kept)
    assert (found.well, found.beginning.not_comparable) == (True, 3)
    assert not verified(engine, [replace(kept[-1], digest="f" * 64)]).well


def test_each_purge_goes_on_where_the_one_before_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = written(tmp_path, monkeypatch)
    monkeypatch.setattr(rules, "MOST_ANCHORS", 2)
    assert purged(engine, tmp_path) == OLD
    kept = anchors.read_anchors(tmp_path / ANCHORS_FILE)
    found = verified(engine, kept)
    assert (found.well, [one.up_to for one in found.beginning.purges]) == (True, [30, OLD])
    with closing(sqlite3.connect(tmp_path / "thoracle.sqlite")) as connection, connection:
        connection.execute("DROP TRIGGER audit_checkpoint_no_delete")
        connection.execute("DELETE FROM audit_checkpoint WHERE up_to = 30")
    found = verified(engine, kept)
    assert found.broken_id == OLD
    assert "a checkpoint was added or removed" in found.fault


def test_rows_that_are_not_what_their_anchor_says_are_not_purged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = written(tmp_path, monkeypatch)
    path = tmp_path / ANCHORS_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["digest"] = "f" * 64
    path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    assert purged(engine, tmp_path) == 0
    with engine.connect() as connection:
        kept = anchors.read_anchors(path)
        found = rules.prefix(connection, DAYS, [], datetime.now(UTC), kept)
    assert found.stopped_by == "row 30 is not what its anchor says: verify the log"


def test_a_purge_ends_before_an_anchor_that_is_younger_than_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An anchor comes up to a minute after its row: the row may be older than the rule, it not."""
    engine = written(tmp_path, monkeypatch)
    path = tmp_path / ANCHORS_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["recorded_at"] = at(DAYS - 0.01)
    path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    kept = anchors.read_anchors(path)
    assert purged(engine, tmp_path) == OLD - 1
    assert verified(engine, kept).well
