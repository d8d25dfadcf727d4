"""Whether results, verdicts and stored files are what the trail says of them.

The chain covers the rows of the trail. What a reader sees stands in other tables and in files: it
is held against the events that were committed with it, study by study, both ways. Events that were
purged can say nothing; what is older than the trail is left out.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, Table, select

from thoracle.audit import shown
from thoracle.errors import ObjectsAway, ThoracleError
from thoracle.records import Kind, Outcome
from thoracle.store import chain
from thoracle.store.object_files import Objects
from thoracle.store.tables import (
    analysis,
    audit_event,
    instance,
    reading,
    result,
    study,
    verdict,
    worklist,
)
from thoracle.store.trail import Event
from thoracle.study import verdicts
from thoracle.study.instances import KEPT

BATCH = 200
"""Studies that are read at a time."""
MOST_FAULTS = 100
"""That are named; a verification ends there."""
_STORED = (Event.INSTANCE_STORED, Event.INSTANCE_CORRECTED)
_TELLING = (
    *_STORED,
    Event.PATIENTS_RECONCILED,
    Event.IMAGE_READ,
    Event.RESULT_CREATED,
    Event.VERDICT_GIVEN,
    Event.RETENTION_DELETED,
)
_TABLES: tuple[Table, ...] = (instance, analysis, reading, result, verdict, worklist)


@dataclass(frozen=True, slots=True)
class Contents:
    """What became of holding results, verdicts and files against the trail."""

    studies: int = 0
    files: int = 0
    faults: tuple[str, ...] = ()
    """What is not as the trail says, by name."""


def _nobody(_studies: int) -> None:
    """Tell nobody how far it is."""


def check(
    database: Engine,
    kept: Objects,
    *,
    with_files: bool = True,
    told: Callable[[int], None] = _nobody,
) -> Contents:
    """Hold every study against the trail, which was followed before.

    Parameters
    ----------
    kept
        Where the objects are.
    with_files
        Whether files are read, too.
    told
        Called from time to time with the number of studies so far.
    """
    after, studies, files = "", 0, 0
    faults: list[str] = []
    while len(faults) < MOST_FAULTS:
        with database.connect() as connection:
            found = _studies(connection, after)
            known = _known(connection, found)
        if not found:
            break
        for one in known:
            number, wrong = _checked(one, kept, with_files)
            if wrong:  # read again: it may have changed between two of the statements
                with database.connect() as connection:
                    again = _known(connection, [one.uid])[0]
                number, wrong = _checked(again, kept, with_files)
            faults += wrong
            files += number
        studies += len(found)
        after = found[-1]
        told(studies)
    faults += islice(shown.faults(database), MOST_FAULTS)
    return Contents(studies, files, tuple(faults[:MOST_FAULTS]))


# ---- what is known -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Study:
    """Rows and events of a study."""

    uid: str
    begins: str
    """When the trail begins, ISO 8601 in UTC; empty: nothing was purged."""
    rows: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """By name of the table."""
    events: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """By verb."""

    def of(self, *events: Event) -> Iterator[Any]:
        """Yield the events of some kinds."""
        for event in events:
            yield from self.events[event.verb]


def _studies(connection: Connection, after: str) -> list[str]:
    uid = study.c.study_instance_uid
    statement = select(uid).where(uid > after).order_by(uid).limit(BATCH)
    return list(connection.execute(statement).scalars())


def _known(connection: Connection, uids: Sequence[str]) -> list[_Study]:
    begins = _begins(connection)
    found = {uid: _Study(uid, begins) for uid in uids}
    for table in _TABLES:
        statement = select(table).where(table.c.study_instance_uid.in_(uids))
        for row in connection.execute(statement):
            found[row.study_instance_uid].rows[table.name].append(row)
    statement = select(audit_event).where(
        audit_event.c.study_instance_uid.in_(uids),
        audit_event.c.event.in_([one.verb for one in _TELLING]),
    )
    ended = _erased(connection)
    for row in connection.execute(statement.order_by(audit_event.c.id)):
        known = found[row.study_instance_uid]
        if row.event == Event.RETENTION_DELETED.verb and row.detail.get("what") == "studies":
            known.events.clear()  # what comes after it is about a new study
        if row.id > ended.get(row.study_instance_uid, 0):
            known.events[row.event].append(row)
    return list(found.values())


def _erased(connection: Connection) -> dict[str, int]:
    """Return the events that erased studies, by study: one may have come again since."""
    statement = select(audit_event.c.id, audit_event.c.detail).where(
        audit_event.c.event == Event.PATIENT_ERASED.verb
    )
    rows = connection.execute(statement.order_by(audit_event.c.id))
    return {uid: int(row_id) for row_id, detail in rows for uid in detail.get("studies", ())}


def _begins(connection: Connection) -> str:
    up_to, _ = chain.checkpoint(connection)
    if not up_to:
        return ""
    first = select(audit_event.c.recorded_at).where(audit_event.c.id > up_to)
    return connection.execute(first.order_by(audit_event.c.id).limit(1)).scalar() or "9"


# ---- comparison ----------------------------------------------------------------------------------


def _checked(known: _Study, kept: Objects, with_files: bool) -> tuple[int, list[str]]:
    """Return how many files were read, and what is wrong."""
    wrong = [
        *_analyses(known),
        *_readings(known),
        *_results(known),
        *_instances(known),
        *_verdicts(known),
        *_worklist(known),
    ]
    number = 0
    for name, path, size, digest in _files(known) if with_files else ():
        number += 1
        fault = _file_fault(kept, path, size, digest)
        if fault:
            wrong.append(f"{name}, file {path}: {fault}")
    return number, [f"study {known.uid}, {one}" for one in wrong]


def _differs(row: Any, event: Any, *names: str) -> Iterator[str]:
    """Yield which columns of a row are not as an event has them."""
    for name in names:
        found, required = getattr(row, name), getattr(event, name)
        if found != required:
            yield f"{name} is {found!r}, the log says {required!r} (row {event.id})"


def _analyses(known: _Study) -> Iterator[str]:
    told = {
        (one.detail.get("generation"), one.bundle_digest): one
        for one in known.of(Event.RESULT_CREATED)
        if one.outcome is not None
    }
    for row in known.rows["analysis"]:
        name = f"analysis {row.generation} of bundle {row.bundle_digest[:12]}"
        event = told.get((row.generation, row.bundle_digest))
        if event is not None:
            yield from (f"{name}: {one}" for one in _differs(row, event, "outcome", "probability"))
        elif row.outcome is not None and (row.finished_at or "9") >= known.begins:
            yield f"{name}: it has the outcome {row.outcome}, which the log does not have"


def _readings(known: _Study) -> Iterator[str]:
    reports = {row.sop_instance_uid: row for row in known.rows["result"]}
    ended = {(row.generation, row.bundle_digest): row for row in known.rows["analysis"]}
    columns = ("outcome", "probability", "reason_code")
    told, said = {}, set()
    for event in known.of(Event.IMAGE_READ):
        said.add(_said(event, *columns))
        if report := reports.get(event.result_sop_instance_uid):
            key = (report.generation, event.bundle_digest, event.finding, event.sop_instance_uid)
            told[key] = event
    for row in known.rows["reading"]:
        event = told.get((row.generation, row.bundle_digest, row.finding, row.sop_instance_uid))
        name = f"reading of image {row.sop_instance_uid}"
        if event is not None:
            yield from (f"{name}: {one}" for one in _differs(row, event, *columns))
            continue
        of = ended.get((row.generation, row.bundle_digest))
        is_older = of is not None and (of.finished_at or "9") < known.begins
        if not is_older and _said(row, *columns) not in said:  # events of earlier versions say less
            yield f"{name}: it says {row.outcome} {row.probability}, which the log does not have"


def _said(row: Any, *names: str) -> tuple[Any, ...]:
    """Return what a reading, or its event, says of which image."""
    return (row.bundle_digest, row.sop_instance_uid, *(getattr(row, name) for name in names))


def _results(known: _Study) -> Iterator[str]:
    rows = {one.sop_instance_uid: one for one in known.rows["result"] if one.kind != Kind.ORIGINAL}
    told = {one.result_sop_instance_uid: one for one in known.of(Event.RESULT_CREATED)}
    for uid, event in told.items():
        row = rows.get(uid)
        name = f"{event.detail.get('kind')} {uid}"
        if row is None:
            yield f"{name}: it has no row, the log has made it (row {event.id})"
        elif row.sha256 != event.detail.get("sha256"):
            yield f"{name}: its digest is {row.sha256}, the log says another (row {event.id})"
    for uid, row in rows.items():
        if uid not in told and row.created_at >= known.begins:
            yield f"{row.kind} {uid}: the log does not have it"


def _instances(known: _Study) -> Iterator[str]:
    told: dict[str, set[str]] = defaultdict(set)
    for event in known.of(*_STORED):
        told[event.sop_instance_uid].add(event.detail.get("sha256"))
    by_person = [set(one.detail.get("sha256") or ()) for one in known.of(Event.PATIENTS_RECONCILED)]
    # Those of earlier versions do not say what they made.
    silent = any(not one for one in by_person)
    corrected = set().union(*by_person)
    rows = {row.sop_instance_uid for row in known.rows["instance"]}
    for row in known.rows["instance"]:
        fits = row.sha256 in told[row.sop_instance_uid] | corrected
        if not fits and not silent and row.received_at >= known.begins:
            name = f"image {row.sop_instance_uid}"
            yield f"{name}: its digest is {row.sha256}, which the log does not have"
    for uid in sorted(told.keys() - rows):
        yield f"image {uid}: it has no row, the log has received it"


def _verdicts(known: _Study) -> Iterator[str]:
    rows = {row.id: row for row in known.rows["verdict"]}
    told = _given(known)
    for number, event in told.items():
        row, name = rows.get(number), f"verdict {number}"
        if row is None:
            yield f"{name}: it has no row, the log has it (row {event.id})"
            continue
        yield from (f"{name}: {one}" for one in _differs(row, event, "outcome", "probability"))
        said = {"opinion": row.opinion, "comment_sha256": verdicts.digest(row.comment)}
        for what, value in said.items():
            if event.detail.get(what, value) != value:
                yield f"{name}: its {what.partition('_')[0]} was changed (row {event.id})"
        if row.person != (event.user_id or ""):
            yield f"{name}: it is of {row.person!r}, the log says {event.user_id!r}"
    for number, row in rows.items():
        if number not in told and row.recorded_at >= known.begins:
            yield f"verdict {number}: the log does not have it"


def _given(known: _Study) -> dict[int, Any]:
    """Return the events of verdicts by their number, without those that a rule deleted since."""
    told = {one.detail.get("verdict"): one for one in known.of(Event.VERDICT_GIVEN)}
    for event in known.of(Event.RETENTION_DELETED):
        for number in event.detail.get("verdicts") or ():
            if number in told and told[number].id < event.id:
                del told[number]
    return told


def _worklist(known: _Study) -> Iterator[str]:
    told = {(one.outcome, one.probability) for one in known.of(Event.RESULT_CREATED)}
    for row in known.rows["worklist"]:
        said = (row.ai_state, row.probability)
        if row.ai_state in list(Outcome) and said not in told and row.changed_at >= known.begins:
            if known.begins and not told:
                continue  # the events of its result were purged
            yield f"worklist: it says {row.ai_state} {row.probability}, the log has no such result"


# ---- files ---------------------------------------------------------------------------------------


def _files(known: _Study) -> Iterator[tuple[str, str, int | None, str]]:
    """Yield name and path of each file that is kept, its bytes that count, and their digest."""
    for row in known.rows["instance"]:
        if row.file_state == KEPT:
            yield f"image {row.sop_instance_uid}", row.path, row.size, row.sha256
    for row in known.rows["result"]:
        if row.file_state == KEPT and row.kind != Kind.ORIGINAL:
            yield f"{row.kind} {row.sop_instance_uid}", row.path, None, row.sha256


def _file_fault(kept: Objects, below: str, size: int | None, digest: str) -> str:
    """Return what is wrong with an object where it is kept; empty: nothing.

    Of an image the data set counts: so many bytes at its end.
    """
    try:
        with kept.opened(below) as file:
            if size is not None:
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "it is not there"
    except ObjectsAway:
        raise
    except ThoracleError as error:
        return str(error)
    return "" if found == digest else f"its digest is {found}, required: {digest}"
