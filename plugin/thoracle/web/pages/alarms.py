"""Alarms, as an administrator sees, acknowledges and silences them."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from thoracle.monitoring import occurrences
from thoracle.monitoring.occurrences import AlarmError
from thoracle.web.parameters import RowId
from thoracle.web.session.access import Person, administrator
from thoracle.web.session.login import Text, by
from thoracle.web.site import render, site_of

router = APIRouter()
Administrator = Annotated[Person, Depends(administrator)]

ENDED = 100
"""Alarms that ended, which are shown."""
SPANS = {1: "1 hour", 4: "4 hours", 12: "12 hours", 24: "1 day", 72: "3 days", 168: "7 days"}
"""Of a silence, in hours."""
DONE = {
    "acknowledged": "Alarm acknowledged.",
    "silenced": "Alarm silenced: no webhook and no e-mail tells of it until then.",
    "unsilenced": "Silence ended. If the alarm still stands, it is sent within a minute.",
}
"""What is said after a change, by a word in the address."""


@router.get("/alarms")
def everything(request: Request, _person: Administrator, said: str = "") -> Response:
    """Show the alarms that stand, and those that ended."""
    return _page(request, said=DONE.get(said, ""))


def _page(request: Request, status_code: int = 200, said: str = "", fault: str = "") -> Response:
    with site_of(request).database.connect() as connection:
        standing = occurrences.standing(connection)
        subjects = {row.subject for row in standing}
        return render(
            request,
            "alarms.html",
            status_code,
            standing=standing,
            ended=occurrences.ended(connection, ENDED),
            silences=[
                row for row in occurrences.silences(connection) if row.subject not in subjects
            ],
            spans=SPANS,
            days=occurrences.LONGEST_SILENCE_DAYS,
            kept_days=occurrences.KEPT_DAYS,
            longest_comment=occurrences.LONGEST_COMMENT,
            said=said,
            fault=fault,
        )


def _change(request: Request, done: str, change: Callable[[Any], object]) -> Response:
    try:
        with site_of(request).database.begin() as connection:
            change(connection)
    except AlarmError as fault:
        return _page(request, 422, fault=str(fault))
    return RedirectResponse(f"/alarms?said={done}", 303)


@router.post("/alarms/silence")
def silence(
    request: Request,
    person: Administrator,
    subject: Text,
    hours: Annotated[float | None, Form()] = None,
    until: Text = "",
    comment: Text = "",
) -> Response:
    """Silence an alarm, whether it stands or not: a time goes before the span chosen."""

    def change(connection: Any) -> None:
        end = occurrences.until_of(None if until else hours, until)
        occurrences.silence(connection, by(request, person.name), subject, end, comment)

    return _change(request, "silenced", change)


@router.post("/alarms/unsilence")
def unsilence(request: Request, person: Administrator, subject: Text) -> Response:
    """End the silence of an alarm."""
    who = by(request, person.name)
    return _change(
        request, "unsilenced", lambda connection: occurrences.unsilence(connection, who, subject)
    )


@router.post("/alarms/{number}/acknowledge")
def acknowledge(
    request: Request, person: Administrator, number: RowId, comment: Text = ""
) -> Response:
    """Acknowledge one occurrence of an alarm."""
    who = by(request, person.name)
    return _change(
        request,
        "acknowledged",
        lambda connection: occurrences.acknowledge(connection, who, number, comment),
    )
