"""The list that readers see: what it says of each study, and how it is asked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from test_store import received
from thoracle.store import database
from thoracle.study import instances, reading_list
from thoracle.study.instances import Description, Received
from thoracle.study.reading_list import Filter


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return database.open_database(database.sqlite_url(tmp_path))


def study(number: int, **changes: object) -> Received:
    return received(number, study_instance_uid=f"1.2.{number}", **changes)


def arrive(connection: Connection, *images: Received) -> None:
    for image in images:
        instances.lock_study(connection, image)
        reading_list.arrive(connection, image)


def order(connection: Connection, sort: str = "rank", wanted: Filter = Filter()) -> list[str]:  # noqa: B008 - frozen
    return [row.study_instance_uid for row in reading_list.page(connection, wanted, sort)]


def test_a_study_stands_on_the_list_with_what_its_header_says(engine: Engine) -> None:
    described = Description("Doe^Jane", "DX", "Chest PA", "20261122", "184529.123", "ROOM1")
    with engine.begin() as connection:
        arrive(connection, replace(study(1), description=described))
        row = reading_list.row_of(connection, "1.2.1")
    assert row is not None
    assert (row.patient_name, row.modality, row.device) == ("Doe^Jane", "DX", "ROOM1")
    assert (row.study_datetime, row.ai_state) == ("2026-11-22T18:45:29", "queued")


@pytest.mark.parametrize(
    ("date", "time", "shown"),
    [
        ("20261122", "", "2026-11-22"),
        ("20261122", "1845", "2026-11-22T18:45:00"),
        ("2026.11.22", "18:45:29", "2026-11-22T18:45:29"),
        ("20261122", "evening", "2026-11-22"),
        ("20261399", "1845", None),
        ("", "1845", None),
        ("<b>", "", None),
    ],
)
def test_a_study_date_that_is_none_is_left_out(
    engine: Engine, date: str, time: str, shown: str | None
) -> None:
    with engine.begin() as connection:
        described = Description(study_date=date, study_time=time)
        arrive(connection, replace(study(1), description=described))
        row = reading_list.row_of(connection, "1.2.1")
    assert row is not None
    assert row.study_datetime == shown


def test_stat_comes_first_and_then_who_came_first(engine: Engine) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1), study(2), study(3, priority=1))
        assert order(connection) == ["1.2.3", "1.2.1", "1.2.2"]


def test_one_image_with_a_stat_order_makes_the_study_stat_for_good(engine: Engine) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1), study(2))
        later = study(2, sop_instance_uid="1.3", priority=1)
        arrive(connection, later, replace(later, sop_instance_uid="1.4", priority=100))
        assert order(connection) == ["1.2.2", "1.2.1"]


def test_a_head_start_moves_a_study_up_and_says_why(engine: Engine) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1), study(2))
        reading_list.set_head_start(connection, "1.2.2", 240, "positive")
        row = reading_list.row_of(connection, "1.2.2")
        assert order(connection) == ["1.2.2", "1.2.1"]
    assert row is not None
    assert (row.head_start_minutes, row.why) == (240, "positive")


def test_a_withdrawn_result_says_nothing_and_moves_nothing_up(engine: Engine) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1), study(2))
        reading_list.set_state(connection, "1.2.2", "positive", probability=0.9, threshold=0.5)
        reading_list.set_head_start(connection, "1.2.2", 240, "positive")
        reading_list.set_stat(connection, "1.2.2", "positives")
        assert order(connection) == ["1.2.2", "1.2.1"]
        reading_list.withdraw(connection, "1.2.2")
        row = reading_list.row_of(connection, "1.2.2")
        assert order(connection) == ["1.2.1", "1.2.2"]
    assert row is not None
    assert (row.ai_state, row.probability, row.why, row.stat_rule) == (
        "withdrawn",
        None,
        None,
        None,
    )


def test_words_are_looked_for_in_name_id_and_accession_whatever_their_case(
    engine: Engine,
) -> None:
    with engine.begin() as connection:
        named = Description(patient_name="Мюллер^Анна")
        arrive(connection, replace(study(1), description=named), study(2, patient_id="100%"))
        assert order(connection, wanted=Filter(text="МЮЛЛЕР")) == ["1.2.1"]
        assert order(connection, wanted=Filter(text="анна p1")) == ["1.2.1"]
        assert order(connection, wanted=Filter(text="100%")) == ["1.2.2"]
        assert order(connection, wanted=Filter(text="%")) == ["1.2.2"]
        assert order(connection, wanted=Filter(text="_")) == []


def test_words_are_found_without_their_accents(engine: Engine) -> None:
    names = {"Müller^Änne": "muller anne", "Łoś^Dvořák": "los dvorak", "Sørensen^Æ": "sorensen ae"}
    with engine.begin() as connection:
        for number, name in enumerate(names, 1):
            arrive(connection, replace(study(number), description=Description(name)))
        for number, (name, typed) in enumerate(names.items(), 1):
            assert order(connection, wanted=Filter(text=typed)) == [f"1.2.{number}"]
            assert order(connection, wanted=Filter(text=name.split("^")[0])) == [f"1.2.{number}"]


@pytest.mark.parametrize(
    ("born", "stated", "shown"),
    [
        ("19601123", "", "065Y"),
        ("19601122", "", "066Y"),
        ("20260401", "070Y", "007M"),
        ("20261112", "", "010D"),
        ("", "056y", "056Y"),
        ("20270101", "", None),
        ("19", "old", None),
    ],
)
def test_the_age_is_that_at_the_time_of_the_study(
    engine: Engine, born: str, stated: str, shown: str | None
) -> None:
    described = Description(study_date="20261122", patient_birth_date=born, patient_age=stated)
    with engine.begin() as connection:
        arrive(connection, replace(study(1), description=described))
        row = reading_list.row_of(connection, "1.2.1")
    assert row is not None
    assert row.patient_age == shown


def test_a_rule_makes_a_study_stat_and_takes_back_its_own_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1), study(2), study(3, priority=1))
        reading_list.set_stat(connection, "1.2.2", "urgent")
        assert order(connection)[:2] == ["1.2.2", "1.2.3"]
        reading_list.set_stat(connection, "1.2.3", "urgent")
        for uid in ("1.2.2", "1.2.3"):
            reading_list.set_stat(connection, uid, None)
        assert order(connection) == ["1.2.3", "1.2.1", "1.2.2"]


@pytest.mark.parametrize("sort", reading_list.SORTS)
def test_the_next_study_is_the_next_of_the_same_order(engine: Engine, sort: str) -> None:
    with engine.begin() as connection:
        arrive(connection, *(study(number) for number in range(1, 9)))
        for number, probability in ((1, 0.5), (3, 0.9), (4, 0.5)):
            reading_list.set_state(connection, f"1.2.{number}", "positive", probability=probability)
        listed = order(connection, sort)
        there = [listed[0]]
        while found := reading_list.beside(connection, Filter(), sort, there[-1]):
            there.append(found[0].study_instance_uid)
        back = [listed[-1]]
        while found := reading_list.beside(connection, Filter(), sort, back[-1], before=True):
            back.append(found[0].study_instance_uid)
    assert there == listed
    assert back == listed[::-1]


def test_the_next_study_is_found_from_one_that_was_read_meanwhile(engine: Engine) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1), study(2), study(3), study(4))
        for uid in ("1.2.1", "1.2.2", "1.2.3"):
            reading_list.review(connection, uid, "agree")
        (found,) = reading_list.beside(connection, Filter(review="open"), "rank", "1.2.1")
    assert found.study_instance_uid == "1.2.4"


def test_filters_restrict_and_count(engine: Engine) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1), study(2), study(3))
        reading_list.set_state(connection, "1.2.2", "rejected", reason_code="NOT-CHEST")
        reading_list.review(connection, "1.2.3", "agree")
        assert order(connection, wanted=Filter(states=("rejected",))) == ["1.2.2"]
        assert order(connection, wanted=Filter(review="done")) == ["1.2.3"]
        assert reading_list.count(connection, Filter(review="open")) == 2
        assert reading_list.count(connection, Filter(since="9999")) == 0


def test_the_first_review_keeps_its_time_and_the_newest_opinion_counts(engine: Engine) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1))
        reading_list.review(connection, "1.2.1", "agree")
        first = reading_list.row_of(connection, "1.2.1")
        reading_list.review(connection, "1.2.1", "disagree")
        second = reading_list.row_of(connection, "1.2.1")
        reading_list.reopen(connection, "1.2.1")
        third = reading_list.row_of(connection, "1.2.1")
    assert first is not None
    assert second is not None
    assert third is not None
    assert second.reviewed_at == first.reviewed_at
    assert (second.verdict, third.verdict, third.reviewed_at) == ("disagree", None, None)


def test_every_change_shows_in_the_time_of_the_last_one(engine: Engine) -> None:
    with engine.begin() as connection:
        assert reading_list.changed_at(connection) == ""
        arrive(connection, study(1))
        before = reading_list.changed_at(connection)
        reading_list.touch(connection, "1.2.1")
        assert reading_list.changed_at(connection) > before


@pytest.mark.parametrize("folding", ["ﷺ", "ﷲ", "ﻼ"])
def test_a_name_of_which_the_folding_is_long_is_found(engine: Engine, folding: str) -> None:
    described = Description(folding * 64)
    with engine.begin() as connection:
        arrive(connection, replace(study(1), description=described))
        assert order(connection, wanted=Filter(text=folding)) == ["1.2.1"]


@pytest.mark.parametrize("of_each", [20, reading_list.FEW // 2 + 1])
def test_text_and_days_let_the_same_studies_through_whether_few_or_many(
    engine: Engine, of_each: int
) -> None:
    names = ("Doe^Jane", "Roe^Jane")
    with engine.begin() as connection:
        for number in range(2 * of_each):
            described = Description(names[number % 2])
            arrive(connection, replace(study(number), description=described))
        last = f"1.2.{2 * of_each - 1}"
        reading_list.review(connection, last, "agree")
        begin = reading_list.row_of(connection, "1.2.0")
        assert begin is not None
        for wanted, number in (
            (Filter(text="jane"), 2 * of_each),
            (Filter(text="jane", review="open"), 2 * of_each - 1),
            (Filter(text="roe jane"), of_each),
            (Filter(text="jane", since=begin.received_at), 2 * of_each),
            (Filter(until=begin.received_at), 0),
            (Filter(text="nobody"), 0),
        ):
            assert reading_list.count(connection, wanted) == number
            listed = reading_list.page(
                connection, wanted, "waiting", limit=3, offset=max(0, number - 2)
            )
            assert len(listed) == min(number, 2)
            if number and not wanted.review:
                assert listed[-1].study_instance_uid == last


@pytest.mark.parametrize(
    "wanted", [Filter(review="open"), Filter(states=("positive",), review="open"), Filter()]
)
def test_a_list_is_counted_without_a_look_at_its_rows(engine: Engine, wanted: Filter) -> None:
    plan = planned(engine, lambda connection: reading_list.count(connection, wanted))
    assert plan
    assert all("COVERING INDEX" in step for step in plan)


@pytest.mark.parametrize("wanted", [Filter(text="nobody"), Filter(since="9999")])
def test_what_few_studies_are_is_found_in_an_index_and_not_along_the_list(
    engine: Engine, wanted: Filter
) -> None:
    with engine.begin() as connection:
        arrive(connection, study(1))
    plan = planned(engine, lambda connection: reading_list.page(connection, wanted))
    assert "COVERING INDEX" in plan[0]
    assert not any("ix_worklist_order" in step for step in plan)


def planned(engine: Engine, ask: Callable[[Connection], object]) -> list[str]:
    """Return the steps of SQLite's plan for what is asked."""
    asked: list[tuple[str, Any]] = []

    def note(*found: Any) -> None:
        asked.append((found[2], found[3]))

    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", note)
        ask(connection)
        event.remove(connection, "before_cursor_execute", note)
        return [
            row[-1]
            for statement, values in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
