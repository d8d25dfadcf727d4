"""The migrations make the schema of the code, and the database is as durable as said."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, insert, inspect, select, text

from thoracle.store import database, instances, overview, results
from thoracle.store.instances import Received
from thoracle.store.results import AnalysisKey, Result
from thoracle.store.tables import analysis, instance, metadata, study


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return database.open_database(database.sqlite_url(tmp_path))


def received(number: int, **changes: object) -> Received:
    values: dict[str, object] = {
        "sop_class_uid": "1.2",
        "sop_instance_uid": f"1.2.{number}",
        "study_instance_uid": "1.2.840",
        "series_instance_uid": "1.2.841",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "patient_id": "P1",
        "issuer_of_patient_id": "",
        "accession_number": "A1",
        "priority": 100,
        "path": f"images/{number}",
        "size": 1,
        "sha256": f"{number:064x}",
        "calling_ae_title": "PACS",
        "peer_address": "127.0.0.1",
    }
    return Received(**values | changes)  # type: ignore[arg-type]  # a row of mixed values


def store(engine: Engine, *images: Received) -> None:
    with engine.begin() as connection:
        for image in images:
            instances.lock_study(connection, image)
            instances.add(connection, image)


def plan(engine: Engine, digest: str = "d") -> instances.Plan | None:
    with engine.begin() as connection:
        return instances.plan(connection, "1.2.840", digest, "2026-01-01T00:00:00.000000Z")


def test_the_migrations_make_the_tables_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "thoracle_schema", "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []


def test_sqlite_has_a_write_ahead_log_and_full_synchronisation(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_opening_again_keeps_what_is_there(tmp_path: Path, engine: Engine) -> None:
    store(engine, received(1))
    engine.dispose()
    again = database.open_database(database.sqlite_url(tmp_path))
    with again.connect() as connection:
        assert connection.execute(select(instance.c.path)).scalar_one() == "images/1"


def test_an_exception_of_the_database_does_not_quote_the_patient(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(Exception, match="NOT NULL") as caught:
        connection.execute(insert(study).values(study_instance_uid="1", patient_id="SECRET"))
    assert "SECRET" not in str(caught.value)


def test_images_become_a_generation_once(engine: Engine) -> None:
    store(engine, received(1), received(2, priority=1))
    assert plan(engine) == instances.Plan(generation=1, priority=1, images=2)
    assert plan(engine) is None


def test_a_late_image_makes_the_next_generation_of_all_images(engine: Engine) -> None:
    store(engine, received(1))
    plan(engine)
    store(engine, received(2))
    assert plan(engine) == instances.Plan(generation=2, priority=100, images=2)
    with engine.connect() as connection:
        first = instances.sources(connection, "1.2.840", 1)
        second = instances.sources(connection, "1.2.840", 2)
    assert [row.path for row in first] == ["images/1"]
    assert [row.path for row in second] == ["images/1", "images/2"]


def test_the_corrected_version_of_an_image_is_the_one_that_is_read(engine: Engine) -> None:
    store(engine, received(1))
    plan(engine)
    with engine.begin() as connection:
        corrected = received(1, path="images/corrected", sha256="f" * 64)
        instances.add(connection, corrected, version=2, generation=1)
    assert plan(engine) is None
    with engine.connect() as connection:
        assert instances.sources(connection, "1.2.840", 1)[0].path == "images/corrected"


def test_studies_without_a_plan_are_found(engine: Engine) -> None:
    store(engine, received(1))
    with engine.connect() as connection:
        assert instances.unplanned_studies(connection, "9999") == ["1.2.840"]
        assert instances.unplanned_studies(connection, "2000") == []
    plan(engine)
    with engine.connect() as connection:
        assert instances.unplanned_studies(connection, "9999") == []


def test_an_analysis_is_handed_over_to_another_bundle(engine: Engine) -> None:
    store(engine, received(1))
    plan(engine, digest="old")
    with engine.begin() as connection:
        results.hand_over(connection, AnalysisKey("1.2.840", 1, "old"), "new")
        assert results.planned(connection) == {AnalysisKey("1.2.840", 1, "new")}
        rows = connection.execute(select(analysis.c.bundle_digest, analysis.c.state)).all()
    assert {row.bundle_digest: row.state for row in rows} == {
        "old": "superseded",
        "new": "planned",
    }


def test_the_predecessor_is_the_newest_report_of_an_earlier_generation(engine: Engine) -> None:
    store(engine, received(1))
    plan(engine)
    with engine.begin() as connection:
        made = Result("9.1", "1.88", "9.2", "sr", "results/1", "0" * 64)
        results.add_result(connection, AnalysisKey("1.2.840", 1, "d"), made, ["pacs"])
        assert results.predecessor(connection, AnalysisKey("1.2.840", 1, "d")) is None
        found = results.predecessor(connection, AnalysisKey("1.2.840", 2, "d"))
    assert found is not None
    assert found.sop_instance_uid == "9.1"


def test_the_overview_shows_what_waits(engine: Engine) -> None:
    store(engine, received(1))
    with engine.connect() as connection:
        assert overview.counts(connection)["received"]["not yet complete"] == 1
        row = overview.studies(connection, 10)[0]
    assert row["study_instance_uid"] == "1.2.840"
    assert row["state"] is None


def test_every_column_of_an_audit_query_has_its_place(engine: Engine) -> None:
    """The queryable columns of the audit's reference table."""
    names = {column["name"] for column in inspect(engine).get_columns("audit_event")}
    assert names >= {
        "recorded_at", "event_id", "event_type_code", "action", "event_outcome",
        "calling_ae_title", "called_ae_title", "network_address", "user_id", "patient_id",
        "issuer_of_patient_id", "study_instance_uid", "accession_number", "sop_instance_uid",
        "result_sop_instance_uid", "bundle_version", "bundle_digest", "outcome", "correlation_id",
    }  # fmt: skip
