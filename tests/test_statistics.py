"""What many studies come to, counted in a real database."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, update

from history import NOW, Study, studies, write
from thoracle.monitoring import figures, statistics
from thoracle.monitoring.comparison import Level
from thoracle.monitoring.watch import compare
from thoracle.settings import Watch
from thoracle.store import tables
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.tables import timestamp

SINCE, UNTIL = "2026-01-01", timestamp(NOW)


@pytest.fixture
def database(tmp_path: Path) -> Engine:
    return open_database(sqlite_url(tmp_path))


def with_states(*states: str, verdict: str | None = None) -> list[Study]:
    """Return one study each, an hour apart, the newest last."""
    made = studies(len(states), len(states) / 24)
    return [
        replace(one, state=state, verdict=verdict) for one, state in zip(made, states, strict=True)
    ]


def test_studies_are_counted_by_day_month_and_device(database: Engine) -> None:
    made = with_states(*["negative"] * 20, "positive", "rejected", "failed", "queued")
    write(database, made)
    with database.connect() as connection:
        days = statistics.outcomes(connection, SINCE, UNTIL)
        months = statistics.outcomes(connection, SINCE, UNTIL, statistics.MONTH)
        devices = statistics.devices(connection, SINCE, UNTIL)
        first = statistics.first_day(connection)
    assert first == "2026-11-19"
    of_months = figures.volumes(months, ["2026-10", "2026-11"])
    assert (of_months[0].total, of_months[1].total) == (0, 24)
    assert of_months[1].numbers == {
        "positive": 1, "indeterminate": 0, "negative": 20, "rejected": 1, "failed": 1, "open": 1,
    }  # fmt: skip
    assert of_months[1].share("negative") == pytest.approx(20 / 23)
    assert {row.period for row in days} == {"2026-11-19", "2026-11-20"}
    assert sum(row.number for row in devices) == 24
    assert Counter(row.ai_state for row in devices)["positive"] == 1


def test_a_span_has_its_first_moment_and_not_its_last(database: Engine) -> None:
    made = studies(2, 2)
    write(database, made)
    first, second = (timestamp(one.received) for one in made)
    with database.connect() as connection:
        rows = statistics.outcomes(connection, first, second)
    assert sum(row.number for row in rows) == 1


def test_the_reasons_of_rejection_are_counted_by_image(database: Engine) -> None:
    made = with_states("rejected", "rejected", "negative", "rejected")
    made[0].rows["reading"] = {"reason_code": "NOT-CHEST"}
    write(database, made)
    with database.connect() as connection:
        rows = statistics.reasons(connection, SINCE, UNTIL)
    assert [tuple(row) for row in rows] == [("NOT-FRONTAL", 2), ("NOT-CHEST", 1)]


def test_refusals_are_counted_by_device_reason_and_value_found(database: Engine) -> None:
    made = with_states("rejected", "rejected", "rejected", "negative")
    for one in made[:2]:
        one.rows["reading"] = {"reason_code": "NOT-CHEST", "detail": "found 'THX'"}
    write(database, made)
    with database.connect() as connection:
        rows = statistics.refusals(connection, SINCE, UNTIL)
    counted: Counter[tuple[str | None, str | None]] = Counter()
    for row in rows:
        counted[row.reason_code, row.detail if row.reason_code == "NOT-CHEST" else None] += (
            row.number
        )
    assert counted == {("NOT-CHEST", "found 'THX'"): 2, ("NOT-FRONTAL", None): 1, (None, None): 1}


def test_turn_around_is_measured_from_the_first_image(database: Engine) -> None:
    made = [
        replace(one, minutes_to_result=float(number), verdict="agree" if number == 1 else None)
        for number, one in enumerate(studies(3, 1), start=1)
    ]
    made[2].rows["outbox"] = {"state": "refused"}
    write(database, [*made, *(replace(one, state="failed") for one in studies(1, 0.1, first=3))])
    with database.connect() as connection:
        found = figures.turn_around(statistics.times(connection, SINCE, UNTIL))
    assert (found.result.number, found.result.p50, found.result.longest) == (3, 120, 180)
    assert (found.proven.number, found.proven.longest) == (2, 140)
    assert (found.verdict.number, found.verdict.p50) == (1, 43 * 60)


def test_a_report_that_replaces_another_took_no_longer(database: Engine) -> None:
    (one,) = (replace(one, minutes_to_result=2.0) for one in studies(1, 1))
    write(database, [one])
    uid = "2.25.1000000000000"
    key = {"study_instance_uid": uid, "generation": 2, "bundle_digest": "e" * 64}
    done = {"state": "done", "priority": 100, "content_datetime": SINCE, "finished_at": UNTIL}
    with database.begin() as connection:
        connection.execute(insert(tables.analysis).values(**key, finding="SCT:840539006", **done))
        connection.execute(update(tables.study).values(generation=2))
    with database.connect() as connection:
        found = figures.turn_around(statistics.times(connection, SINCE, UNTIL))
    assert (found.result.number, found.result.longest) == (1, 120)
    assert (found.proven.number, found.proven.longest) == (1, 140)


def test_nothing_received_has_no_turn_around(database: Engine) -> None:
    with database.connect() as connection:
        found = figures.turn_around(statistics.times(connection, SINCE, UNTIL))
    assert found.result == figures.Durations(0)


def test_the_newest_result_of_a_study_is_the_one_that_counts(database: Engine) -> None:
    (one,) = with_states("negative")
    one.rows["study"] = {"generation": 2}
    one.rows["worklist"] = {"ai_state": "positive"}
    write(database, [one])
    uid = "2.25.1000000000000"
    key = {"study_instance_uid": uid, "generation": 2, "bundle_digest": "e" * 64}
    key |= {"finding": "SCT:840539006"}
    again = {**key, "sop_instance_uid": f"{uid}.9", "outcome": "positive", "probability": 0.9}
    with database.begin() as connection:
        connection.execute(insert(tables.reading).values(**again, seconds={}, features=None))
        done = {"state": "done", "priority": 100, "content_datetime": SINCE}
        connection.execute(insert(tables.analysis).values(**key, **done))
    with database.connect() as connection:
        (row,) = statistics.images(connection, SINCE, UNTIL)
    assert (row.probability, row.features) == (0.9, None)


def test_the_newest_verdict_of_a_study_is_the_one_that_counts(database: Engine) -> None:
    made = with_states("positive", "negative", "negative", verdict="disagree")
    write(database, made)
    corrected = {
        "recorded_at": "2026-11-20T11:59:00.000000Z", "study_instance_uid": "2.25.1000000000000",
        "generation": 1, "bundle_digest": "d" * 64, "opinion": "agree", "comment": "",
        "person": "reader", "outcome": "positive", "device": made[0].device,
    }  # fmt: skip
    with database.begin() as connection:
        connection.execute(insert(tables.verdict).values(**corrected))
    with database.connect() as connection:
        rows = statistics.opinions(connection, SINCE, UNTIL)
    by_outcome = {one.group: one for one in figures.agreements(rows, lambda row: row.outcome)}
    assert (by_outcome["positive"].agree, by_outcome["positive"].disagree) == (1, 0)
    assert (by_outcome["negative"].agree, by_outcome["negative"].disagree) == (0, 2)
    assert by_outcome["positive"].rate == 1
    assert by_outcome["positive"].interval == pytest.approx((0.2065, 1), abs=1e-4)


def test_months_of_the_same_work_are_calm(database: Engine) -> None:
    write(database, [replace(one, verdict="agree") for one in studies(1800, 60)])
    with database.connect() as connection:
        found = compare(connection, Watch(), NOW)
    assert found.level is Level.TOO_FEW  # features that these images do not have
    levels = {one.subject: one.level for one in found.comparisons}
    for subject in ("volume", "scores", "positive", "rejected", "agreement", "input sharpness"):
        assert levels[subject] is Level.CALM, subject


def test_a_week_of_another_device_raises_the_alarms_that_it_should(database: Engine) -> None:
    before = studies(1500, 50, now=NOW - timedelta(days=7))
    week = [
        replace(
            one,
            device="XR-NEW",
            probability=round(0.5 + one.probability / 2, 4),
            features={**one.features, "sharpness": one.features["sharpness"] * 2},
        )
        for one in studies(210, 7, seed=2, first=2000)
    ]
    write(database, before + week)
    with database.connect() as connection:
        found = {one.subject: one for one in compare(connection, Watch(), NOW).comparisons}
    for subject in ("scores", "positive", "input sharpness"):
        assert found[subject].level is Level.ALARM, found[subject].sentence
        assert "XR-NEW" in str(found[subject].device)
    assert found["input contrast"].level is Level.CALM
    assert found["volume"].level is Level.CALM


def test_an_empty_database_is_too_few_of_everything(database: Engine) -> None:
    with database.connect() as connection:
        found = compare(connection, Watch(), NOW)
    assert {one.level for one in found.comparisons} == {Level.TOO_FEW}
