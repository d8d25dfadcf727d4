"""A day of a reading room, simulated on the worklist of the product: who waits how long.

`python tests/simulation.py` prints the table of docs/worklist.md. Time is simulated, the list and
its order are real: the next study is the first row that :func:`thoracle.study.reading_list.page`
gives.
"""

import heapq
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, insert, update

from thoracle.routing import rank
from thoracle.settings import Rank
from thoracle.store import database
from thoracle.store.tables import study, timestamp, worklist
from thoracle.study.reading_list import Filter, page

DAWN = datetime(2026, 11, 24, tzinfo=UTC)
BY_HOUR = [20, 15, 12, 12, 15, 30, 60, 110, 150, 165, 165, 155]
BY_HOUR += [140, 150, 160, 150, 130, 100, 70, 55, 45, 40, 30, 21]
"""Studies that come in each hour: 2,000 a day, most of them by day."""
OUTCOMES = {"negative": 0.70, "positive": 0.12, "indeterminate": 0.10, "rejected": 0.08}
STAT_SHARE = 0.03
READING_MINUTES = 3.0
READERS = 5
"""They read 100 an hour, so that a backlog grows all day and is gone by night."""
OPEN = Filter(review="open")


@dataclass(frozen=True, slots=True)
class Case:
    """A study of the day."""

    uid: str
    outcome: str
    stat: bool
    came: float
    """Minutes after midnight."""


@dataclass(frozen=True, slots=True)
class Read:
    """A study and when somebody took it up, minutes after midnight."""

    case: Case
    began: float

    @property
    def waited(self) -> float:
        """Minutes from its arrival to the moment that somebody took it up."""
        return self.began - self.case.came


def cases(seed: int = 1) -> list[Case]:
    """Return the studies of a day by arrival; the same ones for the same seed."""
    draw = random.Random(seed)
    made: list[Case] = []
    for hour, number in enumerate(BY_HOUR):
        for came in sorted(draw.uniform(60 * hour, 60 * hour + 60) for _ in range(number)):
            (outcome,) = draw.choices(list(OUTCOMES), list(OUTCOMES.values()))
            made.append(Case(f"1.2.{len(made)}", outcome, draw.random() < STAT_SHARE, came))
    return made


def day(
    connection: Connection, studies: Sequence[Case], ranks: Sequence[Rank], readers: int = READERS
) -> list[Read]:
    """Return the studies in the order in which the readers took them up from the list."""
    waiting = iter([*studies, None])
    following = next(waiting)
    free = [0.0] * readers
    read: list[Read] = []
    by_uid = {one.uid: one for one in studies}
    while len(read) < len(studies):
        minute = heapq.heappop(free)
        while following is not None and following.came <= minute:
            _arrive(connection, following, ranks)
            following = next(waiting)
        rows = page(connection, OPEN, limit=1)
        if not rows:
            assert following is not None
            heapq.heappush(free, following.came)
            continue
        uid = rows[0].study_instance_uid
        connection.execute(
            update(worklist)
            .where(worklist.c.study_instance_uid == uid)
            .values(reviewed_at=_moment(minute))
        )
        read.append(Read(by_uid[uid], minute))
        heapq.heappush(free, minute + READING_MINUTES)
    return read


def _moment(minute: float) -> str:
    return timestamp(DAWN + timedelta(minutes=minute))


def _arrive(connection: Connection, case: Case, ranks: Sequence[Rank]) -> None:
    found = rank.head_start(ranks, [], {"result.outcome": case.outcome})
    moment = _moment(case.came)
    connection.execute(
        insert(study).values(
            study_instance_uid=case.uid, generation=1, first_received_at=moment, changed_at=moment
        )
    )
    connection.execute(
        insert(worklist).values(
            study_instance_uid=case.uid,
            received_at=moment,
            sort_key=_moment(case.came - found.minutes),
            ai_state=case.outcome,
            urgency=0 if case.stat else 1,
            head_start_minutes=found.minutes,
            search="",
            changed_at=moment,
        )
    )


NO_RANK = (Rank(name="none", when="false", head_start_minutes=0),)
STRICT = (
    Rank(name="positive", when='result.outcome == "positive"', head_start_minutes=10080),
    Rank(name="indeterminate", when='result.outcome == "indeterminate"', head_start_minutes=8640),
)
"""A week and six days are longer than the day: no ageing at all."""


def table() -> Iterator[str]:
    """Yield the longest and the median waiting time of each outcome, for three orders."""
    orders = {"by arrival alone": NO_RANK, "shipped": rank.SHIPPED, "no ageing": STRICT}
    groups = ("STAT", "positive", "indeterminate", "rejected", "negative")
    yield "| order | " + " | ".join(groups) + " |"
    yield "|---" * (len(groups) + 1) + "|"
    for name, ranks in orders.items():
        with tempfile.TemporaryDirectory() as folder:
            engine = database.open_database(database.sqlite_url(Path(folder)))
            with engine.begin() as connection:
                read = day(connection, cases(), ranks)
            engine.dispose()
        cells = []
        for group in groups:
            waits = sorted(
                one.waited
                for one in read
                if (one.case.stat if group == "STAT" else _is(one.case, group))
            )
            cells.append(f"{waits[len(waits) // 2]:.0f} / {waits[-1]:.0f}")
        yield f"| {name} | " + " | ".join(cells) + " |"


def _is(case: Case, outcome: str) -> bool:
    return case.outcome == outcome and not case.stat


if __name__ == "__main__":
    print("\n".join(table()))
