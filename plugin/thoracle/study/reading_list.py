"""Statements about the list that readers see: one row a study, kept with what it tells.

The order needs no clock. A study stands where it would if it had come ``head_start_minutes``
earlier than it did, and STAT studies before all others. So whoever came first and waits is
overtaken only by what comes within the longest head start: nobody starves, and an index has the
order ready.

What a rule keeps back is in no column of it: such a study stands where it would without a result,
and its state is ``held`` or ``shadow``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Insert, Row, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from thoracle.records import Outcome
from thoracle.store.folding import folded
from thoracle.store.tables import now, timestamp, worklist
from thoracle.study.instances import Description, Received
from thoracle.study.published import KEPT_BACK

STAT, OTHERS = 0, 1
"""Urgencies, in their order."""
STAT_PRIORITY = 1
"""Queue priority of what the order calls STAT."""
QUEUED, RUNNING, FAILED, WITHDRAWN = "queued", "running", "failed", "withdrawn"
STATES = (QUEUED, RUNNING, *(one.value for one in Outcome), FAILED, WITHDRAWN, *KEPT_BACK)
"""What the list says of the AI; ``held`` or ``shadow`` in place of a result that is kept back."""
_BY_ARRIVAL = (worklist.c.received_at, worklist.c.study_instance_uid)
SORTS: dict[str, tuple[Sequence[ColumnElement[Any]], bool]] = {
    "rank": ((worklist.c.urgency, worklist.c.sort_key, worklist.c.study_instance_uid), False),
    "received": (_BY_ARRIVAL, True),
    "waiting": (_BY_ARRIVAL, False),
    "patient": ((worklist.c.search, worklist.c.study_instance_uid), False),
    "probability": (
        (func.coalesce(worklist.c.probability, -1), worklist.c.study_instance_uid),
        True,
    ),
}
"""Orders of the list, and whether each is descending; ``rank`` is that of STAT and head starts."""
FEW = 5000
"""Studies that are named one by one to the database, which takes 32,766 values in a statement."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which studies are wanted; fields that are empty do not restrict."""

    states: tuple[str, ...] = ()
    """Of ``STATES``."""
    review: str = ""
    """``open``: without a verdict; ``done``: with one."""
    text: str = ""
    """Words that all stand in patient name, patient ID or accession number; neither case nor
    accents count."""
    modality: str = ""
    device: str = ""
    since: str = ""
    """ISO 8601 in UTC, of the arrival, inclusive."""
    until: str = ""
    """Alike, exclusive."""


# ---- write -----------------------------------------------------------------------------------


def arrive(connection: Connection, received: Received, *, same_patient: bool = True) -> None:
    """Put the study of an image on the list, or take over what its header says now.

    Of another patient than the study's, it says nothing of whose study it is.
    """
    stat = received.priority <= STAT_PRIORITY
    described = received.description
    moment = now()
    values: dict[str, Any] = {
        "patient_name": described.patient_name,
        "patient_id": received.patient_id,
        "accession_number": received.accession_number,
        "modality": described.modality,
        "study_description": described.study_description,
        "study_datetime": _study_datetime(described.study_date, described.study_time),
        "device": described.device,
        "patient_sex": described.patient_sex,
        "patient_age": _age(described),
        "search": _search(described.patient_name, received.patient_id, received.accession_number),
        "changed_at": moment,
    }
    taken_over = [one for one in values if same_patient or one not in _OF_PATIENT]
    if stat:  # one image's order is enough
        taken_over += ["urgency", "stat_rule"]
    connection.execute(
        _arrival(connection.dialect.name, tuple(taken_over)),
        {
            "study_instance_uid": received.study_instance_uid,
            "received_at": moment,
            "sort_key": moment,
            "ai_state": QUEUED,
            "urgency": STAT if stat else OTHERS,
            "stat_rule": None,
            "head_start_minutes": 0,
            **values,
        },
    )


_OF_PATIENT = ("patient_name", "patient_id", "patient_sex", "patient_age", "search")


@cache
def _arrival(dialect_name: str, taken_over: tuple[str, ...]) -> Insert:
    """Return the statement of :func:`arrive`; to build one costs as much as to run it."""
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    statement: postgresql.Insert | sqlite.Insert = dialect.insert(worklist)
    return statement.on_conflict_do_update(
        index_elements=[worklist.c.study_instance_uid],
        set_={name: statement.excluded[name] for name in taken_over},
    )


def set_patient(
    connection: Connection, study_instance_uid: str, patient_id: str, patient_name: str
) -> None:
    """Set whose study it is."""
    row = row_of(connection, study_instance_uid)
    if row is None:
        return
    search = _search(patient_name, patient_id, row.accession_number or "")
    values = {"patient_name": patient_name[:324], "patient_id": patient_id, "search": search}
    _update(connection, study_instance_uid, values)


def set_state(
    connection: Connection, study_instance_uid: str, ai_state: str, **columns: Any
) -> None:
    """Set what the list says of the AI, and with it probability, threshold and so on."""
    _update(connection, study_instance_uid, {"ai_state": ai_state, **columns})


def set_head_start(connection: Connection, study_instance_uid: str, minutes: int, why: str) -> None:
    """Order a study as if it had come so many minutes earlier; ``why`` names the reason."""
    row = row_of(connection, study_instance_uid)
    if row is None:
        return
    earlier = datetime.fromisoformat(row.received_at) - timedelta(minutes=minutes)
    values = {"head_start_minutes": minutes, "why": why, "sort_key": timestamp(earlier)}
    _update(connection, study_instance_uid, values)


def set_stat(connection: Connection, study_instance_uid: str, rule: str | None) -> None:
    """Make a study STAT because a rule says so; ``None``: no rule says so any more.

    What the order made STAT stays so, whatever the rules say.
    """
    row = row_of(connection, study_instance_uid)
    if row is None or (row.urgency == STAT and row.stat_rule is None) or row.stat_rule == rule:
        return
    values = {"urgency": OTHERS if rule is None else STAT, "stat_rule": rule}
    _update(connection, study_instance_uid, values)


def withdraw(connection: Connection, study_instance_uid: str) -> None:
    """Say that the result is withdrawn. It has no place in the order of the list any more."""
    row = row_of(connection, study_instance_uid)
    if row is None:
        return
    nothing = dict.fromkeys(("probability", "threshold", "reason_code", "why"))
    place = {"head_start_minutes": 0, "sort_key": row.received_at}
    _update(connection, study_instance_uid, {"ai_state": WITHDRAWN, **nothing, **place})
    set_stat(connection, study_instance_uid, None)


def touch(connection: Connection, study_instance_uid: str) -> None:
    """Have the list look at a study again: something of it went out, or did not."""
    _update(connection, study_instance_uid, {})


def review(connection: Connection, study_instance_uid: str, opinion: str | None = None) -> None:
    """Mark a study as reviewed, with the opinion if there is one; the first time stays."""
    moment = now()
    values: dict[str, Any] = {"reviewed_at": func.coalesce(worklist.c.reviewed_at, moment)}
    if opinion is not None:
        values["verdict"] = opinion
    _update(connection, study_instance_uid, values)


def reopen(connection: Connection, study_instance_uid: str) -> None:
    """Put a study back among those to be reviewed: there is a new result."""
    _update(connection, study_instance_uid, {"reviewed_at": None, "verdict": None})


def forget_opinion(connection: Connection, study_instance_uid: str) -> None:
    """Forget what the verdict was, which a rule has deleted; that there was one stays."""
    same = worklist.c.study_instance_uid == study_instance_uid
    connection.execute(update(worklist).where(same).values(verdict=None))


def _update(connection: Connection, study_instance_uid: str, values: dict[str, Any]) -> None:
    connection.execute(
        update(worklist)
        .where(worklist.c.study_instance_uid == study_instance_uid)
        .values(**values, changed_at=now())
    )


def _study_datetime(date: str, time: str) -> str | None:
    """Return DA and TM as one text that sorts; ``None`` when the date is none (PS3.5 6.2)."""
    try:
        day = datetime.strptime(date.replace(".", ""), "%Y%m%d")  # noqa: DTZ007 - has no zone
    except ValueError:
        return None
    clock = time.replace(":", "").partition(".")[0]
    try:
        told = datetime.strptime(clock, _FORMS.get(len(clock), ""))  # noqa: DTZ007 - has no zone
    except ValueError:
        return f"{day:%Y-%m-%d}"
    return f"{day:%Y-%m-%d}T{told:%H:%M:%S}" if clock else f"{day:%Y-%m-%d}"


_FORMS = {2: "%H", 4: "%H%M", 6: "%H%M%S"}
"""TM by its length: `1845` is not four minutes and five seconds past six."""


def _age(described: Description) -> str | None:
    """Return the patient's age at the time of the study as AS, e.g. ``056Y`` or ``007M``.

    It is counted from birth date and study date; without them it is what the header states.
    """
    born, taken = _day(described.patient_birth_date), _day(described.study_date)
    if born is None or taken is None or born > taken:
        stated = described.patient_age.strip().upper()
        return stated if re.fullmatch(r"[0-9]{3}[DWMY]", stated) else None
    months = (taken.year - born.year) * 12 + taken.month - born.month - (taken.day < born.day)
    if months >= 24:
        return f"{min(months // 12, 999):03}Y"
    return f"{months:03}M" if months else f"{(taken - born).days:03}D"


def _day(value: str) -> date | None:
    try:
        return datetime.strptime(value.replace(".", ""), "%Y%m%d").date()  # noqa: DTZ007 - a day
    except ValueError:
        return None


def _search(patient_name: str, patient_id: str, accession_number: str) -> str:
    name = patient_name.replace("^", " ").replace("=", " ")
    return folded(" ".join((name, patient_id, accession_number)))


# ---- read ------------------------------------------------------------------------------------


def row_of(connection: Connection, study_instance_uid: str) -> Row[Any] | None:
    """Return the row of a study, if it is on the list."""
    return connection.execute(
        select(worklist).where(worklist.c.study_instance_uid == study_instance_uid)
    ).first()


def count(connection: Connection, wanted: Filter) -> int:
    """Return how many studies a filter lets through."""
    statement = select(func.count()).select_from(worklist)
    return int(connection.execute(statement.where(*_conditions(connection, wanted))).scalar_one())


def page(
    connection: Connection, wanted: Filter, sort: str = "rank", limit: int = 50, offset: int = 0
) -> Sequence[Row[Any]]:
    """Return rows of the list in an order of ``SORTS``."""
    statement = select(worklist).where(*_conditions(connection, wanted)).order_by(*_order(sort))
    return connection.execute(statement.limit(limit).offset(offset)).all()


def beside(
    connection: Connection,
    wanted: Filter,
    sort: str,
    study_instance_uid: str,
    limit: int = 1,
    *,
    before: bool = False,
) -> Sequence[Row[Any]]:
    """Return what stands behind a study under a filter, or before it, the nearest first.

    The study itself need not be let through any more: it may have been read meanwhile.
    """
    columns, descending = SORTS[sort]
    place = connection.execute(
        select(*columns).where(worklist.c.study_instance_uid == study_instance_uid)
    ).first()
    if place is None:
        return ()
    here = tuple_(*columns)
    behind = here < tuple(place) if descending != before else here > tuple(place)
    statement = select(worklist).where(*_conditions(connection, wanted), behind)
    return connection.execute(statement.order_by(*_order(sort, before)).limit(limit)).all()


def _order(sort: str, backwards: bool = False) -> list[ColumnElement[Any]]:
    columns, descending = SORTS[sort]
    return [one.desc() if descending != backwards else one.asc() for one in columns]


def _conditions(connection: Connection, wanted: Filter) -> list[ColumnElement[bool]]:
    column = worklist.c
    found: list[ColumnElement[bool]] = []
    if wanted.states:
        found.append(column.ai_state.in_(wanted.states))
    if wanted.review:
        done = column.reviewed_at.is_not(None)
        found.append(done if wanted.review == "done" else ~done)
    if wanted.modality:
        found.append(column.modality == wanted.modality)
    if wanted.device:
        found.append(column.device == wanted.device)
    narrow = _by_text_and_days(wanted)
    few = _few(connection, narrow) if narrow else None
    return found + (narrow if few is None else [column.study_instance_uid.in_(few)])


def _by_text_and_days(wanted: Filter) -> list[ColumnElement[bool]]:
    column = worklist.c
    words = folded(wanted.text).split()
    found = [column.search.contains(one, autoescape=True) for one in words]
    if wanted.since:
        found.append(column.received_at >= wanted.since)
    if wanted.until:
        found.append(column.received_at < wanted.until)
    return found


def _few(connection: Connection, narrow: Sequence[ColumnElement[bool]]) -> Sequence[str] | None:
    """Return the studies that meet conditions, or ``None`` where they are more than ``FEW``.

    SQLite would walk the list in its order until a page is full, and look up each row on its way:
    all of them where few or none are wanted. It finds those few in one index.
    """
    statement = select(worklist.c.study_instance_uid).where(*narrow).limit(FEW + 1)
    found = connection.execute(statement).scalars().all()
    return None if len(found) > FEW else found


def modalities(connection: Connection) -> list[str]:
    """Return the modalities on the list, each once."""
    found = connection.execute(select(worklist.c.modality).distinct()).scalars()
    return sorted(one for one in found if one)


def changed_at(connection: Connection) -> str:
    """Return when the list changed last; empty when nothing is on it."""
    return connection.execute(select(func.max(worklist.c.changed_at))).scalar() or ""
