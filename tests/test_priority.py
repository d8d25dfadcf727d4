"""Who is read first: head starts, STAT and ageing, on the real list."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

import simulation
from simulation import Read
from sources import dx
from thoracle import settings
from thoracle.routing import rank as priority
from thoracle.routing.rank import HeadStart, head_start
from thoracle.settings import Rank
from thoracle.store import database

POSITIVE = {"result.outcome": "positive", "result.probability": 0.93, "result.reason": ""}


def rank(name: str, when: str, minutes: int) -> Rank:
    return Rank(name=name, when=when, head_start_minutes=minutes)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return database.open_database(database.sqlite_url(tmp_path_factory.mktemp("day")))


@pytest.fixture(scope="module")
def read(engine: Engine) -> list[Read]:
    with engine.begin() as connection:
        return simulation.day(connection, simulation.cases(), priority.SHIPPED)


def test_the_largest_head_start_that_holds_counts() -> None:
    ranks = [rank("some", "true", 10), rank("more", "result.probability > 0.9", 90)]
    assert head_start(ranks, [], POSITIVE) == HeadStart(90, "more")


def test_a_rank_that_cannot_be_decided_counts_for_nothing() -> None:
    ranks = [rank("some", "true", 10), rank("unknown", "result.probability > 0.9", 90)]
    assert head_start(ranks, [], {"result.outcome": "failed"}) == HeadStart(10, "some")


def test_a_rank_may_ask_the_header() -> None:
    ranks = [rank("ward", 'StationName == "ICU" && result.outcome == "positive"', 30)]
    assert head_start(ranks, [dx(StationName="ICU")], POSITIVE) == HeadStart(30, "ward")
    assert head_start(ranks, [dx(StationName="ER")], POSITIVE) == HeadStart(0, "")


@pytest.mark.parametrize(
    ("outcome", "minutes"),
    [("positive", 240), ("indeterminate", 120), ("rejected", 60), ("failed", 60), ("negative", 0)],
)
def test_without_ranks_the_shipped_ones_count(outcome: str, minutes: int) -> None:
    assert head_start([], [], {"result.outcome": outcome}).minutes == minutes


def test_faults_of_ranks_are_named_with_their_place() -> None:
    faulty = settings.parse(
        {
            "rank": [
                {"name": "a", "when": "PatientAeg > 3", "head_start_minutes": 1},
                {"name": "b", "when": "false", "head_start_minutes": 1},
                {"name": "c", "head_start_minutes": 1},
                {"name": "c", "head_start_minutes": 2},
            ]
        }
    )
    found = dict(priority.faults(faulty))
    assert found["a"].startswith("when: line 1, column 1: unknown name PatientAeg; did you mean")
    assert found["b"] == "when is always false, required: a condition that can hold"
    assert found["c"] == "found 2 ranks of this name, required: different names"


def test_in_a_day_of_2000_studies_all_are_read(read: list[Read]) -> None:
    assert len(read) == len({one.case.uid for one in read}) == 2000


def test_a_stat_study_never_waits_behind_another_one(read: list[Read]) -> None:
    waiting = [one for one in read if one.case.stat]
    for one in waiting:
        overtakers = [
            other
            for other in read
            if not other.case.stat and one.case.came < other.began < one.began
        ]
        assert overtakers == []


def test_an_ai_negative_study_is_overtaken_only_by_what_comes_within_the_longest_head_start(
    read: list[Read],
) -> None:
    longest = max(one.head_start_minutes for one in priority.SHIPPED)
    position = {one.case.uid: number for number, one in enumerate(read)}
    overtaken = 0
    for one in read:
        if one.case.outcome != "negative" or one.case.stat:
            continue
        before = read[: position[one.case.uid]]
        later = [other for other in before if other.case.came > one.case.came]
        overtaken += len(later)
        assert all(other.case.stat or other.case.came - one.case.came < longest for other in later)
    assert overtaken > 0  # else nothing was ranked at all


def test_positive_studies_are_read_sooner_and_negative_ones_in_time(read: list[Read]) -> None:
    def longest(outcome: str) -> float:
        return max(one.waited for one in read if one.case.outcome == outcome)

    assert longest("positive") < longest("indeterminate") < longest("negative")


def test_the_documentation_has_the_figures_of_the_simulation() -> None:
    page = (Path(__file__).parent.parent / "docs" / "worklist.md").read_text(encoding="utf-8")
    assert "\n".join(simulation.table()) in page
