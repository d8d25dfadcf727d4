"""The dashboard: clinical figures for readers; work under way, and what to do, for administrators.

No patient is named on it, so that looking at it is no view of patient data.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from thoracle.errors import DeliveryError, ThoracleError
from thoracle.monitoring import operations as stored
from thoracle.monitoring import reach
from thoracle.monitoring.looking import Watching, look
from thoracle.pipeline import requests
from thoracle.settings import Settings
from thoracle.store import tables, trail
from thoracle.web.api.metrics import age
from thoracle.web.kept import Kept
from thoracle.web.pages import operations
from thoracle.web.pages.board import SPANS, URGENT, Board, board
from thoracle.web.pages.charts import duration
from thoracle.web.pages.operations import LETTERS
from thoracle.web.session.access import Person, Role, administrator, reader
from thoracle.web.site import address_of, render, site_of

router = APIRouter()

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

    figures: Kept = field(default_factory=lambda: Kept(60))
    watching: Kept = field(default_factory=lambda: Kept(60))
    operations: Kept = field(default_factory=lambda: Kept(5))
    parts: Kept = field(default_factory=lambda: Kept(600))
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
            404, f"found {days} days, required is one of {', '.join(map(str, SPANS))}"
        )
    values: dict[str, Any] = {
        "board": _board(request, days),
        "spans": SPANS,
        "duration": duration,
        "urgent": URGENT,
    }
    if person.has(Role.ADMINISTRATOR):
        values |= _operations(request)
    return render(request, "dashboard.html", **values)


def _board(request: Request, days: int) -> Board:
    site, memory = site_of(request), _memory(request)
    watch, now = site.settings.watch, datetime.now(UTC)

    def watching() -> Watching:
        with site.database.connect() as connection:
            return look(connection, watch, now)

    found = memory.watching.get("watching", watching)

    def figures() -> Board:
        with site.database.connect() as connection:
            return board(connection, watch, found, days, now)

    return memory.figures.get(days, figures)


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
    for destination in settings.destination:
        if destination.name == name:
            return reach.destination(destination, settings, TRY_SECONDS)
    for receiver in settings.hl7:
        if receiver.name == name:
            return reach.receiver(receiver, TRY_SECONDS)
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
    return _done(request, said=f"{number} of study {study} to be sent again")


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
    return _done(request, said=f"{number} to be sent again{rest}")
