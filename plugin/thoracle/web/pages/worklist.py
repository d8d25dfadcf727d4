"""The worklist: filtered, ordered and paged by the server, all of it in the address."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from sqlalchemy import Connection, Row
from sse_starlette import EventSourceResponse
from starlette.responses import HTMLResponse

from thoracle.accounts import rows as people
from thoracle.outbox import rows as outbox
from thoracle.records import BundleIdentity, Reason
from thoracle.report import sentences
from thoracle.store import bundles, trail
from thoracle.store.tables import timestamp
from thoracle.study import published, reading_list, results
from thoracle.study.reading_list import SORTS, STAT, STATES, Filter
from thoracle.web.live import Live
from thoracle.web.pages import preparation
from thoracle.web.pages.list_view import COLUMNS, columns_of
from thoracle.web.session import seen
from thoracle.web.session.access import (
    Person,
    Role,
    anyone,
    reader,
    record_access,
    sees_kept_back,
)
from thoracle.web.site import render, site_of
from thoracle.web.wording import age, percent, person_names, plain

router = APIRouter()

PAGE = 50
"""Studies on a page."""
MOST_PAGES = 10_000
PREPARED = 3
"""Studies at the top of the list of which the pictures are rendered before somebody asks."""
SENT, PROVEN, DEAD = ("sent", "delivered"), "delivered", ("refused", "failed")


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """What the address asks for."""

    state: tuple[str, ...] = ()
    review: str = "open"
    text: str = ""
    modality: str = ""
    since: str = ""
    until: str = ""
    sort: str = "rank"
    page: int = 1

    def filter(self) -> Filter:
        """Return it as the store takes it; days are whole, in UTC."""
        return Filter(
            states=self.state,
            review="" if self.review == "all" else self.review,
            text=self.text,
            modality=self.modality,
            since=_day(self.since),
            until=_day(self.until, 1),
        )

    def address(self, **changes: Any) -> str:
        """Return the address of this list with other values; what is usual is left out."""
        pairs = self.pairs(**changes)
        return f"/?{urlencode(pairs)}" if pairs else "/"

    def of_study(self, study_instance_uid: str) -> str:
        """Return the address of a study that was opened from this list."""
        pairs = self.pairs(page=1)
        path = f"/study/{quote(study_instance_uid, safe='')}"
        return f"{path}?{urlencode(pairs)}" if pairs else path

    def pairs(self, **changes: Any) -> list[tuple[str, str]]:
        """Return names and values of the address; what is usual is left out."""
        usual = asdict(WorklistQuery())
        values = {**asdict(self), **changes}
        return [
            (name, str(one))
            for name, value in values.items()
            if value != usual[name]
            for one in (value if isinstance(value, tuple) else (value,))
        ]


def query_of(
    state: Annotated[list[str], Query(max_length=len(STATES))] = [],  # noqa: B006 - FastAPI copies
    review: Annotated[str, Query(pattern="^(open|done|all)$")] = "open",
    text: Annotated[str, Query(max_length=200)] = "",
    modality: Annotated[str, Query(max_length=16)] = "",
    since: Annotated[str, Query(max_length=10)] = "",
    until: Annotated[str, Query(max_length=10)] = "",
    sort: Annotated[str, Query(max_length=16)] = "rank",
    page: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1,
) -> WorklistQuery:
    """Return what an address asks for; 422 when it has a value that there is not."""
    unknown = [one for one in state if one not in STATES]
    if unknown or sort not in SORTS:
        raise HTTPException(422, "found an unknown state or order")
    for day in (since, until):
        _day(day)
    return WorklistQuery(tuple(state), review, text.strip(), modality, since, until, sort, page)


def _day(text: str, later: int = 0) -> str:
    if not text:
        return ""
    try:
        day = date.fromisoformat(text) + timedelta(days=later)
    except (ValueError, OverflowError) as error:
        raise HTTPException(422, "found no date, required: e.g. 2026-11-24") from error
    return timestamp(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _reader_or_sent_on(request: Request) -> Person:
    """Return the reader; send others on, who come here from the log-in and are not for lists."""
    person = anyone(request)
    if not person.has(Role.READER) and person.scopes is None:
        to = "/audit" if person.has(Role.AUDITOR) else "/account"
        raise HTTPException(303, headers={"Location": to})
    return reader(request)


@router.get("/")
def show(
    request: Request,
    wanted: Annotated[WorklistQuery, Depends(query_of)],
    person: Annotated[Person, Depends(_reader_or_sent_on)],
) -> HTMLResponse:
    """Return the list, or its rows alone for a page that asks for no more."""
    site = site_of(request)
    began = time.perf_counter()
    with site.database.connect() as connection:
        number = reading_list.count(connection, wanted.filter())
        rows = reading_list.page(
            connection, wanted.filter(), wanted.sort, PAGE, (wanted.page - 1) * PAGE
        )
        uids = [row.study_instance_uid for row in rows]
        sent = outbox.by_study(connection, uids)
        kept_back = published.kept_back(connection, uids)
        rules = _rules(connection, uids)
        modalities = reading_list.modalities(connection)
        mine = people.row_of(connection, person.name)
        filters = people.filters(connection, person.name)
    again = request.headers.get("x-automatic") == "1"
    if not (again and seen.is_recorded(request, wanted.address(), uids)):
        with site.database.begin() as connection:
            record_view(connection, request, person, wanted, uids)
        seen.recorded(request, wanted.address(), uids, again=again)
    preparation.prepare(request, uids[:PREPARED])
    sees = sees_kept_back(request, person)
    now = datetime.now(UTC)
    part = "hx-request" in request.headers or "x-automatic" in request.headers
    response = render(
        request,
        "_worklist_rows.html" if part else "worklist.html",
        wanted=wanted,
        rows=[
            {
                **shown(row, sent.get(row.study_instance_uid, {}), now),
                **_kept_back(row, kept_back.get(row.study_instance_uid), sees),
                "model": rules.numbers.get(row.study_instance_uid, ""),
            }
            for row in rows
        ],
        rules=rules.texts,
        columns=columns_of(mine, site.settings),
        all_columns=COLUMNS,
        filters=filters,
        number=number,
        pages=max(1, -(-number // PAGE)),
        first=(wanted.page - 1) * PAGE + 1,
        states=STATES,
        modalities=modalities,
        viewer=lambda row: viewer_address(site.settings.web.viewer_url, row),
        percent=percent,
    )
    response.headers["Server-Timing"] = f"list;dur={(time.perf_counter() - began) * 1000:.1f}"
    response.headers["HX-Push-Url"] = wanted.address()
    response.headers["Vary"] = "HX-Request, X-Automatic"
    return response


@router.get("/worklist/events")
async def events(
    request: Request, person: Annotated[Person, Depends(reader)]
) -> EventSourceResponse:
    """Return a stream that says when the list changed: a time, and nothing about a patient."""
    state = request.app.state
    if not hasattr(state, "live"):
        state.live = Live(site_of(request).database)
    live: Live = state.live

    async def stream() -> Any:
        async for moment in live.changes():
            yield {"event": "changed", "data": moment}

    return EventSourceResponse(stream(), ping=15)


def record_view(
    connection: Connection,
    request: Request,
    person: Person,
    wanted: WorklistQuery,
    studies: list[str],
) -> None:
    """Record that a list was seen: by which filter, and which studies were on it."""
    asked = {name: value for name, value in asdict(wanted).items() if value not in ("", ())}
    columns: trail.Columns = {"detail": {"filter": asked, "studies": studies}}
    record_access(connection, request, person, trail.Event.LIST_VIEWED, columns)


# ---- the models ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rules:
    """The models whose results a page of the list shows, and the rule by which each decides."""

    texts: tuple[str, ...]
    numbers: dict[str, str]
    """By Study Instance UID, which of the texts it is, from 1; empty when there is one alone."""


def _rules(connection: Connection, uids: Sequence[str]) -> Rules:
    digests = results.digests(connection, uids)
    known = bundles.known(connection, digests.values())
    texts = {
        digest: _rule(f"{one.finding.short_name}, {one.name} {one.version}", one.identity)
        for digest, one in sorted(known.items(), key=lambda item: (item[1].name, item[1].version))
    }
    numbers = {digest: str(number) for number, digest in enumerate(texts, 1)}
    several = len(texts) > 1
    return Rules(
        tuple(texts.values()),
        {uid: numbers[one] for uid, one in digests.items() if several and one in numbers},
    )


def _rule(name: str, identity: BundleIdentity | None) -> str:
    """Return what the list says once of a model: its name and the rule that decides."""
    return name if identity is None else f"{name}: {sentences.rule(identity.decision)}"


# ---- a row -----------------------------------------------------------------------------------


def shown(row: Row[Any], sent: dict[str, int], now: datetime) -> dict[str, Any]:
    """Return what a row of the list says, ready to be shown.

    Parameters
    ----------
    row
        Of the table ``worklist``.
    sent
        How many objects of its newest result are in which delivery state.
    now
        Aware; open studies have waited until then.
    """
    names = person_names(row.patient_name)
    end = datetime.fromisoformat(row.reviewed_at) if row.reviewed_at else now
    return {
        **row._mapping,
        "name": next(iter(names), "no name"),
        "other_names": names[1:],
        "age_and_sex": " ".join(filter(None, (age(row.patient_age), plain(row.patient_sex, 16)))),
        "study_time": (row.study_datetime or "").replace("T", " ")[:16],
        "stat": row.urgency == STAT,
        "moved_up": moved_up(row),
        "rank": rank_sentence(row),
        "waited": waited((end - datetime.fromisoformat(row.received_at)).total_seconds()),
        "reason": reason(row.reason_code),
        "sending": sending(sent),
    }


def _kept_back(row: Row[Any], found: Any, sees: bool) -> dict[str, Any]:
    """Return what a row says of a result that a rule keeps back; nothing where there is none.

    How many objects are held says what they are of, and so nobody is told.
    """
    if found is None:
        return {"kept_back": ""}
    said = {"kept_back": "", "sending": ("none", "none")}
    if found.state == "withdrawn":
        return said
    said["kept_back"] = found.sending
    if found.sending == published.HELD:
        said["sending"] = ("held", "held")
    if sees and row.ai_state in published.KEPT_BACK:
        said |= {"ai_state": found.outcome, "probability": found.probability}
    return said


def rank_sentence(row: Row[Any]) -> str:
    """Return why a study stands where it stands."""
    if row.urgency == STAT:
        return f"STAT by rule {row.stat_rule}" if row.stat_rule else "STAT in the order"
    if row.head_start_minutes:
        moved = moved_up(row)
        why = row.why.replace("-", " ")
        return f"{why[:1].upper()}{why[1:]}: {moved[:1].lower()}{moved[1:]}"
    return "By arrival"


def moved_up(row: Row[Any]) -> str:
    """Return by how much a study was moved up; empty when it was not."""
    minutes = row.head_start_minutes
    return f"Moved up {waited(minutes * 60)}" if minutes else ""


def waited(seconds: float) -> str:
    """Return a span of time in two units at most, e.g. ``45 s``, ``12 min``, ``3 h 20 min``."""
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    days, hours = divmod(hours, 24)
    larger, smaller = (f"{days} d", f"{hours} h") if days else (f"{hours} h", f"{minutes} min")
    return larger if smaller.startswith("0 ") else f"{larger} {smaller}"


def reason(code: str | None) -> str:
    """Return the meaning of a reason's code; empty when there is none."""
    if code is None:
        return ""
    try:
        return Reason.from_code_value(code).code.meaning
    except KeyError:  # of a later version of Thoracle, before a step back
        return code


def sending(sent: dict[str, int]) -> tuple[str, str]:
    """Return kind and text of what became of a result's objects: the worst of them speaks."""
    total = sum(number for state, number in sent.items() if state != "withdrawn")
    arrived = sum(sent.get(state, 0) for state in SENT)
    proven = sent.get(PROVEN, 0)
    if dead := sum(sent.get(state, 0) for state in DEAD):
        return "failed", f"{dead} of {total} not sent"
    if held := sent.get("held", 0):
        return "held", f"{held} held"
    if not total:
        return "none", "none"
    if proven == total:
        return "proven", f"{total} proven"
    if arrived == total:
        return "arrived", f"{total} sent"
    return "waiting", f"{arrived} of {total} sent"


def viewer_address(template: str, row: Any) -> str:
    """Return the address of a study in the site's viewer; empty without a template."""
    values = {
        "{StudyInstanceUID}": row["study_instance_uid"],
        "{AccessionNumber}": row["accession_number"],
        "{PatientID}": row["patient_id"],
    }
    for name, value in values.items():
        template = template.replace(name, quote(value or "", safe=""))
    return template
