"""The watch's arithmetic against values computed by hand, and its sentences."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select

from thoracle.monitoring import alarms, watch
from thoracle.monitoring.alarms import record
from thoracle.monitoring.comparison import (
    Comparison,
    Level,
    difference,
    population_stability,
    shown,
    wilson,
    worst,
)
from thoracle.monitoring.watch import Sample, spans
from thoracle.settings import Watch
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.tables import audit_event

SETTINGS = Watch()
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Engine:
    return open_database(sqlite_url(tmp_path))


def sample(
    values: Any, devices: Any = "XR-1", bundle: Any = "d", feature: str | None = None
) -> Sample:
    """Return images of these probabilities, or values of a feature."""
    number = len(values)
    names = np.full(number, devices) if isinstance(devices, str) else devices
    digests = np.full(number, bundle) if isinstance(bundle, str) else bundle
    rows = [
        SimpleNamespace(
            device=str(device) or None,
            bundle_digest=str(digest),
            probability=0.5 if feature else float(value),
            features={feature: float(value)} if feature else None,
        )
        for value, device, digest in zip(values, names, digests, strict=True)
    ]
    return Sample.of(rows)


# ---- the index -------------------------------------------------------------------------------


def test_the_index_of_two_values_is_the_one_computed_by_hand() -> None:
    reference, window = np.repeat([0.0, 1.0], [50, 50]), np.repeat([0.0, 1.0], [80, 20])
    index = population_stability(reference, window)
    # 80.5/101 and 20.5/101 against 1/2: 0.29703 ln(80.5/20.5) with halves added to each bin.
    assert index.value == pytest.approx(0.40629, abs=1e-5)
    assert index.chance == pytest.approx(10.828 * (1 / 100 + 1 / 100))
    assert [bin_[1:] for bin_ in index.bins] == [(0.5, 0.8), (0.5, 0.2)]


def test_the_index_of_ten_deciles_is_the_one_computed_by_hand() -> None:
    reference = np.arange(1000.0)  # deciles at 100, 200 ... 900: the first bin has 101 of them
    index = population_stability(reference, np.arange(900.5, 1000))
    shares = np.array([101.5, *[100.5] * 8, 99.5]) / 1005
    found = np.array([0.5] * 9 + [100.5]) / 105
    expected = float(((found - shares) * np.log(found / shares)).sum())
    assert index.value == pytest.approx(expected)
    assert index.value > 2
    assert len(index.bins) == 10


def test_a_sample_against_itself_has_index_nought() -> None:
    values = np.random.default_rng(3).beta(1, 5, 500)
    assert population_stability(values, values).value == pytest.approx(0, abs=1e-12)


def test_values_below_and_above_a_constant_reference_are_seen() -> None:
    constant = np.full(500, 0.8)
    assert population_stability(constant, np.full(100, 0.8)).value == pytest.approx(0, abs=1e-5)
    for other in (0.7, 0.9):
        index = population_stability(constant, np.full(100, other))
        assert index.value > max(1, index.chance)


def test_equal_distributions_are_calm_whatever_the_numbers() -> None:
    """One in a thousand may be called different; of 600, more than 5 would be a fault."""
    rng = np.random.default_rng(4)
    called = 0
    for number in (50, 60, 100, 300, 1000, 3000):
        for _ in range(100):
            index = population_stability(rng.beta(1, 6, 1500), rng.beta(1, 6, number))
            called += watch.level_of(index, SETTINGS) is not Level.CALM
    assert called <= 5


@pytest.mark.parametrize("number", [50, 100, 1000])
@pytest.mark.parametrize("seed", range(20))
def test_a_strong_shift_is_an_alarm_whatever_the_numbers(number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = population_stability(rng.normal(0, 1, 1500), rng.normal(1.5, 1, number))
    assert watch.level_of(index, SETTINGS) is Level.ALARM


def test_wilson_and_newcombe_give_the_published_intervals() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(0, 0) == (0, 1)
    # Newcombe 1998, table II (a), method 10: 56/70 - 48/80.
    assert difference((48, 80), (56, 70), 1.959964) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=1e-4
    )


# ---- scores and images -----------------------------------------------------------------------


def test_scores_that_moved_are_said_in_a_sentence_with_the_device_that_moved_them() -> None:
    rng = np.random.default_rng(5)
    reference = sample(rng.beta(1, 6, 1830))
    window = sample([*rng.beta(1, 6, 112), *rng.beta(6, 2, 100)], ["XR-1"] * 112 + ["XR-NEW"] * 100)
    found = watch.scores(reference, window, 7, SETTINGS)
    assert found.level is Level.ALARM
    assert found.sentence.startswith(
        "Scores of the last 7 days differ strongly from the reference (index "
    )
    assert "alarm from 0.25: 212 images against 1,830" in found.sentence
    assert "What to do:" in found.advice
    assert found.device is not None
    assert "XR-NEW, which is new (47% of the images)" in found.device


def test_scores_that_did_not_move_are_calm_and_ask_for_nothing() -> None:
    rng = np.random.default_rng(6)
    found = watch.scores(sample(rng.beta(1, 6, 900)), sample(rng.beta(1, 6, 300)), 7, SETTINGS)
    assert (found.level, found.advice, found.device) == (Level.CALM, "", None)


def test_too_few_images_are_said_to_be_too_few() -> None:
    found = watch.scores(sample(np.linspace(0, 1, 900)), sample(np.ones(49)), 7, SETTINGS)
    assert found.level is Level.TOO_FEW
    assert "49 images against 900, required: 50 each" in found.sentence


def test_an_exchange_of_the_bundle_is_not_taken_for_drift() -> None:
    rng = np.random.default_rng(7)
    reference = sample(rng.beta(1, 6, 900), bundle="old")
    window = sample(rng.beta(6, 1, 300), bundle="new")
    found = watch.scores(reference, window, 7, SETTINGS)
    assert found.level is Level.TOO_FEW
    assert "The bundle was exchanged" in found.sentence
    assert "watch.reference_from" in found.sentence


def test_each_feature_is_watched_and_images_without_it_are_left_out() -> None:
    rng = np.random.default_rng(8)
    reference = sample(rng.normal(12, 2, 900), feature="sharpness")
    window = sample(rng.normal(7, 2, 300), feature="sharpness")
    found = {one.subject: one for one in watch.inputs(reference, window, 7, SETTINGS)}
    assert found["input sharpness"].level is Level.ALARM
    assert "All images are from XR-1" in str(found["input sharpness"].device)
    assert found["input mean"].level is Level.TOO_FEW
    assert set(found) == {f"input {name}" for name in watch.FEATURES}


# ---- rates -----------------------------------------------------------------------------------


def counts(**devices: dict[str, int]) -> watch.Counts:
    return {name: Counter(states) for name, states in devices.items()}


def levels(was: watch.Counts, now: watch.Counts) -> dict[str, Comparison]:
    return {one.subject: one for one in watch.outcomes(was, now, 7, SETTINGS)}


def test_a_share_that_rose_more_than_chance_is_an_alarm_and_names_the_device() -> None:
    was = counts(a={"positive": 50, "negative": 450}, b={"positive": 50, "negative": 450})
    now = counts(a={"positive": 10, "negative": 90}, b={"positive": 60, "negative": 40})
    found = levels(was, now)["positive"]
    assert found.level is Level.ALARM
    assert "35.0% (70 of 200), in the reference 10.0% (100 of 1,000)" in found.sentence
    # Wilson's intervals are 24.93 to 46.61 and 7.29 to 13.56 %; Newcombe's is made of them.
    assert "risen by 25.0 percentage points (with 99.9 % confidence by 14.3 to 36.9)" in (
        found.sentence
    )
    assert found.device == "Most of it comes from b: 60 of its 100 studies."
    assert levels(was, now)["indeterminate"].level is Level.CALM


def test_a_small_share_that_moves_a_little_is_worth_a_look_only() -> None:
    was = counts(a={"negative": 9900, "rejected": 100})
    now = counts(a={"negative": 2850, "rejected": 150})
    assert levels(was, now)["rejected"].level is Level.LOOK


def test_a_share_of_few_studies_is_not_compared() -> None:
    was, now = counts(a={"negative": 900}), counts(a={"positive": 49})
    assert levels(was, now)["positive"].level is Level.TOO_FEW


@pytest.mark.parametrize(
    ("number", "level"),
    [(0, Level.ALARM), (100, Level.LOOK), (240, Level.CALM), (600, Level.LOOK)],
)
def test_silence_is_an_alarm(number: int, level: Level) -> None:
    was = counts(a={"negative": 700}, b={"negative": 300})
    now = counts(b={"negative": number}) if number else {}
    found = watch.volume(was, 28, now, 7, SETTINGS)
    assert found.level is level
    assert "as many days of the reference had 250" in found.sentence
    if level is Level.ALARM:
        assert found.device == "Most is missing from a: about 175 studies."


def opinion(opinion: str, number: int, device: str = "a") -> SimpleNamespace:
    return SimpleNamespace(
        opinion=opinion, number=number, device=device, month="2026-11", outcome="positive"
    )


@pytest.mark.parametrize(
    ("agree", "disagree", "level"),
    [(19, 1, Level.CALM), (7, 3, Level.LOOK), (50, 50, Level.ALARM), (2, 1, Level.TOO_FEW)],
)
def test_agreement_is_judged_by_its_interval(agree: int, disagree: int, level: Level) -> None:
    rows = [opinion("agree", agree), opinion("disagree", disagree), opinion("not applicable", 40)]
    assert watch.agreement(rows, 28, SETTINGS).level is level


# ---- spans and alarms ------------------------------------------------------------------------


def test_the_reference_begins_with_the_first_results_and_never_reaches_into_the_window() -> None:
    reference, window = spans(SETTINGS, "2026-01-05", NOW)
    assert (reference.since[:10], reference.until[:10]) == ("2026-01-05", "2026-02-02")
    assert window.since == "2026-11-13T12:00:00.000000Z"
    young, _ = spans(SETTINGS, "2026-11-10", NOW)
    assert young.until == window.since
    assert young.days == 3.5
    chosen, _ = spans(Watch(reference_from="2026-06-01"), "2026-01-05", NOW)
    assert chosen.since[:10] == "2026-06-01"
    future, _ = spans(Watch(reference_from="2027-06-01"), "2026-01-05", NOW)
    assert future.days == 0
    nothing, _ = spans(SETTINGS, None, NOW)
    assert nothing.days == 0


@pytest.mark.parametrize("day", ["2026-02-30", "2026-13-01"])
def test_a_reference_begins_on_a_day_of_the_calendar(day: str) -> None:
    with pytest.raises(ValueError, match=f"found reference_from '{day}'"):
        Watch(reference_from=day)


def comparison(level: Level, subject: str = "scores") -> Comparison:
    return Comparison(subject, "Scores", level, f"They are {level}.")


def events(database: Engine) -> list[str]:
    with database.connect() as connection:
        statement = select(audit_event.c.event).order_by(audit_event.c.id)
        return list(connection.execute(statement).scalars())


def test_an_alarm_is_recorded_once_and_stands_until_it_is_calm(database: Engine) -> None:
    steps = [
        (Level.CALM, Level.CALM, 0),
        (Level.ALARM, Level.ALARM, 1),
        (Level.ALARM, Level.ALARM, 1),
        (Level.LOOK, Level.ALARM, 1),  # about the limit: it stands
        (Level.TOO_FEW, Level.ALARM, 1),  # nothing to compare: it stands
        (Level.CALM, Level.CALM, 2),
        (Level.LOOK, Level.LOOK, 2),
        (Level.ALARM, Level.ALARM, 3),
    ]
    for now, kept, recorded in steps:
        record(database, [], [comparison(now)])
        with database.connect() as connection:
            row = alarms.alarm_rows(connection)[0]
        assert (row.level, len(events(database))) == (kept, recorded)
    assert events(database) == ["alarm raised", "alarm ended", "alarm raised"]
    assert row.sentence == "They are alarm."


def test_an_alarm_knows_since_when_and_goes_with_its_figure(database: Engine) -> None:
    record(database, [], [comparison(Level.ALARM), comparison(Level.CALM, "rejected")])
    with database.connect() as connection:
        first = alarms.alarm_rows(connection, "alarm")[0]
    record(database, [], [comparison(Level.ALARM)])
    with database.connect() as connection:
        (again,) = alarms.alarm_rows(connection)
    assert again.since == first.since
    assert again.changed_at == first.changed_at  # it says what it said
    assert again.since <= again.changed_at


def test_the_worst_level_is_the_one_that_counts() -> None:
    all_levels = [Level.CALM, Level.TOO_FEW, Level.LOOK, Level.ALARM]
    assert worst([comparison(one) for one in all_levels]) is Level.ALARM
    assert worst([comparison(one) for one in all_levels[:2]]) is Level.TOO_FEW
    assert worst([]) is Level.TOO_FEW


def test_a_hostile_name_of_a_device_is_one_line_of_printable_text() -> None:
    assert shown("XR\n\x1b[31m\u202eEVIL") == "XR??[31m?EVIL"
    assert shown(None) == shown("") == "an unnamed device"
