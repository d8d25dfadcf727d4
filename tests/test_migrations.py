"""A database of any earlier version comes up with its data."""

from pathlib import Path

import alembic.command
import alembic.config
from sqlalchemy import Engine, select, text

from thoracle.store import bundles, chain, database, trail
from thoracle.store.tables import analysis, reading, workitem, worklist

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


def test_what_was_read_before_is_about_the_one_finding_of_then_and_the_chain_still_holds(
    tmp_path: Path,
) -> None:
    engine = at_revision(tmp_path, "0007")  # the trail is chained from 0008 on
    add_event = (
        "INSERT INTO audit_event (recorded_at, event, event_id, action, event_outcome, detail,"
        " bundle_digest, bundle_version)"
        " VALUES (:t, 'image read', '110103', 'R', 0, '{}', 'd', 'Old model 0.1.0')"
    )
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO study VALUES ('1.1', 'P1', '', 'A1', 1, NULL, :t, :t)"), {"t": MOMENT}
        )
        connection.execute(
            text(
                "INSERT INTO analysis (study_instance_uid, generation, bundle_digest, state,"
                " priority, content_datetime, outcome, probability)"
                " VALUES ('1.1', 1, 'd', 'done', 100, :t, 'positive', 0.9)"
            ),
            {"t": MOMENT},
        )
        connection.execute(
            text(
                "INSERT INTO reading (study_instance_uid, generation, bundle_digest,"
                " sop_instance_uid, outcome, probability, threshold, seconds)"
                " VALUES ('1.1', 1, 'd', '1.1.1', 'positive', 0.9, 0.5, '{}')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO worklist (study_instance_uid, search, received_at, ai_state,"
                " probability, urgency, head_start_minutes, sort_key, changed_at)"
                " VALUES ('1.1', '', :t, 'positive', 0.9, 1, 0, :t, :t)"
            ),
            {"t": MOMENT},
        )
        for _ in range(3):
            connection.execute(text(add_event), {"t": MOMENT})
    engine.dispose()
    engine = database.open_database(database.sqlite_url(tmp_path))
    with engine.begin() as connection:
        trail.record(connection, trail.Event.IMAGE_READ, {"finding": "SCT:233604007"})
    with engine.connect() as connection:
        found = [
            connection.execute(select(table.c.finding)).scalars().all()
            for table in (analysis, reading, worklist)
        ]
        names = connection.execute(select(worklist.c.finding_name)).scalars().all()
        known = bundles.known(connection, ["d"])["d"]
        told = list(chain.rows_after(connection, 0))
    assert found == [["SCT:840539006"]] * 3
    assert names == ["COVID-19"]
    assert (known.name, known.version, known.identity) == ("Old model", "0.1.0", None)
    assert known.finding.key == "SCT:840539006"
    digest = chain.FIRST
    for row in told:
        digest = chain.digest_of(digest, row[:-1])
        assert digest == row[-1]
    column = chain.COLUMNS.index("finding")
    assert [row[column] for row in told] == [None, None, None, "SCT:233604007"]


def test_what_was_searched_before_is_found_without_accents(tmp_path: Path) -> None:
    engine = at_revision(tmp_path, "0015")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO study VALUES ('1.1', 'P1', '', 'A1', 1, NULL, :t, :t)"), {"t": MOMENT}
        )
        connection.execute(
            text(
                "INSERT INTO worklist (study_instance_uid, search, received_at, ai_state,"
                " urgency, head_start_minutes, sort_key, changed_at)"
                " VALUES ('1.1', 'müller änne p1 a1', :t, 'positive', 1, 0, :t, :t)"
            ),
            {"t": MOMENT},
        )
    engine.dispose()
    engine = database.open_database(database.sqlite_url(tmp_path))
    with engine.connect() as connection:
        assert connection.execute(select(worklist.c.search)).scalars().all() == [
            "muller anne p1 a1"
        ]


def test_what_a_rule_keeps_back_is_on_the_worklist_no_longer(tmp_path: Path) -> None:
    engine = at_revision(tmp_path, "0017")
    listed = (
        "INSERT INTO worklist (study_instance_uid, search, received_at, ai_state, probability,"
        " threshold, urgency, head_start_minutes, why, sort_key, changed_at)"
        " VALUES (:uid, '', :t, :state, 0.9, 0.5, 1, 240, 'AI positive', :before, :t)"
    )
    done = (
        "INSERT INTO analysis (study_instance_uid, generation, bundle_digest, finding, state,"
        " priority, content_datetime, outcome, probability, sending)"
        " VALUES (:uid, :generation, 'd', 'f', 'done', 100, :t, :outcome, :likely, :sending)"
    )
    cases: dict[str, tuple[int, str, list[tuple[int, str, str | None]]]] = {
        "held": (1, "positive", [(1, "positive", "held")]),
        "shadow": (1, "positive", [(1, "positive", "shadow")]),
        "released": (1, "positive", [(1, "positive", "released")]),
        "told": (1, "positive", [(1, "positive", None)]),
        "again": (2, "queued", [(1, "positive", "held")]),
        "other patient": (2, "positive", [(1, "positive", "held"), (2, "negative", None)]),
    }
    values = {"t": MOMENT, "before": "2026-11-22T14:45:29.123456Z"}
    with engine.begin() as connection:
        for uid, (generation, state, results) in cases.items():
            connection.execute(
                text("INSERT INTO study VALUES (:uid, 'P1', '', 'A1', :generation, NULL, :t, :t)"),
                {"uid": uid, "generation": generation, **values},
            )
            connection.execute(text(listed), {"uid": uid, "state": state, **values})
            for number, outcome, sending in results:
                likely = 0.9 if outcome == "positive" else 0.1
                mine = {"uid": uid, "generation": number, "outcome": outcome, "likely": likely}
                connection.execute(text(done), {**mine, "sending": sending, **values})
            item = (
                "INSERT INTO workitem VALUES (:uid, :uid, 1, 'd', 'CANCELED', NULL, NULL, '{}',"
                " :t, :t)"
            )
            connection.execute(text(item), {"uid": uid, **values})
    engine.dispose()
    engine = database.open_database(database.sqlite_url(tmp_path))
    with engine.connect() as connection:
        found = {row.study_instance_uid: row for row in connection.execute(select(worklist))}
        offered = set(connection.execute(select(workitem.c.sop_instance_uid)).scalars())
    assert {uid: row.ai_state for uid, row in found.items()} == {
        "held": "held",
        "shadow": "shadow",
        "released": "positive",
        "told": "positive",
        "again": "queued",
        "other patient": "negative",
    }
    for uid in ("held", "shadow", "again"):
        row = found[uid]
        assert (row.probability, row.threshold, row.why, row.head_start_minutes) == (
            None,
            None,
            None,
            0,
        )
        assert row.sort_key == row.received_at
    assert {uid: found[uid].probability for uid in ("told", "released", "other patient")} == {
        "told": 0.9,
        "released": 0.9,
        "other patient": 0.1,
    }
    assert found["told"].sort_key == values["before"]
    assert offered == {"released", "told"}
