"""Each condition of the service raises its alarm, names what it is about, and ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update

from sources import FINDING
from test_store import made, plan, received, store
from thoracle.errors import ThoracleError
from thoracle.monitoring import alarms, conditions
from thoracle.monitoring.alarms import AlarmMonitor
from thoracle.monitoring.comparison import Comparison
from thoracle.monitoring.housekeeping import Housekeeping
from thoracle.outbox import rows as stored
from thoracle.records import BundleIdentity, Decision, Outcome, Reading, Reason
from thoracle.settings import Settings
from thoracle.store import trail
from thoracle.store.database import Errors, open_database, sqlite_url
from thoracle.store.tables import analysis, instance, outbox, worklist
from thoracle.study import analyses, reading_list, results
from thoracle.study.results import AnalysisKey

KEY = AnalysisKey("1.2.840", 1, "d")
SETTINGS = Settings()
BUNDLE = BundleIdentity("b", "1", "d", Decision(0.5, 0.4, 0.6), "none", FINDING)


@pytest.fixture
def database(tmp_path: Path) -> Engine:
    return open_database(sqlite_url(tmp_path))


@pytest.fixture(autouse=True)
def _no_study_is_named_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    look = conditions.check

    def checked(*arguments: Any) -> list[Comparison]:
        found = look(*arguments)
        assert not [one for one in found if "1.2.840" in (one.outside or one.sentence)]
        return found

    monkeypatch.setattr(conditions, "check", checked)


def said(database: Engine, hours: float = 0, settings: Settings = SETTINGS) -> dict[str, str]:
    """Return what the alarms say that would stand so many hours from now, by subject."""
    with database.connect() as connection:
        found = conditions.check(connection, settings, datetime.now(UTC) + timedelta(hours=hours))
    return {one.subject: f"{one.sentence} {one.advice}" for one in found}


def arrived(database: Engine, *numbers: int, device: str = "XR-1") -> None:
    """Store images of the study, on the worklist too."""
    for number in numbers:
        image = received(number)
        store(database, image)
        with database.begin() as connection:
            reading_list.arrive(connection, image)
            connection.execute(update(worklist).values(device=device))


def failed(database: Engine, reason: Reason) -> None:
    arrived(database, 1)
    plan(database)
    with database.begin() as connection:
        analyses.fail(connection, KEY, reason, "the stored file is missing", "w")


def test_without_anything_nothing_is_an_alarm(database: Engine) -> None:
    assert said(database, hours=24) == {}


def test_a_failed_analysis_is_an_alarm_until_somebody_takes_it_up(database: Engine) -> None:
    failed(database, Reason.FILE_MISSING)
    found = said(database)["analysis failed"]
    assert found.startswith("Analysis failed: 1 study, 1.2.840 (Stored file is missing).")
    assert "thoracle reanalyse" in found
    assert said(database, hours=24 * 8) == {}
    with database.begin() as connection:
        connection.execute(update(worklist).values(reviewed_at="2026-11-29T00:00:00.000000Z"))
    assert said(database) == {}


def test_a_study_that_broke_the_limits_is_told_as_parked(database: Engine) -> None:
    failed(database, Reason.RESULT_LIMITS)
    assert set(said(database)) == {"analysis parked"}


def test_a_study_without_an_answer_in_time_is_an_alarm_whatever_the_cause(
    database: Engine,
) -> None:
    arrived(database, 1)
    assert said(database, hours=1) == {}
    assert "1.2.840" in said(database, hours=2)["unanswered"]  # never found complete
    plan(database)
    with database.begin() as connection:
        connection.execute(update(analysis).values(content_datetime="2026-01-01T00:00:00.000000Z"))
        connection.execute(update(instance).values(generation=1))
    assert "Required is an answer within 60 minutes" in said(database)["unanswered"]
    with database.begin() as connection:
        results.end_analysis(connection, KEY, "done", Outcome.NEGATIVE, 0.1)
    assert said(database) == {}


def delivered(database: Engine, state: str, attempts: int = 1) -> None:
    arrived(database, 1)
    plan(database)
    with database.begin() as connection:
        results.end_analysis(connection, KEY, "done", Outcome.NEGATIVE, 0.1)
        results.add_result(connection, KEY, made(1))
        stored.add_object(connection, made(1).sop_instance_uid, ["pacs"])
        row = stored.row_of(connection, "dicom", "pacs", made(1).sop_instance_uid)
        detail = "not reached 'Doe^Jane'"
        stored.set_rows(connection, [row.id], state=state, attempts=attempts, detail=detail)


def test_a_destination_is_an_alarm_after_ten_minutes_and_names_no_patient(
    database: Engine,
) -> None:
    delivered(database, "waiting")
    assert said(database, hours=9 / 60) == {}
    found = said(database, hours=11 / 60)["destination pacs"]
    assert found.startswith("pacs has taken nothing since ")
    assert "Doe" not in found
    patient = Settings.model_validate({"watch": {"unreachable_minutes": 60}})
    assert said(database, 0.5, patient) == {}
    with database.begin() as connection:
        connection.execute(update(outbox).values(state="delivered"))
    assert said(database, hours=11 / 60) == {}


def test_what_waits_for_its_first_attempt_says_nothing_of_a_destination(database: Engine) -> None:
    delivered(database, "waiting", attempts=0)
    assert said(database, hours=1) == {}


def test_a_dead_letter_is_an_alarm(database: Engine) -> None:
    delivered(database, "refused")
    found = said(database)["dead letters"]
    assert found.startswith("1 dead letters; the newest: sr of study 1.2.840 to pacs, refused:")
    assert "Doe" not in found


@pytest.mark.parametrize(
    ("outcomes", "raised"),
    [
        ([Reason.NOT_FRONTAL] * 10, True),
        ([Reason.NOT_FRONTAL] * 9, False),
        ([Reason.NOT_FRONTAL] * 10 + [None], False),
        ([Reason.SOFTWARE_FAILURE] * 10, False),
    ],
)
def test_a_device_of_which_all_is_refused_is_an_alarm(
    database: Engine, outcomes: list[Reason | None], raised: bool
) -> None:
    numbers = range(1, len(outcomes) + 1)
    arrived(database, *numbers, device="XR\n1")
    plan(database)
    readings = [
        Reading("1.2", f"1.2.{number}", Outcome.REJECTED, reason, "found LL")
        if reason
        else Reading("1.2", f"1.2.{number}", Outcome.NEGATIVE, probability=0.1)
        for number, reason in zip(numbers, outcomes, strict=True)
    ]
    with database.begin() as connection:
        analyses.conclude(connection, KEY, BUNDLE, readings, [made(1)], "w")
    found = said(database)
    assert set(found) == ({"device XR?1"} if raised else set())
    if raised:
        assert "All 10 images of XR?1 in the last 24 hours were refused" in found["device XR?1"]
        assert "View is not frontal" in found["device XR?1"]
    assert said(database, hours=25) == {}


# ---- housekeeping ----------------------------------------------------------------------------


def test_a_step_that_fails_raises_an_alarm_and_stops_no_other() -> None:
    faults: list[Exception] = [ValueError("Doe^Jane"), RecursionError(), MemoryError()]
    run: list[str] = []

    def broken() -> None:
        if faults:
            raise faults.pop()

    steps = {
        "first": lambda: run.append("first"),
        "broken": broken,
        "last": lambda: run.append("last"),
    }
    housekeeping = Housekeeping(steps)
    for kind in ("MemoryError", "RecursionError", "ValueError"):
        housekeeping.run()
        (alarm,) = housekeeping.alarms()
        assert alarm.subject == "housekeeping broken"
        assert kind in alarm.sentence
        assert "Doe" not in alarm.sentence
    housekeeping.run()
    assert housekeeping.alarms() == []
    assert run == ["first", "last"] * 4


def test_alarms_of_the_service_are_kept_told_and_ended(database: Engine) -> None:
    told: list[tuple[str, str]] = []

    def tell(_connection: object, event: trail.Event, one: Comparison) -> None:
        told.append((event.verb, one.subject))

    monitor = AlarmMonitor(database, SETTINGS, tell)
    full = list(conditions.of_process("10 MB free, required 1024", "disk I/O error", "OSError"))
    for _ in range(2):
        monitor.check(full)
    with database.connect() as connection:
        standing = {row.subject for row in alarms.alarm_rows(connection, "alarm")}
    assert standing == {"storage", "database", "housekeeping retention"}
    monitor.check()
    with database.connect() as connection:
        assert alarms.alarm_rows(connection, "alarm") == []
    assert sorted(told) == sorted(
        (verb, one) for verb in ("alarm raised", "alarm ended") for one in standing
    )


def test_an_alarm_that_cannot_be_told_is_not_recorded_as_told(database: Engine) -> None:
    def tell(*_: object) -> None:
        raise ThoracleError("no")

    with pytest.raises(ThoracleError):
        AlarmMonitor(database, SETTINGS, tell).check(list(conditions.of_process("full", "", "")))
    with database.connect() as connection:
        assert alarms.alarm_rows(connection, "alarm") == []


def test_errors_that_a_database_answers_are_known_and_faults_of_statements_are_not(
    database: Engine,
) -> None:
    errors = Errors(database)
    store(database, received(1))
    with pytest.raises(Exception, match="UNIQUE"):
        store(database, received(1))
    assert errors.recent(60) == ""
    with database.connect() as connection, pytest.raises(Exception, match="no such table"):
        connection.exec_driver_sql("SELECT * FROM absent")
    assert errors.recent(60) == "no such table: absent"
    assert errors.recent(-1) == ""
