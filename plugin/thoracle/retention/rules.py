"""What may go by the rules of ``[retention]``: decided, and recorded with what it changes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row

from thoracle.outbox.rows import DEAD, DICOM, UNDER_WAY
from thoracle.retention import holds
from thoracle.retention import rows as stored
from thoracle.retention.rows import Facts, PurgeKind
from thoracle.settings import Retention
from thoracle.store import chain, trail
from thoracle.store.anchors import Anchor
from thoracle.store.database import begin_writing
from thoracle.store.tables import timestamp
from thoracle.study import headers
from thoracle.study.analyses import of_study

NOTHING: Mapping[str, bytes | None] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """The rules as points in time: what is not from before them stays."""

    days: dict[PurgeKind, int]
    unanswered: str
    """A refusal or failure before this counts as final; empty: none does."""
    moment: datetime

    @classmethod
    def of(cls, settings: Retention, moment: datetime | None = None) -> "RetentionLimits":
        """Return the limits at a moment; now, if none is given."""
        moment = moment or datetime.now(UTC)
        days = {
            PurgeKind.IMAGES: _sooner(settings.images_days_after_proof, settings.studies_days),
            PurgeKind.RESULTS: _sooner(settings.results_days_after_proof, settings.studies_days),
            PurgeKind.HEADERS: settings.headers_days_after_proof,
            PurgeKind.READINGS: settings.readings_days,
            PurgeKind.VERDICTS: settings.verdicts_days,
            PurgeKind.STUDIES: settings.studies_days,
        }
        unanswered = settings.unanswered_days
        end = timestamp(moment - timedelta(days=unanswered)) if unanswered else ""
        return cls(days, end, moment)

    def before(self, what: PurgeKind) -> str:
        """Return the time before which a study must have been concluded; empty: all is kept."""
        days = self.days[what]
        return timestamp(self.moment - timedelta(days=days)) if days else ""


def _sooner(days: int, studies: int) -> int:
    """Return after how many days files go: with their study at the latest; 0: never."""
    return min((one for one in (days, studies) if one), default=0)


def reasons(
    facts: Facts, held_by: Sequence[int], what: PurgeKind, limits: RetentionLimits
) -> Iterator[str]:
    """Yield why the files of a study stay, in words; nothing when they may go."""
    yield from (f"legal hold {number}" for number in held_by)
    if facts.unplanned:
        yield f"{facts.unplanned} of its images are in no generation yet"
    yield from of_analyses(facts, limits)
    yield from _of_sending(facts, limits)
    if facts.performed:
        yield "a workitem of a workflow manager has not ended"
    rule = _rule(facts, what, limits)
    before, since = limits.before(rule), concluded_at(facts)
    if not before:
        yield "the setting keeps them for ever"
    elif since >= before:
        yield f"concluded at {since} only, required: {limits.days[rule]} days"


def _rule(facts: Facts, what: PurgeKind, limits: RetentionLimits) -> PurgeKind:
    """Return whose days count: headers of a result that is withdrawn go with its files at last."""
    if what is not PurgeKind.HEADERS or not facts.withdrawn:
        return what
    return max((PurgeKind.HEADERS, PurgeKind.RESULTS), key=limits.before)


def of_analyses(facts: Facts, limits: RetentionLimits) -> Iterator[str]:
    """Yield what of a study's analyses has not ended, or is not final."""
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


def _of_sending(facts: Facts, limits: RetentionLimits) -> Iterator[str]:
    for kind, state, number, changed_at in facts.sent:
        name = "deliveries" if kind == DICOM else f"{kind} messages"
        if state in UNDER_WAY:
            yield f"{number} {name} {state}"
        elif state in DEAD and not _is_final(changed_at, limits):
            yield f"{number} {name} {state}, not retried"


def _is_final(moment: str | None, limits: RetentionLimits) -> bool:
    return bool(limits.unanswered) and (moment or "") < limits.unanswered


def concluded_at(facts: Facts) -> str:
    """Return when the last thing happened to a study after which nothing was left to do."""
    moments = [facts.received_at]
    moments += [ended or "" for _, _, ended in facts.analyses]
    moments += [moment for *_, moment in facts.sent]
    return max(moments)


def candidates(
    connection: Connection, what: PurgeKind, limits: RetentionLimits, after: str, limit: int
) -> list[str]:
    """Return studies behind ``after``, at most so many, of which something might go."""
    before = limits.before(what)
    if what is not PurgeKind.HEADERS:
        return stored.candidates(connection, what, before, after, limit) if before else []
    return headers.studies(connection, before, limits.before(PurgeKind.RESULTS), after, limit)


def size(connection: Connection, what: PurgeKind, study_instance_uid: str) -> int:
    """Return how many files of a study are kept, or headers."""
    if what is PurgeKind.HEADERS:
        return headers.count(connection, study_instance_uid)
    return stored.size(connection, what, study_instance_uid)


def may_go(
    connection: Connection, what: PurgeKind, study_instance_uid: str, limits: RetentionLimits
) -> bool:
    """Return whether something of a study may go, as things are."""
    facts = stored.facts(connection, study_instance_uid)
    held_by = holds.of_study(connection, study_instance_uid)
    return not any(reasons(facts, held_by, what, limits))


def mark_going(
    connection: Connection,
    what: PurgeKind,
    study_instance_uid: str,
    limits: RetentionLimits,
    kept: Mapping[str, bytes | None] = NOTHING,
) -> list[str] | None:
    """Let something of a study go if it may; return the paths that are to be unlinked.

    ``None`` when it stays. That is decided anew here, with the study's row locked: something may
    have arrived meanwhile.

    Parameters
    ----------
    kept
        Of images, by path, the header that stays for corrections; ``None`` when it has none.
    """
    stored.lock(connection, study_instance_uid)
    if not may_go(connection, what, study_instance_uid, limits):
        return None
    facts = stored.facts(connection, study_instance_uid)
    detail = {
        "what": what.value,
        "files": size(connection, what, study_instance_uid),
        "days": limits.days[_rule(facts, what, limits)],
        "concluded_at": concluded_at(facts),
    }
    if what is PurgeKind.HEADERS:
        headers.delete_headers(connection, study_instance_uid)
        paths = []
    else:
        if what is PurgeKind.IMAGES:
            wanted = headers.wanted(connection, study_instance_uid)
            if any(row.path not in kept for row in wanted):
                return None  # another version came meanwhile
            detail["headers_kept"] = _keep(connection, wanted, kept)
        paths = stored.mark_going(connection, what, study_instance_uid)
    columns: trail.Columns = {**of_study(connection, study_instance_uid), "detail": detail}
    trail.record(connection, trail.Event.RETENTION_DELETED, columns)
    return paths


def _keep(
    connection: Connection, images: Sequence[Row[Any]], kept: Mapping[str, bytes | None]
) -> int:
    """Keep the headers of images; return how many."""
    found = [(row, content) for row in images if (content := kept[row.path]) is not None]
    for row, content in found:
        headers.keep(connection, row, content)
    return len(found)


# ---- the audit -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of the trail that may go."""

    after: int
    """Id up to which it has gone before."""
    up_to: int
    stopped_by: str
    """Why it ends there although rows behind are as old; empty when none is."""
    anchors: Sequence[Anchor] = ()
    """Those in it, which fit."""
    more: bool = False
    """Whether rows behind may go, too, by an event of their own."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.up_to - self.after


MOST_ANCHORS = 200
"""In what one event tells to be purged: it names each of them."""


def prefix(
    connection: Connection,
    days: int,
    repositories: Sequence[str],
    moment: datetime,
    anchors: Sequence[Anchor] = (),
) -> Prefix:
    """Return how much of the trail is then older than so many days and may go.

    It ends before the first row that a legal hold keeps, because a chain can be cut at its
    beginning alone, and before the first row that a repository has not got yet. When a row is not
    what its anchor says, nothing goes: it would be the evidence.
    """
    after, _ = chain.checkpoint(connection)
    if not days:
        return Prefix(after, after, "the setting keeps them for ever")
    before = timestamp(moment - timedelta(days=days))
    up_to = max(after, stored.older(connection, before))
    why = ""
    reached = stored.forwarded(connection, repositories)
    if reached is not None and reached < up_to:
        up_to, why = max(after, reached), "an audit repository has not got the next row yet"
    first = holds.first_held(connection, after, up_to)
    if first is not None:
        up_to, why = first[0] - 1, f"legal hold {first[1]} keeps row {first[0]}"
    # An anchor that is younger than its row by some seconds must not look as if a young row had
    # gone.
    young = (one.id for one in anchors if after < one.id <= up_to and one.recorded_at >= before)
    if (row := min(young, default=None)) is not None:
        up_to, why = row - 1, f"the anchor of row {row} is not that old yet"
    return _anchored(connection, Prefix(after, up_to, why), anchors)


def _anchored(connection: Connection, found: Prefix, anchors: Sequence[Anchor]) -> Prefix:
    """Return a prefix with its anchors, as many as one event can name: nothing if one differs."""
    inside = [one for one in anchors if found.after < one.id <= found.up_to]
    some = inside[:MOST_ANCHORS]
    for one in some:
        if chain.digest_at(connection, one.id) != one.digest:
            reason = f"row {one.id} is not what its anchor says: verify the log"
            return Prefix(found.after, found.after, reason)
    more = len(inside) > len(some)
    up_to = some[-1].id if more else found.up_to
    return Prefix(found.after, up_to, found.stopped_by, some, more)


def cut(
    connection: Connection,
    days: int,
    repositories: Sequence[str],
    moment: datetime,
    anchors: Sequence[Anchor] = (),
) -> Prefix:
    """Let the chain begin behind what may go, and record it; rows are deleted afterwards."""
    found = prefix(connection, days, repositories, moment, anchors)
    if found.rows:  # then again, so that no legal hold is placed between the question and the row
        begin_writing(connection)
        found = prefix(connection, days, repositories, moment, anchors)
    if found.rows:
        reason = f"older than {days} days"
        stored.set_checkpoint(connection, found.up_to, reason)
        detail = {
            "after": found.after,
            "up_to": found.up_to,
            "rows": found.rows,
            "digest": chain.digest_at(connection, found.up_to),
            "reason": reason,
            "before": timestamp(moment - timedelta(days=days)),
            "anchors": [[one.id, one.digest] for one in found.anchors],
        }
        trail.record(connection, trail.Event.AUDIT_PURGED, {"detail": detail})
    return found


def files_deleted(connection: Connection, what: str, files: int, days: int) -> None:
    """Record that files without a row are deleted."""
    detail = {"what": what, "files": files, "days": days}
    trail.record(connection, trail.Event.RETENTION_DELETED, {"detail": detail})
