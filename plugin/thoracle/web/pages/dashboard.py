"""The dashboard: clinical figures for readers; work under way, and what to do, for administrators.

No patient is named on it, so that looking at it is no view of patient data.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection
from starlette.responses import Response

from thoracle.errors import DeliveryError, ThoracleError
from thoracle.monitoring import conditions, figures, occurrences, reach, statistics
from thoracle.monitoring import operations as stored
from thoracle.monitoring.comparison import Level, shown
from thoracle.monitoring.figures import OPEN, STATES, TurnAround, Volume
from thoracle.monitoring.statistics import DAY, MONTH
from thoracle.monitoring.watch import DriftComparison, compare
from thoracle.pipeline import requests, senders
from thoracle.settings import Retention, Settings, Watch
from thoracle.store import tables, trail
from thoracle.store.tables import timestamp
from thoracle.study import published
from thoracle.web.pages import charts, operations
from thoracle.web.pages.charts import Chart, duration
from thoracle.web.pages.operations import LETTERS, age
from thoracle.web.pages.worklist import reason
from thoracle.web.session.access import Person, Role, administrator, reader, sees_kept_back
from thoracle.web.site import address_of, render, site_of

# ---- answers that are kept -----------------------------------------------------------------------
# Answers that are kept for a while: many people may look at what one question costs.

T = TypeVar("T")


class AnswerCache:
    """Answers by key; who asks while one is being made waits for it.

    Parameters
    ----------
    seconds
        How long an answer is good.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._answers: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the answer to a key, made anew when there is none that is good."""
        with self._lock:
            until, answer = self._answers.get(key, (0.0, None))
            if time.monotonic() >= until:
                answer = make()
                self._answers[key] = (time.monotonic() + self._seconds, answer)
            kept: T = answer
            return kept

    def forget(self) -> None:
        """Have every answer made anew."""
        with self._lock:
            self._answers.clear()


# ---- clinical figures ----------------------------------------------------------------------------
# The clinical figures of the dashboard: no patient is in them.

SPANS = {7: DAY, 30: DAY, 90: DAY, 365: MONTH}
"""Days that can be shown, and by what they are divided."""
URGENT = (Level.ALARM, Level.LOOK)
"""Levels that are shown one by one."""
MONTHS = 12
REFUSALS = 30
"""Devices with a reason and a value found that are shown, the most frequent ones."""
DEVICES = 20
"""Devices that are shown one by one, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Board:
    """What the page shows."""

    days: int
    made: datetime
    watching: DriftComparison
    since: dict[str, str]
    """Since when an alarm stands, by its subject."""
    service: tuple[Any, ...]
    """Rows of alarms about the service, not about a figure."""
    standing: tuple[Any, ...]
    """Rows of alarms that stand although the figure is below the limit again, or not compared."""
    total: Volume
    times: TurnAround
    verdicts: figures.Agreement
    volume: Chart
    turn_around: Chart
    compared: dict[str, Chart]
    """Distributions, of the scores and of what is urgent, by subject."""
    agreement: tuple[Chart, ...]
    reasons: tuple[tuple[str, int], ...]
    refusals: tuple[tuple[str, str, str, int], ...]
    """Device, reason, what was found and required, number of images; the most frequent ones."""
    devices: tuple[tuple[str, dict[str, int]], ...]


def board(
    connection: Connection,
    settings: Watch,
    watching: DriftComparison,
    days: int,
    now: datetime,
    *,
    with_kept_back: bool = True,
) -> Board:
    """Return the figures of the last ``days``, one of ``SPANS``; days and months are of UTC.

    Without ``with_kept_back``, of results alone that every reader may know of. The alarms that the
    gateway raised about figures are of all results, and so not among them.
    """
    of = {"with_kept_back": with_kept_back}
    length = SPANS[days]
    unit = "day" if length == DAY else "month"
    periods = _periods(now, days, length)
    since, until = periods[0], timestamp(now)
    volumes = figures.volumes(statistics.outcomes(connection, since, until, length, **of), periods)
    times = statistics.times(connection, since, until, **of)
    opinions = statistics.opinions(connection, _months(now, MONTHS)[0], until, **of)
    raised = [
        row
        for row in occurrences.standing(connection)
        if with_kept_back or not conditions.tells_results(row.subject)
    ]
    levels = {one.subject: one.level for one in watching.comparisons}
    return Board(
        days=days,
        made=now,
        watching=watching,
        since={row.subject: row.since for row in raised},
        service=tuple(row for row in raised if conditions.of_service(row.subject)),
        standing=tuple(
            row
            for row in raised
            if levels.get(row.subject) is not Level.ALARM and not conditions.of_service(row.subject)
        ),
        total=_sum(volumes),
        times=figures.turn_around(times),
        verdicts=_all(opinions),
        volume=charts.volume(volumes, unit),
        turn_around=charts.turn_around(figures.turn_around_by(times, length), periods, unit),
        compared={
            one.subject: charts.distribution(one.bins, one.name)
            for one in watching.comparisons
            if one.bins and (one.subject == "scores" or one.level in URGENT)
        },
        agreement=_agreement(opinions, settings.alarm_agreement),
        reasons=tuple(
            (reason(row.reason_code), row.number)
            for row in statistics.reasons(connection, since, until, **of)
        ),
        refusals=_refusals(statistics.refusals(connection, since, until, **of)),
        devices=_devices(statistics.devices(connection, since, until, **of)),
    )


def _refusals(rows: Any) -> tuple[tuple[str, str, str, int], ...]:
    refused = [row for row in rows if row.reason_code is not None][:REFUSALS]
    return tuple(
        (shown(row.device), reason(row.reason_code), row.detail or "", row.number)
        for row in refused
    )


def _periods(now: datetime, days: int, length: int) -> list[str]:
    if length == MONTH:
        return _months(now, MONTHS)
    return [f"{now - timedelta(days=ago):%Y-%m-%d}" for ago in range(days - 1, -1, -1)]


def _months(now: datetime, number: int) -> list[str]:
    last = now.year * 12 + now.month - 1
    return [f"{one // 12:04}-{one % 12 + 1:02}" for one in range(last - number + 1, last + 1)]


def _sum(volumes: list[Volume]) -> Volume:
    numbers = {state: sum(one.numbers[state] for one in volumes) for state in (*STATES, OPEN)}
    return Volume("all", numbers)


def _all(opinions: Any) -> figures.Agreement:
    groups = figures.agreements(opinions, lambda _row: "all")
    return groups[0] if groups else figures.Agreement("all", 0, 0, 0)


def _agreement(opinions: Any, limit: float) -> tuple[Chart, ...]:
    by = {
        "month": lambda row: row.month,
        "device": lambda row: row.device,
        "outcome": lambda row: row.outcome,
    }
    return tuple(
        charts.agreement(_most(figures.agreements(opinions, group), name), name, limit)
        for name, group in by.items()
    )


def _most(groups: list[figures.Agreement], by: str) -> list[figures.Agreement]:
    """Return all groups, or of many devices those with most verdicts."""
    if by != "device" or len(groups) <= DEVICES:
        return groups
    return sorted(groups, key=lambda one: -one.number)[:DEVICES]


def _devices(rows: Any) -> tuple[tuple[str, dict[str, int]], ...]:
    found: dict[str, Counter[str]] = {}
    for row in rows:
        state = row.ai_state if row.ai_state in STATES else OPEN
        found.setdefault(shown(row.device), Counter())[state] += row.number
    most = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))[:DEVICES]
    return tuple((name, {state: one[state] for state in (*STATES, OPEN)}) for name, one in most)


router = APIRouter()

# ---- the page ------------------------------------------------------------------------------------

TRY_SECONDS = 5.0
"""How long a peer may take to answer to the button; deliveries wait longer."""
OURSELVES = "gateway"
"""What our own listener is called on the page."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of the button of a peer."""

    at: str
    well: bool
    text: str


@dataclass(frozen=True)
class Memory:
    """What this process keeps for the page."""

    figures: AnswerCache = field(default_factory=lambda: AnswerCache(60))
    watching: AnswerCache = field(default_factory=lambda: AnswerCache(60))
    operations: AnswerCache = field(default_factory=lambda: AnswerCache(5))
    parts: AnswerCache = field(default_factory=lambda: AnswerCache(600))
    tried: dict[str, Tried] = field(default_factory=dict)


def _memory(request: Request) -> Memory:
    if not hasattr(request.app.state, "dashboard"):
        request.app.state.dashboard = Memory()
    memory: Memory = request.app.state.dashboard
    return memory


@router.get("/dashboard", include_in_schema=False)
def page(
    request: Request,
    person: Annotated[Person, Depends(reader)],
    days: Annotated[int, Query()] = 30,
) -> Response:
    """Show everything that the person may see."""
    if days not in SPANS:
        raise HTTPException(
            404, f"found {days} days, required: one of {', '.join(map(str, SPANS))}"
        )
    values: dict[str, Any] = {
        "board": _board(request, days, sees_kept_back(request, person)),
        "kept": list(_kept(site_of(request).settings.retention, days)),
        "spans": SPANS,
        "duration": duration,
        "urgent": URGENT,
    }
    if person.has(Role.ADMINISTRATOR):
        values |= _operations(request)
    return render(request, "dashboard.html", **values)


def _kept(rules: Retention, days: int) -> Iterator[str]:
    """Yield what is kept for fewer days than the page shows."""
    for number, name in (
        (rules.studies_days, "Studies"),
        (rules.readings_days, "Readings of images"),
        (rules.verdicts_days, "Verdicts"),
    ):
        if 0 < number < days:
            yield f"{name} are kept for {number} days: earlier ones are not counted."


def _board(request: Request, days: int, sees: bool) -> Board:
    """Return the figures; ``sees``: also of what a rule keeps back."""
    site, memory = site_of(request), _memory(request)
    watch, now = site.settings.watch, datetime.now(UTC)
    with site.database.connect() as connection:
        # Where nothing is kept back, all see the same, made once.
        everything = sees or not published.any_kept_back(connection)

    found = watched(request, with_kept_back=everything)

    def figures() -> Board:
        with site.database.connect() as connection:
            return board(connection, watch, found, days, now, with_kept_back=everything)

    return memory.figures.get((days, everything), figures)


def watched(request: Request, *, with_kept_back: bool) -> DriftComparison:
    """Return how the figures compare now, made once a minute at most."""
    site = site_of(request)

    def compared() -> DriftComparison:
        now = datetime.now(UTC)
        with site.database.connect() as connection:
            return compare(connection, site.settings.watch, now, with_kept_back=with_kept_back)

    return _memory(request).watching.get(with_kept_back, compared)


# ---- operations ------------------------------------------------------------------------------


@router.get("/dashboard/operations", include_in_schema=False)
def part(request: Request, _person: Annotated[Person, Depends(administrator)]) -> Response:
    """Show the part that refreshes itself."""
    return render(request, "_operations.html", **_operations(request))


def _operations(request: Request, fault: str = "", said: str = "") -> dict[str, Any]:
    site, memory = site_of(request), _memory(request)

    def make() -> Any:
        with site.database.connect() as connection:
            return operations.gather(connection, site.settings)

    def parts() -> Any:
        return operations.parts(site.settings.data_folder), operations.identity(site.settings)

    folder, bundle = memory.parts.get("folder", parts)
    return {
        "operations": memory.operations.get("now", make),
        "parts": folder,
        "bundle": bundle,
        "tried": memory.tried,
        "ourselves": OURSELVES,
        "reserve": site.settings.receive.reserve_megabytes,
        "duration": duration,
        "age": age,
        "fault": fault,
        "said": said,
    }


def _done(request: Request, fault: str = "", said: str = "") -> Response:
    """Answer a button: the part anew for htmx, else the page."""
    _memory(request).operations.forget()
    if "hx-request" in request.headers:
        return render(request, "_operations.html", **_operations(request, fault, said))
    if fault:
        raise HTTPException(409, fault)
    return RedirectResponse("/dashboard#operations", 303)


@router.post("/dashboard/peers/{name}/try", include_in_schema=False)
def try_peer(
    request: Request, name: str, person: Annotated[Person, Depends(administrator)]
) -> Response:
    """Call a destination, a receiver or our own listener, and show whether it answers."""
    site = site_of(request)
    try:
        tried = Tried(tables.now(), True, _answer(name, site.settings))
    except DeliveryError as error:
        tried = Tried(tables.now(), False, str(error))
    _memory(request).tried[name] = tried
    with site.database.begin() as connection:
        trail.record(
            connection,
            trail.Event.PEER_TRIED,
            {
                "event_outcome": trail.SUCCESS if tried.well else trail.MINOR_FAILURE,
                "user_id": person.name,
                "network_address": address_of(request),
                "destination": name,
                "detail": {"detail": tried.text},
            },
        )
    return _done(request, said=f"{name} {tried.text}" if tried.well else "")


def _answer(name: str, settings: Settings) -> str:
    if name == OURSELVES:
        return reach.ourselves(settings, TRY_SECONDS)
    for sender, peer in senders.peers(settings):
        if peer.name == name:
            return sender.reach(peer, settings, TRY_SECONDS)
    raise HTTPException(404, "found no such destination or receiver in the settings")


@router.post("/dashboard/retry/{study}", include_in_schema=False)
def retry(
    request: Request, study: str, person: Annotated[Person, Depends(administrator)]
) -> Response:
    """Have the dead letters of a study sent again."""
    try:
        number = requests.retry(site_of(request).database, study, person.name)
    except ThoracleError as error:
        return _done(request, fault=str(error))
    return _done(request, said=f"{number} of study {study} queued to be sent again")


@router.post("/dashboard/retry", include_in_schema=False)
def retry_all(request: Request, person: Annotated[Person, Depends(administrator)]) -> Response:
    """Have the dead letters of the first studies sent again that have some."""
    database = site_of(request).database
    with database.connect() as connection:
        studies = stored.dead_studies(connection)
    number = 0
    for study in studies[:LETTERS]:
        try:
            number += requests.retry(database, study, person.name)
        except ThoracleError:  # somebody else was quicker
            continue
    rest = f"; {len(studies) - LETTERS} studies are left" if len(studies) > LETTERS else ""
    return _done(request, said=f"{number} queued to be sent again{rest}")
