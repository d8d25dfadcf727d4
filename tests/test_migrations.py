"""A database of any earlier version comes up with its data."""

from pathlib import Path

import alembic.command
import alembic.config
from sqlalchemy import Engine, select, text

from thoracle.store import database
from thoracle.store.tables import worklist

MOMENT = "2026-11-22T18:45:29.123456Z"


def at_revision(folder: Path, revision: str) -> Engine:
    engine = database.connect(database.sqlite_url(folder))
    config = alembic.config.Config()
    config.set_main_option("script_location", "thoracle.store:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revision)
    return engine


def test_studies_of_the_first_schema_stand_in_the_worklist_with_what_is_known(
    tmp_path: Path,
) -> None:
    engine = at_revision(tmp_path, "0001")
    with engine.begin() as connection:
        for uid, generation in (("1.1", 1), ("1.2", 0), ("1.3", 1)):
            connection.execute(
                text("INSERT INTO study VALUES (:uid, 'P1', '', 'A1', :generation, NULL, :t, :t)"),
                {"uid": uid, "generation": generation, "t": MOMENT},
            )
        for uid, state, outcome in (("1.1", "done", "positive"), ("1.3", "failed", None)):
            connection.execute(
                text(
                    "INSERT INTO analysis (study_instance_uid, generation, bundle_digest, state,"
                    " priority, content_datetime, outcome, probability)"
                    " VALUES (:uid, 1, 'd', :state, 100, :t, :outcome, 0.9)"
                ),
                {"uid": uid, "state": state, "outcome": outcome, "t": MOMENT},
            )
    engine.dispose()
    engine = database.open_database(database.sqlite_url(tmp_path))
    with engine.connect() as connection:
        rows = connection.execute(select(worklist).order_by(worklist.c.study_instance_uid)).all()
    assert [(row.study_instance_uid, row.ai_state) for row in rows] == [
        ("1.1", "positive"),
        ("1.2", "queued"),
        ("1.3", "failed"),
    ]
    assert {(row.patient_id, row.received_at, row.sort_key) for row in rows} == {
        ("P1", MOMENT, MOMENT)
    }
