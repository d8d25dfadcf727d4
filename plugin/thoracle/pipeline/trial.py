"""Rules tried on studies that were read: what they say now, against what was decided then.

The rules, the headers and the results are the real ones; nothing is sent and nothing is recorded.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pydicom import Dataset
from sqlalchemy import Connection, Engine, Row, func, select

from thoracle.records import Outcome, Reason
from thoracle.routing import rules
from thoracle.routing.rules import RoutingDecision, Sends, StudyResult
from thoracle.settings import Rule, Settings
from thoracle.store import bundles, objects
from thoracle.store.tables import analysis, reading, timestamp
from thoracle.study import instances

DAYS = 7
MOST_STUDIES = 1000
SECONDS = 20.0
"""So long studies are looked at, the newest first; the rest is counted."""
LATEST = 2**31 - 1
"""In place of a generation: that of all images."""
SHOWN = 50
"""Studies that are named, of each kind."""


@dataclass(frozen=True, slots=True)
class TriedStudy:
    """A study and what its rules say now."""

    study_instance_uid: str
    generation: int
    result: StudyResult | None
    """``None`` when it has not been read."""
    decision: RoutingDecision
    then: RoutingDecision | None
    """What was decided; ``None`` when it has not been read."""


@dataclass(slots=True)
class Trial:
    """What a rule would have done."""

    since: str
    studies: int = 0
    """That were read in this time."""
    looked_at: int = 0
    gone: int = 0
    """Of those looked at: the file of an image is not kept any more, so it cannot be said."""
    matched: int = 0
    undecided: int = 0
    """The condition could not be decided, e.g. because an attribute cannot be read."""
    different: int = 0
    matches: list[str] = field(default_factory=list)
    """Study Instance UIDs, the first ones."""
    differences: list[tuple[str, list[str]]] = field(default_factory=list)
    """Study Instance UID, and what would be different."""


def last_days(database: Engine, settings: Settings, rule: str, now: datetime) -> Trial:
    """Return what the rules of some settings would have done in the last days.

    Parameters
    ----------
    settings
        With the rules to be tried; images are looked for in their data folder.
    rule
        Name of the rule of which matches are counted.
    now
        Aware.
    """
    deadline = time.monotonic() + SECONDS
    with database.connect() as connection:
        trial = Trial(timestamp(now - timedelta(days=DAYS)))
        trial.studies = _number(connection, trial.since)
        for row in _newest(connection, trial.since):
            if time.monotonic() > deadline:
                break
            trial.looked_at += 1
            tried = _tried(connection, settings, row)
            if tried is None:
                trial.gone += 1
            else:
                _count(trial, tried, rule)
    return trial


def _count(trial: Trial, tried: TriedStudy, rule: str) -> None:
    uid = tried.study_instance_uid
    if any(one.rule == rule for one in tried.decision.fired):
        trial.matched += 1
        if trial.matched <= SHOWN:
            trial.matches.append(uid)
    trial.undecided += any(one.rule == rule for one in tried.decision.failed)
    found = list(differences(tried.then, tried.decision)) if tried.then else []
    if found:
        trial.different += 1
        if trial.different <= SHOWN:
            trial.differences.append((uid, found))


def of_study(connection: Connection, settings: Settings, study: str) -> TriedStudy | None:
    """Return what rules say of one study; ``None``: a file of it is not kept any more."""
    statement = (
        select(analysis)
        .where(analysis.c.study_instance_uid == study, analysis.c.outcome.is_not(None))
        .order_by(analysis.c.generation.desc(), analysis.c.finished_at.desc())
        .limit(1)
    )
    row = connection.execute(statement).first()
    if row is not None:
        return _tried(connection, settings, row)
    found = _headers(connection, settings, study, LATEST)
    if found is None:
        return None
    decision = _decision(connection, settings, study, found, None, settings.rule)
    return TriedStudy(study, 0, None, decision, None)


# ---- rows ----------------------------------------------------------------------------------------


def _read(since: str) -> tuple[Any, ...]:
    return (analysis.c.outcome.is_not(None), analysis.c.finished_at >= since)


def _number(connection: Connection, since: str) -> int:
    statement = select(func.count(analysis.c.study_instance_uid.distinct())).where(*_read(since))
    return int(connection.execute(statement).scalar_one())


def _newest(connection: Connection, since: str) -> Iterator[Row[Any]]:
    """Yield the newest analysis of each study, those that ended last first."""
    seen: set[str] = set()
    statement = select(analysis).where(*_read(since)).order_by(analysis.c.finished_at.desc())
    for row in connection.execute(statement.limit(2 * MOST_STUDIES)).all():
        if row.study_instance_uid not in seen and len(seen) < MOST_STUDIES:
            seen.add(row.study_instance_uid)
            yield row


def _tried(connection: Connection, settings: Settings, row: Row[Any]) -> TriedStudy | None:
    study = row.study_instance_uid
    found = _headers(connection, settings, study, row.generation)
    if found is None:
        return None
    result = _result(connection, row)
    decide = partial(_decision, connection, settings, study, found, result)
    # Without rules, no decision is kept.
    then = decide([]) if row.routing is None else RoutingDecision.from_json(row.routing)
    return TriedStudy(study, row.generation, result, decide(settings.rule), then)


def _decision(
    connection: Connection,
    settings: Settings,
    study: str,
    found: list[Dataset],
    result: StudyResult | None,
    tried: Sequence[Rule],
) -> RoutingDecision:
    sender = instances.sender(connection, study)
    receivers = rules.receivers(settings)
    return rules.decide(tried, settings.destination, found, sender, result, receivers)


def _headers(
    connection: Connection, settings: Settings, study: str, generation: int
) -> list[Dataset] | None:
    """Return the headers of a generation's images; ``None`` when a file is not kept any more.

    What is kept of a header for corrections is not all of it: a rule could ask for the rest.
    """
    rows = instances.sources(connection, study, generation)
    kept = objects.of(settings)
    paths = [kept.local(row.path) for row in rows]
    if not paths or not all(path.exists() for path in paths):
        return None
    return [rules.header(path) for path in paths]


def _result(connection: Connection, row: Row[Any]) -> StudyResult:
    """Return what was concluded, as the rules were told then."""
    outcome = Outcome(row.outcome)
    mine = reading.c
    telling = connection.execute(
        select(mine.reason_code)
        .where(
            mine.study_instance_uid == row.study_instance_uid,
            mine.generation == row.generation,
            mine.bundle_digest == row.bundle_digest,
            mine.outcome == row.outcome,
        )
        .order_by(mine.sop_instance_uid)
    ).scalars()
    code = next(iter(telling), None)
    known = bundles.known(connection, [row.bundle_digest]).get(row.bundle_digest)
    return StudyResult(
        outcome,
        row.probability,
        _reason(code),
        known.name if known else "",
        known.version if known else "",
    )


def _reason(code: str | None) -> Reason | None:
    try:
        return None if code is None else Reason.from_code_value(code)
    except KeyError:  # of another version
        return None


# ---- difference ----------------------------------------------------------------------------------


def differences(then: RoutingDecision, now: RoutingDecision) -> Iterator[str]:
    """Yield what would be different, as phrases for an administrator."""
    yield from _held(then, now)
    yield from _sent(then.sends, now.sends)
    if then.priority != now.priority:
        yield f"priority {now.priority or 'as planned'} (was {then.priority or 'as planned'})"


def _held(then: RoutingDecision, now: RoutingDecision) -> Iterator[str]:
    for word, was, is_now in (
        ("held", then.held_by, now.held_by),
        ("shadowed", then.shadowed_by, now.shadowed_by),
    ):
        if is_now and not was:
            yield f"{word} by {', '.join(is_now)}"
        elif was and not is_now:
            yield f"no longer {word} (was by {', '.join(was)})"


def _sent(then: Sends, now: Sends) -> Iterator[str]:
    was, is_now = _by_destination(then), _by_destination(now)
    for name in sorted(was.keys() | is_now.keys()):
        if was.get(name) != is_now.get(name):
            yield f"to {name}: {is_now.get(name, 'nothing')} (was {was.get(name, 'nothing')})"
    for name in sorted(set(now.notify) - set(then.notify)):
        yield f"notifies {name}"
    for name in sorted(set(then.notify) - set(now.notify)):
        yield f"no longer notifies {name}"


def _by_destination(sends: Sends) -> dict[str, str]:
    names = [*sends.kinds, *(name for name in sends.originals if name not in sends.kinds)]
    return {
        name: ", ".join(
            [*(kind.value for kind in sends.kinds.get(name, ()))]
            + (["originals"] if name in sends.originals else [])
        )
        for name in names
    }
