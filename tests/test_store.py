"""The migrations make the schema of the code, and the database is as durable as said."""

from pathlib import Path

import alembic.command
import alembic.config
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, insert, inspect, select, text

from thoracle.deliver import proofs as requests
from thoracle.outbox import rows as outbox
from thoracle.pipeline import overview
from thoracle.records import Kind
from thoracle.store import database
from thoracle.store.tables import analysis, instance, metadata, study
from thoracle.study import instances, results
from thoracle.study.instances import Received
from thoracle.study.results import AnalysisKey, ResultObject


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
    """Return the plan for the one patient of the study, if there is one."""
    with engine.begin() as connection:
        plans = instances.plan(
            connection, "1.2.840", digest, "SCT:1", "2026-01-01T00:00:00.000000Z"
        )
    assert len(plans) <= 1
    return plans[0] if plans else None


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


def test_an_object_of_ours_that_comes_back_is_nothing_new(engine: Engine) -> None:
    store(engine, received(1))
    plan(engine)
    with engine.begin() as connection:
        results.add_result(connection, AnalysisKey("1.2.840", 1, "d"), made(2, Kind.SC))
    store(engine, received(2, sop_instance_uid="9.2", calling_ae_title="CARELESS"))
    assert plan(engine) is None
    with engine.connect() as connection:
        assert instances.sender(connection, "1.2.840") == "PACS"
        assert instances.unplanned_studies(connection, "9999") == []
    store(engine, received(3))
    assert plan(engine) is not None
    with engine.connect() as connection:
        sources = instances.sources(connection, "1.2.840", 2)
    assert [source.sop_instance_uid for source in sources] == ["1.2.1", "1.2.3"]


def test_an_analysis_is_handed_over_to_another_bundle(engine: Engine) -> None:
    store(engine, received(1))
    plan(engine, digest="old")
    with engine.begin() as connection:
        results.replan(connection, AnalysisKey("1.2.840", 1, "old"), "new", "SCT:2")
        assert results.planned(connection) == {AnalysisKey("1.2.840", 1, "new")}
        rows = connection.execute(select(analysis)).all()
    assert {row.bundle_digest: row.finding for row in rows} == {"old": "SCT:1", "new": "SCT:2"}
    assert {row.bundle_digest: row.state for row in rows} == {
        "old": "superseded",
        "new": "planned",
    }


def made(number: int, kind: Kind = Kind.SR) -> ResultObject:
    return ResultObject(f"9.{number}", "1.88", "9.0", kind, f"results/{number}", "0" * 64)


def deliver(engine: Engine, result: ResultObject, destination: str, **values: object) -> None:
    """Record what became of a result's delivery."""
    with engine.begin() as connection:
        row = outbox.row_of(connection, "dicom", destination, result.sop_instance_uid)
        outbox.set_rows(connection, [row.id], attempts=1, **values)


def test_the_newest_report_is_the_predecessor_of_the_next(engine: Engine) -> None:
    store(engine, received(1))
    plan(engine)
    key = AnalysisKey("1.2.840", 1, "d")
    with engine.begin() as connection:
        assert results.newest_report(connection, "1.2.840") is None
        results.add_result(connection, key, made(1))
        results.add_result(connection, key, made(2, Kind.SC))
        found = results.newest_report(connection, "1.2.840")
        assert found is not None
        assert found.sop_instance_uid == "9.1"
        results.add_result(connection, key, made(3))  # e.g. a withdrawal
        found = results.newest_report(connection, "1.2.840")
    assert found is not None
    assert found.sop_instance_uid == "9.3"


def test_proof_is_asked_for_once_for_all_that_a_destination_has_of_a_study(
    engine: Engine,
) -> None:
    store(engine, received(1))
    plan(engine)
    objects = [made(1), made(2, Kind.SC)]
    with engine.begin() as connection:
        for one in objects:
            results.add_result(connection, AnalysisKey("1.2.840", 1, "d"), one)
            outbox.add_object(connection, one.sop_instance_uid, ["pacs", "other"])
    deliver(engine, objects[0], "pacs", state="sent")
    deliver(engine, objects[0], "other", state="sent")
    with engine.begin() as connection:
        # The second object has not been tried: it comes along.
        assert not requests.begin_request(connection, "1", "1.2.840", "pacs", 1)
    deliver(engine, objects[1], "pacs", state="sent")
    with engine.begin() as connection:
        assert requests.begin_request(connection, "2", "1.2.840", "pacs", 1)
        assert not requests.begin_request(connection, "3", "1.2.840", "pacs", 1)
        asked = {row.sop_instance_uid for row in requests.unproven(connection, "2")}
        assert asked == {"9.1", "9.2"}
        assert {row.peer for row in requests.unproven(connection, "2")} == {"pacs"}


def test_a_result_that_is_withdrawn_does_not_stand(engine: Engine) -> None:
    store(engine, received(1))
    plan(engine)
    key = AnalysisKey("1.2.840", 1, "d")
    with engine.begin() as connection:
        results.end_analysis(connection, key, "done")
        results.add_result(connection, key, made(1))
        assert overview.standing_report(connection, "1.2.840") == "9.1"
        results.withdraw(connection, key)
        assert overview.standing_report(connection, "1.2.840") is None


def test_rows_of_the_first_schema_survive_the_migrations(tmp_path: Path) -> None:
    url = database.sqlite_url(tmp_path)
    config = alembic.config.Config()
    config.set_main_option("script_location", "thoracle.store:migrations")
    first = database.connect(url)
    with first.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        for statement in FIRST_SCHEMA_ROWS:
            connection.execute(text(statement))
    first.dispose()
    with database.open_database(url).connect() as connection:
        row = outbox.row_of(connection, "dicom", "pacs", "9.1")
    assert (row.state, row.proof, row.study_instance_uid) == ("delivered", "status", "1.2.840")
    assert (row.delivered_sop_class_uid, row.transaction_uid) == (None, None)


FIRST_SCHEMA_ROWS = (
    "INSERT INTO result VALUES ('9.1', '1.88', '9.0', '1.2.840', 1, 'd', 'sr', 'results/1', '0', "
    "'2026-01-01T00:00:00.000000Z')",
    "INSERT INTO delivery (sop_instance_uid, destination, state, attempts, proof, created_at, "
    "changed_at) VALUES ('9.1', 'pacs', 'delivered', 1, 'status', "
    "'2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z')",
)


def test_the_overview_shows_what_waits(engine: Engine) -> None:
    store(engine, received(1))
    with engine.connect() as connection:
        counts = overview.counts(connection)
        assert counts["received"]["not yet complete"] == 1
        assert counts["files"]["images kept"] == counts["received"]["images"]
        assert counts["legal holds"] == {"held": 0}
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
