"""What a person keeps of the worklist: which columns are shown, and filters under a name."""

from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from thoracle.accounts import rows as people
from thoracle.settings import Settings
from thoracle.web.session.access import Person, reader
from thoracle.web.site import site_of

router = APIRouter()

COLUMNS = {
    "priority": "Priority",
    "patient": "Patient",
    "id": "Patient ID",
    "age": "Age, sex",
    "accession": "Accession",
    "study": "Study",
    "time": "Study time",
    "waiting": "Waiting",
    "ai": "AI result",
    "probability": "Probability",
    "device": "Device",
    "bundle": "Bundle",
    "sent": "Sent",
    "viewer": "Viewer",
}
"""Columns of the list in their order, with what stands above each."""
USUAL = tuple(name for name in COLUMNS if name not in ("device", "bundle"))
ALWAYS = ("patient", "ai")
"""No list is without them."""
MOST_FILTERS = 20
"""Filters that a person may save."""
SAVED = ("state", "review", "modality", "sort")
"""What of an address a saved filter keeps: dates grow old, and a search may name a patient."""


def columns_of(person: Any, settings: Settings) -> tuple[str, ...]:
    """Return the columns that a person sees; ``person`` is a row, or ``None``."""
    chosen = person.worklist_columns if person is not None else None
    wanted = {*ALWAYS, *(USUAL if chosen is None else chosen)}
    if not settings.web.viewer_url:
        wanted.discard("viewer")
    return tuple(name for name in COLUMNS if name in wanted)


@router.post("/worklist/columns")
def choose_columns(
    request: Request,
    person: Annotated[Person, Depends(reader)],
    back: Annotated[str, Form(max_length=1000)] = "",
    column: Annotated[list[str], Form(max_length=len(COLUMNS))] = [],  # noqa: B006 - FastAPI copies
    usual: Annotated[bool, Form()] = False,
) -> Response:
    """Keep which columns the person wants to see."""
    if unknown := set(column) - set(COLUMNS):
        text = f"found column {min(unknown)[:32]!r}, required: some of {', '.join(COLUMNS)}"
        raise HTTPException(422, text)
    with site_of(request).database.begin() as connection:
        people.set_columns(connection, person.name, None if usual else column)
    return _back(back)


@router.post("/worklist/filters")
def save_filter(
    request: Request,
    person: Annotated[Person, Depends(reader)],
    title: Annotated[str, Form(max_length=64)],
    back: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Save the filter of the list that the person looks at, without what was searched for."""
    title = title.strip()
    if not title or not title.isprintable():
        raise HTTPException(422, "found no usable name of the filter, required: 1 to 64 letters")
    pairs = [pair for pair in parse_qsl(urlsplit(back).query) if pair[0] in SAVED]
    with site_of(request).database.begin() as connection:
        people.delete_filter(connection, person.name, title)
        if (number := len(people.filters(connection, person.name))) >= MOST_FILTERS:
            text = f"found {number} saved filters, allowed are {MOST_FILTERS}: delete one first"
            raise HTTPException(422, text)
        people.save_filter(connection, person.name, title, urlencode(pairs))
    return _back(back)


@router.post("/worklist/filters/delete")
def delete_filter(
    request: Request,
    person: Annotated[Person, Depends(reader)],
    title: Annotated[str, Form(max_length=64)],
    back: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Delete a saved filter of the person."""
    with site_of(request).database.begin() as connection:
        people.delete_filter(connection, person.name, title)
    return _back(back)


def _back(address: str) -> Response:
    """Return to the list that the form was on; to no other place."""
    query = urlsplit(address).query
    return RedirectResponse(f"/?{query}" if query else "/", 303)
