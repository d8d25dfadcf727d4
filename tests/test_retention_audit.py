"""The audit goes after its days, from its beginning, and the chain still fits."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select

from thoracle.audit import verification
from thoracle.retention.purge import Purge
from thoracle.retention.rules import prefix
from thoracle.settings import Retention, Settings
from thoracle.store import anchors, database, trail
from thoracle.store.tables import audit_checkpoint, audit_event, audit_forward, timestamp


def trailed(folder: Path, days: list[float], monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Return a database with an event so many days ago each, of a patient and study by number."""
    engine = database.open_database(database.sqlite_url(folder))
    for number, ago in enumerate(days, 1):
        moment = timestamp(datetime.now(UTC) - timedelta(days=ago))
        monkeypatch.setattr(trail, "now", lambda moment=moment: moment)
        columns: trail.Columns = {
            "patient_id": f"P{number}",
            "study_instance_uid": f"1.2.{number}",
        }
        with engine.begin() as connection:
            trail.record(connection, trail.Event.IMAGE_READ, columns)
    monkeypatch.undo()
    return engine


def ids(engine: Engine) -> list[tuple[int, str]]:
    with engine.connect() as connection:
        rows = connection.execute(select(audit_event.c.id, audit_event.c.event).order_by("id"))
        return [(row[0], row[1]) for row in rows]


def test_the_audit_goes_after_its_days_and_the_chain_still_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = trailed(tmp_path, [30, 29, 20, 9, 1], monkeypatch)
    anchors.drop_anchor(engine, tmp_path / anchors.ANCHORS_FILE)
    given = Settings(data_folder=tmp_path, retention=Retention(audit_days=10))
    assert Purge(engine, given).run().events == 3
    assert ids(engine) == [(4, "image read"), (5, "image read"), (6, "audit purged")]
    with engine.connect() as connection:
        assert verification.verify(
            connection, anchors.read_anchors(tmp_path / anchors.ANCHORS_FILE)
        ).well
        told = connection.execute(
            select(audit_event.c.detail).where(audit_event.c.event == "audit purged")
        ).scalar_one()
        checkpoint = connection.execute(select(audit_checkpoint)).one()
    assert (told["after"], told["up_to"], told["rows"]) == (0, 3, 3)
    assert (checkpoint.up_to, checkpoint.digest, checkpoint.rows) == (3, told["digest"], 3)
    assert Purge(engine, given).run().events == 0
    assert len(ids(engine)) == 3


def test_what_is_newer_in_between_stops_the_audit_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = trailed(tmp_path, [30, 2, 30], monkeypatch)  # a clock that was set
    given = Settings(data_folder=tmp_path, retention=Retention(audit_days=10))
    assert Purge(engine, given).run().events == 1
    assert [one for one, _ in ids(engine)] == [2, 3, 4]


def test_rows_that_a_repository_has_not_got_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = trailed(tmp_path, [30, 30, 30], monkeypatch)
    now = datetime.now(UTC)
    with engine.begin() as connection:
        assert prefix(connection, 10, [], now).up_to == 3
        assert prefix(connection, 10, ["arr"], now).up_to == 0
        connection.execute(
            insert(audit_forward).values(
                repository="arr", last_id=2, state="well", failures=0, changed_at=""
            )
        )
        found = prefix(connection, 10, ["arr"], now)
        assert (found.up_to, found.stopped_by) == (
            2,
            "an audit repository has not got the next row yet",
        )
        assert prefix(connection, 0, [], now).rows == 0
