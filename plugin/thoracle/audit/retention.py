"""What may go by the rules of ``[retention]``: decided, and recorded with what it changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from thoracle.audit import trail
from thoracle.audit.commits import of_study
from thoracle.settings import Retention
from thoracle.store import chain, holds
from thoracle.store import retention as stored
from thoracle.store.retention import Facts, What
from thoracle.store.tables import timestamp

_UNDER_WAY = ("held", "waiting", "sent")
"""States of a delivery or a message that has not come to an end."""
_DEAD = ("refused", "failed")


@dataclass(frozen=True, slots=True)
class Limits:
    """The rules as points in time: what is not from before them stays."""

    days: dict[What, int]
    unanswered: str
    """A refusal or failure before this counts as final; empty: none does."""
    moment: datetime

    @classmethod
    def of(cls, settings: Retention, moment: datetime | None = None) -> "Limits":
        """Return the limits at a moment; now, if none is given."""
        moment = moment or datetime.now(UTC)
        days = {
            What.IMAGES: settings.images_days_after_proof,
            What.RESULTS: settings.results_days_after_proof,
        }
        unanswered = settings.unanswered_days
        end = timestamp(moment - timedelta(days=unanswered)) if unanswered else ""
        return cls(days, end, moment)

    def before(self, what: What) -> str:
        """Return the time before which a study must have been concluded; empty: all is kept."""
        days = self.days[what]
        return timestamp(self.moment - timedelta(days=days)) if days else ""


def reasons(facts: Facts, held_by: Sequence[int], what: What, limits: Limits) -> Iterator[str]:
    """Yield why the files of a study stay, in words; nothing when they may go."""
    yield from (f"legal hold {number}" for number in held_by)
    if facts.unplanned:
        yield f"{facts.unplanned} of its images are in no generation yet"
    yield from _of_analyses(facts, limits)
    for name, rows in (("deliveries", facts.deliveries), ("messages", facts.notifications)):
        yield from _of_sending(name, rows, limits)
    if facts.performed:
        yield "a workitem of a workflow manager has not ended"
    before, since = limits.before(what), concluded_at(facts)
    if not before:
        yield "the setting keeps them for ever"
    elif since >= before:
        yield f"concluded at {since} only, required are {limits.days[what]} days"


def _of_analyses(facts: Facts, limits: Limits) -> Iterator[str]:
    states = [state for state, _, _ in facts.analyses]
    if not any(state != "superseded" for state in states):
        yield "there was no analysis"
        return
    if "planned" in states:
        yield "its analysis has not ended"
    state, sending, ended = next(one for one in facts.analyses if one[0] != "superseded")
    if (state, sending) == ("done", "held"):
        yield "its result is held by a rule"
    if state == "failed" and not _is_final(ended, limits):
        yield f"its analysis failed at {ended}, and nobody read it again"


def _of_sending(name: str, rows: Sequence[tuple[str, int, str]], limits: Limits) -> Iterator[str]:
    for state, number, changed_at in rows:
        if state in _UNDER_WAY:
            yield f"{number} {name} {state}"
        elif state in _DEAD and not _is_final(changed_at, limits):
            yield f"{number} {name} {state}, not retried"


def _is_final(moment: str | None, limits: Limits) -> bool:
    return bool(limits.unanswered) and (moment or "") < limits.unanswered


def concluded_at(facts: Facts) -> str:
    """Return when the last thing happened to a study after which nothing was left to do."""
    moments = [facts.received_at]
    moments += [ended or "" for _, _, ended in facts.analyses]
    moments += [moment for _, _, moment in (*facts.deliveries, *facts.notifications)]
    return max(moments)


def let_go(
    connection: Connection, what: What, study_instance_uid: str, limits: Limits
) -> list[str]:
    """Let the files of a study go if they may; return their paths, which are to be unlinked.

    It is decided anew here, with the study's row locked: something may have arrived meanwhile.
    """
    stored.lock(connection, study_instance_uid)
    facts = stored.facts(connection, study_instance_uid)
    held_by = holds.of_study(connection, study_instance_uid)
    if any(reasons(facts, held_by, what, limits)):
        return []
    files = stored.size(connection, what, study_instance_uid)
    paths = stored.let_go(connection, what, study_instance_uid)
    detail = {
        "what": what.value,
        "files": files,
        "days": limits.days[what],
        "concluded_at": concluded_at(facts),
    }
    columns: trail.Columns = {**of_study(connection, study_instance_uid), "detail": detail}
    trail.record(connection, trail.Event.RETENTION_DELETED, columns)
    return paths


# ---- the audit -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of the trail that may go."""

    after: int
    """Id up to which it has gone before."""
    up_to: int
    stopped_by: str
    """Why it ends there although rows behind are as old; empty when none is."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.up_to - self.after


def prefix(
    connection: Connection, days: int, repositories: Sequence[str], moment: datetime
) -> Prefix:
    """Return how much of the trail is then older than so many days and may go.

    It ends before the first row that a legal hold keeps, because a chain can be cut at its
    beginning alone, and before the first row that a repository has not got yet.
    """
    after, _ = chain.checkpoint(connection)
    if not days:
        return Prefix(after, after, "the setting keeps them for ever")
    up_to = max(after, stored.older(connection, timestamp(moment - timedelta(days=days))))
    why = ""
    reached = stored.forwarded(connection, repositories)
    if reached is not None and reached < up_to:
        up_to, why = max(after, reached), "an audit repository has not got the next row yet"
    first = holds.first_held(connection, after, up_to)
    if first is not None:
        up_to, why = first[0] - 1, f"legal hold {first[1]} keeps row {first[0]}"
    return Prefix(after, up_to, why)


def cut(connection: Connection, days: int, repositories: Sequence[str], moment: datetime) -> Prefix:
    """Let the chain begin behind what may go, and record it; rows are deleted afterwards."""
    found = prefix(connection, days, repositories, moment)
    if found.rows:
        reason = f"older than {days} days"
        stored.set_checkpoint(connection, found.up_to, reason)
        detail = {
            "after": found.after,
            "up_to": found.up_to,
            "rows": found.rows,
            "digest": chain.digest_at(connection, found.up_to),
            "reason": reason,
        }
        trail.record(connection, trail.Event.AUDIT_PURGED, {"detail": detail})
    return found


def files_deleted(connection: Connection, what: str, files: int, days: int) -> None:
    """Record that files without a row are deleted."""
    detail = {"what": what, "files": files, "days": days}
    trail.record(connection, trail.Event.RETENTION_DELETED, {"detail": detail})
