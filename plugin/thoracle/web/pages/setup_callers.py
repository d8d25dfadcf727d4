"""Callers: AE titles and what each may do, as one table over the lists of the configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from thoracle.audit import lookup
from thoracle.errors import SettingsError
from thoracle.settings import document
from thoracle.settings.document import ConfigurationFile, Fault
from thoracle.web.pages.setup import (
    Administrator,
    Form,
    SavedConfiguration,
    faults_of,
    save,
    saved_of,
    unchanged,
    usable,
)
from thoracle.web.site import render, site_of

router = APIRouter()

FRESH = 3
"""Empty rows for callers to be added."""
MOST_CALLERS = 200


@dataclass(frozen=True, slots=True)
class Permission:
    """A list of AE titles in the configuration: a column."""

    table: str
    name: str
    head: str
    anybody: str
    """What an empty list means."""

    @property
    def key(self) -> str:
        """The setting, as in the file."""
        return f"{self.table}.{self.name}"


PERMISSIONS = (
    Permission("receive", "calling_ae_titles", "Call", "any AE title"),
    Permission("receive", "store_ae_titles", "Send images", "all that may call"),
    Permission("ups", "query_ae_titles", "Query workitems", "all that may call"),
    Permission("ups", "claim_ae_titles", "Claim workitems", "all that may call"),
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A row."""

    ae_title: str
    may: frozenset[str]
    """Keys of permissions."""
    seen: str = ""
    """How the newest association of it went."""
    fault: str = ""


def _lists(file: ConfigurationFile) -> dict[str, list[str]]:
    return {one.key: list(file.values.get(one.table, {}).get(one.name, [])) for one in PERMISSIONS}


def _callers(lists: dict[str, list[str]]) -> list[Caller]:
    titles = dict.fromkeys(title for found in lists.values() for title in found)
    return [
        Caller(title, frozenset(key for key, found in lists.items() if title in found))
        for title in titles
    ]


@router.get("/setup/callers")
def callers(request: Request, _person: Administrator, seen: bool = False) -> Response:
    """Show who may do what; with ``seen``, how the newest association of each went."""
    saved = saved_of(request)
    lists = {one.key: [] for one in PERMISSIONS} if saved.file is None else _lists(saved.file)
    rows = _callers(lists)
    if seen:
        with site_of(request).database.connect() as connection:
            found = lookup.last_associations(connection)
        rows = [replace(one, seen=found.get(one.ae_title, "not in 30 days")) for one in rows]
    return _page(request, saved, rows, {key for key, found in lists.items() if found})


def _page(
    request: Request,
    saved: SavedConfiguration,
    rows: Sequence[Caller],
    marked: set[str],
    faults: Sequence[str] = (),
    status_code: int = 200,
) -> Response:
    return render(
        request,
        "setup_callers.html",
        status_code,
        saved=saved,
        rows=rows,
        fresh=FRESH,
        permissions=PERMISSIONS,
        marked=marked,
        faults=faults,
    )


@router.post("/setup/callers")
def change(request: Request, person: Administrator, form: Form) -> Response:
    """Save who may do what."""
    saved, file = usable(request)
    unchanged(file, form)
    rows = _typed(form)
    marked = {one.key for one in PERMISSIONS if form.get(f"mode.{one.key}") == "marked"}
    lists = {
        one.key: [row.ae_title for row in rows if one.key in row.may] if one.key in marked else []
        for one in PERMISSIONS
    }
    faults = [
        Fault((), f"{one.head}: found no caller marked, required: one, or {one.anybody}")
        for one in PERMISSIONS
        if one.key in marked and not lists[one.key]
    ]
    try:
        found = _changed(file, lists)
        faults += faults_of(found)
        if not faults:
            save(request, person, file, found)
            return RedirectResponse("/setup?said=saved", 303)
    except SettingsError as error:
        faults.append(Fault((), str(error)))
    beside = dict(one for fault in faults if (one := _beside(fault, lists)))
    rows = [replace(row, fault=beside.get(row.ae_title, "")) for row in rows]
    rest = [fault.text for fault in faults if not _beside(fault, lists)]
    return _page(request, saved, rows, marked, rest, 422)


def _beside(fault: Fault, lists: dict[str, list[str]]) -> tuple[str, str] | None:
    """Return the AE title that a fault is about, and its text; ``None``: it is about none."""
    match fault.path:
        case (str(table), str(name), int(number)) if f"{table}.{name}" in lists:
            return lists[f"{table}.{name}"][number], fault.text
    return None


def _typed(form: FormData) -> list[Caller]:
    rows = []
    for number in range(MOST_CALLERS):
        title = str(form.get(f"ae.{number}") or "").strip(" ")
        if title:
            may = frozenset(str(one) for one in form.getlist(f"may.{number}"))
            rows.append(Caller(title, may))
    return rows


def _changed(file: ConfigurationFile, lists: dict[str, list[str]]) -> ConfigurationFile:
    for table in dict.fromkeys(one.table for one in PERMISSIONS):
        there = file.values.get(table, {})
        wanted: dict[str, Any] = {
            one.name: lists[one.key] or None for one in PERMISSIONS if one.table == table
        }
        if any(there.get(name) != value for name, value in wanted.items()):
            file = document.with_table(file, table, wanted)
    return file
