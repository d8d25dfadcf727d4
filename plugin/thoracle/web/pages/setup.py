"""Set-up for administrators: destinations, rules and HL7 receivers, written to the configuration.

A running process goes on as it was: the overview says whether the saved settings are in use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from sqlalchemy import Connection
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from thoracle.audit import lookup, query, starts
from thoracle.errors import DeliveryError, SettingsError
from thoracle.pipeline import senders, trial
from thoracle.routing import explanation, rank, rules
from thoracle.settings import HL7, Destination, Rule, Section, Settings, digests, document
from thoracle.settings.document import ConfigurationFile, Fault
from thoracle.store import trail
from thoracle.web.pages import setup_form
from thoracle.web.session.access import Person, administrator, record_access
from thoracle.web.site import address_of, render, site_of

router = APIRouter()
Administrator = Annotated[Person, Depends(administrator)]

TABLES: dict[str, type[Section]] = {"destination": Destination, "rule": Rule, "hl7": HL7}
WORDS = {"destination": "destination", "rule": "rule", "hl7": "HL7 receiver"}
TRY_SECONDS = 10.0
DONE = {
    "saved": "Saved.",
    "removed": "Removed.",
}
"""What is said after a change, by a word in the address."""


async def form_of(request: Request) -> FormData:
    """Return the form that was sent."""
    return await request.form()


Form = Annotated[FormData, Depends(form_of)]


# ---- the file ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SavedConfiguration:
    """The configuration file as these pages see it."""

    file: ConfigurationFile | None
    settings: Settings | None
    """``None`` while it has faults."""
    faults: tuple[str, ...]
    read_only: str
    """Why nothing can be changed here, and what to do; empty: it can."""


def saved_of(request: Request) -> SavedConfiguration:
    """Return the configuration file that the pages were started with, as it is now."""
    path = site_of(request).config
    if path is None:
        why = "These pages run without a configuration file. Start them with --config FILE."
        return SavedConfiguration(None, None, (), why)
    try:
        file = document.read(path)
    except SettingsError as error:
        return SavedConfiguration(None, None, (str(error),), "Correct the file by hand first.")
    faults = tuple(one.text for one in faults_of(file))
    if faults:
        return SavedConfiguration(file, None, faults, "Correct the file by hand first.")
    return SavedConfiguration(
        file, file.settings(), (), why_read_only(site_of(request).settings, path)
    )


def why_read_only(settings: Settings, path: Path) -> str:
    """Return why the pages may not change the configuration, and what to do; empty: they may."""
    if not settings.data_folder_group:
        return document.why_read_only(path)
    return (
        "The pages run as a user of their own (data_folder_group), who may not change what the "
        f"gateway does. Change {path} by hand, try it with `thoracle check --config {path}`, and "
        "restart gateway and pages."
    )


def faults_of(file: ConfigurationFile) -> list[Fault]:
    """Return what keeps a gateway from starting with a configuration."""
    if found := file.faults():
        return found
    settings = file.settings()
    names = [one.name for one in settings.rule]
    found = []
    for name, text in rules.faults(settings):
        where = ("when",) if text.startswith("when") else ()
        text = f"rule {name}: {text.removeprefix('when: ')}"
        found.append(Fault(("rule", names.index(name), *where), text))
    found += [Fault((), f"rank {name}: {text}") for name, text in rank.faults(settings)]
    return found


def usable(request: Request) -> tuple[SavedConfiguration, ConfigurationFile]:
    """Return the configuration, to be changed.

    Raises
    ------
    HTTPException
        409: it cannot be changed here.
    """
    saved = saved_of(request)
    if saved.read_only or saved.file is None:
        raise HTTPException(409, saved.read_only)
    return saved, saved.file


def unchanged(file: ConfigurationFile, form: FormData) -> None:
    """Return when the file is the one that the form was made from.

    Raises
    ------
    HTTPException
        409: somebody has changed it.
    """
    known = str(form.get("digest") or "")
    if known != file.digest:
        raise HTTPException(
            409,
            f"The file has changed since this page was loaded: found digest {file.digest[:12]}, "
            f"required: {known[:12]!r}. Nothing was written. Load the page again.",
        )


def save(
    request: Request, person: Person, former: ConfigurationFile, file: ConfigurationFile
) -> None:
    """Write the configuration, and record who changed what.

    Raises
    ------
    SettingsError
        It cannot be written, or somebody has changed it meanwhile.
    """
    with site_of(request).database.begin() as connection:
        detail = {
            "file": former.path.name,
            "changed": document.difference(former.values, file.values),
            "digest_before": former.digest,
            "digest_after": file.digest,
        }
        trail.record(
            connection,
            trail.Event.CONFIGURATION_EDITED,
            {"user_id": person.name, "network_address": address_of(request), "detail": detail},
        )
        document.write(former, file)


# ---- overview ------------------------------------------------------------------------------------


@router.get("/setup")
def overview(request: Request, _person: Administrator, said: str = "") -> Response:
    """Show what is set up, and whether it is in use."""
    return _overview(request, said=DONE.get(said, ""))


def _overview(request: Request, said: str = "", fault: str = "") -> Response:
    saved = saved_of(request)
    return render(
        request,
        "setup.html",
        saved=saved,
        use=in_use(request, saved),
        said=said,
        fault=fault,
        sent_by_rules={name for one in _rules(saved) for name in one.send},
        warnings=[] if saved.settings is None else list(rules.warnings(saved.settings)),
    )


def _rules(saved: SavedConfiguration) -> Sequence[Rule]:
    return () if saved.settings is None else saved.settings.rule


def in_use(request: Request, saved: SavedConfiguration) -> dict[str, Any]:
    """Return the digests of the running and of the saved settings, and what differs."""
    site = site_of(request)
    with site.database.connect() as connection:
        question = query.Question(event=trail.Event.APPLICATION_STARTED.verb)
        started = query.page(connection, question, 1)
        known = starts.known(connection)
    found: dict[str, Any] = {
        "gateway": started[0]["detail"].get("settings_digest") if started else None,
        "started": started[0]["recorded_at"] if started else None,
        "pages": digests.whole(site.settings),
        "saved": None,
        "changed": [],
    }
    if saved.settings is not None:
        found["saved"] = digests.whole(saved.settings)
        if known is not None:
            found["changed"] = digests.changed(known, digests.named(saved.settings))
    return found


@router.post("/setup/test/{table}/{name}")
def try_peer(request: Request, person: Administrator, table: str, name: str) -> Response:
    """Call a destination or receiver of the saved settings, and show whether it answers."""
    saved = saved_of(request)
    if saved.settings is None:
        return _overview(request, fault=saved.read_only)
    try:
        text, well = _answer(saved.settings, table, name), True
    except DeliveryError as error:
        text, well = str(error), False
    with site_of(request).database.begin() as connection:
        trail.record(
            connection,
            trail.Event.PEER_TRIED,
            {
                "event_outcome": trail.SUCCESS if well else trail.MINOR_FAILURE,
                "user_id": person.name,
                "network_address": address_of(request),
                "destination": name,
                "detail": {"detail": text},
            },
        )
    if well:
        return _overview(request, said=f"{name} {text}")
    return _overview(request, fault=f"{name}: {text}")


def _answer(settings: Settings, table: str, name: str) -> str:
    for sender, peer in senders.peers(settings):
        if (sender.table, peer.name) == (table, name):
            return sender.reach(peer, settings, TRY_SECONDS)
    raise HTTPException(404, "found no such destination or receiver in the saved settings")


# ---- one entry -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Shown:
    """What the page of an entry shows beside its form."""

    status_code: int = 200
    fault: str = ""
    week: trial.Trial | None = None
    explained: Sequence[str] = ()
    tried: trial.TriedStudy | None = None
    study: str = ""


def _numbered(saved: SavedConfiguration, table: str, name: str) -> int | None:
    """Return which entry has a name; ``None`` for a new one, of which the name is empty."""
    if table not in TABLES:
        raise HTTPException(404, "there is no such page")
    if not name:
        return None
    entries = [] if saved.file is None else saved.file.values.get(table, [])
    for number, one in enumerate(entries):
        if one.get("name") == name:
            return number
    raise HTTPException(404, f"found no {WORDS[table]} of this name in the saved settings")


@router.get("/setup/{table}/add")
def new_entry(request: Request, _person: Administrator, table: str) -> Response:
    """Show an empty form."""
    saved = saved_of(request)
    _numbered(saved, table, "")
    return _entry(request, saved, table, "", {}, (), Shown())


@router.get("/setup/{table}/edit/{name}")
def old_entry(request: Request, _person: Administrator, table: str, name: str) -> Response:
    """Show an entry."""
    saved = saved_of(request)
    number = _numbered(saved, table, name)
    assert number is not None
    assert saved.file is not None
    return _entry(request, saved, table, name, saved.file.values[table][number], (), Shown())


def _entry(
    request: Request,
    saved: SavedConfiguration,
    table: str,
    name: str,
    values: dict[str, Any],
    faults: Sequence[Fault],
    shown: Shown,
    draft: Settings | None = None,
) -> Response:
    """Answer with the form of an entry; ``draft``: the settings that are tried, else the saved."""
    options: dict[str, list[str]] = {}
    if table == "rule" and saved.settings is not None:
        options["send"] = [one.name for one in saved.settings.destination]
        options["notify"] = rules.receivers(saved.settings)
    form = setup_form.form_of(TABLES[table], values, options, faults, new=not name)
    return render(
        request,
        "setup_entry.html",
        shown.status_code,
        saved=saved,
        table=table,
        word=WORDS[table],
        name=name,
        form=form,
        shown=shown,
        warnings=_warnings(draft or saved.settings, values) if table == "rule" else [],
    )


def _warnings(settings: Settings | None, rule: Mapping[str, Any]) -> list[str]:
    if settings is None:
        return []
    return [text for name, text in rules.warnings(settings) if name == rule.get("name")]


@router.post("/setup/{table}/add")
def add(request: Request, person: Administrator, table: str, form: Form) -> Response:
    """Add an entry, or try one that is not saved yet."""
    return _change(request, person, table, "", form)


@router.post("/setup/{table}/edit/{name}")
def change(request: Request, person: Administrator, table: str, name: str, form: Form) -> Response:
    """Change an entry, or try the change."""
    return _change(request, person, table, name, form)


def _change(request: Request, person: Person, table: str, name: str, form: FormData) -> Response:
    saved, file = usable(request)
    number = _numbered(saved, table, name)
    unchanged(file, form)
    entries = file.values.get(table, [])
    before = {} if number is None else entries[number]
    wanted = setup_form.typed(TABLES[table], form, before)
    if name:
        wanted["name"] = name  # what waits for a peer is kept under its name
    values = setup_form.merged(before, wanted)
    place = len(entries) if number is None else number
    try:
        found = document.with_entry(file, table, number, wanted)
        faults = _within(faults_of(found), table, place)
        faults += setup_form.moved_secret(before, values)
        if not faults:
            return _done(request, person, saved, found, (table, name), values, form)
    except SettingsError as error:
        faults = [Fault((), str(error))]
    shown = Shown(422, study=str(form.get("study") or "")[:64])
    return _entry(request, saved, table, name, values, faults, shown)


def _within(faults: Sequence[Fault], table: str, number: int) -> list[Fault]:
    """Return faults with their paths within one entry; of others, without a path."""
    here = (table, number)
    return [Fault(one.path[2:] if one.path[:2] == here else (), one.text) for one in faults]


def _done(
    request: Request,
    person: Person,
    saved: SavedConfiguration,
    found: ConfigurationFile,
    which: tuple[str, str],
    values: dict[str, Any],
    form: FormData,
) -> Response:
    """Save what was typed, or try it."""
    table, name = which
    action = form.get("action")
    if table == "rule" and action in ("week", "explain"):
        data_folder = site_of(request).settings.data_folder
        draft = found.settings().model_copy(update={"data_folder": data_folder})
        rule = str(values.get("name"))
        if action == "week":
            shown = _week(request, person, draft, rule)
        else:
            shown = _explained(request, person, draft, str(form.get("study") or "").strip())
        return _entry(request, saved, table, name, values, (), shown, draft)
    assert saved.file is not None
    save(request, person, saved.file, found)
    return RedirectResponse("/setup?said=saved", 303)


@router.post("/setup/{table}/remove/{name}")
def remove(request: Request, person: Administrator, table: str, name: str, form: Form) -> Response:
    """Remove an entry."""
    saved, file = usable(request)
    number = _numbered(saved, table, name)
    unchanged(file, form)
    assert number is not None
    try:
        found = document.without_entry(file, table, number)
        faults = [Fault((), one.text) for one in faults_of(found)]
        if not faults:
            save(request, person, file, found)
            return RedirectResponse("/setup?said=removed", 303)
    except SettingsError as error:
        faults = [Fault((), str(error))]
    values = file.values[table][number]
    return _entry(request, saved, table, name, values, faults, Shown(422))


# ---- a rule is tried -----------------------------------------------------------------------------


def _week(request: Request, person: Person, draft: Settings, rule: str) -> Shown:
    database = site_of(request).database
    found = trial.last_days(database, draft, rule, datetime.now(UTC))
    uids = [*found.matches, *(uid for uid, _ in found.differences)]
    with database.begin() as connection:
        detail = {"rule": rule, "studies": sorted(set(uids))}
        record_access(connection, request, person, trail.Event.LIST_VIEWED, {"detail": detail})
    return Shown(week=found)


def _explained(request: Request, person: Person, draft: Settings, text: str) -> Shown:
    with site_of(request).database.begin() as connection:
        uid, fault, listed = _study(connection, text)
        columns: trail.Columns = {"study_instance_uid": uid or text[:64]}
        event = trail.Event.STUDY_VIEWED
        if listed:
            event, columns = trail.Event.LIST_VIEWED, {"detail": {"studies": listed}}
        elif not uid:
            columns["event_outcome"] = trail.MINOR_FAILURE
        if text:
            record_access(connection, request, person, event, columns)
        if not uid:
            return Shown(422, fault=fault, study=text[:64])
        tried = trial.of_study(connection, draft, uid)
    if tried is None:
        fault = f"{uid}: found no stored image files, required: all images of the study"
        return Shown(422, fault=fault, study=text[:64])
    lines = list(explanation.explained(tried.decision, draft))
    return Shown(explained=lines, tried=tried, study=text[:64])


def _study(connection: Connection, text: str) -> tuple[str, str, list[str]]:
    """Return the one study that is meant; else an empty text, why, and the studies it lists."""
    text = text.replace("\0", " ").strip()
    if not text:
        return (
            "",
            "found no study, required: a Study Instance UID, Accession Number or Patient ID",
            [],
        )
    found = lookup.studies(connection, text)
    if len(found) == 1:
        return found[0].study_instance_uid, "", []
    if not found:
        fault = (
            f"found no study with Study Instance UID, Accession Number or Patient ID {text[:64]!r} "
            f"among {lookup.number_received(connection)}"
        )
        return "", fault, []
    uids = [one.study_instance_uid for one in found[:9]]
    fault = f"found {len(found)} studies with {text[:64]!r}, required: one: {', '.join(uids)}"
    return "", fault, uids
